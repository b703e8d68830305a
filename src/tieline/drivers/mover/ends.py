"""Ends: what a move asks of where bytes come from and of where they go."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple, Protocol

from tieline.drivers.mover.pacing import Lane

REPLACE = ("tieline transfer run --replace ...",)  # what to do about a target that is there already


class About(NamedTuple):
    """What a source says of its bytes before any is read."""

    size_bytes: int
    tag: str = ""  # other bytes have another tag (ETag; inode, size and time of a file); empty: it has none
    sha256: str = ""  # of the whole, where the source knows it
    chunk_bytes: int = 0  # its own division, where it has one
    chunks: tuple[str, ...] = ()  # sha256 of each chunk of that division
    is_ranged: bool = True  # any part can be read, by several at once


class Division(NamedTuple):
    """The whole as chunks of one size, the last one shorter."""

    size_bytes: int
    chunk_bytes: int

    @property
    def chunk_count(self) -> int:
        """0 for an empty whole."""
        return -(-self.size_bytes // self.chunk_bytes)

    def span(self, index: int) -> tuple[int, int]:
        """First byte of a chunk, and the byte after its last."""
        start = index * self.chunk_bytes
        return start, min(self.size_bytes, start + self.chunk_bytes)


class Job(NamedTuple):
    """One move as a target sees it: the same bytes in the same division have the same key, in every try."""

    key: str  # empty: a later try cannot know that the bytes are the same
    division: Division
    booking: str = ""  # that it is moved for, noted with each chunk


class Source(Protocol):
    """Where bytes come from."""

    name: str

    async def about(self) -> About:
        """Look. Raises TielineError."""

    def read(self, about: About, start: int, end: int, lane: Lane) -> AsyncGenerator[bytes, None]:
        """The bytes from ``start`` to before ``end``, over the path of ``lane``, as they come.

        Raises TielineError: `conflict` once they are not those of ``about`` any more; what is transient is tried again.
        """

    async def close(self) -> None:
        """Let go of connections."""


class Target(Protocol):
    """Where bytes go. Nobody sees any of them before `finish`."""

    name: str
    is_ordered: bool  # chunks are put one after the other, in order
    is_readable: bool  # chunks that were put can be read before the end
    own_bytes: int  # of what earlier tries put, those that were moved for the same booking; known once it is open

    def chunk_bytes(self, size_bytes: int, wished: int) -> int:
        """The size of chunks that suits it, near to what is wished."""

    async def open(self, job: Job) -> Mapping[int, str]:
        """Begin, or go on: the chunks that an earlier try put, with their sha256, verified where that is possible.

        Raises TielineError `storage_full`, `conflict` while another process moves the same there.
        """

    async def put(self, index: int, chunk: bytes, sha256: str) -> None:
        """Put one chunk. Raises TielineError."""

    async def read(self, index: int) -> bytes:
        """A chunk that was put, where `is_readable`."""

    async def finish(self, sha256: str) -> None:
        """Show the whole, which has this hash. Raises TielineError."""

    async def drop(self) -> None:
        """Forget what was put: it can never be finished."""

    async def close(self) -> None:
        """Let go; what was put stays for a later try where that is possible."""


def key_of(source: str, about: About, expected: str, division: Division) -> str:
    """The key of a move; empty where nothing tells these bytes from others of the same size."""
    known = expected or about.sha256 or about.tag
    if not known:
        return ""
    words = f"{source}\n{known}\n{division.size_bytes}\n{division.chunk_bytes}"
    return hashlib.sha256(words.encode()).hexdigest()[:32]
