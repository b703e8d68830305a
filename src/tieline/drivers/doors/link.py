"""Link: many connections between two sites over one WebSocket, whoever dialled it; either end may begin one.

::

    message   sealed box of one frame: secretbox under the link's key, nonce = direction and count
    frame     one byte that says what (`Kind`), four of the connection's number, then the rest
    OPEN      rank and port of the node that is wanted; bytes may follow at once, as far as the first window goes
    DATA, END bytes, and no more of them from this side; the other direction goes on
    GRANT     so many more bytes may be sent: what the reader has taken, and a larger window where it keeps up; 0: all
              of this connection has come, its END too
    RESET     the connection broke, was refused, or nobody listened in time

The reader never waits for a node: what is sent without a grant ends the link. So one slow node holds up nobody else,
and a node that computes for minutes does not look like a link that broke. Whoever carries the messages, such as the
relay, sees neither bytes nor which connection they belong to, and cannot change any.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

from nacl.bindings import crypto_secretbox, crypto_secretbox_open
from nacl.exceptions import CryptoError

from tieline.drivers.http.hangup import hang_up

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse, web

    Stream = ClientWebSocketResponse | web.WebSocketResponse

log = logging.getLogger("tieline.site")
HEAD = struct.Struct(">BI")
WHERE = struct.Struct(">IH")
COUNT = struct.Struct(">I")
PIECE_BYTES = 32_768
FRAME_BYTES = HEAD.size + PIECE_BYTES
MESSAGE_BYTES = FRAME_BYTES + 16  # the tag of a sealed box
WINDOW_BYTES = 131_072  # of a new connection
WINDOW_MOST_BYTES = 4 * 2**20  # of one whose reader keeps up
SPARE_BYTES = 64 * 2**20  # that windows of one link may grow by, together
SETTLE_S = 0.02
CHANNELS = 512  # of one link, that one end began
WAITING = 8 * CHANNELS  # messages that the other end has not made room for yet; four for each connection of both
Connect = Callable[[int, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Kind(IntEnum):
    """What a frame says."""

    OPEN = 0
    DATA = 1
    END = 2
    GRANT = 3
    RESET = 4


class Channel:
    """One connection: what may be sent, and what came and is not written yet."""

    __slots__ = (
        "coming", "credit", "has_ended", "has_said_end", "is_heard", "is_over", "is_parted", "moved", "news", "number",
        "owed", "room", "taken", "window", "writer",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.credit = WINDOW_BYTES  # that we may send
        self.room = asyncio.Event()
        self.window = WINDOW_BYTES  # that the other end may have sent before it is granted more
        self.owed = 0  # of it, used
        self.coming = bytearray()
        self.news = asyncio.Event()
        self.has_ended = False  # the other side sends no more
        self.has_said_end = False  # nor do we
        self.is_heard = False  # and the other end has all of it
        self.is_over = False  # reset, or the link is gone
        self.is_parted = False  # the link is gone, and all that the other side had to say is here
        self.moved = 0
        self.taken = 0  # by the node, and not granted again yet
        self.writer: asyncio.StreamWriter | None = None  # of the node that stands here

    def end(self) -> None:
        """It is over, whatever waits."""
        self.is_over = True
        self.room.set()
        self.news.set()
        if self.writer is not None:
            cut(self.writer)

    def part(self) -> None:
        """The link is gone: what is here is still given to the node, where it is all that there was."""
        if not self.has_ended:
            self.end()
        self.is_parted = True
        self.room.set()
        self.news.set()


class Link:
    """One end. ``key`` is known to both ends alone; ``connect`` reaches a node that stands here, or raises OSError."""

    def __init__(self, stream: Stream, key: bytes, *, is_caller: bool, connect: Connect) -> None:
        self.stream = stream
        self.key = key
        self.connect = connect
        self.channels: dict[int, Channel] = {}
        self.moved_bytes = 0  # of nodes, both ways
        self.is_over = False
        self.is_settling = False
        self.ended = asyncio.Event()
        self._mine, self._theirs = (0, 1) if is_caller else (1, 0)
        self._next = self._mine
        self._sent = self._heard = 0
        self._spare = SPARE_BYTES
        self._there = stream.get_extra_info("socket")
        self._waiting = 0  # messages that are not handed over yet
        self._tasks: dict[asyncio.Task[None], Channel] = {}

    async def run(self) -> None:
        """Hear what the other end says until it goes or says what nobody says; then everything here has ended."""
        from aiohttp import WSMsgType

        try:
            async for message in self.stream:
                if message.type is not WSMsgType.BINARY or len(message.data) > MESSAGE_BYTES:
                    break
                self._take(self._opened(message.data))
        except (CryptoError, struct.error, ValueError) as error:
            log.warning("a link is cut", extra={"why": str(error) or "what came is not sealed with its key"})
        finally:
            await self.close()

    async def close(self) -> None:
        """Use it no more. Connections break, but for those of which all is here: these end once their nodes have it."""
        self.is_over = True
        self.ended.set()
        for channel in list(self.channels.values()):
            channel.part()
        tasks = [task for task, channel in self._tasks.items() if channel.writer is None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await hang_up(self.stream, there=self._there)

    def cut(self) -> None:
        """Break what `close` left."""
        for channel in list(self.channels.values()):
            channel.end()

    async def settle(self, most_s: float) -> None:
        """Wait until the other end has all that nodes here, which have ended, had to say. Nothing new begins."""
        self.is_settling = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while not self.is_over and not all(each.is_heard for each in self.channels.values()):  # noqa: ASYNC110
                    await asyncio.sleep(SETTLE_S)  # at the end of a gang alone

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rank: int, port: int) -> None:
        """Carry a connection that was accepted here to a node that stands there, until both directions are over."""
        channel = Channel(self._next)
        self._next += 2
        self.channels[channel.number] = channel
        try:
            await self._send(Kind.OPEN, channel, WHERE.pack(rank, port))
        except OSError:
            channel.is_over = True
        await self._both(channel, reader, writer)

    # -- messages -----------------------------------------------------------------------------------------------------

    async def _send(self, kind: Kind, channel: Channel, rest: bytes = b"") -> None:
        if self.is_over:
            raise ConnectionResetError("the link is over")
        nonce = _nonce(self._mine, self._sent)
        self._sent += 1
        message = crypto_secretbox(HEAD.pack(kind, channel.number) + rest, nonce, self.key)
        # Tasks begin in the order in which they are made, which is that of the numbers. One of its own, since all who
        # wait for room in a stream wait for one thing, which ends for all of them where one of them is cancelled.
        self._waiting += 1
        await asyncio.shield(asyncio.create_task(self._given(message)))

    async def _given(self, message: bytes) -> None:
        try:
            await self.stream.send_bytes(message)
        finally:
            self._waiting -= 1

    def _opened(self, message: bytes) -> bytes:
        frame: bytes = crypto_secretbox_open(message, _nonce(self._theirs, self._heard), self.key)
        self._heard += 1
        return frame

    def _take(self, frame: bytes) -> None:
        kind, number = HEAD.unpack_from(frame)
        rest, channel = frame[HEAD.size :], self.channels.get(number)
        if kind > Kind.RESET:
            raise ValueError(f"frames of kind {kind} are not known")
        if self._waiting > WAITING:  # it asks and asks, and hears nothing
            raise ValueError(f"{self._waiting:,} messages wait for the other end")
        if kind == Kind.OPEN:
            self._begin(number, *WHERE.unpack(rest))
        elif channel is None:
            return  # it is over here, and the other end has not heard of that
        elif kind == Kind.DATA:
            channel.owed += len(rest)
            if channel.owed > channel.window or channel.has_ended or not rest:
                raise ValueError(f"{channel.owed:,} bytes came, {channel.window:,} were granted")
            channel.coming += rest
            channel.news.set()
        elif kind == Kind.END:
            if channel.has_ended:
                raise ValueError(f"connection {number} ends twice")
            channel.has_ended = True
            channel.news.set()
            self._begun(self._hear(channel), channel)
        elif kind == Kind.GRANT:
            (more,) = COUNT.unpack(rest)
            channel.credit = min(channel.credit + more, WINDOW_MOST_BYTES)
            channel.is_heard = channel.is_heard or not more
            channel.room.set()
        else:
            channel.end()

    def _begin(self, number: int, rank: int, port: int) -> None:
        if number % 2 != self._theirs or number in self.channels:
            raise ValueError(f"connection {number} is not theirs to begin")
        channel = Channel(number)
        self.channels[number] = channel
        is_full = self.is_settling or sum(each % 2 == self._theirs for each in self.channels) > CHANNELS
        self._begun(self._refuse(channel) if is_full else self._serve(channel, rank, port), channel)

    def _begun(self, work: Coroutine[Any, Any, None], channel: Channel) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = channel
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _hear(self, channel: Channel) -> None:
        with contextlib.suppress(OSError):
            await self._send(Kind.GRANT, channel, COUNT.pack(0))

    async def _refuse(self, channel: Channel) -> None:
        self.channels.pop(channel.number, None)
        with contextlib.suppress(OSError):
            await self._send(Kind.RESET, channel)

    async def _serve(self, channel: Channel, rank: int, port: int) -> None:
        """Connect to the node that is asked for, and carry on."""
        try:
            reader, writer = await self.connect(rank, port)
        except OSError:
            await self._refuse(channel)
            return
        await self._both(channel, reader, writer)

    # -- one connection -----------------------------------------------------------------------------------------------

    async def _both(self, channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_broken, channel.writer = True, writer
        try:
            if channel.is_over:
                _over()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._out(channel, reader))
                group.create_task(self._in(channel, writer))
            is_broken = False
        except* OSError:
            pass
        finally:
            self.channels.pop(channel.number, None)
            self._spare += channel.window - WINDOW_BYTES
            if channel.is_parted and not channel.is_over:
                writer.close()
            elif is_broken:
                cut(writer)
                if not channel.is_over:
                    with contextlib.suppress(OSError):
                        await self._send(Kind.RESET, channel)
            else:
                writer.close()

    async def _out(self, channel: Channel, reader: asyncio.StreamReader) -> None:
        """What the node here says."""
        while True:
            while not channel.credit and not channel.is_over and not channel.is_parted:
                channel.room.clear()
                await channel.room.wait()
            if channel.is_over:
                _over()
            if channel.is_parted:  # nobody hears what it says; what came is still being given to it
                channel.has_said_end = True
                channel.news.set()
                return
            data = await reader.read(min(PIECE_BYTES, channel.credit))
            try:
                await self._say(channel, data)
            except OSError:
                await self.ended.wait()  # then it is known whether what came is all
                if not channel.is_parted:
                    raise
            if not data and await self._is_heard(channel):
                return

    async def _say(self, channel: Channel, data: bytes) -> None:
        channel.credit -= len(data)
        self.moved_bytes += len(data)
        await self._send(Kind.DATA if data else Kind.END, channel, data)
        if not data:
            channel.has_said_end = True
            channel.news.set()

    async def _is_heard(self, channel: Channel) -> bool:
        """Wait until the other end has all that was said; False: the link is gone. Raises ConnectionError."""
        while not channel.is_heard and not channel.is_parted:
            if channel.is_over:
                _over()
            channel.room.clear()
            await channel.room.wait()
        return channel.is_heard

    async def _in(self, channel: Channel, writer: asyncio.StreamWriter) -> None:
        """What the node there says."""
        while True:
            while not channel.coming and not channel.has_ended and not channel.is_over:
                channel.news.clear()
                await channel.news.wait()
            if channel.is_over:
                _over()
            if not channel.coming:
                break
            data = bytes(channel.coming[:PIECE_BYTES])
            del channel.coming[: len(data)]
            writer.write(data)
            await writer.drain()
            self.moved_bytes += len(data)
            channel.moved += len(data)
            await self._grant(channel, len(data))
        writer.write_eof()
        while not channel.has_said_end:  # what else may come is that it broke
            if channel.is_over or channel.is_parted:
                _over()
            channel.news.clear()
            await channel.news.wait()

    async def _grant(self, channel: Channel, taken: int) -> None:
        """Give back what was taken, a quarter of the window at a time; more once the other end has filled it twice and
        this one kept up."""
        channel.taken += taken
        if channel.has_ended or channel.is_parted or channel.taken * 4 < channel.window:
            return
        more = 0
        if channel.moved >= 2 * channel.window and not channel.coming and channel.window < WINDOW_MOST_BYTES:
            more = min(channel.window, WINDOW_MOST_BYTES - channel.window, self._spare)
            self._spare -= more
            channel.window += more
            channel.moved = 0
        given, channel.taken = channel.taken, 0
        channel.owed -= given
        with contextlib.suppress(OSError):  # the link is gone: what came is still given to the node where it is all
            await self._send(Kind.GRANT, channel, COUNT.pack(given + more))


def _over() -> NoReturn:
    raise ConnectionResetError("the other end has gone")


def cut(writer: asyncio.StreamWriter) -> None:
    """End a connection so that its peer sees that it broke: a clean end could be taken for all that there was."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _nonce(direction: int, count: int) -> bytes:
    return struct.pack(">B15xQ", direction, count)
