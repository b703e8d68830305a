"""Moving: all chunks of a source to a target, over one or several paths, hashed at the end.

Workers take the first chunk that is missing; each belongs to a lane, whose bucket it pays. A chunk whose connection
broke goes on at the byte where it broke. The whole is hashed in order beside that: from memory where chunks come in
turn, from the target where they do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from tieline.drivers.http.backoff import Backoff
from tieline.drivers.mover.ends import About, Division, Job, Source, Target, key_of
from tieline.drivers.mover.pacing import Lane, LaneOverError, LanePausedError, steady_clock
from tieline.drivers.mover.progress import Meter, Progress
from tieline.model.error import TielineError

CHUNK_BYTES = 4 * 2**20  # at most, where the whole is not enormous
LEAST_CHUNK_BYTES = 2**18
FEW_CHUNKS = 256  # smaller files have smaller chunks: all streams work, and a cut costs less
MOST_CHUNKS = 1_000_000
MOST_STREAMS = 64
MOST_CHUNK_BYTES = 2**30  # 10,000 parts of S3 reach its largest object
MOST_FLYING_BYTES = 2**30  # of all chunks that come at once, where there are several
LOOK_S = 0.5
LOOK_TRIES = 4  # at what a source says of itself
SLOWEST_BPS = 8 * 1_024  # a peer that sends less for `stall_s` has stalled
MOST_WAIT_S = 15.0
PROGRESS_BYTES = 2**14  # a connection that brought so much, and did not stall, counts as none in vain


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a move is done."""

    streams: int = 4  # connections at once, over all lanes
    chunk_bytes: int = CHUNK_BYTES
    sha256: str = ""  # what the whole must be; empty: whatever the source has
    limit_bytes: int = 0  # a larger source is refused; 0: none is
    stall_s: float = 30.0
    tries: int = 8  # connections in a row that brought nothing
    booking: str = ""  # that it is done for


