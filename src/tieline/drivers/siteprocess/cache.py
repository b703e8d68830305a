"""Cache: blobs that tasks bring along, by their sha256: checked while they arrive, kept for the next run."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from tieline.drivers.http import HttpClient
from tieline.drivers.http.backoff import Backoff
from tieline.model.error import TielineError

log = logging.getLogger("tieline.site")
RESERVE_BYTES = 256 * 2**20  # of the disk stay free


class Cache:
    """At most ``limit_bytes`` are kept; what is in use stays whatever it takes."""

    def __init__(self, folder: Path, client: HttpClient, limit_bytes: int) -> None:
        self.folder = folder
        self.client = client
        self.limit_bytes = limit_bytes
        self._locks: dict[str, asyncio.Lock] = {}
        self._used: dict[str, int] = {}

    def clear_parts(self) -> None:
        """Remove what a crash left half done."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self.folder.glob("*.part"):
            path.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def blob(self, digest: str, size_bytes: int = 0) -> AsyncIterator[Path]:
        """The blob as a file, for as long as the block lasts. ``size_bytes`` 0: not known.

        Raises TielineError: `check_failed` for other bytes than promised, `storage_full`, or what the exchange said.
        """
        self._used[digest] = self._used.get(digest, 0) + 1
        try:
            lock = self._locks.setdefault(digest, asyncio.Lock())
            async with lock:
                path = self.folder / digest
                if path.exists():
                    os.utime(path)
                else:
                    await self._fetch(digest, size_bytes)
            yield path
        finally:
            self._used[digest] -= 1
            if not self._used[digest]:
                del self._used[digest]
                self._locks.pop(digest, None)
                self._evict()

    async def _fetch(self, digest: str, size_bytes: int) -> None:
        backoff = Backoff(first_s=0.2, most_s=10.0)
        while True:
            try:
                await self._download(digest, size_bytes)
            except TielineError as error:
                if not error.transient or error.code == "storage_full":
                    raise
                log.warning("a blob waits", extra={"code": error.code, "why": error.message})
                await asyncio.sleep(backoff.next_s())
            else:
                return

    async def _download(self, digest: str, size_bytes: int) -> None:
        limit = size_bytes or self.limit_bytes
        self._check_room(size_bytes)
        part = self.folder / f"{digest}.part"
        summed, size = hashlib.sha256(), 0
        try:
            with open(part, "wb") as file:  # noqa: ASYNC230 - chunks of a page cache, not a disk to wait for
                async with contextlib.aclosing(
                    self.client.download(f"/v1/blobs/{digest}", limit_bytes=limit)
                ) as chunks:
                    async for chunk in chunks:
                        summed.update(chunk)
                        size += len(chunk)
                        file.write(chunk)
            if summed.hexdigest() != digest or (size_bytes and size != size_bytes):
                raise TielineError("check_failed", f"blob `{digest}` arrived as other bytes ({size:,} of them)")
            part.rename(self.folder / digest)
        except OSError as error:
            raise TielineError("storage_full", f"blob `{digest}` cannot be kept: {error}") from None
        finally:
            part.unlink(missing_ok=True)

    def _check_room(self, size_bytes: int) -> None:
        room = os.statvfs(self.folder)
        free = room.f_bavail * room.f_frsize
        if size_bytes + RESERVE_BYTES > free:
            raise TielineError("storage_full", f"{size_bytes:,} bytes do not fit the {free:,} that are free here")

    def _evict(self) -> None:
        """Let go of what was used longest ago, until the rest fits."""
        kept = [(entry.stat().st_mtime, entry.stat().st_size, entry.name) for entry in os.scandir(self.folder)]
        total = sum(size for _, size, _ in kept)
        for _, size, name in sorted(kept):
            if total <= self.limit_bytes:
                return
            if name not in self._used:
                (self.folder / name).unlink(missing_ok=True)
                total -= size
