"""Senders: which peer brought which blob here, so that what one of them sends never takes the room of all others.

::

    <blobs>/from/<32 letters of the sha256 of the peer's identifier>/<sha256 of the blob>    empty; gone with the blob

A blob counts for the peer that brought it first, until it goes; what is here already costs nobody anything. The marks
are the truth, also after a restart. `Blobs` calls everything here with its lock held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tieline.drivers.stores.disk import private_folder
from tieline.model.error import TielineError
from tieline.model.quantity import show_size
from tieline.model.reason import Reason, Value

LEAST_BYTES = 65_536  # that a blob counts for: many small ones are much, too
ROOM = "peer_storage"


class Senders:
    """What each peer brought, bounded for each by ``most_bytes``."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self._bytes: dict[str, int] = {}  # by mark of the sender: of its blobs, and of what it is sending
        self._of: dict[str, tuple[str, int]] = {}  # blob -> mark of its sender, bytes that it counts for

    def open(self, size_of: Callable[[str], int | None]) -> None:
        """Count what is marked; a mark whose blob is not there goes."""
        private_folder(self.folder)
        self._bytes, self._of = {}, {}
        for sender in self.folder.iterdir():
            for mark in sender.iterdir():
                size_bytes = size_of(mark.name)
                if size_bytes is None:
                    mark.unlink()
                else:
                    self._count(sender.name, mark.name, size_bytes)

    def held_bytes(self, sender: str) -> int:
        """What counts for a sender now."""
        return self._bytes.get(mark_of(sender), 0)

    def brought(self, sender: str, digest: str) -> bool:
        """Whether a blob counts for this sender."""
        return self._of.get(digest, ("", 0))[0] == mark_of(sender)

    def begin(self, sender: str, more_bytes: int) -> None:
        """So much more comes from a sender. Raises `too_large` with the reason `peer_storage`: it has its share."""
        held = self.held_bytes(sender)
        if held + more_bytes > self.most_bytes:
            values: dict[str, Value] = {"exchange": sender, "limit_bytes": self.most_bytes, "held_bytes": held}
            raise TielineError(
                "too_large",
                f"`{sender}` may keep {show_size(self.most_bytes)} of blobs here, {show_size(held)} are kept or coming",
                reasons=(Reason(code=ROOM, values=values),),
            )
        self._bytes[mark_of(sender)] = held + more_bytes

    def end(self, sender: str, size_bytes: int) -> None:
        """So much of what was coming is dropped."""
        self._less(mark_of(sender), size_bytes)

    def mark(self, sender: str, digest: str, size_bytes: int) -> Path:
        """Count what came as a new blob of its sender; the folder of the mark, to be synced."""
        name = mark_of(sender)
        private_folder(self.folder / name)
        (self.folder / name / digest).touch(mode=0o600)
        self.end(sender, size_bytes)
        self._count(name, digest, size_bytes)
        return self.folder / name

    def forget(self, digest: str) -> None:
        """A blob has gone."""
        name, size_bytes = self._of.pop(digest, ("", 0))
        if name:
            self._less(name, size_bytes)
            with suppress(FileNotFoundError):
                (self.folder / name / digest).unlink()

    def _count(self, name: str, digest: str, size_bytes: int) -> None:
        counted = max(size_bytes, LEAST_BYTES)
        self._of[digest] = (name, counted)
        self._bytes[name] = self._bytes.get(name, 0) + counted

    def _less(self, name: str, size_bytes: int) -> None:
        left = self._bytes.get(name, 0) - size_bytes
        if left > 0:
            self._bytes[name] = left
        else:
            self._bytes.pop(name, None)


def mark_of(sender: str) -> str:
    """The name of a sender's folder: identifiers have letters that no file name has."""
    return hashlib.sha256(sender.encode()).hexdigest()[:32]
