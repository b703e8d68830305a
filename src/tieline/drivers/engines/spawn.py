"""Starting the wrapper of one run: its folder, its settings, and the process itself.

`posix_spawn` shares the site's memory until the new program is there, so a start costs the same however large the site
process has grown. Environment variables, secrets among them, travel in memory (memfd), never on an argument vector or
in a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shlex
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Protocol

import msgspec

from tieline.drivers.engines.run_folder import EXIT_SPACE, Setting, identity, writable
from tieline.model.error import TielineError
from tieline.ports import Launch

SHELL = "/bin/sh"
BLOCK_BYTES = 512  # the unit of `ulimit -f`
FIRST_FREE = 20  # descriptors are moved up here before they are laid on 3 and 6 to 9
DEFAULTS = tuple(
    getattr(signal, f"SIG{name}")
    for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "PIPE", "XFSZ", "CHLD", "ALRM", "TSTP", "TTIN", "TTOU")
)
_turns = count()


@dataclass(frozen=True, kw_only=True)
class Entrance:
    """What a wrapper is given to start one task."""

    functions: str  # shell functions: ``enter`` and, for containers, ``container``
    environment: bytes  # what the task's shell reads first
    variables: Mapping[str, str | int] = field(default_factory=dict)  # besides those of every run
    filter: bytes = b""  # a seccomp program
    core_count: int = 0  # cores to be put on where no quota can be set; 0: all


class Way(Protocol):
    """How a wrapper enters the place where its task runs: bare, a sandbox, a container."""

    def refuse(self, launch: Launch) -> None:
        """Raise TielineError for what cannot be run here."""

    def setting(self, launch: Launch, name: str) -> Setting:
        """What to remember of it; ``name`` is unique to the folder. Makes control groups. Raises OSError."""

    def prepare(self, launch: Launch) -> None:
        """What else the folder needs. Raises OSError."""

    def entrance(self, launch: Launch, known: Setting) -> Entrance:
        """What the wrapper is given."""


def spawn(launch: Launch, way: Way) -> tuple[Setting, int]:
    """Lay out the folder and start the wrapper; returns what to remember and the process number.

    May be repeated after a crash: only one wrapper per folder ever runs the task. Raises TielineError.
    """
    if not Path(launch.folder).is_absolute():
        raise TielineError("invalid_request", f"the folder `{launch.folder[:200]}` of a run is not absolute")
    way.refuse(launch)
    name = hashlib.sha256(os.path.realpath(launch.folder).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    try:
        known = way.setting(launch, name)
        if identity(launch.folder) is None:  # else somebody was faster, and this wrapper will leave
            _lay_out(launch, way, known)
        return known, _start(launch, way, known)
    except OSError as error:
        raise _refusal(error, launch) from error


def scripts(launch: Launch) -> dict[str, str]:
    """File name -> text, for what the task does."""
    return {"run.sh": launch.script} | ({"setup.sh": launch.setup} if launch.setup else {})


@lru_cache(maxsize=4)
def text(name: str) -> str:
    """A shell text that ships beside this module."""
    return Path(__file__).with_name(name).read_text()


def _refusal(error: OSError, launch: Launch) -> TielineError:
    code = "internal"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        code = "storage_full"
    elif error.errno in (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        code = "overloaded"
    return TielineError(code, f"run `{launch.run}` cannot be started: {error}")


def _lay_out(launch: Launch, way: Way, known: Setting) -> None:
    folder = launch.folder
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - on the path of every start
    for path in writable(folder):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)  # noqa: PTH102
    way.prepare(launch)
    for name, content in scripts(launch).items():
        _write(f"{folder}/{name}", content.encode("utf-8", "surrogateescape"), 0o644)
    _write(f"{folder}/exit", EXIT_SPACE, 0o600)
    os.close(os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    _write(f"{folder}/launch", msgspec.json.encode(known), 0o600)
    os.utime(f"{folder}/launch")  # its time is when the run began, also when an earlier attempt left it


def _write(path: str, content: bytes, mode: int) -> None:
    """Write a file that is not there yet; one that an earlier attempt left, and that differs, is replaced whole."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        if Path(path).read_bytes() == content:
            return
        descriptor = os.open(f"{path}.part", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(descriptor, "wb", buffering=0) as file:
            file.write(content)
        os.replace(f"{path}.part", path)  # noqa: PTH105
        return
    with open(descriptor, "wb", buffering=0) as file:
        file.write(content)


def _wrapper(launch: Launch, entrance: Entrance, known: Setting) -> str:
    variables: dict[str, str | int] = {
        "folder": launch.folder,
        "group": known.cgroups[0] if known.cgroups else "",
        "groups": " ".join(known.cgroups),
        "sandboxed": "",
        "contained": known.container,
        "has_setup": "setup" if known.has_setup else "",
        "duration_s": launch.duration_s,
        "grace_s": launch.grace_s,
        "log_blocks": max(launch.log_bytes // BLOCK_BYTES, 1),
        "file_blocks": launch.disk_bytes // BLOCK_BYTES + 1 if launch.disk_bytes else 0,
        "memory_kib": 0,
        "processes": 0,
    }
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in (variables | dict(entrance.variables)).items()]
    return "\n".join([*lines, entrance.functions, text("wrapper.sh")])


def _start(launch: Launch, way: Way, known: Setting) -> int:
    entrance = way.entrance(launch, known)
    wrapper = _wrapper(launch, entrance, known).encode("utf-8", "surrogateescape")
    contents = {3: wrapper, 8: entrance.environment, 9: entrance.filter}
    with contextlib.ExitStack() as stack:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        given = {6: reading, 7: writing}
        given |= {target: _memory(content) for target, content in contents.items() if content}
        for descriptor in given.values():
            stack.callback(os.close, descriptor)
        moves = []
        for target, descriptor in given.items():
            raised = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
            stack.callback(os.close, raised)
            moves.append((os.POSIX_SPAWN_DUP2, raised, target))
        opens = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        opens += [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
        _keep_to_ourselves()
        with _on_cores(entrance.core_count):
            return os.posix_spawn(
                SHELL,
                ["/bin/sh", "/proc/self/fd/3", launch.folder],  # the last word is for people who list processes
                {"PATH": "/usr/bin:/bin"},
                file_actions=[*opens, *moves],
                setsid=True,
                setsigmask=(),
                setsigdef=DEFAULTS,
            )


def _keep_to_ourselves() -> None:
    """Descriptors that the site process was itself started with, or that a library left open, go to no task."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - on the path of every start
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            if int(name) > 2 and os.get_inheritable(int(name)):
                os.set_inheritable(int(name), False)


def _memory(content: bytes) -> int:
    descriptor = os.memfd_create("tieline", os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@contextlib.contextmanager
def _on_cores(wanted: int) -> Iterator[None]:
    """Where no CPU quota can be set: what is spawned meanwhile inherits ``wanted`` of our cores (it may leave them)."""
    cores = sorted(os.sched_getaffinity(0)) if wanted else []
    if wanted >= len(cores):
        yield
        return
    first = next(_turns) * wanted % len(cores)
    os.sched_setaffinity(0, (cores * 2)[first : first + wanted])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
