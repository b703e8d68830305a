"""Inbox: the bounded queue between whoever asks and the one thread that decides."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from threading import Condition
from typing import Any

from tieline.drivers.stores.store import Change
from tieline.exchange.commands import Command
from tieline.model.error import TielineError
from tieline.model.reason import Reason

Aside = Callable[[Any], Sequence[Change]]


class Waiting:
    """One thing to be done, and who waits for its answer: a thread (``loop`` is None), an event loop, or nobody."""

    __slots__ = ("aside", "changes", "command", "future", "loop")

    def __init__(
        self,
        command: Command | None,
        future: Future[Any] | asyncio.Future[Any] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        aside: Aside | None = None,
        changes: Sequence[Change] = (),
    ) -> None:
        self.command = command
        self.future = future
        self.loop = loop
        self.aside = aside
        self.changes = changes


Answer = tuple[Waiting, Any, BaseException | None]


class Inbox:
    """A queue that refuses rather than grows. ``growing`` commands may fill three quarters of it, the rest all."""

    def __init__(self, limit: int, growing: frozenset[type]) -> None:
        self._limit = limit
        self._limit_growing = max(1, limit * 3 // 4)
        self._growing = growing
        self._items: deque[Waiting] = deque()
        self._condition = Condition()
        self._is_waiting = False
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is taken in."""
        return self._is_closed

    def put(self, items: Sequence[Waiting], wait_ms: int) -> None:
        """Take in all of ``items`` or none. Raises `overloaded` with ``wait_ms`` as the time after which to retry."""
        limit = self._limit
        for item in items:
            if type(item.command) in self._growing:
                limit = self._limit_growing
                break
        with self._condition:
            if self._is_closed:
                raise TielineError("overloaded", "the exchange is stopping: it takes no more commands")
            if len(self._items) + len(items) > limit:
                raise _overloaded(len(self._items), len(items), limit, wait_ms)
            self._items.extend(items)
            if self._is_waiting:
                self._condition.notify()

    def take(self, most: int, timeout_s: float | None) -> list[Waiting]:
        """Up to ``most`` items, waiting up to ``timeout_s`` for the first; empty when none came."""
        items = self._items
        with self._condition:
            if not items and not self._is_closed and timeout_s != 0:
                self._is_waiting = True
                self._condition.wait(timeout_s)
                self._is_waiting = False
            return [items.popleft() for _ in range(min(most, len(items)))]

    def close(self) -> None:
        """Take nothing more in, and wake who waits."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()


def _overloaded(depth: int, count: int, limit: int, wait_ms: int) -> TielineError:
    what = "1 more is" if count == 1 else f"{count:,} more are"
    return TielineError(
        "overloaded",
        f"{depth:,} commands wait of {limit:,} that may; {what} not taken in: retry after {wait_ms:,} ms",
        reasons=(Reason(code="waiting_for_retry", values={"wait_us": wait_ms * 1000}),),
    )


def deliver(answers: Iterable[Answer]) -> None:
    """Wake everybody who waits: threads at once, each event loop once for all of its answers."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        item = answer[0]
        if item.future is None:
            continue
        if item.loop is not None:
            by_loop.setdefault(item.loop, []).append(answer)
        else:
            _settle((answer,))
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, mine)
        except RuntimeError:  # the loop is closed: nobody waits any more
            continue


def _settle(answers: Iterable[Answer]) -> None:
    for item, reply, error in answers:
        future = item.future
        if future is None or future.done():  # its caller has gone
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(reply)
