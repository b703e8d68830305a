"""Appending to the log with everything that proves it, against a plain grouped insert of the same rows.

Ours: each entry is encoded, chained, put into the tree (tiles with their entries), kept in synced batches, and a signed
head is kept after every tenth batch. The anchor: the same rows, ready made, in transactions of the same size on the
same disk by `executemany`, without chain, tree or heads. Both in turns, wall time, SQLite with the same settings.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from bench.row import Row
from tieline.drivers.stores.heads import kept
from tieline.drivers.stores.log import GENESIS, LogRow, log_row
from tieline.drivers.stores.store import Batch, Store
from tieline.model.audit import LogHead
from tieline.model.event import TokenUsed
from tieline.registry import Key
from tieline.registry.heads import sign_head

ENTRIES = 25_600
BATCH = 256
HEAD_BATCHES = 10
TURNS = 5
KEY = Key(bytes(range(32)))


def run() -> list[Row]:
    """Entries in a second, ours and the anchor's."""
    ours, plain = [], []
    for _ in range(TURNS):
        with TemporaryDirectory() as folder:
            took_s, rows = _proved(Path(folder))
            ours.append(ENTRIES / took_s)
        with TemporaryDirectory() as folder:
            plain.append(ENTRIES / _plain(Path(folder), rows))
    figure, anchor = median(ours), median(plain)
    return [
        Row(
            claim="audit_append: entries chained, in the tree, with signed heads",
            figure=figure,
            unit="entries/s",
            anchor=anchor,
            anchor_name="grouped insert of the same rows",
            ratio=figure / anchor,
            target="0.5x",
            note=f"SQLite, synced batches of {BATCH}, median of {TURNS} turns of {ENTRIES:,};"
            f" {min(ours):,.0f} to {max(ours):,.0f}",
        )
    ]


def _proved(folder: Path) -> tuple[float, list[LogRow]]:
    store = Store(f"sqlite:///{folder}/ours.db").open()
    rows: list[LogRow] = []
    began, head = perf_counter(), GENESIS
    for at in range(0, ENTRIES, BATCH):
        for seq in range(at + 1, at + BATCH + 1):
            rows.append(
                log_row(head, seq, seq, "alice", TokenUsed(id=f"t-{seq}", by="bob"), None, None, "10.0.0.7 t-1")
            )
            head = rows[-1].hash
        store.append(
            Batch(rows[at:], _head(store, rows[at - 1].hash) if at and at // BATCH % HEAD_BATCHES == 0 else ())
        )
    took_s = perf_counter() - began
    assert store.tree.size == ENTRIES
    store.close()
    return took_s, rows


def _head(store: Store, end: bytes) -> list[tuple[str, str, object]]:
    tree = store.tree
    head = LogHead(
        exchange="cn.a/exchange/main", size=tree.size, root=tree.root().hex(), head=end.hex(), at_ms=tree.size
    )
    return [kept(head, sign_head(head, KEY, "cn.a#exchange"), tree.size)]


def _plain(folder: Path, rows: list[LogRow]) -> float:
    store = Store(f"sqlite:///{folder}/plain.db").open()
    connection = store._connection
    assert connection is not None
    cursor = connection.connection.cursor()
    text = f"INSERT INTO event VALUES ({', '.join('?' * len(LogRow._fields))})"
    began = perf_counter()
    for at in range(0, ENTRIES, BATCH):
        cursor.execute("BEGIN IMMEDIATE")
        cursor.executemany(text, rows[at : at + BATCH])
        cursor.execute("COMMIT")
    took_s = perf_counter() - began
    store.close()
    return took_s
