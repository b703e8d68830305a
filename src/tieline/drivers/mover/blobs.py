"""Blobs of the exchange as ends of a move: named by their sha256, read by ranges, kept whole or not at all."""

# ruff: noqa: ARG002 - one protocol for all ends

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from tieline.drivers.http import HttpClient
from tieline.drivers.mover.body import OrderedTarget
from tieline.drivers.mover.ends import About, Division
from tieline.drivers.mover.pacing import Lane
from tieline.model.api import BlobView
from tieline.model.error import TielineError


class BlobSource:
    """A blob. Its name is its hash, so it cannot change."""

    def __init__(self, client: HttpClient, sha256: str, size_bytes: int = 0) -> None:
        """``size_bytes`` 0: not known."""
        self.name = f"blob:{sha256}"
        self._client = client
        self._sha256 = sha256
        self._size_bytes = size_bytes

    async def about(self) -> About:
        """As `Source`."""
        if not self._size_bytes:
            self._size_bytes = await self._client.size_of(f"/v1/blobs/{self._sha256}")
        return About(self._size_bytes, tag=self._sha256, sha256=self._sha256)

    async def read(self, about: About, start: int, end: int, lane: Lane) -> AsyncGenerator[bytes, None]:
        """As `Source`."""
        part = self._client.download(
            f"/v1/blobs/{self._sha256}",
            limit_bytes=about.size_bytes,
            start=start,
            end=end if end < about.size_bytes else 0,
            etag=f'"{self._sha256}"',
        )
        async with contextlib.aclosing(part) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """The client belongs to somebody else."""


class BlobTarget(OrderedTarget):
    """A blob that is to be."""

    def __init__(self, client: HttpClient) -> None:
        super().__init__("blob:")
        self._client = client
        self._kept = ""

    async def finish(self, sha256: str) -> None:
        """As `Target`."""
        await super().finish(sha256)
        if self._kept != sha256:
            raise TielineError("check_failed", f"the exchange keeps sha256 {self._kept}, and {sha256} was sent")
        self.name = f"blob:{sha256}"

    async def _send(self, chunks: AsyncIterator[bytes], division: Division) -> None:
        view = await self._client.call(
            "POST", "/v1/blobs", BlobView, body=lambda: chunks, key=None, total_s=7 * 86_400.0
        )
        self._kept = view.sha256
