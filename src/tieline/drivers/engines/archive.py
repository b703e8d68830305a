"""Folders as tar streams: packed the same way every time, unpacked whole or not at all.

What is unpacked is hostile. Only regular files, folders and links are known, no path leaves the target, no link is ever
followed while writing, a name comes once, and what a compressed stream may become is bounded by size and by ratio.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tieline.drivers.engines.tar import BLOCK, CHUNK_BYTES, Most, Source, checked_path, next_entry
from tieline.model.error import TielineError

FILE_KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
SPECIAL = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unpacked(NamedTuple):
    """What an archive held."""

    entries: int
    total_bytes: int


def pack(folder: str, *, most: Most | None = None, skip: Callable[[str], bool] | None = None) -> Iterator[bytes]:
    """The content of ``folder`` as an uncompressed tar stream: sorted, without times, owners or more than one mode bit.

    ``skip`` is asked with each relative path; a skipped folder is not entered. Links are kept if they stay inside.
    Raises TielineError for links that leave, for pipes and devices, and above the bounds.
    """
    bounds = most or Most()
    total = 0
    for count, path in enumerate(_listed(folder, skip, bounds), start=1):
        if count > bounds.entries:
            raise TielineError("too_large", f"`{folder}` holds more than {bounds.entries:,} entries")
        info = _described(folder, path)
        total += info.size
        if total > bounds.total_bytes:
            raise TielineError("too_large", f"`{folder}` holds more than {bounds.total_bytes:,} bytes, at `{path}`")
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if info.isreg():
            yield from _content(f"{folder}/{path}", info.size)
    yield b"\0" * (2 * BLOCK)


def unpack(chunks: Iterable[bytes], target: str, *, most: Most | None = None) -> Unpacked:
    """Unpack a tar stream, plain or gzip, as the new folder ``target``: whole or not at all.

    ``target`` must not exist, or be an empty folder. Raises TielineError saying which entry broke which rule; then
    nothing is left behind.
    """
    bounds = most or Most()
    above = Path(target).parent
    above.mkdir(parents=True, exist_ok=True)
    part = tempfile.mkdtemp(prefix=f".{Path(target).name}.part-", dir=above)
    try:
        unpacked = _unpacked(Source(chunks, bounds), part, bounds)
        Path(part).chmod(0o755)
        _replace(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return unpacked


# Packing


def _listed(folder: str, skip: Callable[[str], bool] | None, bounds: Most) -> Iterator[str]:
    """Relative paths, parents before children, in the order of their bytes."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        if below:
            yield below
            status = os.lstat(f"{folder}/{below}")
            if not stat.S_ISDIR(status.st_mode):
                continue
        if below.count("/") >= bounds.depth:
            raise TielineError("too_large", f"`{below[:200]}` lies more than {bounds.depth} folders deep")
        with os.scandir(f"{folder}/{below}") as entries:
            names = sorted((entry.name for entry in entries), key=os.fsencode, reverse=True)
        paths = (f"{below}/{name}" if below else name for name in names)
        waiting += [path for path in paths if skip is None or not skip(path)]


