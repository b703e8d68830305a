"""Which processes belong to a run, and how to reach them without reaching the ones that tell how it ended.

A process is known by its number *and* its start time (clock ticks since boot, field 22 of ``/proc/PID/stat``): numbers
come round again.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

USER_SIGNALS = (
    signal.SIGUSR1,
    signal.SIGUSR2,
)  # would kill a shell that merely waits for the program they are meant for


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start_ticks: int
    cpu_ticks: int
    resident_bytes: int


def process(pid: int) -> Process | None:
    """What the kernel says of ``pid``; None when there is no such process."""
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(
        pid=pid,
        state=fields[0].decode(),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        resident_bytes=int(fields[21]) * PAGE_BYTES,
    )


PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def is_alive(pid: int, start_ticks: int) -> bool:
    """Whether the process that had this number at that time still runs; a zombie does not."""
    found = process(pid)
    return found is not None and found.start_ticks == start_ticks and found.state not in "ZX"


def table() -> dict[int, Process]:
    """Every living process."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names only, thrice as fast
    return {entry.pid: entry for entry in found if entry is not None and entry.state not in "ZX"}


def of_session(wrapper: int, start_ticks: int, mark: str, processes: dict[int, Process]) -> list[int]:
    """The processes of the session that ``wrapper`` leads or led, and those that left it and still carry ``mark``.

    ``mark`` is a variable of the run's environment (``NAME=value``): a daemon that started its own session keeps it.
    """
    leader = processes.get(wrapper)
    is_ours = leader is None or leader.start_ticks == start_ticks  # else the number came round again
    wanted = b"\0" + mark.encode() + b"\0"
    return [
        entry.pid
        for entry in processes.values()
        if (is_ours and entry.session == wrapper)
        or (mark and entry.start_ticks >= start_ticks and wanted in b"\0" + _read(f"/proc/{entry.pid}/environ"))
    ]


def descendants(root: int, processes: dict[int, Process]) -> list[int]:
    """``root`` and everything it started, as far as the line of parents is unbroken."""
    children: dict[int, list[int]] = {}
    for entry in processes.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    found = [root] if root in processes else []
    for pid in found:  # grows while it is walked; each process has one parent, so it ends
        found.extend(children.get(pid, ()))
    return found


def inner_numbers(pid: int) -> tuple[int, ...]:
    """The numbers of ``pid`` in its process namespaces, outermost first; empty when it is gone."""
    return tuple(int(number) for number in _status(pid, b"NSpid:").split())


def send(pids: Iterable[int], number: int, *, is_sandboxed: bool) -> int:
    """Send a signal to these processes of a task; returns how many got it.

    The outer process of a sandbox is spared (it tells the exit code), and so is the init within unless all must die.
    SIGUSR1 and SIGUSR2 go only to processes that catch them: they ask for a checkpoint and must not kill a shell
    that merely waits for the program they are meant for.
    """
    sent = 0
    own_depth = len(inner_numbers(os.getpid()))
    for pid in pids:
        if pid <= 1:
            continue
        if is_sandboxed:
            numbers = inner_numbers(pid)
            if len(numbers) <= own_depth or (numbers[-1] == 1 and number != signal.SIGKILL):
                continue
        if number in USER_SIGNALS and not _catches(pid, number):
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
            sent += 1
    return sent


def kill(pids: Sequence[int]) -> None:
    """SIGKILL to each; never to 0, 1 or a negative number, which mean many."""
    for pid in pids:
        if pid <= 1:
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _catches(pid: int, number: int) -> bool:
    caught = _status(pid, b"SigCgt:")
    return bool(caught) and bool(int(caught, 16) >> (number - 1) & 1)


def _status(pid: int, key: bytes) -> bytes:
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(key):
            return line[len(key) :].strip()
    return b""


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
