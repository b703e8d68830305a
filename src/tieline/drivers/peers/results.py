"""Results: the bytes that a peer's reports name, brought here before the reports are taken.

::

    a report  --> little, and there at once --> taken in its turn
              '-> much, slow or cut --> late: two lanes fetch it beside everything else --> taken by itself

A download goes on where it was cut. What the peer refuses to give, does not give in `MOST_TRIES` tries although it
answers otherwise, or has no share of the blobs here left for, is left out. While a peer is silent no try counts, until
its runs are given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec

from tieline.drivers.http.backoff import Backoff
from tieline.drivers.http.resume import resumed
from tieline.drivers.peers.acting import told_by
from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.federation import Host
from tieline.drivers.peers.printed import Printed
from tieline.drivers.stores.senders import ROOM
from tieline.exchange.branches import SHA256, clean
from tieline.exchange.commands import TakePeerReports
from tieline.model.error import TielineError
from tieline.model.job import Output
from tieline.model.peer import Peer
from tieline.model.protocol import CheckpointKept, Ended, Outcome, PeerReport

MOST_TRIES = 40  # of the bytes of one report that bring nothing; then its end is taken without them
MOST_WAIT_S = 15.0
LITTLE_BYTES, LITTLE_FILES, LITTLE_PIECES = 2**20, 8, 4  # of one report: fetched while the others wait
LITTLE_S = 5.0
LANES = 2  # reports of one peer whose bytes are fetched beside everything else
MOST_LATE = 1_000  # runs whose reports wait for that; with more, all reports wait
MOST_BEHIND = 16  # reports of one run that wait; beyond it a checkpoint gives way to those after it
MOST_SIZES = 4  # bytes of one report's files, in largest blobs
MOST_PIECES = 100_000  # of one run's logs

Told = Callable[[tuple[Outcome, ...]], None]


class Results:
    """The bytes of one peer's reports, in one life of the line to it."""

    def __init__(self, host: Host, peer: Peer, client: PeerClient, printed: Printed) -> None:
        self.host, self.peer, self.client, self.printed = host, peer, client, printed
        self.is_heard = True  # the peer answered when it was asked last
        self._late: dict[str, list[PeerReport]] = {}  # by run: reports that wait for their bytes, in order
        self._waking: asyncio.Queue[str] = asyncio.Queue()  # runs whose reports began to wait
        self._room = asyncio.Event()  # for more of them

    async def is_late(self, said: PeerReport) -> bool:
        """Whether a report has to wait for its bytes. What is little is fetched at once."""
        while len(self._late) >= MOST_LATE:
            self._room.clear()
            await self._room.wait()
        run = self._ours(said)
        if run is None:
            return False
        if run not in self._late and await self._is_here(run, said):
            return False
        waiting = self._late.setdefault(run, [])
        if not waiting:
            self._waking.put_nowait(run)
        if all(each.report != said.report for each in waiting):
            waiting.append(msgspec.structs.replace(said, serial=0))
        if len(waiting) > MOST_BEHIND:
            del waiting[1]  # the first is being fetched
        return True

    async def lane(self, told: Told) -> None:
        """Fetch what is late, a run at a time, its reports in order; ``told`` hears what became of them. Never ends."""
        while True:
            run = await self._waking.get()
            waiting = self._late[run]
            while waiting:
                await self._bring(run, waiting[0])
                told(await self._taken(waiting[0]))
                del waiting[0]
            del self._late[run]
            self._room.set()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _ours(self, said: PeerReport) -> str | None:
        """The run that a report is about, if it is one that we placed there and bytes may come with it."""
        name = getattr(said.report, "run", "")
        run = self.host.view.runs.get(name)
        has_bytes = isinstance(said.report, Ended | CheckpointKept)
        return name if run is not None and run.via == self.peer.id and has_bytes else None

    async def _is_here(self, run: str, said: PeerReport) -> bool:
        """Whether everything that a report names is here now, or will never be."""
        try:
            async with asyncio.timeout(LITTLE_S):
                return await self._brought(run, said, is_little=True)
        except TimeoutError:
            return False
        except TielineError as error:
            return not error.transient

    async def _bring(self, run: str, said: PeerReport) -> None:
        """Fetch what a report names; what cannot be had is left out."""
        waits, left = Backoff(first_s=0.5, most_s=MOST_WAIT_S), MOST_TRIES
        while left > 0:
            try:
                await self._brought(run, said)
            except TielineError as error:
                if not error.transient:
                    return
                left -= self._counts(run)
                await asyncio.sleep(waits.next_s())
            else:
                return

    def _counts(self, run: str) -> bool:
        """Whether a try in vain counts."""
        return self.is_heard or run not in self.host.view.runs

    async def _taken(self, said: PeerReport) -> tuple[Outcome, ...]:
        """What is answered to a late report; nothing once its run is given up."""
        waits = Backoff(first_s=0.5, most_s=MOST_WAIT_S)
        while True:
            command = TakePeerReports(actor=told_by(self.peer), peer=self.peer.id, reports=(said,))
            try:
                found: tuple[Outcome, ...] = await self.host.ask(command)
            except TielineError:  # also while there is proof against the peer: an admin may clear it
                if self._ours(said) is None:
                    return ()
                await asyncio.sleep(waits.next_s())
            else:
                return found

    async def _brought(self, run: str, said: PeerReport, *, is_little: bool = False) -> bool:
        """Bring here what a report names. ``is_little``: unless that is much; False then, and no file is fetched.

        Raises TielineError to be tried again.
        """
        report = clean(said.report)
        left_bytes, files = MOST_SIZES * self.host.view.limits.blob_bytes, list[Output]()
        for file in files_of(report):
            if file.size_bytes <= left_bytes and not await self.host.blobs.has(file.sha256):
                left_bytes -= file.size_bytes
                files.append(file)
        if is_little and (len(files) > LITTLE_FILES or sum(file.size_bytes for file in files) > LITTLE_BYTES):
            return False
        for file in files:
            await self._get(run, file, tries=1 if is_little else MOST_TRIES)
        if not isinstance(report, Ended):
            return True
        return await self.printed.drain(run, LITTLE_PIECES if is_little else MOST_PIECES)

    async def _get(self, run: str, file: Output, tries: int) -> None:
        """Fetch one file, going on where it was cut. One that the peer does not give, or not as named, is left out.

        Raises TielineError when a single try was in vain.
        """
        limit_bytes = min(file.size_bytes, self.host.view.limits.blob_bytes) or 1
        chunks = resumed(
            self.client,
            f"/v1/peer/blobs/{file.sha256}",
            file.sha256,
            limit_bytes=limit_bytes,
            params={"run": run},
            tries=tries,
            counts=lambda: tries == 1 or self._counts(run),
        )
        try:
            async with contextlib.aclosing(chunks):
                await self.host.blobs.write(_hashed(chunks, file.sha256), limit_bytes, self.peer.id)
        except TielineError as error:
            if error.reasons and error.reasons[0].code == ROOM:
                self.client.tally.reject(ROOM)
            if error.transient and tries == 1:
                raise


def files_of(report: object) -> Iterator[Output]:
    """The files that a report names: of a checkpoint, and of an end."""
    if isinstance(report, CheckpointKept) and SHA256.fullmatch(report.sha256):
        yield Output(path="", sha256=report.sha256, size_bytes=report.size_bytes)
    elif isinstance(report, Ended):
        yield from report.outputs


async def _hashed(chunks: AsyncIterator[bytes], sha256: str) -> AsyncIterator[bytes]:
    hasher = hashlib.sha256()
    async for chunk in chunks:
        hasher.update(chunk)
        yield chunk
    if hasher.hexdigest() != sha256:
        raise TielineError("check_failed", f"these are not the bytes of `{sha256}`")
