"""Queue: the jobs that wait, and whose turn it is; a pass looks at shapes and not at jobs.

::

    job --> a step before it has not ended        nowhere
        --> not before a time                     later        by that time
        --> its turn comes                        its line     jobs of one shape, by submission
                                                    |
                       ready: lines by the turn of their first job  --refused-->  looked at
                                    ^                                                 |
                                    +------ something may fit that did not before ----+

What refuses the first job of a line refuses all of it, so a million refused jobs cost a pass what their shapes cost. A
line that was refused is looked at again when `Supply.version` grew, or for a job that came since. A pass that is cut
short is gone on with by the next, whatever changed meanwhile, so that those at the end have their turn too. What takes
long to decide is passed over once a pass has done enough of it, or passes have lately done enough of it in vain; those
lines come again in the next passes, in the order in which they were passed over, and nobody else waits for them. Jobs
that leave are struck out where they stand; what is struck out is cleared away once it is the larger part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

from tieline.exchange.jobrow import JobRow
from tieline.model.job import JobState

NOWHERE, LATER, IN_LINE, FRESH = range(4)  # JobRow.place
SLACK = 64  # entries that are struck out and may stay
MOST_STRAY = 4_096  # entries that lead to no line any more and may stay
MOST_SEARCHED = 4  # gangs over several pools that one pass looks for
MOST_VAIN = 16  # searches in vain, one after the other; then one in so long:
VAIN_MS = 200
MOST_STEPS = 2**62  # of a pass that its caller bounds

Timed = tuple[int, JobRow]
E = TypeVar("E", JobRow, Timed)
Key = tuple[int, int, int]  # shape, since when it waits where that is not its submission, words where policies ask
Entry = tuple[int, int, int, JobRow, "Line"]  # turn, submission, number, first job, line


class Share(Protocol):
    """How projects share: asked whenever the first job of a line is about to be looked at.

    ``turn_ms`` may grow while a pass goes on (what was placed counts), and shrinks between versions only.
    """

    def turn_ms(self, row: JobRow) -> int:
        """The number by which the job goes, the smaller first; never below its own `turn_ms`."""

    def may_take(self, row: JobRow) -> bool:
        """Whether the project of the job may take what it asks for now; a line that may not waits for a new version."""


class Plain:
    """Everybody alike: by priority and age."""

    def turn_ms(self, row: JobRow) -> int:
        """As it was when it was submitted."""
        return row.turn_ms

    def may_take(self, row: JobRow) -> bool:  # noqa: ARG002 - the protocol asks for it
        """Whatever fits."""
        return True


PLAIN = Plain()


class Heap(Generic[E]):
    """The smallest first; entries whose row is over are passed by."""

    __slots__ = ("_row", "_struck", "items")

    def __init__(self, row: Callable[[E], JobRow]) -> None:
        self.items: list[E] = []
        self._row: Callable[[E], JobRow] = row
        self._struck = 0

    def push(self, entry: E) -> None:
        """Put one in."""
        heappush(self.items, entry)

    def first(self) -> E | None:
        """The smallest that is not over."""
        items = self.items
        while items and self._row(items[0]).is_over:
            heappop(items)
            self._struck -= self._struck > 0
        return items[0] if items else None

    def pop(self) -> E:
        """Take the first out; there is one."""
        return heappop(self.items)

    def strike(self) -> None:
        """Note that one of the entries is over."""
        self._struck += 1
        if self._struck > len(self.items) // 2 + SLACK:
            self.items = [entry for entry in self.items if not self._row(entry).is_over]
            heapify(self.items)
            self._struck = 0


class Line:
    """Jobs of one shape whose turn may come; ``fresh`` are those that came after the line was refused."""

    __slots__ = ("count", "fresh", "is_refused", "jobs", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.jobs: Heap[JobRow] = Heap(_itself)
        self.fresh: Heap[JobRow] = Heap(_itself)
        self.count = 0
        self.is_refused = False

    @property
    def open(self) -> Heap[JobRow]:
        """The jobs that have not been refused as things stand."""
        return self.fresh if self.is_refused else self.jobs

    def merge(self) -> None:
        """There is no difference any more between those that came before and since."""
        while self.fresh.items:
            row = self.fresh.pop()
            if not row.is_over:
                row.place = IN_LINE
                self.jobs.push(row)


class Queue:
    """The queued ones among ``rows``, which the shelf keeps."""

    def __init__(self, rows: Mapping[str, JobRow]) -> None:
        self._rows = rows
        self._lines: dict[Key, Line] = {}
        self._later: Heap[Timed] = Heap(_timed)
        self._due: Heap[Timed] = Heap(_timed)  # deadlines
        self._ready: list[Entry] = []
        self._looked: list[Line] = []
        self._passed: dict[Key, Line] = {}  # that wait for a search; the first that was passed over first
        self._searches = MOST_VAIN  # that may be in vain now
        self._searched_ms = 0  # as of then
        self._version = -1
        self._is_cut = False  # the last pass ended before everybody had been looked at
        self._count = 0
        self._is_worded = False
        self.worded_at = -1  # version of the pools when `word` was last told

    # -- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: object) -> bool:
        row = self._rows.get(name)  # type: ignore[call-overload]
        return row is not None and row.state is JobState.QUEUED

    def __iter__(self) -> Iterator[str]:
        return (name for name, row in self._rows.items() if row.state is JobState.QUEUED)

    @property
    def shapes(self) -> int:
        """How many lines there are."""
        return len(self._lines)

    def is_open(self, name: str) -> bool:
        """Whether a job is one of those that the next pass looks at, if it comes so far."""
        row = self._rows.get(name)
        if row is None or row.state is not JobState.QUEUED or row.place not in (IN_LINE, FRESH):
            return False
        key = self._key(row)
        return key not in self._passed and (row.place == FRESH or not self._lines[key].is_refused)

    def overdue(self, now_ms: int, most: int) -> list[JobRow]:
        """Jobs whose deadline is over, at most so many; they stay until they end."""
        found: list[JobRow] = []
        while len(found) < most and (entry := self._due.first()) is not None and entry[0] <= now_ms:
            self._due.pop()
            found.append(entry[1])
        for row in found:
            self._due.push((row.deadline_ms, row))
        return found

    def near(self, row: JobRow, most: int) -> list[str]:
        """The job, and some of those behind it in its line: those that are likely to be looked at next."""
        line = self._lines.get(self._key(row))
        return [row.id, *(one.id for one in line.open.items[:most] if not one.is_over)] if line else [row.id]

    # -- changing -----------------------------------------------------------------------------------------------------

    def add(self, row: JobRow) -> None:
        """A job begins to wait."""
        self._count += 1
        if row.deadline_ms:
            self._due.push((row.deadline_ms, row))
        if row.after:
            row.place = NOWHERE
        elif row.eligible_ms > row.submitted_ms:
            row.place = LATER
            self._later.push((row.eligible_ms, row))
        else:
            self._join(row)

    def remove(self, row: JobRow) -> None:
        """A job waits no more, or for something else."""
        self._count -= 1
        row.is_over = True
        if row.deadline_ms:
            self._due.strike()
        if row.place == LATER:
            self._later.strike()
        elif row.place in (IN_LINE, FRESH):
            self._leave(row)

    def fill(self, rows: Sequence[JobRow]) -> None:
        """Take the jobs of an earlier life into an empty queue, in order."""
        for row in rows:
            self.add(row)

    def word(self, is_worded: bool, version: int) -> None:
        """Whether owners' policies read names or labels of tasks, as of a version of the pools."""
        self.worded_at = version
        if is_worded == self._is_worded:
            return
        rows = [row for line in self._lines.values() for heap in (line.jobs, line.fresh) for row in heap.items]
        self._lines.clear()
        self._ready.clear()
        self._looked.clear()
        self._passed.clear()
        self._is_worded = is_worded
        for row in sorted(row for row in rows if not row.is_over):
            self._join(row)

    def again(self) -> None:
        """Let the next pass look at everything, whatever was refused before."""
        self._version = -1

    def _key(self, row: JobRow) -> Key:
        """Within a line the order of submission must also be that of waiting, so those that came back stand apart."""
        waits_ms = row.eligible_ms if row.eligible_ms > row.submitted_ms else 0
        return row.shape, waits_ms, row.words if self._is_worded else 0

    def _join(self, row: JobRow) -> None:
        key = self._key(row)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(key)
        line.count += 1
        row.place = FRESH if line.is_refused else IN_LINE
        line.open.push(row)
        if line.open.items[0] is row:
            self._enter(row, line, row.turn_ms)

    def _leave(self, row: JobRow) -> None:
        line = self._lines[self._key(row)]
        line.count -= 1
        if not line.count:
            del self._lines[line.key]
            self._passed.pop(line.key, None)
            line.jobs.items.clear()
            line.fresh.items.clear()
            return
        line.jobs.strike()
        line.fresh.strike()

    def _enter(self, row: JobRow, line: Line, turn_ms: int) -> None:
        heappush(self._ready, (turn_ms, row.submitted_ms, row.seq, row, line))
        if len(self._ready) > 2 * len(self._lines) + MOST_STRAY:
            firsts = [(first, line) for line in self._lines.values() if (first := line.open.first()) is not None]
            self._ready = [(first.turn_ms, first.submitted_ms, first.seq, first, line) for first, line in firsts]
            heapify(self._ready)

    # -- passes -------------------------------------------------------------------------------------------------------

    def turns(self, version: int, now_ms: int, share: Share = PLAIN, most: int = MOST_STEPS) -> Turns | None:
        """A pass over what is to be looked at, in ``most`` steps; None when there is nothing. Close it."""
        while (entry := self._later.first()) is not None and entry[0] <= now_ms:
            self._later.pop()
            self._join(entry[1])
        self._is_cut = self._is_cut and bool(self._ready)
        if version != self._version and not self._is_cut:
            self._version = version
            looked, self._looked = self._looked, []
            for line in looked:
                line.is_refused = False
                line.merge()
                first = line.jobs.first()
                if first is not None:
                    self._enter(first, line, share.turn_ms(first))
        self._rest(now_ms)
        due = self._due_now(share)
        if not self._ready:
            self._is_cut = False
            return None
        self._is_cut = True  # until nobody is left
        return Turns(self, share, most, due)

    def _rest(self, now_ms: int) -> None:
        """Let time give back what searches in vain took. A clock that goes back gives nothing, and takes nothing."""
        gained = max(0, now_ms - self._searched_ms) // VAIN_MS
        self._searches = min(MOST_VAIN, self._searches + gained)
        is_full = self._searches == MOST_VAIN or now_ms < self._searched_ms
        self._searched_ms = now_ms if is_full else self._searched_ms + gained * VAIN_MS

    def _due_now(self, share: Share) -> dict[Key, None]:
        """The lines that were passed over first, as many as a pass searches for: they come in this one."""
        due: dict[Key, None] = {}
        for key in list(self._passed):
            if len(due) == min(MOST_SEARCHED, self._searches):
                break
            line = self._passed.pop(key)
            first = line.open.first() if line.count else None
            if first is not None:
                due[key] = None
                self._enter(first, line, share.turn_ms(first))
        return due


