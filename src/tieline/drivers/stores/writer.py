"""Writer: the one thread that decides, keeps and then answers.

::

    submit -> inbox -> take up to `batch` commands
                       each: known idempotency key? -> decide -> apply the events to the view      (a refusal changes
                       place what waits                                                             nothing)
                       entries + projections + answers in ONE transaction, synced to disk
                       answer everybody, tell the subscribers

Nothing is answered before it is kept. When a transaction is not kept, everybody in it is told so, the view is filled
anew from the store, and changes (not reads) are refused until a probe can be written again. When another process has
become the writer of the store meanwhile, this one answers what waits with `not_leader` and ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any, Generic, TypeVar

from tieline.drivers.garbage import uncollected
from tieline.drivers.stores.desk import PLACING, Decide, Desk, Schedule, defect
from tieline.drivers.stores.draft import Committed, Draft, Ordered, OrderOf
from tieline.drivers.stores.inbox import Aside, Inbox, Waiting, deliver
from tieline.drivers.stores.log import LogRow
from tieline.drivers.stores.meters import Meters
from tieline.drivers.stores.replies import GROWING, REPLIES, ReplyCodec
from tieline.drivers.stores.snapshot import Row
from tieline.drivers.stores.store import Batch, Change, Store, StoreError
from tieline.exchange.commands import Command, Tick
from tieline.model.error import TielineError
from tieline.ports import Clock, Ids

V = TypeVar("V")
log = logging.getLogger("tieline.writer")

COLUMNS = len(LogRow._fields)
MOST_KEY_CHARACTERS = 255
MOST_BLAMED = 8  # commands of one batch whose events cannot be applied, before the whole batch is given up
TICK_PUT_OFF_S = 1.0  # a tick waits so long for commands that came before it: a late heartbeat is heard first


class Writer(Generic[V]):
    """Turns commands into committed facts.

    ``view`` makes an empty view; ``load(view, tables, now_ms)`` fills it from the store; ``decide(view, command,
    now_ms, ids)`` and ``schedule(view, now_ms, ids, limit)`` are pure; ``rows(view)`` drains what changed.
    ``order_of(event, view, now_ms)`` says what an event orders of a site; ``aside(entries)`` names changes outside the
    log that belong to the same transaction; ``room`` raises when new work must be refused for want of disk.
    """

    def __init__(
        self,
        store: Store,
        view: Callable[[], V],
        decide: Decide[V],
        schedule: Schedule[V],
        rows: Callable[[V], Sequence[Change]],
        load: Callable[[V, Mapping[str, Iterable[Row]], int], None],
        clock: Clock,
        ids: Ids,
        *,
        order_of: OrderOf | None = None,
        aside: Callable[[Sequence[Committed]], Sequence[Change]] | None = None,
        room: Callable[[], None] | None = None,
        replies: Mapping[type[Command], Any] = REPLIES,
        growing: frozenset[type] = GROWING,
        batch: int = 256,
        queue: int = 10_000,
        placements: int = 1_024,
        tick_ms: int = 250,
        probe_ms: int = 1_000,
        idempotency_ms: int = 86_400_000,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._new_view, self._load = store, view, load
        self._rows, self._clock, self._timer = rows, clock, timer
        self._order_of, self._aside = order_of, aside
        self.meters = Meters()
        self._codec = ReplyCodec(dict(replies))
        self._desk = Desk(
            decide,
            schedule,
            ids,
            self._codec,
            self.meters,
            growing=growing,
            room=room,
            placements=placements,
            idempotency_ms=idempotency_ms,
        )
        self._batch = batch
        self._tick_s, self._probe_s = tick_ms / 1000, probe_ms / 1000
        self._inbox = Inbox(queue, growing)
        self._view: V | None = None
        self._seq, self._head = 0, b""
        self._refusal: tuple[str, str] | None = None  # code and why, while nothing can be kept
        self._probe_at = 0.0
        self._tick_at = 0.0
        self._subscribers: list[Callable[[list[Committed]], None]] = []
        self._order_subscribers: list[Callable[[list[Ordered]], None]] = []
        self._thread: Thread | None = None
        self._command_s = 0.001  # what one command has cost lately

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> Writer[V]:
        """Fill the view from the store, then decide from now on in a thread of its own."""
        self._reload()
        self._tick_at = self._timer() + self._tick_s
        self._thread = Thread(target=self._live, name="tieline-writer", daemon=True)
        self._thread.start()
        return self

    def close(self, timeout_s: float | None = 30.0) -> bool:
        """Take nothing more in, finish what waits, and stop. False when that takes longer than ``timeout_s``."""
        self._inbox.close()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether commands are being decided. When this turns False without `close`, the process should end."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_writable(self) -> bool:
        """Whether changes are taken; False after a transaction that was not kept, until a probe succeeds."""
        return self.alive and self._refusal is None

    @property
    def why_not_writable(self) -> str:
        """What keeps the store from taking changes; empty when it takes them."""
        return self._refusal[1] if self._refusal is not None else ""

    @property
    def queue_depth(self) -> int:
        """How many commands wait."""
        return len(self._inbox)

    @property
    def view(self) -> V:
        """The view, for subscribers: they run in the writer's thread. Nobody else may look at it."""
        assert self._view is not None
        return self._view

    @property
    def position(self) -> tuple[int, bytes]:
        """Number and hash of the newest committed entry."""
        return self._seq, self._head

    # -- asking -------------------------------------------------------------------------------------------------------

    def submit(self, command: Command, aside: Aside | None = None) -> Future[Any]:
        """The future of the command's reply, given after the commit. Raises `overloaded` when the queue is full.

        ``aside(reply)`` names changes outside the log that are kept in the same transaction.
        """
        return self.submit_many((command,), aside)[0]

    def submit_many(self, commands: Sequence[Command], aside: Aside | None = None) -> list[Future[Any]]:
        """The same for several commands, which are taken in together or not at all, in this order."""
        futures: list[Future[Any]] = []
        items: list[Waiting] = []
        for command in commands:
            self._check(command)
            future: Future[Any] = Future()
            future.set_running_or_notify_cancel()
            futures.append(future)
            items.append(Waiting(command, future, None, aside))
        self._put(items)
        return futures

    async def ask(self, command: Command, aside: Aside | None = None) -> Any:
        """The command's reply, awaited on the caller's loop (woken once for all of its commands of a batch)."""
        return await self.ask_many((command,), aside)[0]

    def ask_many(self, commands: Sequence[Command], aside: Aside | None = None) -> list[asyncio.Future[Any]]:
        """Futures of the caller's running loop, for several commands that are taken in together or not at all."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = []
        items: list[Waiting] = []
        for command in commands:
            self._check(command)
            future: asyncio.Future[Any] = loop.create_future()
            futures.append(future)
            items.append(Waiting(command, future, loop, aside))
        self._put(items)
        return futures

    def keep(self, changes: Sequence[Change]) -> Future[Any]:
        """Keep rows outside the log (secrets, blobs, what is swept) with the next batch."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._put([Waiting(None, future, changes=changes)])
        return future

    def subscribe(self, callback: Callable[[list[Committed]], None]) -> None:
        """``callback(entries)`` is called in the writer's thread after each commit. It must not block."""
        self._subscribers.append(callback)

    def subscribe_orders(self, callback: Callable[[list[Ordered]], None]) -> None:
        """``callback([(seq, site, order), ...])`` is called in the writer's thread after each commit that orders."""
        self._order_subscribers.append(callback)

    def _check(self, command: Command) -> None:
        if len(command.key) > MOST_KEY_CHARACTERS:
            raise TielineError(
                "invalid_request",
                f"the idempotency key has {len(command.key)} characters, at most {MOST_KEY_CHARACTERS} are allowed",
            )

    def _put(self, items: Sequence[Waiting]) -> None:
        try:
            self._inbox.put(items, max(50, round(len(self._inbox) * self._command_s * 1000)))
        except TielineError:
            self.meters.overloads += len(items)
            raise

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        items: list[Waiting] = []
        try:
            while True:
                items = self._inbox.take(self._batch, self._pause_s())
                if not items and self._inbox.is_closed:
                    return
                self._turn(items)
        except BaseException:
            log.critical("the writer died; nothing is decided any more", exc_info=True)
            raise
        finally:
            self._inbox.close()
            while items:
                code, why = self._refusal or ("internal", "the writer has stopped")
                deliver((item, None, TielineError(code, why)) for item in items)
                items = self._inbox.take(self._batch, 0)

    def _pause_s(self) -> float | None:
        """How long to sleep when nobody asks: to the next tick or probe."""
        if self._desk.is_more_to_place:
            return 0
        due = [self._tick_at] if self._tick_s else []
        if self._refusal is not None:
            due.append(self._probe_at)
        return max(0.0, min(due) - self._timer()) if due else None

    def _turn(self, items: list[Waiting]) -> None:
        self._mend()
        if self._tick_s and self._refusal is None:
            late_s = self._timer() - self._tick_at
            if late_s >= 0 and (not len(self._inbox) or late_s > TICK_PUT_OFF_S):
                self._tick_at = self._timer() + self._tick_s
                items.append(Waiting(Tick()))
        begun = self._timer()
        is_placing = True
        for _ in range(MOST_BLAMED):
            blamed = self._attempt(items, is_placing)
            if blamed is None:
                break
            self._reload()
            if blamed is PLACING:
                is_placing = False
            else:
                items.remove(blamed)
                deliver([(blamed, None, defect())])
        else:
            deliver((item, None, defect()) for item in items)
        if items:
            self.meters.batch_commands.observe(len(items))
            self._command_s += 0.1 * ((self._timer() - begun) / len(items) - self._command_s)

    def _attempt(self, items: Sequence[Waiting], is_placing: bool) -> Waiting | None:
        """Decide and keep one batch; returns the item whose events could not be applied, if there is one."""
        if self._view is None:
            self._refuse_all(items)
            return None
        draft = Draft(self._view, self._seq, self._head, self._clock.now_ms(), self._order_of)
        try:
            stored = self._stored_replies(items)
        except StoreError as error:
            self._give_up(items, error)
            return None
        blamed = self._desk.run(draft, items, stored, is_placing, self._refusal)
        if blamed is None:
            self._commit(items, draft)
        return blamed

    def _commit(self, items: Sequence[Waiting], draft: Draft[V]) -> None:
        meters = self.meters
        try:
            draft.changes.extend(self._rows(draft.view))
            if draft.entries and self._aside is not None:
                draft.changes.extend(self._aside(draft.entries))
            if not draft.is_empty:
                begun = time.perf_counter()
                rows = [entry[:COLUMNS] for entry in draft.entries]
                self._store.append(Batch(rows, draft.changes, draft.replies))
                meters.commit_s.observe(time.perf_counter() - begun)
                meters.batches += 1
        except StoreError as error:
            self._give_up(items, error)
            return
        except Exception as error:
            log.exception("defect in the projections")
            meters.defects += 1
            self._give_up(items, StoreError("internal", f"{type(error).__name__}: {error}"))
            return
        self._seq, self._head = draft.seq, draft.head
        meters.commands += len(items)
        meters.events += len(draft.entries)
        meters.rejects += draft.rejects
        meters.replays += draft.replays
        deliver(draft.answers)
        self._tell(draft)

    def _tell(self, draft: Draft[V]) -> None:
        calls: list[tuple[Callable[[Any], None], Any]] = []
        if draft.entries:
            calls += [(callback, draft.entries) for callback in self._subscribers]
        if draft.orders:
            calls += [(callback, draft.orders) for callback in self._order_subscribers]
        for callback, what in calls:
            try:
                callback(what)
            except Exception:
                log.exception("defect in a subscriber")
                self.meters.defects += 1

    def _stored_replies(self, items: Iterable[Waiting]) -> dict[str, tuple[str, int, bytes]]:
        keys = [key for item in items if item.command is not None and (key := self._codec.key_of(item.command))]
        return self._store.replies(tuple(dict.fromkeys(keys))) if keys else {}

    # -- when something fails -----------------------------------------------------------------------------------------

    def _refuse_all(self, items: Iterable[Waiting]) -> None:
        code, why = self._refusal or ("internal", "the state cannot be read")
        deliver((item, None, TielineError(code, f"the store cannot be read now: {why}")) for item in items)

    def _give_up(self, items: Iterable[Waiting], error: StoreError) -> None:
        """Nothing of the batch was kept: say so, refuse changes from now on, and forget what was decided."""
        self.meters.failures += 1
        log.error("a batch was not kept: %s; changes are refused until the store can be written", error)
        self._refusal = (error.code, str(error))
        self._probe_at = self._timer() + self._probe_s
        self._reload()
        why = f"nothing of this request was kept: {error}"
        if error.is_lost:
            why = f"the database went away while this was being kept: send it again with its key ({error})"
        deliver((item, None, TielineError(error.code, why, hints=("tieline status",))) for item in items)

    def _reload(self) -> None:
        """Throw the view away and fill a new one from what is kept; without one, nothing can be decided."""
        self._view = None
        try:
            view = self._new_view()
            self._seq, self._head = self._store.position()
            with uncollected():
                self._load(view, self._store.tables(), self._clock.now_ms())
        except Exception as error:
            if not self.alive:  # at a start: the caller hears of it
                raise
            log.exception("the state cannot be read from the store")
            self._refusal = self._refusal or ("internal", f"{type(error).__name__}: {error}")
            self._probe_at = self._timer() + self._probe_s
        else:
            self._view = view

    def _mend(self) -> None:
        """Try whether the store takes changes again."""
        if self._refusal is None or self._timer() < self._probe_at:
            return
        try:
            is_more = self._store.recover()
            self._store.probe()
            if is_more or self._view is None:
                self._reload()
        except StoreError as error:
            self._refusal = (error.code, str(error))
            self._probe_at = self._timer() + self._probe_s
            if error.code == "not_leader":
                log.critical("another process writes this store now, this one steps down: %s", error)
                self._inbox.close()
            return
        if self._view is not None:
            log.warning("the store takes changes again")
            self._refusal = None
