"""Journal: which chunks a target has, so that a move which was killed goes on where it was.

One line for the move, one for each chunk: `index sha256 [mark]`. It is appended to and never trusted: whoever opens it
checks the chunks themselves, so it needs no synced writes. A line that was torn is left out.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import NamedTuple

from tieline.drivers.mover.ends import Job
from tieline.model.error import TielineError

LINE = re.compile(r"([0-9]{1,9}) ([0-9a-f]{64}) ([!-~]{0,200})")
HEAD = re.compile(r"tieline-move 1 ([0-9a-f]{32}) ([0-9]{1,16}) ([0-9]{1,16}) ([!-~]{0,2000})")
MOST_LINE_BYTES = 2_200


class Entry(NamedTuple):
    """A chunk that was put; ``mark`` is what its target calls it."""

    sha256: str
    mark: str


class Journal:
    """The journal of one move, held by one process."""

    def __init__(self, path: Path, job: Job) -> None:
        """Open and lock it. Raises TielineError `conflict` while another process holds it; OSError."""
        self.path = path
        self.head = ""  # what the target noted of the whole
        self.entries: dict[int, Entry] = {}
        self._job = job
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise TielineError("conflict", f"another process moves the same to where `{path.name}` lies") from None
        if not self._load():
            self.begin("")

    def begin(self, head: str) -> None:
        """Start anew, with what the target notes of the whole."""
        self.entries.clear()
        self.head = head
        os.ftruncate(self._descriptor, 0)
        division = self._job.division
        self._write(f"tieline-move 1 {self._job.key} {division.size_bytes} {division.chunk_bytes} {head}")

    def note(self, index: int, sha256: str, mark: str = "") -> None:
        """A chunk was put."""
        self.entries[index] = Entry(sha256, mark)
        self._write(f"{index} {sha256} {mark}")

    def remove(self) -> None:
        """Nothing is left of the move."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, line: str) -> None:
        try:
            os.write(self._descriptor, line.encode() + b"\n")
        except OSError as error:
            raise TielineError("storage_full", f"`{self.path}` cannot be written: {error.strerror}") from None

    def _load(self) -> bool:
        """Take what is in the file; whether it is of this move."""
        division = self._job.division
        with open(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            head = HEAD.fullmatch(file.readline(MOST_LINE_BYTES).decode("ascii", "replace").rstrip("\n"))
            stated = None if head is None else (head[1], int(head[2]), int(head[3]))
            if head is None or stated != (self._job.key, division.size_bytes, division.chunk_bytes):
                return False
            self.head = head[4]
            for _ in range(2 * division.chunk_count):  # a chunk may have been put again
                line = file.readline(MOST_LINE_BYTES)
                if not line:
                    break
                found = LINE.fullmatch(line.decode("ascii", "replace").removesuffix("\n"))
                if found is not None and line.endswith(b"\n") and int(found[1]) < division.chunk_count:
                    self.entries[int(found[1])] = Entry(found[2], found[3])
        return True
