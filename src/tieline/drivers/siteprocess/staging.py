"""Staging: the bytes that a task brings along, laid into its nodes' work folders before anything of it runs.

Paths are hostile: every step is opened without following a link, nothing leaves the work folder, archives are unpacked
whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tieline.drivers.engines.archive import unpack
from tieline.drivers.engines.tar import Most
from tieline.drivers.siteprocess.cache import Cache
from tieline.model.error import TielineError
from tieline.model.protocol import Offer
from tieline.model.task import Mount

CHUNK_BYTES = 2**20
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def needs_staging(offer: Offer) -> bool:
    """Whether anything must be laid out before the start."""
    task = offer.task
    has_data = any(use.id and use.path for use in task.data)
    return task.workdir is not None or bool(task.mounts) or bool(offer.checkpoint and task.checkpoint) or has_data


async def stage(offer: Offer, folders: Sequence[str], cache: Cache, limit_bytes: int) -> None:
    """Lay out everything in every node's folder, together no more than ``limit_bytes`` in each.

    May be repeated: what a crash left half done is laid out anew.

    Raises TielineError when bytes are missing, wrong, too many, or leave the work folder.
    """
    task = offer.task
    for folder in folders:
        await asyncio.to_thread(_clear, f"{folder}/work")
    left = limit_bytes
    if task.workdir is not None:
        left -= await _lay(task.workdir, ".", offer.job, folders, cache, left)
    for mount in task.mounts:
        left -= await _lay(mount, mount.path, offer.job, folders, cache, left)
    if offer.checkpoint and task.checkpoint is not None:
        newest = Mount(path=task.checkpoint.path, sha256=offer.checkpoint, is_archive=True)
        await _lay(newest, newest.path, offer.job, folders, cache, left)


def _clear(work: str) -> None:
    shutil.rmtree(work, ignore_errors=True)
    Path(work).mkdir(parents=True, mode=0o700)


async def _lay(mount: Mount, path: str, job: str, folders: Sequence[str], cache: Cache, limit_bytes: int) -> int:
    """How many bytes that took in each folder."""
    laid = 0
    async with cache.blob(mount.sha256, mount.size_bytes, job) as blob:
        for folder in folders:
            lay = lay_archive if mount.is_archive else lay_file
            target = mount.path if path == "." and not mount.is_archive else path
            laid = await asyncio.to_thread(lay, blob, f"{folder}/work", target, limit_bytes)
    return laid


def lay_archive(blob: Path, work: str, path: str, limit_bytes: int) -> int:
    """Unpack ``blob`` at ``path`` below ``work``: the bytes in its files. Raises TielineError."""
    steps = steps_of(path)
    if not steps:
        Path(work).rmdir()
        return unpack(_chunks(blob), work, most=Most(total_bytes=limit_bytes)).total_bytes
    with below(work, steps, path):
        target = "/".join((work, *steps))
        if Path(target).is_symlink():
            raise _leaves(path)
        return unpack(_chunks(blob), target, most=Most(total_bytes=limit_bytes)).total_bytes


def lay_file(blob: Path, work: str, path: str, limit_bytes: int) -> int:
    """Copy ``blob`` to ``path`` below ``work``: its size. Raises TielineError."""
    steps = steps_of(path)
    if not steps:
        raise TielineError("invalid_task", f"`{path[:200]}` names no file", where="mounts")
    size = blob.stat().st_size
    if size > limit_bytes:
        message = f"`{path[:200]}` has {size:,} bytes, and {limit_bytes:,} of this run's disk are left"
        raise TielineError("too_large", message)
    with below(work, steps, path) as at:
        try:
            descriptor = os.open(steps[-1], FILE, 0o644, dir_fd=at)
        except OSError as error:
            raise TielineError("invalid_task", f"`{path[:200]}` cannot be laid there: {error.strerror}") from None
        with open(descriptor, "wb", buffering=0) as file:
            file.writelines(_chunks(blob))
    return size


def steps_of(path: str) -> list[str]:
    """The steps of a relative path; `~/` and `./` are the work folder. Raises TielineError for one that leaves it."""
    steps = [step for step in path.removeprefix("~/").split("/") if step not in ("", ".")]
    if path.startswith("/") or ".." in steps or "\0" in path or len(steps) > 64:
        raise _leaves(path)
    return steps


@contextlib.contextmanager
def below(work: str, steps: list[str], path: str, *, is_made: bool = True) -> Iterator[int]:
    """A descriptor of the folder that holds the last step, made where it is missing; no link is ever followed."""
    at = os.open(work, FOLDER)
    try:
        for step in steps[:-1]:
            with contextlib.suppress(FileExistsError):
                if is_made:
                    os.mkdir(step, 0o755, dir_fd=at)
            try:
                below = os.open(step, FOLDER, dir_fd=at)
            except OSError:
                raise _leaves(path) from None
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)


def _leaves(path: str) -> TielineError:
    return TielineError("invalid_task", f"`{path[:200]}` does not lie below the work folder", where="mounts")


def _chunks(blob: Path) -> Iterator[bytes]:
    with open(blob, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
