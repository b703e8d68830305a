"""Shelf: the live jobs of an exchange: a small row of each in memory, the whole of few, all of them in the store.

::

    put --> dirty --(kept in the store)--> kept --(more bytes than allowed, oldest use first)--> the row alone
                                            ^                                                        |
                                            +----------------------- fetch --------------------------+

A view without a store (a test, a simulated world) keeps every job whole.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tieline.exchange.jobrow import JobRow, row_of
from tieline.model.error import TielineError
from tieline.model.job import Job, JobState

Fetch = Callable[[Sequence[str]], Mapping[str, Job]]
MOST_BYTES = 64 * 2**20
JOB_BYTES = 2_500  # what a job takes without its scripts


class Shelf(Mapping[str, Job]):
    """Live jobs by identifier. ``fetch`` gives whole jobs as the store keeps them.

    One thread changes it and reads it by ``[]`` and `get`; others ask by `peek`, which remembers nothing.
    """

    def __init__(self, fetch: Fetch | None = None, most_bytes: int = MOST_BYTES) -> None:
        self.rows: dict[str, JobRow] = {}
        self.counts: Counter[JobState] = Counter()
        self.fetch = fetch
        self._most_bytes = most_bytes
        self._dirty: dict[str, Job] = {}  # not in the store yet, or not as they are now
        self._kept: OrderedDict[str, Job] = OrderedDict()  # the one that was not used for longest comes first
        self._kept_bytes = 0
        self._seq = 0

    # -- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __contains__(self, name: object) -> bool:
        return name in self.rows

    def __getitem__(self, name: str) -> Job:
        job = self._dirty.get(name) or self._kept.get(name)
        if job is None:
            if name not in self.rows:
                raise KeyError(name)
            self.prefetch((name,))
            return self._kept[name]
        if name in self._kept:
            self._kept.move_to_end(name)
        return job

    def peek(self, name: str) -> Job | None:
        """A live job, asked for by another thread than the one that changes it: as it is here or in the store."""
        job = self._dirty.get(name) or self._kept.get(name)
        if job is None and name in self.rows and self.fetch is not None:
            return self.fetch((name,)).get(name)
        return job

    def prefetch(self, names: Sequence[str]) -> None:
        """Bring whole jobs in together. Raises `internal` for a live job that the store does not have."""
        missing = [name for name in names if name in self.rows and name not in self._dirty and name not in self._kept]
        if not missing:
            return
        found = self.fetch(missing) if self.fetch is not None else {}
        for name in missing:
            job = found.get(name)
            if job is None:
                raise TielineError("internal", f"job `{name}` is live and not in the store")
            self._keep(job)
        self._evict(len(missing))

    # -- changing -----------------------------------------------------------------------------------------------------

    def put(self, job: Job) -> tuple[JobRow | None, JobRow]:
        """Keep a job that is live; its row as it was and as it is, the same one where nothing in it changed."""
        before = self.rows.get(job.id)
        is_waiting_on = before is not None and before.state is job.state is JobState.QUEUED
        self._seq += 1
        row = row_of(job, before.seq if before is not None and is_waiting_on else self._seq)
        if before is not None and is_waiting_on and _is_same(before, row):
            row = before
        if before is not row:
            if before is not None:
                self.counts[before.state] -= 1
            self.counts[row.state] += 1
            self.rows[job.id] = row
        if job.id in self._kept:
            self._kept_bytes -= _bytes(self._kept.pop(job.id))
        self._dirty[job.id] = job
        return before, row

    def end(self, name: str) -> JobRow | None:
        """Let go of a job that has ended; the row that it had."""
        row = self.rows.pop(name, None)
        if row is not None:
            self.counts[row.state] -= 1
        self._dirty.pop(name, None)
        if name in self._kept:
            self._kept_bytes -= _bytes(self._kept.pop(name))
        return row

    def fill(self, rows: Iterable[JobRow]) -> list[JobRow]:
        """Take the rows of an earlier life into an empty shelf, in the order in which they came; numbers them."""
        ordered = sorted(rows, key=_came)
        for row in ordered:
            self._seq += 1
            row.seq = self._seq
            self.rows[row.id] = row
        self.counts = Counter(row.state for row in ordered)
        return ordered

    def settle(self) -> None:
        """Everything that was put is being kept in the store: it need not stay here."""
        if self.fetch is None:
            return
        count = len(self._dirty)
        for job in self._dirty.values():
            self._keep(job)
        self._dirty.clear()
        self._evict(count)

    def _keep(self, job: Job) -> None:
        self._kept[job.id] = job
        self._kept_bytes += _bytes(job)

    def _evict(self, newest: int) -> None:
        """Let go of what was not used for longest, but for the ``newest``."""
        while self._kept_bytes > self._most_bytes and len(self._kept) > max(newest, 1):
            _, job = self._kept.popitem(last=False)
            self._kept_bytes -= _bytes(job)


def _came(row: JobRow) -> tuple[int, str]:
    return row.submitted_ms, row.id


def _is_same(before: JobRow, row: JobRow) -> bool:
    """Whether a job that waits waits for the same as before."""
    return (before.after, before.eligible_ms, before.shape, before.words) == (
        row.after,
        row.eligible_ms,
        row.shape,
        row.words,
    )


def _bytes(job: Job) -> int:
    """About how much memory a whole job takes; the same for the same job."""
    task = job.task
    return JOB_BYTES + len(task.run) + len(task.setup) + sum(map(len, task.envs.values()))
