"""Sweeper: lets go of what the limits do not keep, in bounded steps, and never of what something still refers to.

::

    idempotency keys     older than idempotency_s
    usage lines          older than usage_days
    jobs with their runs ended, and beyond finished_jobs or finished_days, and named by no usage line that is kept
    closed quotes        as old as ended jobs may be
    logs                 of jobs that ended log_days ago, that are due themselves, or that nobody knows
    blobs                that no kept job, live quote or valid record names, and unused for blob_unused_s
    records              whose lease ended record_days ago: handed to `forget`, which is a command like any other
    signed heads         of a log with more than 1,000 of them, every second one of the older half

The events of all of these stay in the log. What is due is decided by the pure functions here over plain listings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

from tieline.drivers.stores.blobs import BlobFile, Blobs
from tieline.drivers.stores.heads import thinned
from tieline.drivers.stores.listing import PAGE_ROWS, EndedJob, Listing
from tieline.drivers.stores.logs import LogFile, Logs
from tieline.drivers.stores.store import Change, Store
from tieline.drivers.stores.writer import Writer
from tieline.model.error import TielineError
from tieline.model.limits import DAY_S, Limits
from tieline.ports import Clock

STEP = PAGE_ROWS  # rows or files that are looked at before others get their turn
MOST_STEPS = 40  # of one kind in one sweep; the next sweep goes on
ORPHAN_MS = 3_600_000  # a log whose run is not known is kept this long after its last line
BLOB_SWEEPS_PER_GRACE = 24  # references are read anew so often in the time that an unused blob is kept
DAY_MS = DAY_S * 1_000
COUNTED = (
    "idempotency_keys",
    "usage_lines",
    "jobs",
    "runs",
    "quotes",
    "logs",
    "log_bytes",
    "blobs",
    "blob_bytes",
    "records",
    "heads",
)
log = logging.getLogger("tieline.sweeper")


# -- what is due: pure ------------------------------------------------------------------------------------------------


def ended_until_ms(limits: Limits, now_ms: int, nth_ended_ms: int) -> int:
    """Jobs that ended then or before are due. ``nth_ended_ms``: when the last job that the count keeps ended, or 0."""
    if not limits.finished_jobs:
        return now_ms
    return max(now_ms - limits.finished_days * DAY_MS, nth_ended_ms - 1)


def due_jobs(jobs: Iterable[EndedJob], until_ms: int) -> list[str]:
    """Ended jobs that nothing keeps. A job that a kept usage line names stays with its runs."""
    return [job.id for job in jobs if 0 < job.ended_ms <= until_ms and not job.is_billed]


def due_logs(
    logs: Iterable[LogFile], ends_ms: Mapping[str, int], limits: Limits, now_ms: int, until_ms: int
) -> list[LogFile]:
    """Logs to be dropped. ``ends_ms`` says when the job of a run ended (0: it is live; missing: nobody knows it)."""
    oldest_ms = max(now_ms - limits.log_days * DAY_MS, until_ms)
    due = []
    for file in logs:
        ended_ms = ends_ms.get(file.run)
        if file.written_ms < now_ms - ORPHAN_MS if ended_ms is None else 0 < ended_ms <= oldest_ms:
            due.append(file)
    return due


def idle_blobs(blobs: Iterable[BlobFile], limits: Limits, now_ms: int) -> list[BlobFile]:
    """Blobs that were not used for so long that they are due unless something refers to them."""
    return [blob for blob in blobs if blob.used_ms < now_ms - limits.blob_unused_s * 1_000]


# -- letting go -------------------------------------------------------------------------------------------------------


class Sweeper:
    """Lets go of what is due. `collected` counts what went since the process started, for ``status``."""

    def __init__(
        self,
        store: Store,
        writer: Writer[Any],
        blobs: Blobs,
        logs: Logs,
        limits: Limits,
        clock: Clock,
        forget: Callable[[Sequence[str]], Awaitable[int]] | None = None,
    ) -> None:
        self._store, self._writer, self._blobs, self._logs = store, writer, blobs, logs
        self._limits, self._clock, self._forget = limits, clock, forget
        self._log_cursor = self._blob_cursor = self._quote_cursor = ""  # where the next sweep goes on
        self._job_cursor = (0, "")
        self._blobs_at_ms = 0
        self.collected: dict[str, int] = dict.fromkeys(COUNTED, 0)

    async def run(self) -> None:
        """Sweep every `Limits.sweep_s` until cancelled. What fails is told to the log, and the next sweep comes."""
        while True:
            await asyncio.sleep(self._limits.sweep_s)
            await self.sweep()

    async def sweep(self) -> None:
        """One sweep. Files go first: where the disk is full, rows can only go once there is room again."""
        listing = Listing(self._store.engine)
        now_ms = self._clock.now_ms()
        nth_ended_ms = await asyncio.to_thread(listing.nth_ended_ms, max(1, self._limits.finished_jobs))
        until_ms = ended_until_ms(self._limits, now_ms, nth_ended_ms)
        for step in (
            self._sweep_logs(listing, now_ms, until_ms),
            self._sweep_blobs(listing, now_ms, until_ms),
            self._sweep_answers(listing, now_ms),
            self._sweep_usage(listing, now_ms),
            self._sweep_jobs(listing, until_ms),
            self._sweep_quotes(listing, until_ms),
            self._sweep_records(listing, now_ms),
            self._sweep_heads(),
        ):
            try:
                await step
            except TielineError as error:
                log.warning("a sweep did not finish: %s", error.message)
            except Exception:
                log.exception("defect in a sweep")

    async def _keep(self, changes: Sequence[Change]) -> None:
        for at in range(0, len(changes), STEP):
            await asyncio.wrap_future(self._writer.keep(changes[at : at + STEP]))

    async def _sweep_logs(self, listing: Listing, now_ms: int, until_ms: int) -> None:
        def step() -> bool:
            files = list(islice(self._logs.listing(self._log_cursor), STEP))
            ends_ms = listing.ends_of_runs(tuple({file.run: None for file in files}))
            for file in due_logs(files, ends_ms, self._limits, now_ms, until_ms):
                self.collected["log_bytes"] += self._logs.remove(file.run, file.node)
                self.collected["logs"] += 1
            self._log_cursor = files[-1].name if len(files) == STEP else ""
            return bool(self._log_cursor)

        for _ in range(MOST_STEPS):
            if not await asyncio.to_thread(step):
                break

    async def _sweep_blobs(self, listing: Listing, now_ms: int, until_ms: int) -> None:
        """Mark and sweep: what is idle and still referred to counts as used now, so that it is not asked about soon."""
        if now_ms - self._blobs_at_ms < self._limits.blob_unused_s * 1_000 // BLOB_SWEEPS_PER_GRACE:
            return
        idle = await asyncio.to_thread(self._idle, now_ms)
        if not self._blob_cursor:
            self._blobs_at_ms = now_ms
        if not idle:
            return
        named = await asyncio.to_thread(self._named, listing, frozenset(blob.sha256 for blob in idle), now_ms, until_ms)
        gone: list[str] = []
        for at in range(0, len(idle), STEP):
            gone += await asyncio.to_thread(self._drop, idle[at : at + STEP], named)
        await self._keep([("blob", digest, None) for digest in gone])

    def _idle(self, now_ms: int) -> list[BlobFile]:
        looked_at = list(islice(self._blobs.listing(self._blob_cursor), STEP * MOST_STEPS))
        self._blob_cursor = looked_at[-1].sha256 if len(looked_at) == STEP * MOST_STEPS else ""
        return idle_blobs(looked_at, self._limits, now_ms)

    def _named(self, listing: Listing, idle: AbstractSet[str], now_ms: int, until_ms: int) -> set[str]:
        named: set[str] = set()
        for page in listing.references(until_ms, now_ms // 1_000):
            named |= page & idle
        return named

    def _drop(self, blobs: Iterable[BlobFile], named: AbstractSet[str]) -> list[str]:
        gone: list[str] = []
        for blob in blobs:
            if blob.sha256 in named:
                self._blobs.touch(blob.sha256)
            elif (freed := self._blobs.remove(blob.sha256, blob.used_ms)) is not None:
                self.collected["blob_bytes"] += freed
                self.collected["blobs"] += 1
                gone.append(blob.sha256)
        return gone

    async def _sweep_answers(self, listing: Listing, now_ms: int) -> None:
        before_ms = now_ms - self._limits.idempotency_s * 1_000
        for _ in range(MOST_STEPS):
            keys = await asyncio.to_thread(listing.idempotency_keys, before_ms)
            await self._keep([("idempotency", key, None) for key in keys])
            self.collected["idempotency_keys"] += len(keys)
            if len(keys) < STEP:
                break

    async def _sweep_usage(self, listing: Listing, now_ms: int) -> None:
        before_ms = now_ms - self._limits.usage_days * DAY_MS
        for _ in range(MOST_STEPS):
            runs = await asyncio.to_thread(listing.usage_lines, before_ms)
            await self._keep([("usage", run, None) for run in runs])
            self.collected["usage_lines"] += len(runs)
            if len(runs) < STEP:
                break

    async def _sweep_jobs(self, listing: Listing, until_ms: int) -> None:
        for _ in range(MOST_STEPS):
            page = await asyncio.to_thread(listing.ended_jobs, until_ms, self._job_cursor)
            due = due_jobs(page, until_ms)
            runs = await asyncio.to_thread(listing.runs_of, due)
            await self._keep([("run", run, None) for run in runs])
            await self._keep([("job", job, None) for job in due])
            self.collected["jobs"] += len(due)
            self.collected["runs"] += len(runs)
            is_more = len(page) == STEP
            self._job_cursor = (page[-1].ended_ms, page[-1].id) if is_more else (0, "")
            if not is_more:
                break

    async def _sweep_quotes(self, listing: Listing, until_ms: int) -> None:
        for _ in range(MOST_STEPS):
            due, self._quote_cursor = await asyncio.to_thread(listing.closed_quotes, until_ms, self._quote_cursor)
            await self._keep([("quote", quote, None) for quote in due])
            self.collected["quotes"] += len(due)
            if not self._quote_cursor:
                break

    async def _sweep_records(self, listing: Listing, now_ms: int) -> None:
        if self._forget is None:
            return
        due = await asyncio.to_thread(listing.expired_records, now_ms // 1_000 - self._limits.record_days * DAY_S)
        if due:
            self.collected["records"] += await self._forget(due)

    async def _sweep_heads(self) -> None:
        due = await asyncio.to_thread(thinned, self._store.engine)
        await self._keep(due)
        self.collected["heads"] += len(due)
