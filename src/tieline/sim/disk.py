"""Disk: what a store keeps, in memory, with the store's own promises: a batch is kept whole or not at all.

It can be full, the process can die just before or just after a batch is kept, and it can be set back to a backup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tieline.drivers.stores.log import GENESIS, LogRow
from tieline.drivers.stores.store import Batch, StoreError
from tieline.drivers.stores.tables import STATE
from tieline.model.job import Job

Row = Mapping[str, Any]
decode_job = msgspec.json.Decoder(Job).decode
ENDED_KEPT = 1_000  # ended runs that a start reads, so that a repeated report is answered as before


class CrashError(BaseException):
    """The process dies here."""


class Backup(NamedTuple):
    """Everything at one position of the log."""

    rows: tuple[LogRow, ...]
    tables: dict[str, dict[str, Row]]
    answers: dict[str, tuple[str, int, bytes]]


class Disk:
    """The part of `drivers.stores.store.Store` that the writer uses."""

    def __init__(self, faults: Counter[str]) -> None:
        self.rows: list[LogRow] = []
        self.state: dict[str, dict[str, Row]] = {name: {} for name in STATE}
        self.answers: dict[str, tuple[str, int, bytes]] = {}
        self.is_full = False
        self.has_reports = False  # something new is to be told to peers
        self.dies = ""  # at the next batch: `before` or `after` it is kept
        self.faults = faults
        self.records: dict[str, dict[str, Row]] = {}  # by prefix

    def _file_record(self, key: str, row: Row | None) -> None:
        filed = self.records.setdefault(key.partition("/")[0], {})
        if row is None:
            filed.pop(key, None)
        else:
            filed[key] = row

    # -- what the writer asks -----------------------------------------------------------------------------------------

    def append(self, batch: Batch) -> None:
        """Keep the whole batch or nothing of it. Raises StoreError; CrashError when the process is to die here."""
        if self.is_full:
            self.faults["batch not kept"] += 1
            raise StoreError("storage_full", "no space is left on the disk")
        dies, self.dies = self.dies, ""
        if dies == "before":
            self.faults["crash before a commit"] += 1
            raise CrashError
        for entry in batch.entries:
            self.rows.append(LogRow(*entry))
        for table, key, row in batch.changes:
            kept = self.state.setdefault(table, {})
            if row is None:
                kept.pop(key, None)
            else:
                kept[key] = dict(row)
            if table == "record":
                self._file_record(key, row)
            self.has_reports = self.has_reports or table == "report"
        for key, digest, time_ms, reply in batch.replies:
            self.answers[key] = (digest, time_ms, reply)
        if dies == "after":
            self.faults["crash after a commit"] += 1
            raise CrashError

    def replies(self, keys: Sequence[str]) -> dict[str, tuple[str, int, bytes]]:
        """Stored answers by idempotency key."""
        return {key: self.answers[key] for key in keys if key in self.answers}

    def recover(self) -> None:
        """Nothing is held open."""

    def probe(self) -> None:
        """Raises StoreError while the disk is full."""
        if self.is_full:
            raise StoreError("storage_full", "no space is left on the disk")

    def position(self) -> tuple[int, bytes]:
        """Number and hash of the newest entry."""
        return (self.rows[-1].seq, self.rows[-1].hash) if self.rows else (0, GENESIS)

    def tables(self) -> Mapping[str, Iterable[Row]]:
        """What a start reads: live jobs, runs and quotes, the newest ended runs, everything else whole."""
        found: dict[str, Iterable[Row]] = {name: list(rows.values()) for name, rows in self.state.items()}
        jobs = [row for row in self.state["job"].values() if not row["ended_ms"]]
        found["job"] = sorted(jobs, key=lambda row: (row["submitted_ms"], row["id"]))
        found["brief"] = [{"id": row["id"], "brief": row["brief"]} for row in found["job"]]
        runs = sorted(self.state["run"].values(), key=lambda row: (row["offered_ms"], row["id"]))
        live = [row for row in runs if row["state"] in ("offered", "accepted", "running")]
        over = [row for row in runs if row["state"] not in ("offered", "accepted", "running")]
        found["run"] = sorted((*live, *over[-ENDED_KEPT:]), key=lambda row: (row["offered_ms"], row["id"]))
        quotes = [row for row in self.state["quote"].values() if row["state"] in ("asked", "open")]
        found["quote"] = sorted(quotes, key=lambda row: row["id"])
        return found

    def jobs_named(self, names: Sequence[str]) -> dict[str, Job]:
        """Whole jobs by identifier, as a view asks for those that it keeps as rows."""
        kept = self.state["job"]
        return {name: decode_job(kept[name]["doc"]) for name in names if name in kept}

    # -- backups ------------------------------------------------------------------------------------------------------

    def backup(self) -> Backup:
        """A copy that later changes leave alone. Rows are never changed in place."""
        return Backup(tuple(self.rows), {name: dict(rows) for name, rows in self.state.items()}, dict(self.answers))

    def restore(self, backup: Backup) -> None:
        """Become what the backup says."""
        self.rows = list(backup.rows)
        self.state = {name: dict(rows) for name, rows in backup.tables.items()}
        self.answers = dict(backup.answers)
        self.records = {}
        for key, row in self.state["record"].items():
            self._file_record(key, row)
        self.is_full = False
        self.dies = ""
