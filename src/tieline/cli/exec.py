"""`exec` and `attach`: a command beside a job, and its ports on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import click

from tieline.cli import words
from tieline.cli.face import Face, flag, note, option, pass_face, usage, verb

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.client.shell import Shell

PIECE_BYTES = 32_768
NODES = click.IntRange(0, 99_999)


@verb("exec")
@click.argument("job")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@option("--node", default=0, type=NODES, help="node")
@flag("-t", "--terminal", help="terminal")
@flag("-T", "--no-terminal", help="no_terminal")
@pass_face
def run_beside(face: Face, job: str, command: tuple[str, ...], node: int, terminal: bool, no_terminal: bool) -> None:
    """Run a command beside a job, or a shell."""
    is_person = sys.stdin.isatty() and sys.stdout.isatty()
    has_terminal = (terminal or is_person) and not no_terminal
    if terminal and no_terminal:
        raise usage(words.say("terminal_both"))
    sys.exit(face.call(lambda client: _run(client, job, command, node, has_terminal=has_terminal)))


async def _run(client: AsyncClient, job: str, command: tuple[str, ...], node: int, *, has_terminal: bool) -> int:
    from tieline.client.shell import opened_shell
    from tieline.model.relay import Channel, ShellBody

    rows, columns = _size() if has_terminal else (0, 0)
    term = os.environ.get("TERM", "") if has_terminal else ""
    body = ShellBody(
        command=command, node=node, has_terminal=has_terminal, rows=rows, columns=columns, term=term[:64]
    )  # fmt: skip
    async with opened_shell(client, job, body) as shell:
        with _raw(has_terminal and sys.stdin.isatty()), _sized(shell, is_wanted=has_terminal):
            sending = asyncio.create_task(_send(shell))
            try:
                async for channel, data in shell.output():
                    out = sys.stderr if channel is Channel.ERRORS else sys.stdout
                    out.buffer.write(data)
                    out.buffer.flush()
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    return shell.exit_code if shell.exit_code >= 0 else 1


async def _send(shell: Shell) -> None:
    with contextlib.suppress(ConnectionError):  # it has ended: its output says how
        async for data in _typed():
            await shell.write(data)
        await shell.end_input()


async def _typed() -> AsyncIterator[bytes]:
    """Standard input as it comes; a file is read in a thread."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    number = sys.stdin.fileno()
    try:
        loop.add_reader(number, ready.set)
    except (PermissionError, OSError):  # a file is always ready, and cannot be waited for
        while data := await asyncio.to_thread(os.read, number, PIECE_BYTES):
            yield data
        return
    try:
        while True:
            await ready.wait()
            ready.clear()
            data = os.read(number, PIECE_BYTES)
            if not data:
                return
            yield data
    finally:
        loop.remove_reader(number)


@contextlib.contextmanager
def _raw(is_wanted: bool) -> Iterator[None]:
    """Keys go as they are typed; the terminal is set back whatever happens."""
    if not is_wanted:
        yield
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setraw(number)
        yield
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _sized(shell: Shell, *, is_wanted: bool) -> Iterator[None]:
    """The command's terminal is as large as ours."""
    if not is_wanted:
        yield
        return
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def changed() -> None:
        task = loop.create_task(shell.resize(*_size()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


def _size() -> tuple[int, int]:
    """Rows and columns of this terminal."""
    import shutil

    size = shutil.get_terminal_size()
    return min(size.lines, 10_000), min(size.columns, 10_000)


@verb("attach")
@click.argument("job")
@option("--port", "-p", "ports", multiple=True, metavar="[LOCAL:]PORT", help="forward")
@option("--node", default=0, type=NODES, help="node")
@pass_face
def attach(face: Face, job: str, ports: tuple[str, ...], node: int) -> None:
    """Follow a job's output, with its ports on this machine, until it ends."""
    pairs = [_pair(text) for text in ports]
    face.call(lambda client: _attach(client, job, pairs, node))


def _pair(text: str) -> tuple[int, int]:
    local, _, remote = text.rpartition(":")
    try:
        pair = int(local or remote), int(remote)
    except ValueError:
        pair = (-1, -1)
    if not (0 <= pair[0] <= 65_535 and 1 <= pair[1] <= 65_535):
        raise usage(words.say("no_port", text=text))
    return pair


async def _attach(client: AsyncClient, job: str, ports: list[tuple[int, int]], node: int) -> None:
    from tieline.cli.follow import follow_output
    from tieline.client.shell import listening

    servers: list[asyncio.Server] = []
    try:
        for local, remote in ports:
            server = await listening(client, job, node, local, remote)
            servers.append(server)
            note(words.say("forwarding", local=server.sockets[0].getsockname()[1], remote=remote, job=job))
        await follow_output(client, job, node)
    finally:
        for server in servers:
            server.close()
