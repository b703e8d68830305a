"""Body: bytes that are sent as one request while they still arrive, and targets that are written so."""

# ruff: noqa: ARG002 - one protocol for all ends

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tieline.drivers.mover.ends import Division, Job
from tieline.model.error import TielineError

PIECE_BYTES = 2**16
STALL_S = 30.0  # so long the other side may take nothing of a body
ANSWER_S = 600.0  # and so long it may think about the whole


class OrderedBody:
    """A request body that is fed chunk by chunk while the request is under way."""

    def __init__(self) -> None:
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._sending: asyncio.Task[None] | None = None
        self._taken_s = 0.0  # when the other side last took something

    def begin(self, division: Division, send: Any) -> None:
        """Start ``send(chunks, division)``."""
        self._sending = asyncio.create_task(send(self._fed(), division))

    async def put(self, chunk: bytes | None) -> None:
        """Feed one chunk. Raises what the request raised, and `timeout` once nothing is taken for `STALL_S`."""
        assert self._sending is not None
        loop = asyncio.get_running_loop()
        self._taken_s = loop.time()
        putting = asyncio.ensure_future(self._chunks.put(chunk))
        waiting = {putting, self._sending}
        try:
            while not (await asyncio.wait(waiting, timeout=STALL_S / 8, return_when=asyncio.FIRST_COMPLETED))[0]:
                if loop.time() - self._taken_s > STALL_S:
                    raise TielineError("timeout", f"the other side took nothing for {STALL_S:g} s")
        finally:
            putting.cancel()
            await asyncio.gather(putting, return_exceptions=True)
        if self._sending.done() and chunk is not None:
            self._sending.result()
            raise TielineError("check_failed", "the other side answered before it had everything")

    async def end(self) -> None:
        """No more is to come; wait for the answer. Raises what the request raised."""
        await self.put(None)
        assert self._sending is not None
        done, _ = await asyncio.wait({self._sending}, timeout=ANSWER_S)
        if not done:
            raise TielineError("timeout", f"the other side has everything and did not answer for {ANSWER_S:g} s")
        self._sending.result()

    async def cut(self) -> None:
        """Break the request off, unless it is done."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    async def _fed(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while (chunk := await self._chunks.get()) is not None:
            for start in range(0, len(chunk), PIECE_BYTES):
                yield chunk[start : start + PIECE_BYTES]
                self._taken_s = loop.time()


class OrderedTarget:
    """A target that is one request: its chunks go in order, and nothing of what was sent can be read again."""

    is_ordered = True
    is_readable = False
    own_bytes = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self._body = OrderedBody()

    def chunk_bytes(self, size_bytes: int, wished: int) -> int:
        """As `Target`."""
        return wished

    async def open(self, job: Job) -> Mapping[int, str]:
        """As `Target`."""
        self._body.begin(job.division, self._send)
        return {}

    async def put(self, index: int, chunk: bytes, sha256: str) -> None:
        """As `Target`."""
        await self._body.put(chunk)

    async def read(self, index: int) -> bytes:
        """As `Target`."""
        raise AssertionError("what was sent cannot be read")

    async def finish(self, sha256: str) -> None:
        """As `Target`."""
        await self._body.end()

    async def drop(self) -> None:
        """As `Target`."""
        await self._body.cut()

    async def close(self) -> None:
        """As `Target`."""
        await self._body.cut()

    async def _send(self, chunks: AsyncIterator[bytes], division: Division) -> None:
        """The request with all of its body, up to the answer."""
        raise NotImplementedError
