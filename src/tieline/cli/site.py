"""`site`: the compute beside which a site process stands, seen from the exchange and from its owner's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.door import door
from tieline.cli.face import Face, Verbs, as_json, confirmed, flag, hint, note, option, pass_face, show_json, verb, yes

if TYPE_CHECKING:
    from tieline.model.api import PoolView, SiteView


@click.group("site", cls=Verbs, help="site")
def site() -> None:
    """Sites."""


@verb("ls", "site_ls")
@as_json
@pass_face
def ls(face: Face, as_json: bool) -> None:
    """The sites that you may see."""
    found = face.call(lambda client: client.sites())
    if as_json:
        show_json(found)
        return
    import time

    now_ms = int(time.time() * 1000)
    rows = [
        (
            each.id,
            _state(each),
            each.owner,
            words.term("tier", each.tier) if each.tier else "-",
            each.region or "-",
            str(len(each.pools)),
            str(each.runs),
            table.when(each.heard_ms, now_ms),
        )
        for each in found
    ]
    table.show(("site", "state", "owner", "tier", "region", "pools", "runs", "heard"), rows, right=(5, 6))
    if not rows:
        hint("tieline token create NAME --role join --owner OWNER", "tieline site join TOKEN FOLDER")


@verb("show", "site_show")
@click.argument("name", metavar="SITE")
@as_json
@pass_face
def show(face: Face, name: str, as_json: bool) -> None:
    """One site with its pools."""
    found = face.call(lambda client: client.site(name))
    if as_json:
        show_json(found)
        return
    _show(found)


@verb("join", "site_join")
@click.argument("where", metavar="URL|TOKEN")
@click.argument("folder", default="site", type=click.Path(file_okay=False, path_type=Path))
@option("--config", default=None, type=click.Path(dir_okay=False, exists=True, path_type=Path), help="site_config")
@option("--owner", default="", metavar="NAME", help="site_owner")
@option("--name", default="", help="site_name")
@flag("--no-start", help="no_start")
@as_json
@pass_face
def join(
    _face: Face, where: str, folder: Path, config: Path | None, owner: str, name: str, no_start: bool, as_json: bool
) -> None:
    """Join an exchange and start the site; its keys and data stay in FOLDER."""
    from tieline.drivers import siteprocess

    joined = siteprocess.join(where, folder, config=config, owner=owner, name=name)
    started = None
    log = folder / "site.log"
    if not no_start:
        from tieline.cli.processes import spawn_site

        started = spawn_site("site", folder, log)
    if as_json:
        show_json(joined)
        return
    note(words.say("joined" if joined.is_admitted else "waits", site=joined.site, owner=joined.owner))
    if not joined.is_admitted:
        hint(f"tieline site accept {joined.site}")
    if started is not None:
        note(words.say("started_site", log=log, pid=started.pid))
    else:
        hint(f"tieline site-process {folder}")


@verb("accept", "site_accept")
@click.argument("name", metavar="SITE")
@as_json
@pass_face
def accept(face: Face, name: str, as_json: bool) -> None:
    """The exchange's consent to a site that waits."""
    _change(face, name, "accept", as_json)


@verb("drain", "site_drain")
@click.argument("name", metavar="SITE|FOLDER")
@as_json
@pass_face
def drain(face: Face, name: str, as_json: bool) -> None:
    """No new runs; those that run go on."""
    _change(face, name, "drain", as_json)


@verb("undrain", "site_undrain")
@click.argument("name", metavar="SITE|FOLDER")
@as_json
@pass_face
def undrain(face: Face, name: str, as_json: bool) -> None:
    """New runs again."""
    _change(face, name, "undrain", as_json)


@verb("leave", "site_leave")
@click.argument("name", metavar="SITE|FOLDER")
@yes
@as_json
@pass_face
def leave(face: Face, name: str, yes: bool, as_json: bool) -> None:
    """The site goes: its runs are placed elsewhere."""
    confirmed(words.say("leave_it", site=name), yes)
    _change(face, name, "leave", as_json)


@verb("rekey", "site_rekey")
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
@option("--key", default=None, type=click.Path(dir_okay=False, exists=True, path_type=Path), help="next_key")
@flag("--revoke", "is_revoking", help="revoke_keys")
@as_json
@pass_face
def rekey(_face: Face, folder: Path, key: Path | None, is_revoking: bool, as_json: bool) -> None:
    """Another key speaks for the owner; the site's process signs everything again with it."""
    from tieline.cli.signing import seed_of
    from tieline.drivers import siteprocess

    seed = seed_of(key.read_bytes()[:1024], str(key)) if key is not None else b""
    found = siteprocess.rekey(folder, seed, is_revoking=is_revoking)
    if as_json:
        show_json(found)
    else:
        note(words.say("rekeyed", owner=found.owner, kid=found.kid))


def _change(face: Face, name: str, what: str, as_json: bool) -> None:
    if what != "accept" and Path(name).is_dir():
        from tieline.drivers import siteprocess

        found = siteprocess.change(Path(name), what)
    else:
        found = face.call(lambda client: client.change_site(name, what))
    if as_json:
        show_json(found)
    else:
        note(f"{found.id}: {_state(found)}")


def _state(each: SiteView) -> str:
    """The one word that matters most."""
    if each.has_left:
        return words.say("site_left")
    if not each.is_admitted:
        return words.say("site_waiting")
    if each.is_silent:
        return words.say("site_silent")
    return words.say("site_draining" if each.is_draining else "site_ready")


def _show(each: SiteView) -> None:
    readings = ", ".join(f"{name} {value:,}" for name, value in each.readings.items()) or "-"
    rows = [
        ("site", each.id),
        ("state", _state(each)),
        ("owner", each.owner),
        ("tier", words.term("tier", each.tier) if each.tier else "-"),
        ("region", each.region or "-"),
        ("declared_by", each.declared_by or "-"),
        ("runs", str(each.runs)),
        ("readings", readings),
    ]
    table.pairs([(words.say("col_" + name), text) for name, text in rows])
    columns = ("pool", "accelerators", "free", "cores", "memory", "price", "network", "sandbox", "evidence")
    if each.pools:
        table.show(columns, [_pool(pool) for pool in each.pools], right=(5,))


def _pool(pool: PoolView) -> tuple[str, ...]:
    from tieline.model.quantity import show_money, show_size

    evidence = ", ".join(words.term("evidence", each) for each in sorted(set(pool.evidence.values())))
    is_cores = not pool.accelerator_count
    free, total = (pool.cores_free, pool.core_count) if is_cores else (pool.accelerators_free, pool.accelerator_count)
    return (
        pool.id,
        pool.accelerator or words.say("unit_core"),
        f"{free}/{total}",
        f"{pool.cores_free}/{pool.core_count}",
        f"{show_size(pool.memory_free_bytes)}/{show_size(pool.memory_bytes)}",
        show_money(pool.price_micro_cny_per_unit_hour),
        ",".join(pool.networks) or "-",
        pool.sandbox or words.say("none"),
        words.say("evidence_emulated") if pool.is_emulated else evidence or words.say("evidence_declared"),
    )


for _each in (ls, show, join, accept, drain, undrain, leave, rekey, door):
    site.add_command(_each)
