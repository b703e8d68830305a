"""Tails: what runs print, sent on as it comes, and read no further than the exchange has kept.

A file is looked at twenty times a second while its run lives; one chunk of each log is on its way at a time, so a slow
line slows the reading down, never the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass, field

from tieline.drivers.http import HttpClient
from tieline.drivers.http.backoff import Backoff
from tieline.model.api import LogKept
from tieline.model.error import TielineError

log = logging.getLogger("tieline.site")
LOOK_S = 0.05
LOOK_QUIET_S = 0.2
QUIET_S = 10.0  # a log that said nothing for so long is looked at less often
CHUNK_BYTES = 256 * 1024
POSTS = 8  # chunks of different logs that are on their way at once
POST_S = 60.0


@dataclass
class Tail:
    """One node's log."""

    run: str
    node: int
    path: str
    offset: int  # what the exchange has kept; -1: it must say first
    is_over: bool = False  # the exchange wants no more
    last_s: float = 0.0
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=0.2, most_s=10.0))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Tails:
    """All logs of the site."""

    def __init__(self, client: HttpClient, is_open: asyncio.Event) -> None:
        self.client = client
        self.is_open = is_open
        self._tails: dict[tuple[str, int], Tail] = {}
        self._some = asyncio.Event()
        self._posts = asyncio.Semaphore(POSTS)
        self._sending: dict[tuple[str, int], asyncio.Task[None]] = {}

    def follow(self, run: str, node: int, path: str, *, is_new: bool) -> None:
        """Begin to follow a log; ``is_new``: nothing of it was sent before."""
        now_s = asyncio.get_running_loop().time()
        self._tails[run, node] = Tail(run, node, path, 0 if is_new else -1, last_s=now_s)
        self._some.set()

    async def finish(self, run: str) -> None:
        """Send the rest of a run's logs and let go of them. Returns when the exchange has them, or wants no more."""
        tails = [tail for key, tail in self._tails.items() if key[0] == run]
        for tail in tails:
            while not tail.is_over and (tail.offset < 0 or _size(tail.path) > tail.offset):
                await self.is_open.wait()
                if not await self._send(tail):
                    await asyncio.sleep(tail.backoff.next_s())
            self._tails.pop((run, tail.node), None)

    def drop(self, run: str) -> None:
        """Let go of a run's logs."""
        for key in [key for key in self._tails if key[0] == run]:
            del self._tails[key]

    async def run(self) -> None:
        """Look at every log for ever."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                if not self._tails:
                    self._some.clear()
                    await self._some.wait()
                await asyncio.sleep(LOOK_S)
                if self.is_open.is_set():
                    for key, tail in self._tails.items():
                        if key not in self._sending and self._is_due(tail, loop.time()):
                            self._begin(key, tail)
        finally:
            for task in self._sending.values():
                task.cancel()
            await asyncio.gather(*self._sending.values(), return_exceptions=True)

    def _is_due(self, tail: Tail, now_s: float) -> bool:
        if tail.is_over or tail.lock.locked():
            return False
        if now_s - tail.last_s > QUIET_S and int(now_s / LOOK_S) % int(LOOK_QUIET_S / LOOK_S):
            return False
        return tail.offset < 0 or _size(tail.path) > tail.offset

    def _begin(self, key: tuple[str, int], tail: Tail) -> None:
        task = asyncio.create_task(self._send_on(tail))
        self._sending[key] = task
        task.add_done_callback(lambda _: self._sending.pop(key, None))

    async def _send_on(self, tail: Tail) -> None:
        if not await self._send(tail):
            await asyncio.sleep(tail.backoff.next_s())

    async def _send(self, tail: Tail) -> bool:
        """Send one chunk; False when it must be tried again later."""
        async with tail.lock, self._posts:
            chunk = _read(tail.path, tail.offset) if tail.offset >= 0 else b""
            try:
                kept = await self.client.call(
                    "POST",
                    f"/v1/site/runs/{tail.run}/log",
                    LogKept,
                    body=chunk,
                    params={"node": tail.node, "offset": max(tail.offset, 0)},
                    key=None,
                    total_s=POST_S,
                )
            except TielineError as error:
                if error.transient or error.code in ("unauthenticated", "forbidden"):
                    return False
                log.warning("a log is not wanted", extra={"run": tail.run, "code": error.code, "why": error.message})
                tail.is_over = True
                return True
        tail.backoff.reset()
        tail.last_s = asyncio.get_running_loop().time()
        is_stuck = bool(chunk) and kept.offset <= tail.offset
        tail.is_over = kept.is_full or is_stuck or kept.offset > _size(tail.path)
        tail.offset = kept.offset
        return True


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size  # noqa: PTH116 - twenty times a second
    return 0


def _read(path: str, offset: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, CHUNK_BYTES, offset)
    finally:
        os.close(descriptor)
