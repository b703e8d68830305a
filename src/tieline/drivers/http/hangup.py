"""Hanging up: the end of a WebSocket whose other end may take nothing any more.

A close waits until the other end has made room for what was said before it, without end, and a socket that is closed
with something left to send stays until that has gone. So it is broken off after a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse, web

GONE_S: Final = 10.0  # who has not taken what was said by then does not


async def hang_up(
    stream: ClientWebSocketResponse | web.WebSocketResponse, why: str = "", there: socket.socket | None = None
) -> None:
    """Close a WebSocket, within `GONE_S` and what its own close may take. Raises ConnectionError as that does.

    ``there`` is its socket, which a stream that closed itself does not know any more.
    """
    there = there or stream.get_extra_info("socket")
    if there is not None:
        asyncio.get_running_loop().call_later(GONE_S, _break_off, there)
    await stream.close(message=why.encode()[:120])


def _break_off(there: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed in time, as a rule
        there.shutdown(socket.SHUT_RDWR)
