"""Files of this machine as ends of a move.

A target is written beside its place under a hidden name and takes its place whole: what was there, or nothing, is seen
until then. After a crash the chunks that the journal names are hashed again before they are believed.
"""

# ruff: noqa: ARG002 - one protocol for all ends

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tieline.drivers.mover.ends import REPLACE, About, Division, Job
from tieline.drivers.mover.journal import Journal
from tieline.drivers.mover.pacing import Lane
from tieline.model.error import TielineError

T = TypeVar("T")
PIECE_BYTES = 2**18
KEY = re.compile(r"[0-9a-f]{32}")
MOST_STEM_BYTES = 150  # a file system takes names of 255
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileSource:
    """A regular file. One that changes while it is read is refused."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._descriptor = -1

    async def about(self) -> About:
        """As `Source`."""
        if self._descriptor < 0:
            self._descriptor = await asyncio.to_thread(_opened, self.name)
        try:
            status, here = os.fstat(self._descriptor), os.stat(self.name)  # noqa: PTH116 - one look
        except OSError as error:
            raise TielineError("not_found", f"`{self.name}` cannot be read: {error.strerror}") from None
        tag = f"{here.st_dev}.{here.st_ino}.{here.st_size}.{here.st_mtime_ns}"
        return About(size_bytes=status.st_size, tag=tag)

    async def read(self, about: About, start: int, end: int, lane: Lane) -> AsyncGenerator[bytes, None]:
        """As `Source`."""
        while start < end:
            try:
                piece = await settled(os.pread, self._descriptor, min(PIECE_BYTES, end - start), start)
            except OSError as error:
                raise TielineError("check_failed", f"`{self.name}` cannot be read: {error.strerror}") from None
            if not piece:
                raise TielineError("conflict", f"`{self.name}` became shorter than {about.size_bytes:,} bytes")
            start += len(piece)
            yield piece

    async def close(self) -> None:
        """As `Source`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileTarget:
    """A file that is to be."""

    is_ordered = False
    is_readable = True

    def __init__(self, path: str, *, is_replacing: bool = False, reserve_bytes: int = 0) -> None:
        """``reserve_bytes`` of the file system stay free."""
        self.name = path
        self.path = Path(path)
        self.is_replacing = is_replacing
        self.reserve_bytes = reserve_bytes
        self._part = self.path
        self._descriptor = -1
        self._journal: Journal | None = None
        self._division = Division(0, 1)
        self._booking = ""
        self.own_bytes = 0

    def chunk_bytes(self, size_bytes: int, wished: int) -> int:
        """As `Target`."""
        return wished

    async def open(self, job: Job) -> Mapping[int, str]:
        """As `Target`."""
        try:
            return await settled(self._open, job)
        except OSError as error:
            raise failed(self.name, error) from None

    async def put(self, index: int, chunk: bytes, sha256: str) -> None:
        """As `Target`."""
        try:
            await settled(self._put, index, chunk)
        except OSError as error:
            raise failed(self.name, error) from None
        assert self._journal is not None
        self._journal.note(index, sha256, self._booking)

    async def read(self, index: int) -> bytes:
        """As `Target`."""
        start, end = self._division.span(index)
        return await settled(os.pread, self._descriptor, end - start, start)

    async def finish(self, sha256: str) -> None:
        """As `Target`."""
        try:
            await settled(self._finish)
        except OSError as error:
            raise failed(self.name, error) from None

    async def drop(self) -> None:
        """As `Target`."""
        self._part.unlink(missing_ok=True)
        if self._journal is not None:
            self._journal.remove()

    async def close(self) -> None:
        """As `Target`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._journal is not None:
            self._journal.close()

    # -- in a thread --------------------------------------------------------------------------------------------------

    def _open(self, job: Job) -> Mapping[int, str]:
        if self.path.is_dir() or not self.path.name:
            raise TielineError("invalid_request", f"`{self.name}` is a folder; name the file")
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise TielineError("conflict", f"`{self.name}` is there and no plain file")
        if self.path.exists() and not self.is_replacing:
            raise TielineError("conflict", f"`{self.name}` is there already", hints=REPLACE)
        self._division, self._booking, self.own_bytes = job.division, job.booking, 0
        key = job.key or os.urandom(16).hex()
        parent, stem = self.path.parent, _stem(self.path.name)
        self._journal = Journal(parent / f"{stem}.{key}.moves", job._replace(key=key))
        self._part = parent / f"{stem}.{key}.part"
        self._clear_others(stem, key)
        self._descriptor = os.open(
            self._part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
        )  # as a file that anybody makes: the umask decides
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise TielineError("conflict", f"`{self._part}` is no plain file")
        self._take_room(job.division.size_bytes)
        kept: dict[int, str] = {}
        for index, entry in sorted(self._journal.entries.items()):
            start, end = job.division.span(index)
            if hashlib.sha256(os.pread(self._descriptor, end - start, start)).hexdigest() == entry.sha256:
                kept[index] = entry.sha256
                self.own_bytes += (end - start) * (entry.mark == self._booking)
        return kept

    def _take_room(self, size_bytes: int) -> None:
        """Take the whole room at once, so that a full disk is known before anything is moved."""
        status = os.fstat(self._descriptor)
        missing = size_bytes - status.st_blocks * 512
        room = os.fstatvfs(self._descriptor)
        free = room.f_bavail * room.f_frsize
        if missing > 0 and missing + self.reserve_bytes > free:
            raise self._too_little(size_bytes, free)
        os.ftruncate(self._descriptor, size_bytes)
        if missing > 0:
            try:
                os.posix_fallocate(self._descriptor, 0, size_bytes)
            except OSError as error:
                if error.errno in FULL:
                    raise self._too_little(size_bytes, free) from None
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise

    def _too_little(self, size_bytes: int, free: int) -> TielineError:
        if self._journal is not None and not self._journal.entries:  # what moved before is kept for when there is room
            self._part.unlink(missing_ok=True)
            self._journal.remove()
        return TielineError(
            "storage_full", f"{size_bytes:,} bytes do not fit the {free:,} that are free where `{self.name}` lies"
        )

    def _put(self, index: int, chunk: bytes) -> None:
        start, _ = self._division.span(index)
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._descriptor, view, start)
            view, start = view[written:], start + written

    def _finish(self) -> None:
        os.fsync(self._descriptor)
        if self.is_replacing:
            self._part.replace(self.path)
        else:
            try:
                os.link(self._part, self.path)  # unlike a rename it never takes the place of what came meanwhile
            except FileExistsError:
                raise TielineError("conflict", f"`{self.name}` is there already", hints=REPLACE) from None
            except OSError:
                if self.path.exists():
                    raise TielineError("conflict", f"`{self.name}` is there already", hints=REPLACE) from None
                self._part.replace(self.path)  # a file system without links
            else:
                self._part.unlink()
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        assert self._journal is not None
        self._journal.remove()

    def _clear_others(self, stem: str, key: str) -> None:
        """What tries of other bytes left behind at this place, unless one of them is at work."""
        for path in self.path.parent.glob(f"{_literal(stem)}.{'?' * len(key)}.moves"):
            if path.name == f"{stem}.{key}.moves" or not KEY.fullmatch(path.stem.removeprefix(f"{stem}.")):
                continue  # `a` is not to clear what belongs to `a.b`
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.with_suffix(".part").unlink(missing_ok=True)
                path.unlink()


async def settled(work: Callable[..., T], *args: object) -> T:
    """``work`` in a thread. Whoever is cancelled waits for its end: a descriptor is never closed under it."""
    doing = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        while not doing.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({doing})
        doing.exception()  # seen: nobody waits for it any more
        raise


def failed(name: str, error: OSError) -> TielineError:
    """What a file system's refusal means."""
    if error.errno in FULL:
        return TielineError("storage_full", f"`{name}` cannot be written: {error.strerror}")
    code = {errno.ENOENT: "not_found", errno.EACCES: "forbidden", errno.EPERM: "forbidden", errno.EROFS: "forbidden"}
    return TielineError(code.get(error.errno or 0, "check_failed"), f"`{name}`: {error.strerror or error}")


def _opened(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would be waited for
    except OSError as error:
        raise failed(path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise TielineError("invalid_request", f"`{path}` is no plain file")
    return descriptor


def _stem(name: str) -> str:
    """What hidden names beside a file begin with: its own name, where that leaves room for the rest."""
    raw = os.fsencode(name)
    return f".{name}" if len(raw) <= MOST_STEM_BYTES else f".{hashlib.sha256(raw).hexdigest()[:32]}"


def _literal(stem: str) -> str:
    return "".join(f"[{each}]" if each in "*?[" else each for each in stem)
