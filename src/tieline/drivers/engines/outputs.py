"""What a run left behind: regular files below its work folder that the task named, each with its hash.

The folder is hostile: links, pipes and devices in it are never opened, a path is walked one step at a time without
following a link, and every count is bounded.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tieline.model.error import TielineError

CHUNK_BYTES = 1 << 20
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much is looked at and taken."""

    entries: int = 200_000  # looked at
    files: int = 10_000  # taken
    total_bytes: int = 1 << 40
    depth: int = 64


class Collected(NamedTuple):
    """One file: its path relative to the work folder, sha256 and size."""

    path: str
    sha256: str
    size_bytes: int


def collect_outputs(folder: str, patterns: Sequence[str], bounds: Bounds | None = None) -> list[Collected]:
    """Hash the regular files below ``folder`` that match, ordered by path; links, pipes and devices are left out.

    A pattern is a path (a folder stands for everything below it) or a glob: ``*`` and ``?`` stay within one name,
    ``**`` spans folders. Patterns that leave the folder, and more than ``bounds`` allows, raise TielineError.
    """
    most = bounds or Bounds()
    wanted = [(_pattern(pattern), _start(pattern)) for pattern in patterns]
    found: list[Collected] = []
    total = 0
    for path in sorted(_files(folder, wanted, most), key=lambda path: path.encode("utf-8", "surrogateescape")):
        if len(found) >= most.files:
            raise TielineError("too_large", f"more than {most.files:,} output files match {_shown(patterns)}")
        try:
            descriptor = open_inside(folder, path)
        except OSError:  # gone or swapped for a link since it was listed
            continue
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                continue
            total += status.st_size
            if total > most.total_bytes:
                raise TielineError(
                    "too_large",
                    f"outputs {_shown(patterns)} hold more than {most.total_bytes:,} bytes, at `{path[:200]}`",
                )
            digest, size = hashlib.sha256(), 0
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        found.append(Collected(path, digest.hexdigest(), size))
    return found


def open_inside(folder: str, path: str) -> int:
    """Open a file below ``folder`` for reading, refusing every link on the way; the caller closes the descriptor.

    Raises OSError: ELOOP or ENOTDIR where a link stands in the way.
    """
    *parents, name = path.split("/")
    at = os.open(folder, FLAGS | os.O_DIRECTORY)
    try:
        for parent in parents:
            below = os.open(parent, FLAGS | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, FLAGS, dir_fd=at)
    finally:
        os.close(at)


def _files(folder: str, wanted: Sequence[tuple[re.Pattern[str], str]], most: Bounds) -> Iterator[str]:
    """Paths of regular files that match, by name and kind alone; folders where nothing can match are not entered."""
    waiting = [""]
    looked = 0
    while waiting:
        below = waiting.pop()
        try:
            at = os.open(folder, FLAGS | os.O_DIRECTORY) if not below else open_inside(folder, below)
        except OSError:
            continue
        try:
            with os.scandir(at) as entries:
                for entry in entries:
                    looked += 1
                    if looked > most.entries:
                        raise TielineError("too_large", f"the work folder holds more than {most.entries:,} entries")
                    path = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        within = f"{path}/"
                        may_match = any(within.startswith(start) or start.startswith(within) for _, start in wanted)
                        if may_match and path.count("/") < most.depth:
                            waiting.append(path)
                    elif entry.is_file(follow_symlinks=False) and any(pattern.match(path) for pattern, _ in wanted):
                        yield path
        except NotADirectoryError:
            continue
        finally:
            os.close(at)


@lru_cache(maxsize=256)
def _pattern(text: str) -> re.Pattern[str]:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or ".." in parts or "\0" in text or len(text) > 1_024:
        raise TielineError("invalid_request", f"output `{text[:200]}` does not lie below the work folder")
    if not parts:
        return re.compile(r"", re.DOTALL)  # the whole folder
    words = []
    for part in parts:
        if part == "**":
            words.append(r"(?:[^/]+/)*")
        else:
            words.append("".join(_piece(piece) for piece in re.split(r"(\*+|\?)", part)) + "/")
    expression = "".join(words)
    if parts[-1] == "**":
        return re.compile(expression + r"[^/]+\Z", re.DOTALL)
    return re.compile(expression[:-1] + r"(?:/|\Z)", re.DOTALL)


def _start(text: str) -> str:
    """The folders that a pattern names before its first wildcard, with a slash at the end; empty: anywhere."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    fixed = next((index for index, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
    return "".join(f"{part}/" for part in parts[:fixed])


def _piece(piece: str) -> str:
    if piece.startswith("*"):
        return r"[^/]*"
    return r"[^/]" if piece == "?" else re.escape(piece)


def _shown(patterns: Sequence[str]) -> str:
    return ", ".join(f"`{pattern[:80]}`" for pattern in patterns[:3]) + (" ..." if len(patterns) > 3 else "")
