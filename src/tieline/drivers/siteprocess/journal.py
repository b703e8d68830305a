"""Journal: one small file per run, written whole or not at all; what a site must know after any crash."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from tieline.drivers.siteprocess.home import sync_folder
from tieline.model.error import TielineError
from tieline.site import Done, Entry, Held

log = logging.getLogger("tieline.site")
ENTRY = "run.json"
encode = msgspec.json.Encoder().encode
decoder = msgspec.json.Decoder(Entry)


class Journal:
    """The runs below ``folder``. Methods block; the shell calls the durable ones in a thread."""

    def __init__(self, folder: Path, kept_runs: int) -> None:
        self.folder = folder
        self.kept_runs = kept_runs
        self._kept: list[str] = []  # ended runs whose folder is still there, oldest first
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def read(self) -> list[Entry]:
        """Every entry, ended ones first and in the order of their end. What cannot be read is set aside, and said."""
        found: list[tuple[float, Entry]] = []
        for path in sorted(self.folder.glob(f"*/{ENTRY}")):
            try:
                found.append((path.stat().st_mtime, decoder.decode(path.read_bytes())))
            except (OSError, msgspec.MsgspecError) as error:
                extra = {"run": path.parent.name, "why": str(error)}
                log.error("a journal entry cannot be read and is left alone", extra=extra)  # noqa: TRY400 - said
        found.sort(key=lambda pair: pair[0])
        done = [entry for _, entry in found if isinstance(entry, Done)]
        self._kept = [entry.ended.run for entry in done]
        return [*done, *(entry for _, entry in found if isinstance(entry, Held))]

    def write(self, entries: Iterable[Held], *, is_durable: bool) -> None:
        """Write entries; after a durable write they survive a power cut. Raises TielineError `storage_full`."""
        try:
            for held in entries:
                _put(f"{self.folder}/{held.run}", encode(held), is_durable=is_durable)
            if is_durable:
                sync_folder(self.folder)
        except OSError as error:
            raise TielineError("storage_full", f"the journal cannot be written: {error}") from None

    def forget(self, run: str, done: Done | None) -> None:
        """Keep the tombstone of an ended run, or nothing of one that never began; remove what is too old to be kept."""
        folder = f"{self.folder}/{run}"
        if done is None:
            remove(folder)
            return
        _put(folder, encode(done), is_durable=False)
        for node in Path(folder).glob("node-*"):
            for name in ("work", "tmp"):
                remove(f"{node}/{name}")
        if run in self._kept:
            return
        self._kept.append(run)
        while len(self._kept) > self.kept_runs:
            remove(f"{self.folder}/{self._kept.pop(0)}")


def remove(folder: str) -> None:
    """Remove a folder whatever a task made of it; folders that it locked are unlocked first."""

    def unlock(_: Callable[..., object], path: str, __: object) -> None:
        above = os.path.dirname(path)  # noqa: PTH120
        with contextlib.suppress(OSError):
            for locked in (above, path):
                if not os.path.islink(locked):  # noqa: PTH114
                    os.chmod(locked, 0o700)  # noqa: PTH101
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108

    shutil.rmtree(folder, onerror=unlock)


def _put(folder: str, content: bytes, *, is_durable: bool) -> None:
    """On the path of every run: plain calls, no pathlib."""
    path = f"{folder}/{ENTRY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        descriptor = os.open(f"{path}.part", flags, 0o600)
    except FileNotFoundError:
        os.mkdir(folder, 0o700)  # noqa: PTH102
        descriptor = os.open(f"{path}.part", flags, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        if is_durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(f"{path}.part", path)  # noqa: PTH105
    if is_durable:
        sync = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(sync)
        finally:
            os.close(sync)
