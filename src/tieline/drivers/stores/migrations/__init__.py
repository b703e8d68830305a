"""Migrations: how a store of an older version becomes one of this version, in one transaction.

Only imported when the stored revision differs from `tables.REVISION`. A new revision is a file in ``versions/`` with
the next number; `tables.py` and `tables.REVISION` change with it (a test compares the two ways to the same tables).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from tieline.model.error import TielineError

FOLDER = Path(__file__).parent


def configuration(more: Sequence[Path] = ()) -> Config:
    """Alembic's configuration, made here: there is no ini file. ``more`` are folders with further revisions."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    places = "\n".join(str(place) for place in (FOLDER / "versions", *more))
    config.set_main_option("version_locations", places.replace("%", "%%"))
    return config


def upgrade(connection: Connection, stored: str | None, more: Sequence[Path] = ()) -> None:
    """Run every revision above ``stored`` in the caller's transaction.

    Raises `version_not_supported` when the store is of a newer version, `internal` when its tables state no revision.
    """
    config = configuration(more)
    if stored is None:
        raise TielineError("internal", "the database has tables that state no revision: it is not a store")
    try:
        ScriptDirectory.from_config(config).get_revision(stored)
    except CommandError as error:
        raise TielineError(
            "version_not_supported",
            f"the store has revision `{stored}`, which this version does not know: it was written by a newer one",
            hints=("install the newer version of Tieline",),
        ) from error
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
