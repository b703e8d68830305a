"""A run's own folder: what lies in it, and how its end is told. The folder is the identity of the run.

::

    work/       where the task works; the only place it may write, besides tmp/
    tmp/        its temporary files
    setup.sh, run.sh
                what it does
    log         what it printed
    launch      what the engine must know to adopt it (JSON; no environment, so no secrets)
    identity    process number and start time of the wrapper (JSON); whoever creates it runs the task. Then, a line
                each: the task's process number, and the shell's two lines of CPU times
    exit        two slots of 256 bytes, each written at once into space that was set aside before the start: what the
                wrapper says when the task ended (JSON), and the `Ending` that the engine composed when nothing was
                left (JSON)
    limit, phase, stopping, sandbox, oom
                small notes between wrapper and engine, only where there is something to tell
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import msgspec

from tieline.drivers.engines.cgroups import Spent
from tieline.drivers.engines.members import process
from tieline.ports import Ending

LIMITS = ("time", "memory", "disk")
NOTE_BYTES = 4096  # more than any note ever holds
SLOT_BYTES = 256
EXIT_SPACE = b" " * (2 * SLOT_BYTES - 1) + b"\n"
TIMES = re.compile(r"\A(\d+)m(\d+)(?:[.,](\d{1,3})\d*)?s?\Z")


class Setting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an engine must know to adopt a run."""

    engine: str
    run: str
    node: int = 0
    sandbox: str = "none"
    boot: str = ""  # of the kernel: process numbers mean nothing after the next one
    cgroups: tuple[str, ...] = ()
    mark: str = ""  # a variable of the environment by which strays are found
    memory_bytes: int = 0
    disk_bytes: int = 0
    duration_s: int = 0
    grace_s: int = 5
    has_setup: bool = False
    container: str = ""  # name of the container, where one runs it


class Identity(msgspec.Struct, frozen=True):
    """The wrapper's process: its number and its start time in clock ticks since boot."""

    pid: int
    start_ticks: int


class Exit(msgspec.Struct, frozen=True):
    """What the wrapper wrote when the task ended."""

    exit_code: int
    phase: str = "run"
    user: str = ""
    system: str = ""


Note = TypeVar("Note", bound=msgspec.Struct)


class SandboxInfo(msgspec.Struct, frozen=True, rename={"child_pid": "child-pid", "pid_namespace": "pid-namespace"}):
    """What bubblewrap tells of the init inside (``--info-fd``)."""

    child_pid: int = 0
    pid_namespace: int = 0