def _described(folder: str, path: str) -> tarfile.TarInfo:
    status = os.lstat(f"{folder}/{path}")
    info = tarfile.TarInfo(path)
    if stat.S_ISREG(status.st_mode):
        info.size, info.mode = status.st_size, 0o755 if status.st_mode & stat.S_IXUSR else 0o644
    elif stat.S_ISDIR(status.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, str(Path(f"{folder}/{path}").readlink())
        _check_link(Path(folder), path, info.linkname)
    else:
        raise TielineError("invalid_request", f"`{path[:200]}` is neither a file nor a folder nor a link")
    return info


def _content(path: str, size: int) -> Iterator[bytes]:
    left = size
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as file:
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk
    if left:
        raise TielineError("conflict", f"`{path}` shrank while it was packed")
    yield b"\0" * (-size % BLOCK)


# Unpacking


def _unpacked(source: Source, part: str, bounds: Most) -> Unpacked:
    kinds: dict[str, bytes] = {}  # path -> kind of what lies there
    links: dict[str, str] = {}
    count = total = 0
    root = os.open(part, OPEN_FOLDER)
    try:
        while (info := next_entry(source)) is not None:
            count += 1
            if count > bounds.entries:
                raise TielineError("too_large", f"the archive holds more than {bounds.entries:,} entries")
            path = checked_path(info.name, bounds)
            if not path:
                continue  # the folder itself
            _check_entry(info, path, kinds)
            total += info.size
            if total > bounds.total_bytes:
                raise TielineError(
                    "too_large", f"the archive holds more than {bounds.total_bytes:,} bytes, at `{path}`"
                )
            with _parent(root, path, kinds) as (at, name):
                _place(source, info, path, at, name, root, kinds, bounds)
            kinds[path] = info.type
            if info.issym():
                links[path] = info.linkname
    except OSError as error:
        raise _refusal(error) from error
    finally:
        os.close(root)
    for path, linked in links.items():  # only now is every link there that another one may lead through
        _check_link(Path(part), path, linked)
    return Unpacked(count, total)


def _check_entry(info: tarfile.TarInfo, path: str, kinds: dict[str, bytes]) -> None:
    if info.type in SPECIAL:
        raise TielineError("invalid_request", f"`{path[:200]}` in the archive is {SPECIAL[info.type]}")
    if info.type not in (*FILE_KINDS, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
        raise TielineError("invalid_request", f"`{path[:200]}` in the archive is of an unknown kind {info.type!r}")
    if path in kinds and not (info.isdir() and kinds[path] == tarfile.DIRTYPE):
        raise TielineError("invalid_request", f"`{path[:200]}` is in the archive twice")
    if info.size < 0 or (info.size and info.type not in FILE_KINDS):
        raise TielineError("invalid_request", f"`{path[:200]}` in the archive states an absurd size")


@contextlib.contextmanager
def _parent(root: int, path: str, kinds: dict[str, bytes]) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder that ``path`` goes into, made where it is missing, and the name there."""
    *parents, name = path.split("/")
    at, walked = os.dup(root), ""
    try:
        for parent in parents:
            walked = f"{walked}/{parent}" if walked else parent
            if walked not in kinds:
                os.mkdir(parent, 0o755, dir_fd=at)
                kinds[walked] = tarfile.DIRTYPE
            elif kinds[walked] != tarfile.DIRTYPE:
                raise TielineError("invalid_request", f"`{path[:200]}` in the archive goes through `{walked[:200]}`")
            below = os.open(parent, OPEN_FOLDER, dir_fd=at)
            os.close(at)
            at = below
        yield at, name
    finally:
        os.close(at)


def _place(
    source: Source,
    info: tarfile.TarInfo,
    path: str,
    at: int,
    name: str,
    root: int,
    kinds: dict[str, bytes],
    bounds: Most,
) -> None:
    if info.isdir():
        if path not in kinds:
            os.mkdir(name, 0o755, dir_fd=at)
    elif info.issym():
        if not info.linkname or "\0" in info.linkname or len(os.fsencode(info.linkname)) > bounds.path_bytes:
            raise TielineError("invalid_request", f"`{path[:200]}` in the archive is a link to nowhere")
        os.symlink(info.linkname, name, dir_fd=at)
    elif info.islnk():
        linked = checked_path(info.linkname, bounds)
        if kinds.get(linked) not in (*FILE_KINDS, tarfile.LNKTYPE):
            raise TielineError(
                "invalid_request", f"`{path[:200]}` in the archive links to `{linked[:200]}`, no file before it"
            )
        with _parent(root, linked, kinds) as (linked_at, linked_name):
            os.link(linked_name, name, src_dir_fd=linked_at, dst_dir_fd=at, follow_symlinks=False)
    else:
        mode = 0o755 if info.mode & stat.S_IXUSR else 0o644
        with open(os.open(name, NEW_FILE, mode, dir_fd=at), "wb", buffering=0) as file:
            left = info.size
            while left:
                chunk = source.read(min(left, CHUNK_BYTES))
                file.write(chunk)
                left -= len(chunk)
        source.read(-info.size % BLOCK)


def _check_link(root: Path, path: str, linked: str) -> None:
    """Raise TielineError unless the link at ``path`` leads, through any other links, to a place below ``root``."""
    base = os.path.realpath(root)
    real = os.path.realpath(Path(root, path).parent / linked)
    if linked.startswith("/") or (real != base and not real.startswith(base + "/")):
        raise TielineError("invalid_request", f"`{path[:200]}` is a link that leaves its folder, to `{linked[:200]}`")


def _replace(part: str, target: str) -> None:
    try:
        os.rename(part, target)  # noqa: PTH104 - an empty folder may stand there
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise TielineError("conflict", f"`{target}` exists and is not an empty folder") from None
        raise _refusal(error) from error


def _refusal(error: OSError) -> TielineError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TielineError("storage_full", f"the disk is full: {error}")
    return TielineError("invalid_request", f"the archive cannot be laid out: {error}")
