"""Visitor: the holder's side of a door: signs a knock for every request, and believes nobody but the door's own key."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NamedTuple

from tieline.drivers.doors.link import MESSAGE_BYTES
from tieline.drivers.http import HttpClient
from tieline.model.door import KNOCK_HEADER, LINK, PASS_HEADER, SESSION, EchoSession, Knock, Linked
from tieline.model.error import TielineError
from tieline.ports import Clock
from tieline.registry import Key, sealing_public, stated, unseal
from tieline.registry.keys import base64url_bytes
from tieline.registry.passes import knocked, pass_said

if TYPE_CHECKING:
    import aiohttp

ECHO_S = 10.0


class Echoes(NamedTuple):
    """An open echo session."""

    said: EchoSession
    key: bytes


class Visitor:
    """``key`` is the holder's, ``pass_`` what the exchange gave, ``public`` the key of the door's site.

    ``client``: another way there than by ``url``, such as `through.relayed_door`.
    """

    def __init__(
        self, url: str, pass_: str, public: str, key: Key, kid: str, clock: Clock, client: HttpClient | None = None
    ) -> None:
        self.pass_ = pass_
        self.given = pass_said(pass_)
        self.public = public
        self.key = key
        self.kid = kid
        self.clock = clock
        self.client = client or HttpClient(url, attempts=1)

    async def close(self) -> None:
        """Close every connection."""
        await self.client.close()

    def headers(self, method: str, path: str, *, nonce: str = "", sealing: str = "") -> dict[str, str]:
        """The headers of one request; they count once."""
        knock = Knock(
            id=self.given.id,
            door=self.given.door,
            method=method,
            path=path,
            nonce=nonce or os.urandom(16).hex(),
            at_ms=self.clock.now_ms(),
            sealing=sealing,
        )
        return {PASS_HEADER: self.pass_, KNOCK_HEADER: knocked(knock, self.key, self.kid)}

    @contextlib.asynccontextmanager
    async def linked(self, run: str) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, bytes]]:
        """A WebSocket to the nodes of a run behind the door, and the key that both ends seal with.

        Raises TielineError: the door cannot be reached or does not open it; `check_failed` where another one answers.
        """
        path, private, nonce = f"/v1/runs/{run}/link", os.urandom(32), os.urandom(16).hex()
        headers = self.headers("GET", path, nonce=nonce, sealing=sealing_public(private))
        async with self.client.websocket(path, limit_bytes=MESSAGE_BYTES, headers=headers) as stream:
            try:
                async with asyncio.timeout(ECHO_S):  # `wait_for` of Python 3.11 may lose a cancellation
                    answer = await stream.receive_str()
                said = stated(answer.encode(), self.public, LINK, Linked)
                key = unseal(private, base64url_bytes(said.sealed.encode(), "sealed"))
            except (TielineError, TypeError, TimeoutError) as error:
                raise TielineError("check_failed", f"another door than `{self.given.door}` answers: {error}") from None
            if (said.nonce, said.run) != (nonce, run):
                raise TielineError("check_failed", f"`{self.given.door}` answered another request")
            yield stream, key

    async def echoes(self) -> Echoes:
        """An echo session. Raises TielineError: what the door said, or `check_failed` where another one answers."""
        private, nonce = os.urandom(32), os.urandom(16).hex()
        headers = self.headers("POST", "/v1/echo", nonce=nonce, sealing=sealing_public(private))
        answer = await self.client.raw("POST", "/v1/echo", headers=headers, key=None, total_s=ECHO_S)
        try:
            said = stated(answer, self.public, SESSION, EchoSession)
            key = unseal(private, base64url_bytes(said.sealed.encode(), "sealed"))
        except TielineError as error:
            raise TielineError(
                "check_failed", f"another door than `{self.given.door}` answers: {error.message}"
            ) from None
        if said.nonce != nonce:
            raise TielineError("check_failed", f"`{self.given.door}` answered another request")
        return Echoes(said, key)