class Turns:
    """One pass: the first of each line in turn, until it is refused; one that is taken makes room for the next.

    ``most`` bounds the steps: a job that is passed over for its project costs one, as one that is answered does.
    """

    def __init__(self, queue: Queue, share: Share, most: int = MOST_STEPS, due: dict[Key, None] | None = None) -> None:
        self._queue = queue
        self._due = due or {}
        self._spare = min(MOST_SEARCHED, queue._searches) - len(self._due)
        self._is_searched = False  # the one whose turn it is
        self._share = share
        self._steps = most
        self._line: Line | None = None
        self._row: JobRow | None = None
        self._taken: list[tuple[Line, JobRow]] = []

    def next(self) -> JobRow | None:
        """Whose turn it is; None when nobody is left, or no step. Say what became of it before asking for the next."""
        queue, share = self._queue, self._share
        self._is_searched = False
        while queue._ready:
            if self._steps <= 0:
                self._line = self._row = None
                return None
            self._steps -= 1
            turn_ms, _, _, row, line = heappop(queue._ready)
            first = line.open.first()
            if first is not row:
                if row.is_over and first is not None:
                    queue._enter(first, line, share.turn_ms(first))
                continue
            self._line, self._row = line, row
            turn_now_ms = share.turn_ms(row)
            if turn_now_ms > turn_ms:
                queue._enter(row, line, turn_now_ms)
            elif share.may_take(row):
                return row
            else:
                self.refuse()
        self._line = self._row = None
        queue._is_cut = False
        return None

    def take(self) -> None:
        """The one whose turn it was is placed."""
        line, row = self._line, self._row
        assert line is not None
        assert row is not None
        line.open.pop()
        self._queue._searches += self._is_searched  # it was not in vain
        self._taken.append((line, row))
        first = line.open.first()
        if first is not None:
            self._queue._enter(first, line, self._share.turn_ms(first))
        self._line = self._row = None

    def refuse(self) -> None:
        """The one whose turn it was is refused as things stand, and with it its whole line."""
        line = self._line
        assert line is not None
        if line.is_refused:
            line.merge()
        else:
            line.is_refused = True
            self._queue._looked.append(line)
        self._line = self._row = None

    def may_search(self) -> bool:
        """Whether the one whose turn it is may be searched for, once; a pass searches for few, older ones first."""
        assert self._line is not None
        key = self._line.key
        if key in self._due:
            del self._due[key]
        elif self._spare > 0:
            self._spare -= 1
        else:
            return False
        self._queue._passed.pop(key, None)
        self._queue._searches -= 1
        self._is_searched = True
        return True

    def pass_over(self) -> None:
        """The one whose turn it was is not decided in this pass, and comes again in one of the next."""
        assert self._line is not None
        self._queue._passed.setdefault(self._line.key, self._line)
        self._line = self._row = None

    def close(self) -> None:
        """End the pass. What was taken leaves the queue by the events that follow, and not here."""
        if self._line is not None and self._row is not None:
            self._queue._enter(self._row, self._line, self._row.turn_ms)
        for line, row in self._taken:
            if row.is_over or not line.count:
                continue
            row.place = IN_LINE
            line.jobs.push(row)
            if not line.is_refused and line.jobs.items[0] is row:
                self._queue._enter(row, line, row.turn_ms)
        self._taken.clear()


def _itself(row: JobRow) -> JobRow:
    return row


def _timed(entry: Timed) -> JobRow:
    return entry[1]
