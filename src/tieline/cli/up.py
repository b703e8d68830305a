"""`up`: an exchange and a site on this machine, from one folder, in the background."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli.face import as_json, option, verb

if TYPE_CHECKING:
    from tieline.cli.processes import Started

STATE = "up.json"
OWNER, SITE = "me", "here"
SCOPES = ("national", "regional", "industry", "enterprise")


@verb("up")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@option("--host", default="127.0.0.1", help="up_host")
@option("--port", default=0, type=click.IntRange(0, 65_535), help="up_port")
@option("--prefix", default="local", help="up_prefix")
@option("--scope", default="enterprise", type=click.Choice(SCOPES), help="up_scope")
@option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="up_config")
@option("--tls-cert", default="", help="up_tls_cert")
@option("--tls-key", default="", help="up_tls_key")
@option("--public-url", default="", help="up_public_url")
@option("--insecure-bind", is_flag=True, help="up_insecure")
@option("--store", default="", metavar="URL", help="up_store")
@option("--shared", default="", metavar="FOLDER", help="up_shared")
@option("--share-port", is_flag=True, help="up_share_port")
@option("--internal-url", default="", metavar="URL", help="up_internal_url")
@option("--no-site", is_flag=True, help="up_no_site")
@as_json
def up(
    folder: Path | None, host: str, port: int, prefix: str, scope: str, config: Path | None, tls_cert: str,
    tls_key: str, public_url: str, insecure_bind: bool, store: str, shared: str, share_port: bool,
    internal_url: str, no_site: bool, as_json: bool,
) -> None:  # fmt: skip
    """Start both, wait until they answer, and make this exchange the current one. Starting again changes nothing."""
    import asyncio

    from tieline.cli.login import pinned
    from tieline.cli.words import say
    from tieline.client import context

    folder = folder or context.place() / "up"
    options = ["--host", host, "--port", str(port), "--prefix", prefix, "--scope", scope]
    options += ["--tls-cert", tls_cert, "--tls-key", tls_key] if tls_cert else []
    options += ["--public-url", public_url] if public_url else []
    options += ["--insecure-bind"] if insecure_bind else []
    options += ["--store", store] if store else []
    options += ["--shared", shared] if shared else []
    options += ["--share-port"] if share_port else []
    options += ["--internal-url", internal_url] if internal_url else []
    url, token = _exchange(folder, options)
    if token:
        context.keep("local", pinned(context.Context(url=url, token=token)))
    if not no_site:
        asyncio.run(_site(folder, url, token, config))
    if as_json:
        click.echo(f'{{"url":"{url}","folder":"{folder}"}}')
        return
    click.echo(say("up_ready", url=url, folder=str(folder)), err=True)


def running(folder: Path) -> dict[str, Started]:
    """The processes of ``folder`` that still run, by name."""
    import msgspec

    from tieline.cli.processes import Started, is_alive

    try:
        kept = msgspec.json.decode((folder / STATE).read_bytes(), type=dict[str, Started])
    except FileNotFoundError:
        return {}
    return {name: process for name, process in kept.items() if is_alive(process)}


def remember(folder: Path, processes: dict[str, Started]) -> None:
    """Note the processes of ``folder``."""
    import msgspec

    (folder / STATE).write_bytes(msgspec.json.encode(processes))


def _exchange(folder: Path, options: list[str]) -> tuple[str, str]:
    from tieline.cli.processes import await_file, spawn

    home = folder / "exchange"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    processes = running(folder)
    log = folder / "exchange.log"
    if "exchange" not in processes:
        (home / "address").unlink(missing_ok=True)
        processes["exchange"] = spawn("exchange", ["exchange-process", str(home), *options], log)
        remember(folder, processes)
    url = await_file(home / "address", processes["exchange"], log)
    token = home / "admin.token"  # of the process that made the exchange; one that stands beside it may be without
    return url, token.read_text().strip() if token.exists() else ""


async def _site(folder: Path, url: str, token: str, config: Path | None) -> None:
    """Join this machine as a site of the owner `me`, once, and start its process."""
    import shutil

    from tieline.cli.processes import spawn_site
    from tieline.client import AsyncClient
    from tieline.drivers.siteprocess import has_joined, join_site
    from tieline.model.error import TielineError
    from tieline.model.party import Role

    home = folder / "site"
    if not token:
        raise TielineError(
            "invalid_request",
            f"there is no admin.token in `{folder / 'exchange'}` to let a site join with",
            hints=(f"tieline up {folder} --no-site",),
        )
    async with AsyncClient(url, token) as client:
        if not has_joined(home):
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            if config is not None:
                shutil.copy(config, home / "site.yaml")
            made = await client.create_token("join-me", [Role.JOIN], owner=OWNER, ttl_s=600, uses=1)
            await join_site(home, token=made.secret, owner=OWNER, name=SITE)
        processes = running(folder)
        if "site" not in processes:
            processes["site"] = spawn_site("site", home, folder / "site.log")
            remember(folder, processes)
        await _heard(client, folder)


async def _heard(client: object, folder: Path) -> None:
    import asyncio

    from tieline.client import AsyncClient
    from tieline.model.error import TielineError

    assert isinstance(client, AsyncClient)
    for _ in range(1_500):
        if any(site.pools and not site.is_silent for site in await client.sites()):
            return
        if "site" not in running(folder):
            words = (folder / "site.log").read_text(errors="replace").splitlines()[-3:]
            raise TielineError("site_unreachable", f"the site process ended: {' | '.join(words)[-600:]}")
        await asyncio.sleep(0.02)
    raise TielineError("site_unreachable", "the site was not heard within 30 s", hints=(f"less {folder / 'site.log'}",))
