"""Chunks: bytes by their sha256 in a folder of the site, whole or not at all, never more than the owner allows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tieline.model.door import CHUNK_BYTES
from tieline.model.error import TielineError

PIECE_BYTES = 65_536
RESERVE_BYTES = 256 * 2**20  # of the disk stay free


class Chunks:
    """``folder`` takes what is put; ``others`` (such as the cache of blobs) are looked at too and never written."""

    def __init__(self, folder: Path, limit_bytes: int, others: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.others = tuple(others)
        self._writing: dict[str, int] = {}  # what is being brought, and how large it is said to be

    def open(self) -> Chunks:
        """Make the folder, and remove what a crash left half done."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self.folder.glob("*.part"):
            if path.stem not in self._writing:
                path.unlink(missing_ok=True)
        return self

    def path(self, sha256: str) -> Path | None:
        """The file that holds these bytes, if one does."""
        for folder in (self.folder, *self.others):
            path = folder / sha256
            if path.is_file():
                return path
        return None

    async def keep(self, sha256: str, pieces: AsyncIterator[bytes], size_bytes: int) -> int:
        """Keep what arrives under its name; how many bytes it has.

        Raises TielineError: `check_failed` for other bytes, `too_large`, `storage_full`, `conflict` while somebody else
        brings the same.
        """
        if size_bytes > CHUNK_BYTES:
            raise TielineError("too_large", f"a chunk has at most {CHUNK_BYTES:,} bytes")
        if sha256 in self._writing:
            raise TielineError("conflict", f"somebody brings `{sha256}` right now")
        self._make_room(size_bytes)
        self._writing[sha256] = size_bytes
        part = self.folder / f"{sha256}.part"
        try:
            with open(part, "wb") as file:  # noqa: ASYNC230 - pieces of a page cache, not a disk to wait for
                summed, size = hashlib.sha256(), 0
                async for piece in pieces:
                    size += len(piece)
                    if size > size_bytes:
                        raise TielineError("too_large", f"more than the {size_bytes:,} bytes that were announced")
                    summed.update(piece)
                    file.write(piece)
            if size != size_bytes or summed.hexdigest() != sha256:
                raise TielineError("check_failed", f"`{sha256}` arrived as other bytes ({size:,} of them)")
            part.rename(self.folder / sha256)
        except OSError as error:
            raise TielineError("storage_full", f"`{sha256}` cannot be kept: {error}") from None
        else:
            return size
        finally:
            part.unlink(missing_ok=True)
            self._writing.pop(sha256, None)

    def _make_room(self, wanted: int) -> None:
        """Let go of the oldest; what is on its way counts whole. Raises TielineError `storage_full`."""
        coming = sum(self._writing.values())
        try:
            room = os.statvfs(self.folder)
            kept = sorted(
                (entry.stat().st_mtime, entry.stat().st_size, entry.name)
                for entry in os.scandir(self.folder)
                if entry.name.removesuffix(".part") not in self._writing
            )
        except OSError as error:
            raise TielineError("storage_full", f"nothing can be kept: {error}") from None
        free = room.f_bavail * room.f_frsize
        if coming + wanted > self.limit_bytes or coming + wanted + RESERVE_BYTES > free:
            raise TielineError(
                "storage_full", f"{wanted:,} bytes do not fit: {self.limit_bytes:,} are kept here, {free:,} are free"
            )
        total = sum(size for _, size, _ in kept) + coming + wanted
        for _, size, name in kept:
            if total <= self.limit_bytes:
                return
            (self.folder / name).unlink(missing_ok=True)
            total -= size
