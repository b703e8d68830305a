"""`site door`: open, close, look. The owner's word is a file in the site's folder; its process hears it in a second."""

from __future__ import annotations

from pathlib import Path

import click

from tieline.cli import words
from tieline.cli.face import as_json, as_tieline, note, show_json, verb

WHATS = ("open", "close", "show")


@verb("door", "site_door")
@click.argument("what", type=click.Choice(WHATS))
@click.argument("folder", type=click.Path(file_okay=False, exists=True, path_type=Path))
@as_json
def door(what: str, folder: Path, as_json: bool) -> None:
    """Open or close the door that site.yaml names, or say where it is."""
    from tieline.drivers.siteprocess.doorkeeper import CLOSED
    from tieline.drivers.siteprocess.home import Home

    home = Home(folder)
    identity, config = home.identity, home.config().door
    if config is None and what == "open":
        raise as_tieline("conflict", f"`{folder}/site.yaml` names no door", "echo 'door: {listen: 7443}' >>site.yaml")
    if what != "show":
        home.mark(CLOSED, is_set=what == "close")
    head = home.heads().get(identity.site)
    stated = str(head.spec.get("door", "")) if head is not None else ""
    is_open = config is not None and not home.has(CLOSED)
    if as_json:
        show_json({"site": identity.site, "is_open": is_open, "stated": stated})
        return
    note(words.say("door_open" if is_open else "door_closed", site=identity.site, url=stated or "-"))
