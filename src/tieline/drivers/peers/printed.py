"""Printed: what our runs print behind one peer, brought into our own log store while they print it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.federation import Host
from tieline.model.error import TielineError
from tieline.model.job import RunState
from tieline.model.peerlog import MOST_LOGS, LogMark, LogPieces, LogsWanted

WAIT_MS = 1_000  # a new run's log is asked for as soon as the last question is over
PAUSE_S = 0.25  # while no run prints anything
ANSWER_S = 30.0
MOST_BACKOFF_S = 15.0
MOST_FULL = 100_000  # logs that are remembered as full


class Printed:
    """The logs of one peer's runs, by node, each from the offset that is kept here."""

    def __init__(self, host: Host, peer: str, client: PeerClient) -> None:
        self.host, self.peer, self.client = host, peer, client
        self._full: dict[tuple[str, int], None] = {}  # logs that we keep no more of

    async def follow(self) -> None:
        """Follow what they print, in turn where there are more than one question takes. Ends when it is cancelled."""
        at, wait_s = 0, PAUSE_S
        while True:
            marks = [mark for mark in self._marks() if (mark.run, mark.node) not in self._full]
            if not marks:
                await asyncio.sleep(PAUSE_S)
                continue
            at = at % len(marks)
            asked, at = marks[at : at + MOST_LOGS], at + MOST_LOGS
            try:
                is_more = await self._pull([await self._known(mark) for mark in asked], WAIT_MS)
                wait_s = 0.0 if is_more else PAUSE_S
            except TielineError:
                wait_s = min(MOST_BACKOFF_S, max(PAUSE_S, 2 * wait_s))
            await asyncio.sleep(wait_s)

    async def drain(self, run: str, most: int) -> bool:
        """The rest of a run's logs, before its end is taken; False when that takes more than ``most`` questions.

        Raises TielineError to be tried again.
        """
        view = self.host.view
        found = view.runs.get(run)
        job = view.jobs.peek(found.job) if found is not None else None
        if found is None or job is None:
            return True
        for node in range(job.task.nodes):
            while (run, node) not in self._full:
                mark = await self._known(LogMark(run=run, node=node))
                most -= 1
                if not await self._pull([mark], 0):
                    break
                if most <= 0:
                    return False
        return True

    def _marks(self) -> Iterator[LogMark]:
        view = self.host.view
        for name in list(view.runs_at.get(self.peer, ())):
            run = view.runs.get(name)
            job = view.jobs.peek(run.job) if run is not None else None
            if run is None or job is None or run.state is not RunState.RUNNING:
                continue
            for node in range(job.task.nodes):
                yield LogMark(run=name, node=node)

    async def _known(self, mark: LogMark) -> LogMark:
        return msgspec.structs.replace(mark, offset=await self.host.logs.size(mark.run, mark.node))

    async def _pull(self, marks: list[LogMark], wait_ms: int) -> bool:
        """Ask once; whether anything came. Raises TielineError."""
        asked = {(mark.run, mark.node): mark.offset for mark in marks}
        found = await self.client.call(
            "POST",
            "/v1/peer/logs",
            LogPieces,
            body=LogsWanted(logs=tuple(marks), wait_ms=wait_ms),
            key=None,
            total_s=wait_ms / 1000 + ANSWER_S,
        )
        for piece in found.pieces:
            key = (piece.run, piece.node)
            if asked.pop(key, -1) != piece.offset:
                continue  # not what was asked
            if piece.data:
                kept = await self.host.keep_log(piece.run, piece.node, piece.offset, piece.data)
                is_full = kept.is_full or kept.offset <= piece.offset
            else:
                is_full = False
            if is_full or piece.is_over:
                self._full[key] = None
                if len(self._full) > MOST_FULL:
                    self._full.pop(next(iter(self._full)))
        return any(piece.data for piece in found.pieces)
