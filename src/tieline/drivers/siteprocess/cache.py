"""Cache: blobs that tasks bring along, by their sha256: moved in chunks, checked, kept for the next run.

A blob whose move was cut, by a broken connection or by the end of this process, goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from tieline.drivers.http import HttpClient
from tieline.drivers.http.backoff import Backoff
from tieline.drivers.mover import Terms, move
from tieline.drivers.mover.blobs import BlobSource
from tieline.drivers.mover.files import FileTarget
from tieline.drivers.siteprocess.delivery import delivered
from tieline.model.error import TielineError

log = logging.getLogger("tieline.site")
RESERVE_BYTES = 256 * 2**20  # of the disk stay free


class Cache:
    """At most ``limit_bytes`` are kept, halves of moves included; what is in use stays whatever it takes."""

    def __init__(self, folder: Path, client: HttpClient, limit_bytes: int) -> None:
        self.folder = folder
        self.client = client
        self.limit_bytes = limit_bytes
        self._locks: dict[str, asyncio.Lock] = {}
        self._used: dict[str, int] = {}

    def prepare(self) -> None:
        """Make the folder. What a crash left half done stays: the next run that needs it goes on there."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._evict()

    @contextlib.asynccontextmanager
    async def blob(self, digest: str, size_bytes: int = 0, job: str = "") -> AsyncIterator[Path]:
        """The blob as a file, for as long as the block lasts. ``size_bytes`` 0: not known.

        Where a transfer is booked that brings bytes to ``job`` here, its times and rates are kept.
        Raises TielineError: `check_failed` for other bytes than promised, `storage_full`, or what the exchange said.
        """
        async with self.kept(digest, lambda _: self._fetch(digest, size_bytes, job)) as path:
            yield path

    @contextlib.asynccontextmanager
    async def kept(
        self, name: str, fetch: Callable[[Callable[[], FileTarget]], Awaitable[None]]
    ) -> AsyncIterator[Path]:
        """The file ``name``, for as long as the block lasts; ``fetch`` brings it to a target where it is not here."""
        self._used[name] = self._used.get(name, 0) + 1
        try:
            lock = self._locks.setdefault(name, asyncio.Lock())
            async with lock:
                path = self.folder / name
                if path.exists():
                    os.utime(path)
                else:
                    await fetch(lambda: self._target(name))
            yield path
        finally:
            self._used[name] -= 1
            if not self._used[name]:
                del self._used[name]
                self._locks.pop(name, None)
                self._evict()

    def _target(self, name: str) -> FileTarget:
        return FileTarget(str(self.folder / name), is_replacing=True, reserve_bytes=RESERVE_BYTES)

    async def _fetch(self, digest: str, size_bytes: int, job: str) -> None:
        backoff = Backoff(first_s=0.2, most_s=10.0)
        while True:
            try:
                await self._download(digest, size_bytes, job)
            except TielineError as error:
                if (self.folder / digest).exists():  # it is whole, and nobody could be told
                    return
                if not error.transient or error.code == "storage_full":
                    raise
                log.warning("a blob waits", extra={"code": error.code, "why": error.message})
                await asyncio.sleep(backoff.next_s())
            else:
                return

    async def _download(self, digest: str, size_bytes: int, job: str) -> None:
        target = self._target(digest)
        terms = Terms(sha256=digest, limit_bytes=size_bytes or self.limit_bytes)
        source = BlobSource(self.client, digest, size_bytes)
        if not job or not await delivered(self.client, job, source, target, terms):
            await move(source, target, terms)

    def _evict(self) -> None:
        """Let go of what was used longest ago, until the rest fits."""
        kept: list[tuple[float, int, str]] = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # a move that just ended gave it its name
                status = entry.stat()
                kept.append((status.st_mtime, status.st_size, entry.name))
        total = sum(size for _, size, _ in kept)
        for _, size, name in sorted(kept):
            if total <= self.limit_bytes:
                return
            if name.strip(".").partition(".")[0] not in self._used:  # `.DIGEST.KEY.part` is one half done
                (self.folder / name).unlink(missing_ok=True)
                total -= size
