"""`exchange backup` and `exchange restore`: one moment of an exchange in one file, and a store made again from it.

Both work on the folder of the exchange on this machine: who may read it is the exchange, so no token is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import words
from tieline.cli.face import as_json, flag, hint, note, option, show_json, verb

if TYPE_CHECKING:
    from tieline.cli.compose import Identity
    from tieline.registry import Key


@verb("backup", "exchange_backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@option("--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="backup_folder")
@flag("--with-keys", help="backup_keys")
@flag("--with-blobs", help="backup_blobs")
@as_json
def backup(file: Path, folder: Path | None, with_keys: bool, with_blobs: bool, as_json: bool) -> None:
    """Write FILE, readable by this user alone; the exchange may run meanwhile."""
    from tieline.cli.compose import store_of
    from tieline.drivers.stores.backup import write_backup

    home = home_of(folder)
    identity = identity_in(home)
    made = write_backup(
        home, store_of(home), key_of(identity), identity.prefix, file, has_keys=with_keys, has_blobs=with_blobs
    )
    if as_json:
        show_json({"file": str(file), "exchange": made.exchange, "events": made.position, "head": made.head})
        return
    note(words.say("backup_made", file=str(file), events=f"{made.position:,}", head=made.head[:16]))
    if not with_keys:
        note(words.say("backup_keyless", path=str(home / "exchange.json")))


@verb("restore", "exchange_restore")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@option("--folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="restore_folder")
@option("--store", default="", metavar="URL", help="restore_store")
@as_json
def restore(file: Path, folder: Path, store: str, as_json: bool) -> None:
    """Check all of FILE, then fill an empty store from it."""
    from tieline.cli.compose import write_private
    from tieline.drivers.stores.backup import SECRETS, SETTINGS
    from tieline.drivers.stores.database import database_of
    from tieline.drivers.stores.disk import private_folder
    from tieline.drivers.stores.restore import Backup, fill, fill_file
    from tieline.model.error import TielineError

    home = home_of(folder, is_new=True)
    if (home / "tieline.db").exists() or (home / "store").exists():
        raise TielineError(
            "conflict",
            f"the exchange in `{home}` has a store: a backup fills an empty one",
            hints=("tieline exchange restore FILE --folder ANOTHER_FOLDER",),
        )
    if store:
        database_of(store)
    with file.open("rb") as source:
        found = Backup(source, _key_here(home))
        if not (home / "exchange.json").exists() and "exchange.json" not in found.files:
            raise TielineError(
                "invalid_request",
                f"the backup holds no keys, and there are none at `{home / 'exchange.json'}`: nobody would believe it",
                hints=("copy exchange.json and admin.token of the exchange there first",),
            )
        private_folder(home)
        for name in SETTINGS + SECRETS:
            if name in found.files and not (home / name).exists():
                write_private(home / name, found.files[name])
        found.extract(home)
        if store:
            fill(found, store)
            write_private(home / "store", store.encode())
        else:
            fill_file(found, home / "tieline.db")
    manifest = found.manifest
    if as_json:
        show_json({"folder": str(folder), "exchange": manifest.exchange, "events": manifest.position})
        return
    note(words.say("restored", exchange=manifest.exchange, made=manifest.made_at, events=f"{manifest.position:,}"))
    hint(f"tieline up {folder}")


def home_of(folder: Path | None, *, is_new: bool = False) -> Path:
    """The folder of the exchange: in that of `up`, or the one that is named itself."""
    from tieline.client import context
    from tieline.model.error import TielineError

    folder = folder or context.place() / "up"
    for home in (folder, folder / "exchange"):
        if (home / "exchange.json").exists():
            return home
    if not is_new:
        raise TielineError("not_found", f"there is no exchange in `{folder}`", hints=("tieline up FOLDER",))
    return folder / "exchange"


def identity_in(home: Path) -> Identity:
    """Who the exchange in ``home`` is."""
    from tieline.cli.compose import identity_of

    return identity_of(home)


def key_of(identity: Identity) -> Key:
    """The key that the exchange signs with."""
    import base64

    from tieline.registry import Key

    return Key(base64.b64decode(identity.seed))


def _key_here(home: Path) -> str:
    """The public key of the exchange whose identity is in ``home`` already; empty when none is."""
    return key_of(identity_in(home)).public if (home / "exchange.json").exists() else ""
