"""Processes: an exchange and sites started in the background from a folder, and ended by their identity, not by name.

A process is its pid and its start time, so that a pid that the system gave to somebody else is never touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tieline.model.error import TielineError

POLL_S = 0.01


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A process as it is found again later."""

    name: str
    pid: int
    start: str  # field 22 of /proc/PID/stat: clock ticks after boot


def start_of(pid: int) -> str:
    """When the process with this pid began; empty when there is none (a zombie counts as none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def is_alive(started: Started) -> bool:
    """Whether it still runs."""
    return start_of(started.pid) == started.start


SITE = "tieline.drivers.siteprocess"


def spawn_site(name: str, folder: Path, log: Path) -> Started:
    """Start the process of the site in ``folder``, without the command line around it: that saves memory."""
    return spawn(name, [str(folder)], log, module=SITE)


def spawn(name: str, arguments: Sequence[str], log: Path, *, module: str = "tieline.cli") -> Started:
    """Start a verb of this command in a session of its own; its standard error goes to ``log``."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
        )
    finally:
        os.close(handle)
    process.returncode = 0  # it outlives us on purpose; nobody waits for it here
    return Started(name=name, pid=process.pid, start=start_of(process.pid))


def await_file(path: Path, started: Started, log: Path, timeout_s: float = 60) -> str:
    """What the process writes to ``path`` once it answers. Raises TielineError with its last words when it ends."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(FileNotFoundError):
            text = path.read_text().strip()
            if text:
                return text
        _reap(started.pid)
        if not is_alive(started) or time.monotonic() > deadline:
            words = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise TielineError(
                "exchange_unreachable",
                f"the {started.name} process {'did not answer in time' if is_alive(started) else 'ended'}: "
                + (" | ".join(words)[-600:] or "it said nothing"),
                hints=(f"less {log}",),
            )
        time.sleep(POLL_S)


def end(started: Started, grace_s: float = 10) -> bool:
    """SIGTERM, then SIGKILL after ``grace_s``. True when it ended by itself."""
    if not is_alive(started):
        return True
    os.kill(started.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        _reap(started.pid)
        if not is_alive(started):
            return True
        time.sleep(POLL_S)
    os.kill(started.pid, signal.SIGKILL)
    _reap(started.pid, wait=True)
    return False


def kill(started: Started) -> None:
    """SIGKILL at once: what a power cut does."""
    if is_alive(started):
        os.kill(started.pid, signal.SIGKILL)
        _reap(started.pid, wait=True)


def _reap(pid: int, *, wait: bool = False) -> None:
    """Collect a child of ours that has ended; others' children are nobody's business here."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0 if wait else os.WNOHANG)