class PathMoved(msgspec.Struct, frozen=True, kw_only=True):
    """What went over one path."""

    path: tuple[str, ...]
    moved_bytes: int
    is_bound: bool  # its packets were led there; otherwise it was only paced


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What was moved."""

    source: str
    target: str
    size_bytes: int
    sha256: str
    moved_bytes: int  # by this try
    resumed_bytes: int  # were there from earlier tries
    retry_count: int
    begun_ms: int
    ended_ms: int
    goodput_bps: int
    paths: tuple[PathMoved, ...] = ()


async def move(
    source: Source,
    target: Target,
    terms: Terms,
    lanes: Sequence[Lane] = (),
    told: Callable[[Progress], None] = lambda _: None,
) -> Moved:
    """Move everything. May be called again after any failure: what is there is not moved again.

    Raises TielineError: `conflict` when the source changed or the booked time is over, `check_failed` for other bytes
    than promised, `storage_full`, `too_large`, and what the ends refuse. Then nothing is seen at the target.
    """
    work = _Work(source, target, terms, tuple(lanes) or (Lane(),), told)
    try:
        return await work.run()
    finally:
        with contextlib.suppress(TielineError, OSError):
            await target.close()
        with contextlib.suppress(TielineError, OSError):
            await source.close()


@dataclass
class _Work:
    source: Source
    target: Target
    terms: Terms
    lanes: tuple[Lane, ...]
    told: Callable[[Progress], None]
    about: About = field(default_factory=lambda: About(0))
    division: Division = field(default_factory=lambda: Division(0, 1))
    kept: dict[int, str] = field(default_factory=dict)  # chunks that an earlier try put
    todo: list[int] = field(default_factory=list)  # a heap
    begun: dict[int, bytearray] = field(default_factory=dict)  # of chunks whose lane paused
    flying: dict[int, int] = field(default_factory=dict)  # chunk -> bytes that arrived
    streams: int = 1
    done_bytes: int = 0
    retry_count: int = 0
    ready: dict[int, bytes | None] = field(default_factory=dict)  # put, not hashed yet; None: read it from the target
    hashed: int = 0  # chunks
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> Moved:
        await self._begin()
        now = steady_clock()
        began_s = now()
        resumed = sum(self._size(index) for index in self.kept)
        meter = Meter(self.division.size_bytes, resumed, began_s)
        looks = asyncio.create_task(self._look(meter, now))
        try:
            digest = await self._carry()
            await self._check(digest)
            await self.target.finish(digest)
        finally:
            looks.cancel()
            await asyncio.gather(looks, return_exceptions=True)
        ended_s = now()
        self.told(meter.look(ended_s, self.done_bytes, self.done_bytes))
        return Moved(
            source=self.source.name,
            target=self.target.name,
            size_bytes=self.division.size_bytes,
            sha256=digest,
            moved_bytes=self.done_bytes,
            resumed_bytes=resumed,
            retry_count=self.retry_count,
            begun_ms=int(began_s * 1_000),
            ended_ms=int(ended_s * 1_000),
            goodput_bps=int(self.done_bytes * 8 / max(0.001, ended_s - began_s)),
            paths=tuple(
                PathMoved(path=lane.path, moved_bytes=lane.moved_bytes, is_bound=lane.is_bound) for lane in self.lanes
            ),
        )

    async def _begin(self) -> None:
        about = self.about = await self._asked()
        size, limit = about.size_bytes, self.terms.limit_bytes
        if limit and size > limit:
            raise TielineError("too_large", f"`{self.source.name}` has {size:,} bytes, over {limit:,}")
        expected = self.terms.sha256
        if expected and about.sha256 and expected != about.sha256:
            raise TielineError("check_failed", f"`{self.source.name}` is sha256 {about.sha256}, not {expected}")
        self.division = Division(size, about.chunk_bytes or self._chunk_bytes(size))
        if self.division.chunk_bytes > MOST_CHUNK_BYTES:  # each is held in memory
            raise TielineError(
                "too_large",
                f"`{self.source.name}` says that it has {size:,} bytes, which would come in chunks of "
                f"{self.division.chunk_bytes:,}, over {MOST_CHUNK_BYTES:,}",
            )
        self.streams = max(1, min(self.terms.streams, MOST_STREAMS, MOST_FLYING_BYTES // self.division.chunk_bytes))
        key = key_of(self.source.name, about, expected, self.division)
        self.kept = dict(await self.target.open(Job(key, self.division, self.terms.booking)))
        if self.target.is_readable:
            self.todo = [index for index in range(self.division.chunk_count) if index not in self.kept]
            self.ready = dict.fromkeys(self.kept)
        else:
            self.todo = list(range(self.division.chunk_count))

    def _chunk_bytes(self, size: int) -> int:
        """Chunks by the size of the whole alone, so that a later try at another rate finds those of an earlier one."""
        most = max(self.terms.chunk_bytes, -(-size // MOST_CHUNKS))
        return self.target.chunk_bytes(size, min(most, max(LEAST_CHUNK_BYTES, size // FEW_CHUNKS)))

    async def _carry(self) -> str:
        """Move and hash every chunk; the sha256 of the whole."""
        streams = self.streams if self.about.is_ranged else 1
        lanes = self.lanes if self.about.is_ranged else self.lanes[:1]
        share = max(1, streams // len(lanes))
        try:
            async with asyncio.TaskGroup() as group:
                hashing = group.create_task(self._hash())
                workers = [group.create_task(self._worker(lane)) for lane in lanes for _ in range(share)]
                hashing.add_done_callback(lambda _: [worker.cancel() for worker in workers])  # some may wait for a path
                await asyncio.wait(workers)
                if self.todo or self.flying:
                    raise self._late()
        except* (
            TielineError,
            OSError,
            ValueError,
        ) as errors:  # the last: of libraries, for what they take for an address
            raise _first(errors) from None
        return hashing.result()

    def _late(self) -> TielineError:
        left = self.division.size_bytes - self.done_bytes - sum(self._size(index) for index in self.kept)
        return TielineError(
            "conflict",
            f"the booked time is over and {left:,} of {self.division.size_bytes:,} bytes have not moved",
            hints=("tieline transfer order  # book the rest; what moved is kept and not moved again",),
        )

    # -- workers ------------------------------------------------------------------------------------------------------

    async def _worker(self, lane: Lane) -> None:
        try:
            while True:
                await lane.until_open()
                index = await self._next()
                if index is None:
                    return
                try:
                    chunk = await self._fetch(index, lane)
                except LanePausedError:
                    await self._give_back(index)
                    continue
                except LaneOverError:
                    await self._give_back(index)
                    raise
                await self._keep(index, chunk)
        except LaneOverError:
            async with self.changed:
                self.changed.notify_all()

    async def _next(self) -> int | None:
        """The first chunk that nobody has; None when there is none any more.

        Chunks that must be hashed from memory are not fetched further ahead than a few.
        """
        window = 2 * self.streams + 2
        async with self.changed:
            while True:
                if self.todo and (self.target.is_readable or self.todo[0] < self.hashed + window):
                    index = heapq.heappop(self.todo)
                    self.flying[index] = 0
                    return index
                if not self.todo and not self.flying:
                    return None
                await self.changed.wait()

    async def _give_back(self, index: int) -> None:
        async with self.changed:
            heapq.heappush(self.todo, index)
            self.flying.pop(index, None)
            self.changed.notify_all()

    async def _keep(self, index: int, chunk: bytes) -> None:
        digest = await asyncio.to_thread(lambda: hashlib.sha256(chunk).hexdigest())
        before = self.kept.get(index)
        if before is not None and before != digest:
            await self.target.drop()
            raise TielineError("conflict", f"`{self.source.name}` is not what an earlier try moved; start anew")
        if before is None and not self.target.is_ordered:
            await self.target.put(index, chunk, digest)
        async with self.changed:
            if before is None:
                self.done_bytes += len(chunk)
            self.flying.pop(index, None)
            is_near = not self.target.is_readable or index < self.hashed + self.streams
            self.ready[index] = chunk if is_near else None
            self.changed.notify_all()

    # -- one chunk ----------------------------------------------------------------------------------------------------

    async def _fetch(self, index: int, lane: Lane) -> bytes:
        start, end = self.division.span(index)
        stated = self.about.chunks[index] if index < len(self.about.chunks) else ""
        tries, waits = self.terms.tries, Backoff(first_s=0.2, most_s=MOST_WAIT_S)
        while True:
            buffer = self.begun.pop(index, None) or bytearray()
            had = len(buffer)
            try:
                await self._fill(buffer, start, end, lane, index)
                if not stated or hashlib.sha256(buffer).hexdigest() == stated:
                    return bytes(buffer)
                buffer.clear()
                raise _WrongChunkError("check_failed", f"chunk {index} is not sha256 {stated}")
            except (LanePausedError, LaneOverError):
                self.begun[index] = buffer
                raise
            except TielineError as error:
                if not error.transient and not isinstance(error, _WrongChunkError):
                    raise
                self.begun[index] = buffer
                brought = len(buffer) - had
                if brought >= min(PROGRESS_BYTES, end - start - had) and error.code != "timeout":
                    tries = self.terms.tries
                    waits.reset()
                tries -= 1
                self.retry_count += 1
                if tries <= 0:
                    raise
            await asyncio.sleep(waits.next_s())

    async def _fill(self, buffer: bytearray, start: int, end: int, lane: Lane, index: int) -> None:
        """Read what is missing of a chunk. Raises TielineError, `timeout` when the peer stalls."""
        loop = asyncio.get_running_loop()
        waited_s, arrived = 0.0, 0
        async with contextlib.aclosing(self.source.read(self.about, start + len(buffer), end, lane)) as pieces:
            while len(buffer) < end - start:
                began = loop.time()
                try:
                    async with asyncio.timeout(self.terms.stall_s):
                        piece = await anext(pieces, b"")
                except TimeoutError:
                    raise self._stalled() from None
                if not piece:
                    raise TielineError("exchange_unreachable", f"`{self.source.name}` ended before its last byte")
                waited_s, arrived = waited_s + loop.time() - began, arrived + len(piece)
                if waited_s > self.terms.stall_s:
                    if arrived * 8 < waited_s * SLOWEST_BPS:
                        raise self._stalled()
                    waited_s, arrived = 0.0, 0
                buffer += piece[: end - start - len(buffer)]
                self.flying[index] = len(buffer)
                await lane.pay(len(piece))

    def _stalled(self) -> TielineError:
        return TielineError("timeout", f"`{self.source.name}` sent next to nothing for {self.terms.stall_s:g} s")

    # -- the whole ----------------------------------------------------------------------------------------------------

    async def _hash(self) -> str:
        """Hash the chunks in order; put them too, where the target wants them so."""
        whole = hashlib.sha256()
        count = self.division.chunk_count
        for index in range(count):
            async with self.changed:
                await self.changed.wait_for(lambda: index in self.ready)  # noqa: B023 - waited for here
                chunk = self.ready.pop(index)
            if chunk is None:
                chunk = await self.target.read(index)
            await asyncio.to_thread(whole.update, chunk)
            if self.target.is_ordered:
                if index == count - 1:  # whoever gets the last chunk has the whole: it is checked before
                    await self._check(whole.hexdigest())
                await self.target.put(index, chunk, "")
            async with self.changed:
                self.hashed = index + 1
                self.changed.notify_all()
        return whole.hexdigest()

    async def _check(self, digest: str) -> None:
        """The whole is what was promised, and the source still is what it was."""
        expected = self.terms.sha256 or self.about.sha256
        if expected and digest != expected:
            await self.target.drop()
            raise TielineError("check_failed", f"other bytes arrived: sha256 {digest}, not {expected}; nothing is kept")
        now = await self._asked()
        if (now.size_bytes, now.tag) != (self.about.size_bytes, self.about.tag):
            await self.target.drop()
            raise TielineError("conflict", f"`{self.source.name}` changed while it was moved")

    async def _asked(self) -> About:
        """What the source says of itself, however often that must be asked."""
        waits = Backoff(first_s=0.2, most_s=MOST_WAIT_S)
        for left in range(min(self.terms.tries, LOOK_TRIES) - 1, -1, -1):
            try:
                async with asyncio.timeout(self.terms.stall_s):
                    return await self.source.about()
            except TimeoutError:
                if not left:
                    raise self._stalled() from None
            except TielineError as error:
                if not error.transient or not left:
                    raise
            await asyncio.sleep(waits.next_s())
        raise AssertionError("tries are at least one")

    async def _look(self, meter: Meter, now: Callable[[], float]) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            flying = sum(count for index, count in self.flying.items() if index not in self.kept)
            paid = max(0, flying - sum(lane.owed_bytes for lane in self.lanes))
            self.told(meter.look(now(), self.done_bytes + paid, self.done_bytes))

    def _size(self, index: int) -> int:
        start, end = self.division.span(index)
        return end - start


class _WrongChunkError(TielineError):
    """A chunk came as other bytes than its name says: another try may bring the right ones."""


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the others."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