@lru_cache(maxsize=1)
def boot() -> str:
    """Names this start of the kernel and this process namespace."""
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{kernel}/{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - a symlink to nowhere


def writable(folder: str) -> tuple[str, str]:
    """Where the task may write: its work folder and its temporary files."""
    return f"{folder}/work", f"{folder}/tmp"  # noqa: S108 - not the machine's


def note(folder: str, name: str) -> bytes:
    """A small file of the run; empty when it is not there. Never follows a link, never reads much."""
    try:
        descriptor = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with contextlib.suppress(OSError), open(descriptor, "rb") as file:
        return file.read(NOTE_BYTES)
    return b""


def put(folder: str, name: str, content: bytes) -> None:
    """Write a small file whole or not at all. Raises OSError."""
    path = f"{folder}/{name}"
    with open(f"{path}.part", "wb") as file:
        file.write(content)
    os.replace(f"{path}.part", path)  # noqa: PTH105 - on the path of every start


def setting(folder: str) -> Setting | None:
    """What was started here, if anything was."""
    return _decoded(note(folder, "launch"), Setting)


def identity(folder: str) -> Identity | None:
    """Which process runs it, once one does."""
    return _decoded(note(folder, "identity").partition(b"\n")[0], Identity)


def task(folder: str) -> int:
    """Process number of the task, or of the sandbox around it; 0 before there is one."""
    lines = note(folder, "identity").split(b"\n")
    return int(lines[1]) if len(lines) > 2 and lines[1].isdigit() else 0


def claimed(folder: str) -> Identity | None:
    """Which process runs it; where none does yet, none ever will. None: it cannot be said, or nothing was started."""
    with contextlib.suppress(OSError):
        descriptor = os.open(f"{folder}/identity", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.encode(Identity(0, 0)))
    return identity(folder)


def sandbox_init(folder: str) -> int:
    """The init inside a sandbox, while it lives: its number here, checked against the namespace it was started in."""
    told = _decoded(note(folder, "sandbox"), SandboxInfo)
    if told is None or not told.child_pid:
        return 0
    with contextlib.suppress(OSError):
        found = process(told.child_pid)
        namespace = os.stat(f"/proc/{told.child_pid}/ns/pid").st_ino  # noqa: PTH116
        if found is not None and found.state not in "ZX" and namespace == told.pid_namespace:
            return told.child_pid
    return 0


def began_ms(folder: str) -> int:
    """When it was started, in ms since the epoch; 0 before that."""
    return _written_ms(folder, "launch")


def exited_ms(folder: str) -> int:
    """When the wrapper wrote the exit code, in ms since the epoch; 0 before that."""
    wrote_ms = _written_ms(folder, "exit")  # laid out before `launch`: read only what changed since
    return wrote_ms if wrote_ms >= began_ms(folder) and exited(folder) is not None else 0


def exited(folder: str) -> Exit | None:
    """How the task ended, as soon as the wrapper said so."""
    return _decoded(note(folder, "exit")[:SLOT_BYTES], Exit)


def ended(folder: str) -> Ending | None:
    """The `Ending`, once nothing of the run is left."""
    content = note(folder, "exit")[SLOT_BYTES:].strip()
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(content, type=Ending) if content else None
    return None


def close(folder: str, known: Setting, spent: Spent, *, cpu_ms: int = 0, max_memory_bytes: int = 0) -> Ending:
    """Compose the `Ending`, say in the log which limit ended the run, and keep both.

    ``cpu_ms`` and ``max_memory_bytes`` are what the caller saw besides the control groups.
    """
    left = exited(folder)
    limit = note(folder, "limit").decode("ascii", "replace")
    code = left.exit_code if left else 128 + signal.SIGKILL
    told = {note(folder, "oom").strip(), *note(folder, "phase").split()} & {b"true", b"oom"}
    was_asked = bool(note(folder, "stopping"))  # a part that died earlier is not why it ended
    if code and not limit and not was_asked and (spent.memory_kills or (known.container and told)):
        limit = "memory"
    if code == 128 + signal.SIGXFSZ and known.disk_bytes and not limit:
        limit = "disk"
    told_ms = _milliseconds(left.user) + _milliseconds(left.system) if left and not known.container else 0
    ending = Ending(
        exit_code=code,
        phase=(left.phase if left else _phase(folder, known)),
        limit=limit if limit in LIMITS else "",
        started_ms=began_ms(folder),
        ended_ms=_written_ms(folder, "exit" if left else "log", "launch"),
        cpu_ms=max(cpu_ms, told_ms, spent.cpu_ms),
        max_memory_bytes=max(max_memory_bytes, spent.max_memory_bytes),
    )
    if ending.limit:
        say(folder, f"ended by its {ending.limit} limit of {_limit_shown(ending.limit, known)}")
    _keep(folder, ending)
    return ending


def _keep(folder: str, ending: Ending) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(f"{folder}/exit", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:
            if os.fstat(descriptor).st_size < len(EXIT_SPACE):
                file.write(EXIT_SPACE)
            file.seek(SLOT_BYTES)
            file.write(msgspec.json.encode(ending))


def say(folder: str, text: str) -> None:
    """Append a line of ours to the log."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        descriptor = os.open(f"{folder}/log", flags, 0o600)
        with open(descriptor, "ab") as file:
            file.write(f"[tieline] {text}\n".encode())


def _limit_shown(limit: str, known: Setting) -> str:
    if limit == "time":
        return f"{known.duration_s} s"
    return f"{known.memory_bytes if limit == 'memory' else known.disk_bytes:,} bytes"


def _phase(folder: str, known: Setting) -> str:
    return "setup" if known.has_setup and note(folder, "phase").partition(b"\n")[0] != b"run" else "run"


def _written_ms(folder: str, *names: str) -> int:
    for name in names:
        with contextlib.suppress(OSError):
            return os.lstat(f"{folder}/{name}").st_mtime_ns // 1_000_000
    return 0


def _milliseconds(times: str) -> int:
    """``1m2.5s`` of the shell's `times` -> 62500."""
    match = TIMES.match(times)
    if match is None:
        return 0
    return int(match[1]) * 60_000 + int(match[2]) * 1000 + int((match[3] or "").ljust(3, "0"))


def _decoded(content: bytes, kind: type[Note]) -> Note | None:
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(content, type=kind) if content else None
    return None
