"""Trail: the view of a process that does not write, kept by applying the tail of the log; stands where a writer would.

The view is for questions only. Nothing is ever decided on it: a process that becomes the leader fills a new one from
the tables, as every start does. Whole jobs are looked up in the store, which may be a moment ahead of the tail; what
cannot be applied for that reason makes the view be filled anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event, Lock, Thread
from typing import Any, NoReturn

from tieline.drivers.garbage import uncollected
from tieline.drivers.stores.draft import Committed
from tieline.drivers.stores.following import Follower
from tieline.drivers.stores.leadership import Lookout, Seen, Standing
from tieline.drivers.stores.log import LogRow
from tieline.drivers.stores.meters import Meters
from tieline.drivers.stores.snapshot import Row
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.ports import Clock

LOOK_S = 0.5  # between two looks at who leads
SOON_S = 0.1  # the same while nobody does
ROWS = 500
STALE_S = 15.0  # without a word of the store for so long, this process is not ready to answer
PAUSE_S = 0.2  # after a failure
log = logging.getLogger("tieline.following")


class Trail:
    """Follows the log of a store that is open. ``view`` makes an empty view, ``load`` fills it from the tables.

    ``told(standing, seen)`` is called in the trail's thread whenever it has looked who leads.
    """

    def __init__(
        self,
        follower: Follower,
        view: Callable[[], View],
        load: Callable[[View, Mapping[str, Iterable[Row]], int], None],
        clock: Clock,
        told: Callable[[Standing, Seen], None],
        *,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._follower, self._new_view, self._load = follower, view, load
        self._clock, self._told, self._timer = clock, told, timer
        self._lookout = Lookout()
        self._look_at = 0.0
        self._view = view()
        self._applied = 0  # up to which entry the view is
        self._seq, self._head = 0, b""  # up to which entry everybody was told
        self._heard_s = 0.0
        self._subscribers: list[Callable[[list[Committed]], None]] = []
        self._changing = Lock()  # of the view
        self._is_over = Event()
        self._thread: Thread | None = None
        self.as_of_ms = 0  # when the position was seen to be the newest
        self.refills = 0
        self.meters = Meters()  # of a writer that does nothing

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> Trail:
        """Fill the view, then follow in a thread of its own. Raises what reading the store raises."""
        self._seq, self._head = self._fill()
        self._heard_s, self.as_of_ms = self._timer(), self._clock.now_ms()
        self._thread = Thread(target=self._live, name="tieline-trail", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """End, within a look; the follower is closed too."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join(30)
        self._follower.close()

    def change(self, change: Callable[[View], None]) -> None:
        """Let ``change`` of last values take effect, between two pages of entries. Blocks: not for the event loop."""
        with self._changing:
            change(self._view)

    def look(self) -> None:
        """Look who leads as soon as possible: somebody did not answer."""
        self._look_at = 0.0

    # -- as a writer that takes nothing -------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The view; it is the trail's."""
        return self._view

    @property
    def position(self) -> tuple[int, bytes]:
        """Number and hash of the newest entry that was taken in."""
        return self._seq, self._head

    @property
    def alive(self) -> bool:
        """Whether the log is being followed."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_writable(self) -> bool:
        """Whether it is worth asking this process: it hears the store."""
        return self.alive and self._timer() - self._heard_s < STALE_S

    @property
    def why_not_writable(self) -> str:
        """What is wrong."""
        if self.is_writable:
            return ""
        return f"nothing was heard of the store for {self._timer() - self._heard_s:.0f} s"

    @property
    def queue_depth(self) -> int:
        """Nothing ever waits here."""
        return 0

    def subscribe(self, callback: Callable[[list[Committed]], None]) -> None:
        """``callback(entries)`` is called in the trail's thread for what came. It must not block."""
        self._subscribers.append(callback)

    def subscribe_orders(self, callback: Callable[[Any], None]) -> None:
        """Sites are served by the leader: no orders are told here."""

    async def ask(self, command: Any, _aside: Any = None) -> NoReturn:
        """Refuse: `not_leader`. Only an operation that should have been forwarded comes here."""
        raise TielineError(
            "not_leader", f"this process follows the log, it does not decide on {type(command).__name__}"
        )

    def ask_many(self, _commands: Sequence[Any], _aside: Any = None) -> NoReturn:
        """The same."""
        raise TielineError("not_leader", "this process follows the log, it decides on nothing")

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        is_lost = False
        while not self._is_over.is_set():
            try:
                self._step()
            except Exception as error:  # noqa: BLE001 - a database that is away comes back
                if self._is_over.is_set():
                    return
                if not is_lost:
                    log.warning("the store cannot be followed: %s", error)
                is_lost = True
                self._is_over.wait(PAUSE_S)
            else:
                if is_lost:
                    log.warning("the store is followed again")
                is_lost = False

    def _step(self) -> None:
        now_s = self._timer()
        if now_s >= self._look_at:
            seen = self._follower.seen()
            standing = self._lookout.judge(seen, now_s)
            self._look_at = now_s + (LOOK_S if standing is Standing.LED else SOON_S)
            self._told(standing, seen)
        began_ms = self._clock.now_ms()
        newest = self._follower.wait(self._seq, max(0.0, self._look_at - self._timer()))
        while self._seq < newest:
            rows = self._follower.log_rows(self._seq, ROWS)
            if not rows:
                break
            self._take(rows)
        self._heard_s = self._timer()
        self.as_of_ms = began_ms

    def _take(self, rows: Sequence[LogRow]) -> None:
        entries = [Committed(*row, row.entry().event) for row in rows]
        with self._changing:
            for entry in entries:
                if entry.seq > self._applied:
                    self._apply(entry)
            self._view.touched.clear()
            self._view.jobs.settle()
        self._seq, self._head = entries[-1].seq, entries[-1].hash
        for callback in self._subscribers:
            callback(entries)

    def _apply(self, entry: Committed) -> None:
        try:
            self._view.apply(entry.event, entry.time_ms)
        except Exception as error:  # noqa: BLE001 - whatever it is: the tables say how it stands
            log.info("entry %d cannot be applied (%r): the view is filled anew", entry.seq, error)
            self.refills += 1
            self._fill()
        else:
            self._applied = entry.seq

    def _fill(self) -> tuple[int, bytes]:
        """Fill the view from the tables of one moment; the position of that moment."""
        view = self._new_view()
        with uncollected(), self._follower.snapshot() as moment:
            position = moment.position()
            self._load(view, moment.tables(), self._clock.now_ms())
        self._view, self._applied = view, position[0]
        return position
