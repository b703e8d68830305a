"""Doors of sites as ends of a move: chunks by their sha256, through passes that the exchange gives.

A pass holds for minutes and every request needs a knock of its own, so a long move asks for passes again. A site
without a door is reached through the relay of its exchange, under the same passes. What comes is believed for its hash
alone.
"""

# ruff: noqa: ARG002 - one protocol for all ends

from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Protocol

from tieline.drivers.doors.through import relayed_door
from tieline.drivers.http import HttpClient
from tieline.drivers.mover.address import Address
from tieline.drivers.mover.ends import About, Division, Job
from tieline.drivers.mover.pacing import Lane
from tieline.drivers.mover.web import CONTENT_RANGE, Check, Web
from tieline.model.door import CHUNK_BYTES, KNOCK_HEADER, PASS_HEADER, Knock, Right
from tieline.model.error import TielineError
from tieline.model.passing import PassBody, PassView
from tieline.ports import Clock
from tieline.registry import Key
from tieline.registry.passes import knocked, pass_said

SPARE_MS = 60_000  # a pass that ends within this is asked for again
KID = "mover#once"  # doors know the holder by the key in the pass


class Asks(Protocol):
    """Where passes come from."""

    def __call__(self, site: str, body: PassBody) -> Awaitable[PassView]:
        """A pass through the door of ``site``. Raises TielineError."""


class _Entry:
    """One chunk behind a door."""

    def __init__(
        self,
        site: str,
        sha256: str,
        right: Right,
        ask: Asks,
        clock: Clock,
        key: Key | None,
        relay: HttpClient | None,
        check: Check | None = None,
    ) -> None:
        self.name = f"door:{site}#{sha256}"
        self.path = f"/v1/chunks/{sha256}"
        self._site, self._sha256, self._right, self._ask, self._clock = site, sha256, right, ask, clock
        self._key = key or Key(os.urandom(32))
        self._view: PassView | None = None
        self._web: Web | None = None
        self._url = ""
        self._relay, self._check = relay, check
        self._relayed = contextlib.AsyncExitStack()
        self._asking = asyncio.Lock()

    async def open(self, most_bytes: int) -> tuple[Web, str, Callable[[str], dict[str, str]]]:
        """The way there, the chunk's address, and what makes the headers of one request of a method."""
        async with self._asking:
            view = self._view
            if view is None or view.until_ms - self._clock.now_ms() < SPARE_MS:
                body = PassBody(
                    public=self._key.public,
                    rights=(self._right,),
                    chunks=(self._sha256,),
                    most_bytes=most_bytes,
                    ttl_ms=600_000,
                )
                view = self._view = await self._ask(self._site, body)
                if self._web is None or not view.url:
                    await self._lead(view)
            assert self._web is not None
            return self._web, self._url, self._headers

    async def _lead(self, view: PassView) -> None:
        """Find the way to the door: straight, or through the relay, where a pass leads for as long as it holds."""
        await self.close()
        where = ""
        if not view.url:
            if self._relay is None:
                raise TielineError("conflict", f"`{self._site}` has no open door")
            where = (
                await self._relayed.enter_async_context(relayed_door(self._relay, self._site, view.door_pass))
            ).where
        self._url = (view.url.rstrip("/") or "http://door") + self.path
        self._web = Web(
            Address("http", self._url, "", self.name), socket_path=where, check=None if where else self._check
        )

    def _headers(self, method: str) -> dict[str, str]:
        assert self._view is not None
        given = pass_said(self._view.door_pass)
        knock = Knock(
            id=given.id,
            door=given.door,
            method=method,
            path=self.path,
            nonce=os.urandom(16).hex(),
            at_ms=self._clock.now_ms(),
        )
        return {PASS_HEADER: self._view.door_pass, KNOCK_HEADER: knocked(knock, self._key, KID)}

    async def close(self) -> None:
        web, self._web = self._web, None
        if web is not None:
            await web.close()
        await self._relayed.aclose()


