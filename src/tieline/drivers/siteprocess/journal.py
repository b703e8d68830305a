"""Journal: what a site must know after any crash, one folder per run.

``run.json`` is the run as it was accepted: written whole, synced, before the acceptance is reported. ``progress`` gets
a line for every change after that, with one write and no sync: it survives a SIGKILL, and after a power cut the
engine's folders tell the rest. A last line that is torn is not read; the line before it leads to the same end.
"""

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
from tieline.site.state import Progress

log = logging.getLogger("tieline.site")
ENTRY, PROGRESS = "run.json", "progress"
encode = msgspec.json.Encoder().encode
entries = msgspec.json.Decoder(Held)
lines = msgspec.json.Decoder(Progress | Done)
NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
MORE = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


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
                held = entries.decode(path.read_bytes())
                found.append(_latest(held, path.with_name(PROGRESS)))
            except (OSError, msgspec.MsgspecError) as error:
                extra = {"run": path.parent.name, "why": str(error)}
                log.error("a journal entry cannot be read and is left alone", extra=extra)  # noqa: TRY400 - said
        found.sort(key=lambda pair: pair[0])
        done = [entry for _, entry in found if isinstance(entry, Done)]
        self._kept = [entry.ended.run for entry in done]
        return [*done, *(entry for _, entry in found if isinstance(entry, Held))]

    def accept(self, held: Iterable[Held]) -> None:
        """Write new runs; afterwards they survive a power cut. Raises TielineError `storage_full`."""
        try:
            for each in held:
                _create(f"{self.folder}/{each.run}", encode(each))
            sync_folder(self.folder)
        except OSError as error:
            raise TielineError("storage_full", f"the journal cannot be written: {error}") from None

    def note(self, held: Held) -> None:
        """Note how far an accepted run has come. Raises TielineError `storage_full`."""
        try:
            _append(f"{self.folder}/{held.run}/{PROGRESS}", encode(Progress.of(held)))
        except OSError as error:
            raise TielineError("storage_full", f"the journal cannot be written: {error}") from None

    def forget(self, run: str, done: Done | None) -> None:
        """Keep the tombstone of an ended run, or nothing of one that never began; remove what is too old to be kept."""
        folder = f"{self.folder}/{run}"
        if done is None:
            remove(folder)
            return
        with contextlib.suppress(FileNotFoundError):
            _append(f"{folder}/{PROGRESS}", encode(done))
            for node in os.listdir(folder):  # noqa: PTH208 - on the path of every run
                if node == "data":
                    remove(f"{folder}/data")
                if node.startswith("node-"):
                    remove(f"{folder}/{node}/work")
                    remove(f"{folder}/{node}/tmp")  # noqa: S108 - the run's own
            if run not in self._kept:
                self._kept.append(run)
        while len(self._kept) > self.kept_runs:
            remove(f"{self.folder}/{self._kept.pop(0)}")


def _latest(held: Held, path: Path) -> tuple[float, Entry]:
    """When a run last changed, and how far it had come by then."""
    try:
        written = path.read_bytes().split(b"\n")[:-1]  # what has no line end was not written whole
    except FileNotFoundError:
        return path.parent.stat().st_mtime, held
    changed_s = path.stat().st_mtime
    for line in reversed(written):
        with contextlib.suppress(msgspec.MsgspecError):
            latest = lines.decode(line)
            return changed_s, latest if isinstance(latest, Done) else latest.on(held)
    return changed_s, held


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


def _create(folder: str, content: bytes) -> None:
    path = f"{folder}/{ENTRY}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)  # noqa: PTH102
    descriptor = os.open(f"{path}.part", NEW, 0o600)
    try:
        _write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(f"{path}.part", path)  # noqa: PTH104
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _append(path: str, content: bytes) -> None:
    descriptor = os.open(path, MORE, 0o600)
    try:
        _write(descriptor, content + b"\n")
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
