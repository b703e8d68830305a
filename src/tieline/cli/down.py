"""`down`: end what `up` started. Runs go on, and are found again by the next `up`."""

from __future__ import annotations

from pathlib import Path

import click

from tieline.cli.face import verb


@verb("down")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
def down(folder: Path | None) -> None:
    """End the site first, then the exchange."""
    from tieline.cli.processes import end
    from tieline.cli.up import remember, running
    from tieline.cli.words import say
    from tieline.client import context

    folder = folder or context.place() / "up"
    processes = running(folder)
    for name in ("site", "exchange"):
        if name in processes:
            clean = end(processes.pop(name))
            click.echo(say("down_ended" if clean else "down_killed", name=name), err=True)
    if folder.exists():
        remember(folder, processes)