class DoorSource:
    """A chunk that a site has. Its name is its hash, so it cannot change."""

    def __init__(
        self,
        site: str,
        sha256: str,
        ask: Asks,
        clock: Clock,
        key: Key | None = None,
        relay: HttpClient | None = None,
        check: Check | None = None,
    ) -> None:
        """``key`` is the holder's; without one a key is made for this move. ``relay`` is the exchange that has one.

        ``check`` is of the door's address, as `Web` takes it.
        """
        self._entry = _Entry(site, sha256, Right.READ, ask, clock, key, relay, check)
        self._sha256 = sha256
        self._size_bytes: int | None = None
        self.name = self._entry.name

    async def about(self) -> About:
        """As `Source`."""
        if self._size_bytes is None:
            web, url, headers = await self._entry.open(2**40)
            async with web.asked("HEAD", url, Lane(), headers=headers("HEAD"), allow_redirects=False) as answer:
                if answer.content_length is None:
                    raise TielineError("check_failed", f"`{self.name}` does not say how many bytes it has")
                self._size_bytes = answer.content_length
        return About(self._size_bytes, tag=self._sha256, sha256=self._sha256)

    async def read(self, about: About, start: int, end: int, lane: Lane) -> AsyncGenerator[bytes, None]:
        """As `Source`."""
        web, url, headers = await self._entry.open(2**40)
        sent = {**headers("GET"), "Range": f"bytes={start}-{end - 1}"}
        async with web.asked("GET", url, lane, headers=sent, allow_redirects=False) as answer:
            found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            is_whole = answer.status == 200 and start == 0 and end == about.size_bytes
            is_part = found is not None and (int(found[1]), int(found[2])) == (start, end - 1)
            if not (is_whole or is_part):
                raise TielineError("check_failed", f"`{self.name}` sent another part than was asked for")
            async for piece in answer.content.iter_any():
                yield piece

    async def close(self) -> None:
        """As `Source`."""
        await self._entry.close()


class DoorTarget:
    """A chunk that a site is to have: one PUT, of at most 64 MiB, which the door keeps whole or not at all."""

    is_ordered = False
    is_readable = False
    own_bytes = 0

    def __init__(
        self, site: str, ask: Asks, clock: Clock, key: Key | None = None, relay: HttpClient | None = None
    ) -> None:
        self.name = f"door:{site}"
        self._site, self._ask, self._clock, self._key, self._relay = site, ask, clock, key, relay
        self._division = Division(0, 1)
        self._chunk = b""
        self._entry: _Entry | None = None

    def chunk_bytes(self, size_bytes: int, wished: int) -> int:
        """As `Target`."""
        return max(1, size_bytes)

    async def open(self, job: Job) -> Mapping[int, str]:
        """As `Target`."""
        if job.division.size_bytes > CHUNK_BYTES:
            raise TielineError(
                "too_large", f"a door takes chunks of at most {CHUNK_BYTES:,} bytes, not {job.division.size_bytes:,}"
            )
        return {}

    async def put(self, index: int, chunk: bytes, sha256: str) -> None:
        """As `Target`."""
        self._chunk = chunk

    async def read(self, index: int) -> bytes:
        """As `Target`."""
        raise AssertionError("it is held here until the end")

    async def finish(self, sha256: str) -> None:
        """As `Target`."""
        entry = self._entry = _Entry(self._site, sha256, Right.WRITE, self._ask, self._clock, self._key, self._relay)
        web, url, headers = await entry.open(len(self._chunk))
        sent = {**headers("PUT"), "Content-Type": "application/octet-stream"}
        async with web.asked(
            "PUT", url, Lane(), headers=sent, data=io.BytesIO(self._chunk), allow_redirects=False
        ) as answer:
            await answer.read()
        self.name = entry.name

    async def drop(self) -> None:
        """As `Target`."""
        self._chunk = b""

    async def close(self) -> None:
        """As `Target`."""
        if self._entry is not None:
            await self._entry.close()
