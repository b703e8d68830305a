"""Restore: a store of either kind made again from a backup, after all of the file was checked.

Nothing is changed before every member has the stated sha256, the manifest has the exchange's signature, every row has
the shape of its table, and the log is one whole chain that ends at the stated head. Then the store is filled in one
transaction; what makes it the store of the folder comes last.

The exchange begins its logs of records anew (an empty session in its row; the next start names a new one), so that
those who follow it compare everything with what they have, and give back what is newer than the backup.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from sqlalchemy import Integer, LargeBinary, Table, select

from tieline.drivers.stores import tables as t
from tieline.drivers.stores.backup import (
    FORMAT,
    SECRETS,
    SETTINGS,
    TYPE,
    Manifest,
    Signed,
    backed_tables,
    columns_of_tables,
)
from tieline.drivers.stores.disk import FILE_MODE, private_folder
from tieline.drivers.stores.log import verify
from tieline.drivers.stores.members import Member, Part, broken, members_of
from tieline.drivers.stores.store import Store
from tieline.model.error import TielineError
from tieline.registry import verify_statement

MOST_ROWS_BYTES = 2**28  # of one member of rows: a single row may be as large as a body
MOST_MANIFEST_BYTES = 2**28
MOST_FILE_BYTES = 2**20
MOST_PARTS = 20_000_000
RESTORED = "restored"  # key in `meta`
NAME = re.compile(
    r"(?:tables/(?P<table>[a-z_]{1,32})/\d{6,9}\.ndjson|files/(?P<file>[a-z.]{1,32})"
    r"|blobs/(?P<blob>[0-9a-f]{2}/[0-9a-f]{62})|logs/(?P<log>[a-z0-9][a-z0-9._-]{0,90}))"
)


class Backup:
    """A backup file that was checked. ``public`` is the key that must have signed it; empty: the one it states."""

    def __init__(self, file: BinaryIO, public: str = "") -> None:
        self._file = file
        self.files: dict[str, bytes] = {}
        self.manifest = self._read_manifest(public)
        self._check_rows()

    # -- checking -----------------------------------------------------------------------------------------------------

    def _read_manifest(self, public: str) -> Manifest:
        """One pass over the file: names, sizes and hashes of all members are those that the exchange signed."""
        parts: list[Part] = []
        found, signature = b"", b""
        for member in members_of(self._file):
            if signature or len(parts) > MOST_PARTS:
                raise broken(f"`{member.name}` comes after its end")
            if found:
                if member.name != "signature.jws":
                    raise broken("its manifest is not signed")
                signature = member.read(MOST_FILE_BYTES)
            elif member.name == "manifest.json":
                found = member.read(MOST_MANIFEST_BYTES)
            else:
                parts.append(self._checked(member))
        if not signature:
            raise broken("its manifest is missing")
        try:
            manifest = msgspec.json.decode(found, type=Manifest)
        except msgspec.MsgspecError as error:
            raise broken(f"its manifest cannot be read: {error}") from None
        _check_version(manifest)
        _check_signature(manifest, found, signature, public or manifest.public)
        for stated, seen in zip(manifest.parts, parts, strict=False):
            if stated != seen:
                raise broken(f"`{seen.name}` is not what the manifest states of `{stated.name}`")
        if len(parts) != len(manifest.parts):
            raise broken(f"it has {len(parts):,} members, its manifest states {len(manifest.parts):,}")
        return manifest

    def _checked(self, member: Member) -> Part:
        match = NAME.fullmatch(member.name)
        if match is None or ".." in member.name:
            raise broken(f"`{member.name}` is nothing that a backup holds")
        if match["file"]:
            if match["file"] not in SETTINGS + SECRETS:
                raise broken(f"`{member.name}` is nothing that a backup holds")
            self.files[match["file"]] = member.read(MOST_FILE_BYTES)
        part = member.part()
        if match["blob"] and part.sha256 != match["blob"].replace("/", ""):
            raise broken(f"`{member.name}` is not what its name says")
        return part

    def _check_rows(self) -> None:
        """Every row fits its table, and the log is the chain that ends at the stated head."""
        manifest = self.manifest
        head: list[tuple[Any, ...]] = []
        counts = dict.fromkeys(manifest.rows, 0)
        log = verify(self._counted(counts, head))
        if (log.is_verified, log.events, log.head) != (True, manifest.position, manifest.head):
            raise broken(log.why or f"its log ends at entry {log.events:,} and not at {manifest.position:,}")
        if counts != dict(manifest.rows):
            raise broken("a table does not have as many rows as its manifest states")
        stated = ("head", manifest.position.to_bytes(8, "big") + bytes.fromhex(manifest.head))
        if head != ([stated] if manifest.position else []):
            raise broken("what the store says of its end is not what the manifest states")

    def _counted(self, counts: dict[str, int], head: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """The rows of the log; those of other tables are looked at on the way."""
        for name, row in self.rows():
            counts[name] += 1
            if name == "event":
                yield row
            elif name == "meta":
                head.append(row)

    # -- reading ------------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Every row with the name of its table, its values in the order of the columns."""
        tables = {table.name: table for table in backed_tables()}
        decoders = {name: msgspec.json.Decoder(_shape(table)) for name, table in tables.items()}
        for member in members_of(self._file):
            match = NAME.fullmatch(member.name)
            if match is None or not match["table"]:
                continue
            name = match["table"]
            if name not in decoders:
                raise broken(f"there is no table `{name}`")
            for line in member.read(MOST_ROWS_BYTES).splitlines():
                try:
                    yield name, decoders[name].decode(line)
                except msgspec.MsgspecError as error:
                    raise broken(f"a row of `{member.name}` cannot be read: {error}") from None

    def extract(self, folder: Path) -> None:
        """Write blobs and logs below ``folder``; what is there already stays."""
        for member in members_of(self._file):
            match = NAME.fullmatch(member.name)
            if match is None or not (match["blob"] or match["log"]):
                continue
            path = folder / member.name
            if path.exists():
                continue
            private_folder(folder / member.name.split("/")[0])
            private_folder(path.parent)
            partial = folder / f".restoring.{os.getpid()}"
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, FILE_MODE), "wb") as file:
                file.writelines(member.pieces())
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)


