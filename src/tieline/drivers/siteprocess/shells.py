"""Shells: what a summons asks for: a command beside a run, or a port of it, at the other end of a relay's stream."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pty
import signal
import struct
import termios
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from tieline.drivers.engines.beside import Beside, beside
from tieline.drivers.engines.runtime import client_environment
from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.attempt import Attempt
from tieline.drivers.siteprocess.home import Identity
from tieline.model.error import TielineError
from tieline.model.relay import MESSAGE_BYTES, SUMMONS, Channel, Notice, Purpose, Summons
from tieline.ports import Clock
from tieline.registry import stated
from tieline.site.configuration import SiteConfig

if TYPE_CHECKING:
    import aiohttp

    from tieline.drivers.doors.door import Door

log = logging.getLogger("tieline.site")
SHELLS = 32  # at once
SHELLS_EACH = 24  # of one caller: the others can still look after their runs
REMEMBERED = 1_024  # summonses that are answered once
PIECE_BYTES = 32_768
END_S = 5.0
LAST_S = 1.0  # without a word, after a command has ended
LAST_BYTES = 4 * 2**20  # that it may have said before: more than pipes and readers hold
encode = msgspec.json.encode


class Shells:
    """``attempt_of`` finds a run that runs here now, ``door`` the one for streams; ``config`` is the owner's word."""

    def __init__(
        self,
        client: HttpClient,
        identity: Identity,
        clock: Clock,
        attempt_of: Callable[[str], Attempt | None],
        door: Callable[[], Awaitable[Door]],
        config: SiteConfig,
    ) -> None:
        self.client = client
        self.identity = identity
        self.clock = clock
        self.attempt_of = attempt_of
        self.door = door
        self.config = config
        self.tasks: dict[asyncio.Task[None], str] = {}  # and for whom
        self._answered: OrderedDict[str, None] = OrderedDict()

    def summon(self, statement: str) -> None:
        """Follow a summons of the pinned exchange; anybody else's is dropped, with a line in the log."""
        try:
            told = stated(statement.encode(), self.identity.public, SUMMONS, Summons)
            self._check(told)
        except TielineError as error:
            log.warning("a summons is not followed", extra={"code": error.code, "why": error.message})
            return
        log.info("summoned", extra={"run": told.run, "caller": told.who, "code": told.purpose.value})
        task = asyncio.create_task(self._follow(told))
        self.tasks[task] = told.who
        task.add_done_callback(lambda done: self.tasks.pop(done, None))

    def _check(self, told: Summons) -> None:
        if told.site != self.identity.site:
            raise TielineError("forbidden", f"it is for `{told.site}`")
        if self.clock.now_ms() >= told.until_ms + 60_000 or told.stream in self._answered:
            raise TielineError("forbidden", "it is over, or was followed before")
        if len(self.tasks) >= SHELLS:
            raise TielineError("overloaded", f"{SHELLS} streams are open here")
        if sum(who == told.who for who in self.tasks.values()) >= SHELLS_EACH:
            raise TielineError("overloaded", f"{SHELLS_EACH} streams of `{told.who}` are open here")
        self._answered[told.stream] = None
        while len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)

    async def close(self) -> None:
        """End every stream."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    # -- one stream ---------------------------------------------------------------------------------------------------

    async def _follow(self, told: Summons) -> None:
        try:
            async with self.client.websocket(f"/v1/relay/{told.stream}", limit_bytes=MESSAGE_BYTES) as stream:
                if told.purpose is Purpose.DOOR:
                    await self._to_door(stream)
                    return
                try:
                    how = await asyncio.to_thread(self._how, told)
                    code = await carried(how, told, stream)
                    last = Notice(exit_code=code)
                except (TielineError, OSError) as error:
                    why = error.message if isinstance(error, TielineError) else str(error)
                    log.warning("a stream came to nothing", extra={"run": told.run, "why": why})
                    last = Notice(error=why[:500])
                if not stream.closed:
                    await stream.send_str(encode(last).decode())
        except (TielineError, OSError, TimeoutError) as error:
            log.warning("a stream broke", extra={"run": told.run, "why": str(error)})

    async def _to_door(self, stream: aiohttp.ClientWebSocketResponse) -> None:
        from tieline.drivers.doors.through import join_door

        if not self.config.may_relay:
            raise TielineError("forbidden", f"the owner of `{self.identity.site}` lets nobody to its door by the relay")
        door = await self.door()
        await join_door(stream, door.connection)

    def _how(self, told: Summons) -> Beside:
        """What to start. Raises TielineError for what the owner, the run or the engine does not allow."""
        if not self.config.may_exec:
            raise TielineError("forbidden", f"the owner of `{self.identity.site}` lets nobody run commands beside runs")
        attempt = self.attempt_of(told.run)
        if attempt is None or told.node >= len(attempt.nodes):
            raise TielineError("conflict", f"`{told.run}` does not run here now")
        return beside(
            attempt.engine,
            attempt.nodes[told.node],
            command=told.command,
            port=told.port if told.purpose is Purpose.PORT else 0,
            has_terminal=told.has_terminal,
            term=told.term,
        )


async def carried(how: Beside, told: Summons, stream: aiohttp.ClientWebSocketResponse) -> int:
    """Run it with the stream as its input and output; its exit code, or -1 where the caller went first.

    Raises OSError where it cannot be started.
    """
    command = await Command.start(how, told)
    coming = asyncio.create_task(_take(stream, command))
    finished = asyncio.create_task(_finish(stream, command))
    try:
        await asyncio.wait((coming, finished), return_when=asyncio.FIRST_COMPLETED)
        return finished.result() if finished.done() else -1
    finally:
        await command.end()
        for task in (coming, finished):
            task.cancel()
        await asyncio.gather(coming, finished, return_exceptions=True)


class Exits(asyncio.subprocess.SubprocessStreamProtocol):
    """Tells when a process has ended. `Process.wait` waits for its pipes too, which others may hold for ever."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=PIECE_BYTES, loop=loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        """It has ended."""
        super().process_exited()
        self.exited.set()


class Command:
    """One process beside a run, with pipes or a terminal of its own."""

    def __init__(
        self, transport: asyncio.SubprocessTransport, process: asyncio.subprocess.Process, exited: asyncio.Event,
        terminal: int = -1,
    ) -> None:  # fmt: skip
        self.process = process
        self._exited = exited
        self.terminal = terminal  # the outer end, or -1
        self.input = process.stdin
        self._reading: list[asyncio.BaseTransport] = [transport]
        self.said_bytes = 0
        self.waiting = 0  # outputs of which something is on its way to the caller
        self.outputs = [
            (channel, reader)
            for channel, reader in ((Channel.OUTPUT, process.stdout), (Channel.ERRORS, process.stderr))
            if reader is not None
        ]

    @classmethod
    async def start(cls, how: Beside, told: Summons) -> Command:
        """Start it. Raises OSError."""
        with contextlib.ExitStack() as stack:
            words = list(how.words)
            given: tuple[int, ...] = ()
            if how.told:
                descriptor = os.memfd_create("entry", 0)
                stack.callback(os.close, descriptor)
                with open(os.dup(descriptor), "wb") as file:  # noqa: ASYNC230 - memory
                    file.write(how.told)
                os.lseek(descriptor, 0, os.SEEK_SET)
                words, given = [*words, str(descriptor)], (descriptor,)
            environment = {"PATH": os.environ.get("PATH", os.defpath), **client_environment()}
            outer, inner = pty.openpty() if told.has_terminal else (-1, asyncio.subprocess.PIPE)
            if told.has_terminal:
                stack.callback(os.close, inner)
                resize(outer, told.rows, told.columns)
            try:
                loop = asyncio.get_running_loop()
                transport, protocol = await loop.subprocess_exec(
                    lambda: Exits(loop), *words, stdin=inner, stdout=inner, stderr=inner, pass_fds=given,
                    env=environment, start_new_session=True,
                )  # fmt: skip
            except BaseException:
                if outer >= 0:
                    os.close(outer)
                raise
        made = cls(transport, asyncio.subprocess.Process(transport, protocol, loop), protocol.exited, outer)
        if outer >= 0:
            await made._open_terminal()
        return made

    async def _open_terminal(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=PIECE_BYTES)
        reading = asyncio.StreamReaderProtocol(reader)
        coming, _ = await loop.connect_read_pipe(lambda: reading, open(os.dup(self.terminal), "rb", 0))  # noqa: ASYNC230, SIM115
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin,
            open(os.dup(self.terminal), "wb", 0),  # noqa: ASYNC230, SIM115
        )
        self.input = asyncio.StreamWriter(transport, protocol, None, loop)
        self.outputs = [(Channel.OUTPUT, reader)]
        self._reading.append(coming)

    async def wait(self) -> int:
        """Its exit code."""
        await self._exited.wait()
        assert self.process.returncode is not None
        return self.process.returncode

    def resized(self, rows: int, columns: int) -> None:
        """The caller's terminal has another size."""
        if self.terminal >= 0:
            resize(self.terminal, rows, columns)
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGWINCH)

    def close_input(self) -> None:
        """No more comes. A terminal is told by its own sign."""
        if self.input is not None and not self.input.is_closing():
            if self.terminal >= 0:
                self.input.write(b"\x04")
            else:
                self.input.close()

    async def end(self) -> None:
        """End it, where it has not ended."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.wait(), END_S)
            except TimeoutError:
                self.process.kill()
                await self.wait()
        if self.input is not None:
            self.input.close()
        for transport in self._reading:  # what was left behind in the run may hold the other ends for ever
            transport.close()
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1


def resize(terminal: int, rows: int, columns: int) -> None:
    """Tell a terminal its size."""
    if rows and columns:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("=HHHH", rows, columns, 0, 0))


async def _take(stream: aiohttp.ClientWebSocketResponse, command: Command) -> None:
    """What the caller sends, until it goes. What is no message of ours ends it."""
    from aiohttp import WSMsgType

    async for message in stream:
        if message.type is WSMsgType.TEXT:
            try:
                said = msgspec.json.decode(message.data, type=Notice)
            except msgspec.MsgspecError:
                return
            if said.rows:
                command.resized(said.rows, said.columns)
            if said.is_end:
                command.close_input()
        elif message.type is WSMsgType.BINARY and message.data[:1] == bytes([Channel.INPUT]):
            if command.input is not None and not command.input.is_closing():
                with contextlib.suppress(ConnectionError):  # it reads no more, and goes on
                    command.input.write(message.data[1:])
                    await command.input.drain()
        else:
            return


async def _finish(stream: aiohttp.ClientWebSocketResponse, command: Command) -> int:
    """Everything that it says, and its exit code."""
    giving = [asyncio.create_task(_give(stream, command, *each)) for each in command.outputs]
    try:
        code = await command.wait()
        left, most_bytes = set(giving), command.said_bytes + LAST_BYTES
        while left and command.said_bytes < most_bytes:  # what it started may hold its output for ever, or go on
            before_bytes = command.said_bytes
            _, left = await asyncio.wait(left, timeout=LAST_S)
            if command.said_bytes == before_bytes and not command.waiting:
                break
        return code if code >= 0 else 128 - code
    finally:
        for task in giving:
            task.cancel()
        await asyncio.gather(*giving, return_exceptions=True)


async def _give(
    stream: aiohttp.ClientWebSocketResponse, command: Command, channel: Channel, reader: asyncio.StreamReader
) -> None:
    with contextlib.suppress(OSError):  # a terminal that nobody holds any more
        while data := await reader.read(PIECE_BYTES):
            command.waiting += 1
            try:
                await stream.send_bytes(bytes([channel]) + data)
            finally:
                command.waiting -= 1
            command.said_bytes += len(data)
