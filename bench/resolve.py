"""Resolve by identifier: a record that was verified when it was stored, its lease and its whole chain checked now.

The store is SQLite's `record(id, envelope)`, as the exchange keeps it; the anchors are the same lookup bare, and
PyNaCl's verify alone. Everything is in one process, measured in turns, in CPU seconds of one core.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

from nacl.bindings import crypto_sign_open

from bench.record_world import NOW_S, World
from bench.row import Row
from tieline.model.record import MAX_RECORD_BYTES
from tieline.registry import Catalogue
from tieline.registry.envelope import RECORD_TYPE, taken_apart
from tieline.registry.keys import public_bytes

RECORDS = 20_000
TURNS = 9
LOOKUPS = 20_000
VERIFIED = 3_000
SEED = 7


def run() -> list[Row]:
    """Two rows: resolve beside the bare lookup, and with the signature checked beside verify alone."""
    world = World(SEED, owner_count=200)
    catalogue = Catalogue([world.root])
    for delegation in world.delegations():
        catalogue.admit(delegation, NOW_S)
    rows = []
    signed = []
    for envelope in world.records(RECORDS):
        admission = catalogue.admit(envelope, NOW_S)
        rows.append((admission.head.id, envelope))
        parts = taken_apart(envelope, RECORD_TYPE, MAX_RECORD_BYTES)
        signed.append((parts.signed, public_bytes(admission.head.public)))
    with TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "records.db")) as store:
        store.execute("pragma journal_mode=wal")
        store.execute("create table record(id text primary key, envelope blob not null)")
        store.executemany("insert into record values (?, ?)", rows)
        store.commit()
        return _measure(catalogue, store, [name for name, _ in rows], signed)


def _measure(
    catalogue: Catalogue, store: sqlite3.Connection, names: list[str], signed: list[tuple[bytes, bytes]]
) -> list[Row]:
    def fetch(identifier: str) -> bytes | None:
        row = store.execute("select envelope from record where id = ?", (identifier,)).fetchone()
        return None if row is None else row[0]

    pick = random.Random(SEED)
    asked = pick.choices(names, k=LOOKUPS)
    checked = [pick.randrange(len(names)) for _ in range(VERIFIED)]

    def bare() -> None:
        for name in asked:
            fetch(name)

    def plain() -> None:
        for name in asked:
            catalogue.resolve(name, NOW_S, fetch)

    def parsed() -> None:
        for name in asked:
            _ = catalogue.resolve(name, NOW_S, fetch).record

    def again() -> None:
        for number in checked:
            catalogue.resolve(names[number], NOW_S, fetch, is_verified_again=True)

    def verify() -> None:
        for number in checked:
            crypto_sign_open(*signed[number])

    turns = [[_seconds(work) for work in (bare, plain, parsed, verify, again)] for _ in range(TURNS)]
    bare_s, plain_s, parsed_s, verify_s, again_s = (median(column) for column in zip(*turns, strict=True))
    return [
        Row(
            claim="resolve: lease, revocation and chain checked now",
            figure=LOOKUPS / plain_s,
            unit="resolves/s of one core",
            anchor=LOOKUPS / bare_s,
            anchor_name="bare SQLite lookup of the same bytes",
            ratio=median(turn[0] / turn[1] for turn in turns),
            target="0.5x",
            note=f"{LOOKUPS / parsed_s:,.0f}/s with the record decoded; median of {TURNS} turns",
        ),
        Row(
            claim="resolve: with the signature checked again",
            figure=VERIFIED / again_s,
            unit="resolves/s of one core",
            anchor=VERIFIED / verify_s,
            anchor_name="PyNaCl verify alone",
            ratio=median(turn[3] / turn[4] for turn in turns),
            target="0.8x",
            note=f"median of {TURNS} turns",
        ),
    ]


def _seconds(work: Callable[[], None]) -> float:
    began = process_time()
    work()
    return process_time() - began