def fill(backup: Backup, url: str) -> None:
    """Make the store at ``url`` from a checked backup, in one transaction.

    Raises `conflict` when there is anything in it, and what opening it raises.
    """
    store = Store(url).open()
    try:
        if not _is_empty(store):
            raise TielineError("conflict", f"the store `{store.shown}` is not empty: a backup fills an empty one")
        store.fill(_begun_anew(backup))
    finally:
        store.close()


def fill_file(backup: Backup, path: Path) -> None:
    """The same for a file, which has its name only when it is whole. Raises `conflict` when it exists."""
    if path.exists():
        raise TielineError("conflict", f"`{path}` exists already: a backup fills an empty store")
    private_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fill(backup, f"sqlite:///{partial}")
        os.link(partial, path)
    finally:
        for left in path.parent.glob(f"{partial.name}*"):
            with suppress(FileNotFoundError):
                left.unlink()


def _is_empty(store: Store) -> bool:
    with store.engine.connect() as connection:
        return all(
            connection.execute(select(table.c[0]).limit(1)).first() is None
            for table in backed_tables()
            if table is not t.meta
        )


def _begun_anew(backup: Backup) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The rows of the backup; the exchange has no session, and the store notes when it was restored."""
    yield "meta", (RESTORED, (time.time_ns() // 1_000_000).to_bytes(8, "big"))
    at = list(t.exchange.columns.keys()).index("doc")
    for name, row in backup.rows():
        if name != "exchange":
            yield name, row
            continue
        doc: Mapping[str, Any] = {**msgspec.json.decode(row[at]), "session": ""}
        yield name, (*row[:at], msgspec.json.encode(doc), *row[at + 1 :])


def _shape(table: Table) -> Any:
    """The type of one row: a tuple with the type of each column."""
    kinds = []
    for column in table.columns:
        kind: Any = bytes if isinstance(column.type, LargeBinary) else int if isinstance(column.type, Integer) else str
        kinds.append(kind | None if column.nullable else kind)
    return tuple[tuple(kinds)]  # type: ignore[misc]


def _check_version(manifest: Manifest) -> None:
    if manifest.format > FORMAT or manifest.revision > t.REVISION:
        raise TielineError(
            "version_not_supported",
            f"the backup was made by version {manifest.version} (tables {manifest.revision}), newer than this one",
            hints=("install that version of Tieline, or a newer one",),
        )
    if manifest.format != FORMAT or manifest.revision != t.REVISION or manifest.columns != columns_of_tables():
        raise TielineError(
            "version_not_supported",
            f"the backup has tables of revision {manifest.revision}, this version restores {t.REVISION}",
            hints=(f"restore it with version {manifest.version}, then start this version on that store",),
        )


def _check_signature(manifest: Manifest, body: bytes, signature: bytes, public: str) -> None:
    if manifest.public != public:
        raise TielineError(
            "check_failed", f"the backup is of `{manifest.exchange}`, whose key is not that of this folder"
        )
    try:
        said = msgspec.convert(verify_statement(signature, public, TYPE), Signed)
    except (TielineError, msgspec.ValidationError) as error:
        raise broken(f"its signature does not hold: {error}") from None
    stated = Signed(
        sha256=hashlib.sha256(body).hexdigest(),
        exchange=manifest.exchange,
        position=manifest.position,
        head=manifest.head,
    )
    if said != stated:
        raise broken("its signature is over something else")
