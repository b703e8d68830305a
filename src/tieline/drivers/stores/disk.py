"""Disk: private folders and files, and refusing new work while there is still room for what was acknowledged."""

from __future__ import annotations

import os
from pathlib import Path

from tieline.model.error import TielineError
from tieline.model.quantity import show_size

FOLDER_MODE = 0o700
FILE_MODE = 0o600


def private_folder(path: Path) -> Path:
    """Make ``path`` readable by its owner alone, whatever the umask says; a folder that exists is left as it is."""
    if not path.is_dir():
        path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        path.chmod(FOLDER_MODE)
    return path


def private_file(path: Path) -> None:
    """Make an empty file that its owner alone can read, or take those rights away from one that exists."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
    finally:
        os.close(descriptor)


class Disk:
    """The file system below ``folder``, of which ``reserve_bytes`` are kept free for what was already promised."""

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self.folder = folder
        self.reserve_bytes = reserve_bytes

    def free_bytes(self) -> int:
        """What an ordinary process may still write (statvfs(3), `f_bavail`)."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def room_bytes(self) -> int:
        """What may be written before the reserve is reached; below 0 when it was."""
        return self.free_bytes() - self.reserve_bytes

    def check(self, extra_bytes: int = 0) -> None:
        """Raise `storage_full` when ``extra_bytes`` more would eat into the reserve."""
        free = self.free_bytes()
        if free - extra_bytes < self.reserve_bytes:
            raise TielineError(
                "storage_full",
                f"{show_size(free)} of disk are free, {show_size(self.reserve_bytes)} are kept in reserve"
                + (f", {show_size(extra_bytes)} were asked for" if extra_bytes else ""),
                hints=("tieline status  # what takes the room, and the limits that bound it",),
            )
