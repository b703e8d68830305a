"""Presence: which runs of gangs are on this machine, so that their nodes meet over its loopback without help.

A site's process listens at an abstract socket (unix(7)) for each of its runs: there is no file, and each network name
space has its own. Who asks is answered with a statement of the site's key, so that nobody else can say it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from tieline.model.error import TielineError
from tieline.registry import Key, sign_statement, stated

log = logging.getLogger("tieline.site")
HERE = "gang-here"  # type of the statement
HERE_S = 5.0
NONCE_BYTES = 16


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """That a site's process is in this network name space."""

    run: str
    nonce: str
    ground: str


class Presence:
    """What one process says of its runs, with the site's ``key``."""

    def __init__(self, key: Key, kid: str) -> None:
        self.key = key
        self.kid = kid
        self._told: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, run: str) -> bool:
        return run in self._told

    def announce(self, run: str) -> None:
        """Say from now on that the run is here."""
        if run in self._told:
            return
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(_mark(run))
            sock.listen()
        except OSError as error:
            sock.close()
            log.warning("another process says that it has the run", extra={"run": run, "why": str(error)})
            return
        sock.setblocking(False)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(HERE_S):
                    nonce = (await reader.readexactly(NONCE_BYTES)).hex()
                    said = Here(run=run, nonce=nonce, ground=ground())
                    writer.write(sign_statement(said, self.key, self.kid, HERE) + b"\n")
                    await writer.drain()
            writer.close()

        self._told[run] = asyncio.create_task(_served(sock, answer))

    def leave(self, run: str) -> None:
        """Say it no more."""
        told = self._told.pop(run, None)
        if told is not None:
            told.cancel()

    async def close(self) -> None:
        """Say nothing any more."""
        told = list(self._told.values())
        self._told.clear()
        for each in told:
            each.cancel()
        await asyncio.gather(*told, return_exceptions=True)


def is_marked(run: str) -> bool:
    """Whether somebody on this machine says that it has the run."""
    with socket.socket(socket.AF_UNIX) as there:
        there.setblocking(False)
        return not there.connect_ex(_mark(run))


async def is_here(run: str, public: str) -> bool:
    """Whether the process of the site with that key, which has ``run``, is on this machine."""
    nonce = os.urandom(NONCE_BYTES)
    try:
        async with asyncio.timeout(HERE_S):
            reader, writer = await asyncio.open_unix_connection(_mark(run))
            try:
                writer.write(nonce)
                said = stated((await reader.readline()).strip(), public, HERE, Here)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, TielineError):
        return False
    return (said.run, said.nonce, said.ground) == (run, nonce.hex(), ground())


def ground() -> str:
    """This network name space, of this machine, as it was started."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat('/proc/self/ns/net').st_ino}"  # noqa: PTH116 - a link to nowhere


def _mark(run: str) -> str:
    return f"\0tieline-gang/{run[:80]}"


async def _served(sock: socket.socket, answer: Callable[..., Awaitable[None]]) -> None:
    server = await asyncio.start_unix_server(answer, sock=sock)
    try:
        await asyncio.Event().wait()
    finally:
        server.close()
