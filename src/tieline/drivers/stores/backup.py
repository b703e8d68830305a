"""Backup: one moment of a store in one file, from which a store of either kind is made again.

::

    tables/<table>/<n>.ndjson   rows in order of their key, one JSON list for each; bytes in base64
    files/<name>                settings of the folder; with keys: exchange.json and admin.token
    blobs/ab/cdef...            with blobs: bytes by their sha256
    logs/<run>.<node>           with blobs: what the nodes of runs printed
    manifest.json               what the file holds, with the sha256 of every member before it
    signature.jws               the exchange's signature over the manifest

The rows are those of one snapshot, read while the exchange runs and without its lock. The log ends at the stated
position, whose hash covers every entry before it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
from sqlalchemy import Table

from tieline import __version__
from tieline.drivers.stores import tables as t
from tieline.drivers.stores.following import Follower
from tieline.drivers.stores.members import Packing, Part
from tieline.drivers.stores.snapshot import Snapshot, whole
from tieline.model.error import TielineError
from tieline.registry import Key, sign_statement

FORMAT = 1
TYPE = "backup"  # of the signed statement
PIECE_BYTES = 4 * 2**20  # of rows in one member
KEPT_META = ("head",)  # the rest of `meta` is about the store that was backed up
SETTINGS = ("limits.json", "oidc.json", "port")
SECRETS = ("exchange.json", "admin.token")
_encode = msgspec.json.Encoder().encode


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds, and of which exchange and moment."""

    format: int
    made_at: str  # UTC
    version: str
    revision: str  # shape of the tables
    exchange: str
    prefix: str
    public: str  # key that signed this
    position: int  # entries of the log
    head: str  # hash of the newest, hex
    rows: dict[str, int]
    columns: dict[str, tuple[str, ...]]
    has_keys: bool
    has_blobs: bool
    parts: tuple[Part, ...]


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What the exchange signs of a backup."""

    sha256: str  # of manifest.json
    exchange: str
    position: int
    head: str


def backed_tables() -> tuple[Table, ...]:
    """Every table that a backup holds: all but the one that states their shape."""
    return tuple(table for table in t.metadata.sorted_tables if table.name != t.alembic_version.name)


def columns_of_tables() -> dict[str, tuple[str, ...]]:
    """The columns of every table that a backup holds, in the order in which a row's values stand."""
    return {str(table.name): tuple(map(str, table.columns.keys())) for table in backed_tables()}


def write_backup(
    folder: Path, store: str, key: Key, prefix: str, target: Path, *, has_keys: bool = False, has_blobs: bool = False
) -> Manifest:
    """Write the store at the URL ``store`` and the files of ``folder`` into ``target``, whole or not at all.

    Raises `conflict` when ``target`` exists, `check_failed` when a blob is not what its name says, and what opening the
    store raises. ``has_keys`` puts the private keys of the exchange into the file: whoever has it is the exchange.
    """
    follower = Follower(store).open()
    try:
        with _made(target) as file:
            packing = Packing(file)
            with follower.snapshot() as moment:
                position, head = moment.position()
                rows = {str(table.name): _pack_rows(packing, moment, table) for table in backed_tables()}
                exchange = "".join(str(row["id"]) for row in moment.rows(whole(t.exchange)))
            if not exchange:
                raise TielineError("not_found", f"`{follower.shown}` holds no exchange yet")
            _pack_files(packing, folder, SETTINGS + (SECRETS if has_keys else ()))
            if has_blobs:
                _pack_blobs(packing, folder / "blobs")
                _pack_logs(packing, folder / "logs")
            manifest = Manifest(
                format=FORMAT,
                made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                version=__version__,
                revision=t.REVISION,
                exchange=exchange,
                prefix=prefix,
                public=key.public,
                position=position,
                head=head.hex(),
                rows=rows,
                columns=columns_of_tables(),
                has_keys=has_keys,
                has_blobs=has_blobs,
                parts=tuple(packing.parts),
            )
            _seal(packing, manifest, key)
    finally:
        follower.close()
    return manifest


def _seal(packing: Packing, manifest: Manifest, key: Key) -> None:
    body = _encode(manifest)
    signed = Signed(
        sha256=hashlib.sha256(body).hexdigest(),
        exchange=manifest.exchange,
        position=manifest.position,
        head=manifest.head,
    )
    packing.add("manifest.json", body)
    packing.add("signature.jws", sign_statement(signed, key, f"{manifest.prefix}#backup", TYPE))
    packing.close()


@contextmanager
def _made(target: Path) -> Iterator[BinaryIO]:
    """A file of this user alone that gets its name when it is whole and on disk."""
    if target.exists():
        raise TielineError("conflict", f"`{target}` exists already: a backup is never written over")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, target)  # fails where somebody made it meanwhile
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def _pack_rows(packing: Packing, moment: Snapshot, table: Table) -> int:
    """The rows of one table in members of bounded size; returns how many there are."""
    lines, size, count, number = [], 0, 0, 0
    for row in moment.rows(whole(table)):
        if table is t.meta and row["key"] not in KEPT_META:
            continue
        line = _encode(list(row.values()))
        lines.append(line)
        count += 1
        size += len(line) + 1
        if size >= PIECE_BYTES:
            packing.add(f"tables/{table.name}/{number:06d}.ndjson", b"\n".join(lines) + b"\n")
            lines, size, number = [], 0, number + 1
    if lines:
        packing.add(f"tables/{table.name}/{number:06d}.ndjson", b"\n".join(lines) + b"\n")
    return count


def _pack_files(packing: Packing, folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        with suppress(FileNotFoundError):
            packing.add(f"files/{name}", (folder / name).read_bytes())


def _pack_blobs(packing: Packing, folder: Path) -> None:
    for path in sorted(folder.glob("[0-9a-f][0-9a-f]/*")):
        name = path.parent.name + path.name
        try:
            source = path.open("rb")
        except FileNotFoundError:  # swept meanwhile: nothing names it
            continue
        with source:
            size = os.fstat(source.fileno()).st_size
            if packing.copy(f"blobs/{path.parent.name}/{path.name}", source, size) != name:
                raise TielineError(
                    "check_failed", f"the blob `{path}` is not what its name says", hints=(f"rm {path}",)
                )


def _pack_logs(packing: Packing, folder: Path) -> None:
    for path in sorted(folder.glob("*.*")):
        with suppress(FileNotFoundError), path.open("rb") as source:
            packing.copy(f"logs/{path.name}", source, os.fstat(source.fileno()).st_size)
