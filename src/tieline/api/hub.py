"""Hub: what was committed, told to everybody who waits for it. Lives on the event loop's thread.

::

    writer's thread --entries--> loop: head moves on --> listeners (index, facts)                called in order
                                                     --> waiters for a job, a session, the head  futures
                    --orders---> loop: mailbox of the site's stream                              bounded

Streams of the event log keep nothing here: they are woken and read the log itself, so that none of them can lose an
entry or hold back another. Only orders are handed on, since they are made from the state as it stood.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tieline.model import event as fact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tieline.drivers.stores.draft import Committed, Ordered
    from tieline.model.protocol import Orders

T = TypeVar("T")
MAILBOX = 16_384  # orders that one site may be behind: many passes of placing
SITE_MEMORY = 1_024  # orders of one site that a broken stream can be resumed over
SITE_MEMORY_S = 60.0  # and for how long: an offer is void long before
HEAD = "head"  # the name to wait for when any entry will do


class OverError(Exception):
    """The stream has to end; ``why`` is what its reader should be told."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Mailbox:
    """Orders on their way to one site. Filling it never blocks: a site that is too slow starts a new session."""

    __slots__ = ("items", "waiter", "why")

    def __init__(self) -> None:
        self.items: deque[Ordered] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.why = ""

    def put(self, order: Ordered) -> None:
        """Leave one order."""
        if len(self.items) >= MAILBOX:
            self.close("this stream fell behind")
        if not self.why:
            self.items.append(order)
            self.wake()

    def close(self, why: str) -> None:
        """No more; what was not read is dropped."""
        self.why = self.why or why
        self.items.clear()
        self.wake()

    def wake(self) -> None:
        """Let the reader look."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def take(self, timeout_s: float) -> tuple[Ordered, ...]:
        """All that is there, waiting up to ``timeout_s`` for the first. Raises OverError."""
        if not self.items and not self.why:
            self.waiter = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait((self.waiter,), timeout=timeout_s)
            finally:
                self.waiter = None
        if self.why:
            raise OverError(self.why)
        taken = tuple(self.items)
        self.items.clear()
        return taken


class SiteLine:
    """What is remembered for the stream of one site."""

    __slots__ = ("floor", "mailbox", "opened_seq", "recent", "session")

    def __init__(self, floor: int) -> None:
        self.floor = floor  # a cursor below this cannot be resumed: orders after it were forgotten
        self.recent: deque[tuple[float, Ordered]] = deque()
        self.mailbox: Mailbox | None = None
        self.session = 0
        self.opened_seq = 0

    def add(self, order: Ordered, now_s: float) -> None:
        """Remember an order for a while and hand it on."""
        recent = self.recent
        recent.append((now_s, order))
        while len(recent) > SITE_MEMORY or recent[0][0] < now_s - SITE_MEMORY_S:
            self.floor = recent.popleft()[1][0]
        if self.mailbox is not None:
            self.mailbox.put(order)

    def opened(self, session: int, seq: int) -> None:
        """A session began: what came before is in its welcome."""
        self.session, self.opened_seq = session, seq
        self.recent = deque(each for each in self.recent if each[1][0] > seq)
        self.floor = max(self.floor, seq)
        if self.mailbox is not None:
            self.mailbox.close("a newer session was opened")
            self.mailbox = None


class Hub:
    """One for each exchange process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.loop: asyncio.AbstractEventLoop | None = None
        self.head = 0  # position of the newest entry that was told here
        self.is_closed = False
        self.listeners: list[Callable[[Sequence[Committed]], None]] = []
        self.lines: dict[str, SiteLine] = {}
        self.waiters: dict[str, dict[asyncio.Future[None], None]] = {}

    def start(self, position: Callable[[], int]) -> None:
        """Begin, on the loop's thread, where the log ends now. Subscribe to the writer first."""
        self.loop = asyncio.get_running_loop()
        self.is_closed = False
        self.head = max(self.head, position())

    def close(self) -> None:
        """End every stream and every wait, so that the process can end."""
        self.is_closed = True
        for line in self.lines.values():
            if line.mailbox is not None:
                line.mailbox.close("the exchange is stopping")
        for name in list(self.waiters):
            self.tell(name)

    # -- from the writer's thread -------------------------------------------------------------------------------------

    def take_entries(self, entries: Sequence[Committed]) -> None:
        """Entries that were committed; give this to `Writer.subscribe`."""
        self._hand_over(self.tell_entries, entries)

    def take_orders(self, orders: Sequence[Ordered]) -> None:
        """What they order of sites; give this to `Writer.subscribe_orders`."""
        self._hand_over(self.tell_orders, orders)

    def _hand_over(self, to: Callable[[Sequence[T]], None], what: Sequence[T]) -> None:
        if self.loop is None:
            return
        try:
            self.loop.call_soon_threadsafe(to, what)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    # -- on the loop's thread -----------------------------------------------------------------------------------------

    def tell_entries(self, entries: Sequence[Committed]) -> None:
        """Let everybody know."""
        self.head = entries[-1].seq
        for listener in self.listeners:
            listener(entries)
        for entry in entries:
            event = entry.event
            if isinstance(event, fact.SessionOpened):
                line = self.lines.get(event.site.id)
                if line is None:  # and not `line`, which would begin at the end of this batch, after the session
                    line = self.lines[event.site.id] = SiteLine(entry.seq)
                line.opened(event.site.session, entry.seq)
                self.tell(session_name(event.site.id))
            if entry.job in self.waiters:
                self.tell(entry.job)
            if isinstance(event, fact.JobEnded):
                self.tell(end_name(entry.job or ""))
        self.tell(HEAD)

    def tell_orders(self, orders: Sequence[Ordered]) -> None:
        """Let sites know."""
        now_s = self.clock()
        for order in orders:
            line = self.line(order[1])
            if order[0] > line.opened_seq:
                line.add(order, now_s)

    def summon(self, site: str, order: Orders) -> bool:
        """Tell a site something that is in no log and moves no cursor; False where it does not listen now."""
        line = self.lines.get(site)
        if line is None or line.mailbox is None:
            return False
        line.mailbox.put((0, site, order))
        return True

    def line(self, site: str) -> SiteLine:
        """What is remembered of ``site``; a site that is not known yet can be resumed from now on."""
        found = self.lines.get(site)
        if found is None:
            found = self.lines[site] = SiteLine(self.head)
        return found

    def open_line(self, site: str, after: int, mailbox: Mailbox) -> bool:
        """Resume the orders of ``site`` after a position; False when not all are remembered. Ends an older stream."""
        line = self.line(site)
        if line.mailbox is not None:
            line.mailbox.close("a newer stream was opened")
            line.mailbox = None
        if not line.floor <= after <= self.head or self.is_closed:
            return False
        line.mailbox = mailbox
        for _, order in line.recent:
            if order[0] > after:
                mailbox.put(order)
        return True

    def close_line(self, site: str, mailbox: Mailbox) -> None:
        """The stream is gone."""
        line = self.lines.get(site)
        if line is not None and line.mailbox is mailbox:
            line.mailbox = None

    @contextmanager
    def waiting(self, *names: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done as soon as one of ``names`` is told, or at once when the hub is closed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_closed:
            waiter.set_result(None)
        for name in names:
            self.waiters.setdefault(name, {})[waiter] = None
        try:
            yield waiter
        finally:
            for name in names:
                waiting = self.waiters[name]
                del waiting[waiter]
                if not waiting:
                    del self.waiters[name]

    def tell(self, name: str) -> None:
        """Wake everybody who waits for ``name``."""
        for waiter in self.waiters.get(name, ()):
            if not waiter.done():
                waiter.set_result(None)


def end_name(job: str) -> str:
    """The name to wait for the end of a job (short name); the short name itself is told whatever happens to it."""
    return f"end {job}"


def log_name(run: str) -> str:
    """The name to wait for more of a run's log."""
    return f"log {run}"


def session_name(site: str) -> str:
    """The name to wait for a site's session."""
    return f"session {site}"
