"""The processes behind `tieline up` and `tieline demo`: an exchange, or a site, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("exchange-process", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", help="address to listen on")
@click.option("--port", default=0, type=click.IntRange(0, 65_535), help="port; 0 takes a free one")
@click.option("--prefix", default="local", help="prefix that this exchange gives away")
@click.option("--name", default="main", help="name of the exchange")
@click.option("--scope", default="enterprise", type=click.Choice(["enterprise", "industry", "regional", "national"]))
@click.option("--tls-cert", default="", help="certificate chain, PEM")
@click.option("--tls-key", default="", help="private key, PEM")
@click.option("--public-url", default="", help="what sites and users call, where it is not the address listened on")
@click.option("--insecure-bind", is_flag=True, help="listen beyond this machine without TLS (behind a proxy)")
@click.option("--store", default="", help="URL of the store, where it is not the file in the folder")
@click.option("--shared", default="", help="folder of blobs and logs that several processes have in common")
@click.option("--share-port", is_flag=True, help="let other processes of this machine listen on the same port")
@click.option("--internal-url", default="", help="where the other processes reach this one")
def exchange_process(
    folder: Path, host: str, port: int, prefix: str, name: str, scope: str, tls_cert: str, tls_key: str,
    public_url: str, insecure_bind: bool, store: str, shared: str, share_port: bool, internal_url: str,
) -> None:  # fmt: skip
    """Serve one exchange until SIGTERM."""
    from tieline.cli.compose import Options, run_exchange

    options = Options(
        host=host,
        port=port,
        certificate=tls_cert,
        key=tls_key,
        is_plain_allowed=insecure_bind,
        public_url=public_url,
        store=store,
        shared=shared,
        is_port_shared=share_port,
        internal_url=internal_url,
    )
    raise SystemExit(run_exchange(folder, options, prefix=prefix, name=name, scope=scope))


@click.command("site-process", hidden=True)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def site_process(folder: Path) -> None:
    """Run the site of a folder that has joined, until SIGTERM."""
    from tieline.drivers.siteprocess import run_site

    raise SystemExit(run_site(folder))
