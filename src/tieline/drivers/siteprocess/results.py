"""Results: what a run leaves behind, brought to the exchange as blobs: outputs, and checkpoints while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tieline.drivers.engines.archive import pack
from tieline.drivers.engines.outputs import Bounds, collect_outputs, open_inside
from tieline.drivers.engines.tar import Most
from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.patience import patiently
from tieline.drivers.siteprocess.staging import steps_of
from tieline.model.api import BlobView
from tieline.model.error import TielineError
from tieline.model.job import Output

CHUNK_BYTES = 2**20
SLOWEST_BPS = 8 * 256 * 1024  # an upload may take as long as this rate needs, and a minute more
UPLOADS = 4
STEADY_TRIES = 5

Listing = tuple[tuple[str, int, int], ...]


class Checkpoint(NamedTuple):
    """A packed checkpoint that waits to be sent; ``listing`` is what it was packed from."""

    path: Path
    sha256: str
    size_bytes: int
    listing: Listing


async def send_file(
    client: HttpClient, is_open: asyncio.Event, opened: Callable[[], int], sha256: str, size: int
) -> None:
    """Send the file that ``opened`` gives a new descriptor of. Raises TielineError; `check_failed` if it changed."""

    async def chunks() -> AsyncIterator[bytes]:
        with open(opened(), "rb", buffering=0) as file:  # noqa: ASYNC230 - chunks of a page cache
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    async def call() -> BlobView:
        total_s = 60 + size * 8 / SLOWEST_BPS
        return await client.call("POST", "/v1/blobs", BlobView, body=chunks, key=None, total_s=total_s)

    kept = await patiently(call, is_open, "a result")
    if kept.sha256 != sha256:
        raise TielineError("check_failed", f"a file changed while it was handed over: {kept.sha256}, not {sha256}")


async def send_outputs(
    client: HttpClient, is_open: asyncio.Event, works: Sequence[str], patterns: Sequence[str], limit_bytes: int
) -> tuple[Output, ...]:
    """Hash and send what matches in every node's work folder. Raises TielineError."""
    if not patterns:
        return ()
    outputs: list[Output] = []
    gate = asyncio.Semaphore(UPLOADS)

    async def send(work: str, output: Output) -> None:
        async with gate:
            await send_file(client, is_open, lambda: open_inside(work, output.path), output.sha256, output.size_bytes)

    left = limit_bytes
    for node, work in enumerate(works):
        found = await asyncio.to_thread(collect_outputs, work, patterns, Bounds(total_bytes=left))
        left -= sum(each.size_bytes for each in found)
        mine = [Output(path=each.path, sha256=each.sha256, size_bytes=each.size_bytes, node=node) for each in found]
        try:
            async with asyncio.TaskGroup() as group:
                for output in mine:
                    group.create_task(send(work, output))
        except* (TielineError, OSError) as errors:
            raise errors.exceptions[0] from None
        outputs += mine
    return tuple(outputs)


async def pack_checkpoint(folder: str, path: str, last: Listing, limit_bytes: int) -> Checkpoint | None:
    """Pack the checkpoint folder of a node, once it stands still; None when it is empty or as it was at ``last``."""
    source = checkpoint_folder(folder, path)
    for _ in range(STEADY_TRIES):
        packed = await asyncio.to_thread(_packed, source, Path(folder, "checkpoint.tar"), last, limit_bytes)
        if packed != "again":
            return packed if isinstance(packed, Checkpoint) else None
        await asyncio.sleep(0.2)
    return None


def _packed(source: str, target: Path, last: Listing, limit_bytes: int) -> Checkpoint | str:
    """A checkpoint, or why there is none: nothing is there, nothing is new, or it changed meanwhile (`again`)."""
    before = listing_of(source)
    if not before or before == last:
        return "nothing"
    summed, size = hashlib.sha256(), 0
    try:
        with open(target, "wb") as file:
            for chunk in pack(source, most=Most(total_bytes=limit_bytes)):
                summed.update(chunk)
                size += len(chunk)
                file.write(chunk)
    except FileNotFoundError:
        return "again"
    except TielineError as error:
        if error.code == "conflict":  # a file shrank
            return "again"
        raise
    except OSError as error:
        raise TielineError("storage_full", f"the checkpoint cannot be packed: {error}") from None
    if listing_of(source) != before:
        return "again"
    return Checkpoint(target, summed.hexdigest(), size, before)


def listing_of(source: str) -> Listing:
    """Names, sizes and times of everything below; empty where there is nothing."""
    found: list[tuple[str, int, int]] = []
    for root, folders, files in os.walk(source, followlinks=False):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                status = os.lstat(f"{root}/{name}")
                found.append((f"{root}/{name}", status.st_size, status.st_mtime_ns))
        if len(found) > 200_000:
            break
    return tuple(sorted(found))


def checkpoint_folder(folder: str, path: str) -> str:
    """Where a node's checkpoint lies. Raises TielineError for a path that leaves the work folder."""
    return "/".join((folder, "work", *steps_of(path)))


def opened(path: Path) -> int:
    """A descriptor of a file of ours."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
