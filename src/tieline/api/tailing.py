"""Tail: what was stored, told at once to whoever follows the logs, with the records themselves.

::

    hub --entries--> which logs grew --> one read of what is new --> lines, remembered for a while --> every listener

It costs nothing while nobody listens. A line says from which serial to which a log grew, so a listener that missed one
sees it and asks; what is told here is never more than a short cut.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tieline.drivers.stores.draft import Committed
from tieline.model import event as fact
from tieline.model.error import TielineError
from tieline.registry.serving import TailLine, tail_line

if TYPE_CHECKING:
    from tieline.api.platform import Platform

NAME = "tail"  # what listeners wait for at the hub
MOST_LINES = 4_096
MOST_BYTES = 32 * 2**20  # of the records in the lines that are remembered
MOST_TOLD = 500  # records of one line; beyond it is a hint
HEADS = 1_000


class LateError(Exception):
    """A listener fell so far behind that lines were forgotten."""


class Tail:
    """One for each exchange process, on its loop."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.listeners = 0
        self.lines: deque[tuple[int, TailLine]] = deque()
        self.count = 0  # of lines since `run`
        self.run = ""  # names the count: a cursor of another run cannot be resumed
        self._bytes = 0
        self._serials: dict[str, int] = {}  # prefix -> up to which serial was told
        self._grown: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    def note(self, entries: Sequence[Committed]) -> None:
        """What was committed: called on the loop, in order."""
        if self._task is None and not self._opening.locked():
            return
        for entry in entries:
            event = entry.event
            if isinstance(event, fact.RecordStored):
                self._grown[event.id.partition("/")[0]] = None
            elif isinstance(event, fact.RecordsTaken):
                if event.page:
                    self._grown[event.cursor.prefix] = None
            elif isinstance(event, fact.SessionRenewed):
                self._end()
        if self._grown:
            self._wake.set()

    async def open(self, cursor: str) -> int:
        """Listen from ``cursor`` (of an earlier answer), or from now on. Raises TielineError `invalid_cursor`."""
        async with self._opening:
            if self._task is None:
                await self._begin()
        run, _, number = cursor.partition("-")
        at = self.count
        if cursor:
            oldest = self.lines[0][0] - 1 if self.lines else self.count
            at = int(number) if number.isdecimal() and len(number) <= 16 else -1
            if run != self.run or not oldest <= at <= self.count:
                self._rest()
                raise TielineError(
                    "invalid_cursor",
                    f"`{cursor[:40]}` cannot be resumed from: compare the logs and listen anew",
                    where="after",
                )
        return at

    def enter(self) -> None:
        """A listener is here; it says when it leaves."""
        self.listeners += 1

    def leave(self) -> None:
        """A listener has gone; the last one ends the reading."""
        self.listeners -= 1
        self._rest()

    def close(self) -> None:
        """The process ends."""
        self._end()

    def name(self, number: int) -> str:
        """The cursor that stands for a line."""
        return f"{self.run}-{number}"

    async def take(self, after: int, timeout_s: float) -> list[tuple[int, TailLine]]:
        """Lines after that number, waiting up to ``timeout_s`` for the first. Raises LateError."""
        if self._task is None:
            raise LateError
        if after >= self.count:
            with self.platform.hub.waiting(NAME) as more:
                await self.platform.within(more, timeout_s)
        if self._task is None or (self.lines and self.lines[0][0] > after + 1):
            raise LateError
        return [each for each in self.lines if each[0] > after] if self.count > after else []

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Note where every log ends now, and tell what comes after that."""
        self.run, self.count = secrets.token_hex(4), 0
        self.lines.clear()
        self._bytes = 0
        self._grown.clear()
        self._serials = {}
        after = ""
        while True:
            heads = await self.platform.read(self.platform.archive.logs, after, HEADS)
            self._serials.update({head.prefix: head.serial for head in heads})
            if len(heads) < HEADS:
                break
            after = heads[-1].prefix
        self._task = asyncio.create_task(self._read())

    def _rest(self) -> None:
        """Read no more while nobody listens."""
        if not self.listeners:
            self._end()

    def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self.platform.hub.tell(NAME)

    async def _read(self) -> None:
        while True:
            await self._wake.wait()
            if not self.listeners:  # it was opened, and its listener never came
                self._end()
            self._wake.clear()
            grown, self._grown = self._grown, {}
            for prefix in grown:
                await self._read_log(prefix)
            self.platform.hub.tell(NAME)

    async def _read_log(self, prefix: str) -> None:
        archive, after = self.platform.archive, self._serials.get(prefix, 0)
        session = self.platform.exchange.session
        rows = await self.platform.read(archive.delta, prefix, after, MOST_TOLD + 1)
        if not rows:
            return
        if len(rows) > MOST_TOLD:
            head = await self.platform.read(archive.log, prefix)
            serial = head.serial if head is not None else rows[-1].serial
            line = tail_line(session, prefix, after, serial, ())
        else:
            serial = rows[-1].serial
            line = tail_line(session, prefix, after, serial, [row.envelope for row in rows])
        self._serials[prefix] = serial
        self.count += 1
        self.lines.append((self.count, line))
        self._bytes += len(line.body)
        while len(self.lines) > MOST_LINES or (self._bytes > MOST_BYTES and len(self.lines) > 1):
            self._bytes -= len(self.lines.popleft()[1].body)
