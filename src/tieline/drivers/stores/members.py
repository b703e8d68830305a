"""Members: the parts of a backup, one after another in a tar file that any tar can list, read with bounds.

Only plain files, in the order in which they are written, with names and sizes that fit the plain header (ustar). What
else a tar file may hold (links, long names, sparse files, other headers) is refused as it is met, so that a hostile
file costs no more than its bytes are read once.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from tieline.model.error import TielineError

BLOCK_BYTES = 512
PIECE_BYTES = 2**20
MOST_NAME_BYTES = 100
MOST_MEMBER_BYTES = 8 * 2**30 - 1  # eleven octal digits


class Part(NamedTuple):
    """One member as the manifest lists it."""

    name: str
    size_bytes: int
    sha256: str


class Packing:
    """Writes members one after another; `parts` are those that were written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.parts: list[Part] = []

    def add(self, name: str, content: bytes) -> None:
        """One member whose bytes are here."""
        self._head(name, len(content))
        self._file.write(content)
        self._end(name, len(content), hashlib.sha256(content).hexdigest())

    def copy(self, name: str, source: BinaryIO, size_bytes: int) -> str:
        """One member from the first ``size_bytes`` of a file; returns their sha256."""
        self._head(name, size_bytes)
        digest, left = hashlib.sha256(), size_bytes
        while left:
            piece = source.read(min(left, PIECE_BYTES))
            if not piece:
                raise TielineError("check_failed", f"`{name}` became shorter while it was copied")
            digest.update(piece)
            self._file.write(piece)
            left -= len(piece)
        self._end(name, size_bytes, digest.hexdigest())
        return digest.hexdigest()

    def close(self) -> None:
        """Write the end that tar expects."""
        self._file.write(bytes(2 * BLOCK_BYTES))

    def _head(self, name: str, size_bytes: int) -> None:
        if size_bytes > MOST_MEMBER_BYTES or len(name.encode()) >= MOST_NAME_BYTES:
            raise TielineError("too_large", f"`{name}` of {size_bytes:,} bytes does not fit into a backup")
        info = tarfile.TarInfo(name)
        info.size, info.mode = size_bytes, 0o600
        self._file.write(info.tobuf(tarfile.USTAR_FORMAT))

    def _end(self, name: str, size_bytes: int, sha256: str) -> None:
        self._file.write(bytes(-size_bytes % BLOCK_BYTES))
        self.parts.append(Part(name, size_bytes, sha256))


class Member:
    """One member that is being read. What is not read of it is skipped, but still hashed."""

    def __init__(self, file: BinaryIO, name: str, size_bytes: int) -> None:
        self.name, self.size_bytes = name, size_bytes
        self._file, self._left = file, size_bytes
        self._digest = hashlib.sha256()

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, piece by piece."""
        while self._left:
            piece = self._file.read(min(self._left, PIECE_BYTES))
            if not piece:
                raise broken(f"it ends in the middle of `{self.name}`")
            self._left -= len(piece)
            self._digest.update(piece)
            yield piece

    def read(self, most_bytes: int) -> bytes:
        """All of it; refused when it is larger than ``most_bytes``."""
        if self.size_bytes > most_bytes:
            raise broken(f"`{self.name}` has {self.size_bytes:,} bytes, at most {most_bytes:,} are read")
        return b"".join(self.pieces())

    def part(self) -> Part:
        """What it was, once it is at its end."""
        for _ in self.pieces():
            pass
        return Part(self.name, self.size_bytes, self._digest.hexdigest())


def members_of(file: BinaryIO) -> Iterator[Member]:
    """The members of a backup in order. Raises `check_failed` for what no backup holds."""
    file.seek(0)
    while True:
        block = file.read(BLOCK_BYTES)
        if block == bytes(BLOCK_BYTES):
            return
        member = _member(file, block)
        yield member
        member.part()
        file.seek(-member.size_bytes % BLOCK_BYTES, 1)


def _member(file: BinaryIO, block: bytes) -> Member:
    if len(block) < BLOCK_BYTES:
        raise broken("its end is missing")
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise broken(f"a header cannot be read: {error}") from None
    if info.type != tarfile.REGTYPE or not 0 <= info.size <= MOST_MEMBER_BYTES:
        raise broken(f"`{info.name[:100]}` is no plain file")
    return Member(file, info.name, info.size)


def broken(why: str) -> TielineError:
    """What a reader hears of a file that is no whole backup."""
    return TielineError("check_failed", f"the file is no whole backup: {why}; nothing was changed")
