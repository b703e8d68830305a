"""How much a folder holds, looked up in small steps so that nobody waits for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence

ENTRIES_PER_STEP = 500
ENTRIES_MOST = 2_000_000


async def used_bytes(folders: Sequence[str], enough_bytes: int) -> int:
    """Bytes on disk (whole blocks) below these folders; stops counting above ``enough_bytes``.

    A folder of more than two million entries counts as full: it could not be looked at in time. Links are not followed.
    """
    used = 0
    for entries, size in enumerate(_sizes(folders), start=1):
        used += size
        if used > enough_bytes:
            return used
        if entries > ENTRIES_MOST:
            return enough_bytes + 1
        if entries % ENTRIES_PER_STEP == 0:
            await asyncio.sleep(0)
    return used


def _sizes(folders: Sequence[str]) -> Iterator[int]:
    waiting = list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    try:
                        is_folder, found = entry.is_dir(follow_symlinks=False), entry.stat(follow_symlinks=False)
                    except OSError:  # gone meanwhile
                        continue
                    if is_folder:
                        waiting.append(entry.path)
                    yield found.st_blocks * 512 // max(1, 1 if is_folder else found.st_nlink)
        except OSError:
            continue
