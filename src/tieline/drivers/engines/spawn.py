"""Starting the wrapper of one run: its folder, its settings, its control groups, and the process itself.

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
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path

import msgspec

from tieline.drivers.engines import seccomp
from tieline.drivers.engines.cgroups import Cgroups
from tieline.drivers.engines.environment import SEARCH_PATH, device_environment, shell_exports
from tieline.drivers.engines.folder import EXIT_SPACE, Setting, boot, writable
from tieline.drivers.engines.sandbox import NOBODY, Sandbox, View, device_files, has_own_files
from tieline.model.error import TielineError
from tieline.model.reason import Reason
from tieline.ports import Launch

BLOCK_BYTES = 512  # the unit of `ulimit -f`
FIRST_FREE = 20  # descriptors are moved up here before they are laid on 3 and 6 to 9
DEFAULTS = tuple(
    getattr(signal, f"SIG{name}")
    for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "PIPE", "XFSZ", "CHLD", "ALRM", "TSTP", "TTIN", "TTOU")
)
_turns = count()


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What this machine offers to every run."""

    cgroups: Cgroups
    sandbox: Sandbox
    processes: int  # most processes and threads of one task
    hidden: Sequence[str] = ()


def refuse(launch: Launch, ground: Ground) -> None:
    """Raise TielineError for what cannot be run here: nothing is ever run with less isolation than was asked."""
    if not Path(launch.folder).is_absolute():
        raise TielineError("invalid_request", f"the folder `{launch.folder[:200]}` of a run is not absolute")
    if launch.image:
        reason = Reason(code="image_not_offered", values={"asked": launch.image})
        raise TielineError("unplaceable", f"processes cannot run `image: {launch.image}`", reasons=(reason,))
    if launch.sandbox not in ("none", "bubblewrap"):
        raise TielineError("unplaceable", f"processes have no sandbox called `{launch.sandbox}`")
    is_sandboxed = launch.sandbox == "bubblewrap"
    if is_sandboxed and not ground.sandbox.works:
        why = "; ".join(dict.fromkeys(ground.sandbox.why_not.values()))
        raise TielineError(
            "unplaceable",
            f"no sandbox works here: {why}",
            reasons=(Reason(code="sandbox_missing"),),
            hints=("tieline check",),
        )
    networks = ground.sandbox.networks if is_sandboxed else ("host",)
    if launch.network not in networks:
        why = (
            ground.sandbox.why_not.get(launch.network, "it takes a sandbox") if launch.network == "none" else "unknown"
        )
        reason = Reason(code="network_not_offered", values={"asked": launch.network})
        raise TielineError("unplaceable", f"network `{launch.network}` is not offered here: {why}", reasons=(reason,))


def spawn(launch: Launch, ground: Ground) -> tuple[Setting, int]:
    """Lay out the folder and start the wrapper; returns what to remember and the process number.

    May be repeated after a crash: only one wrapper per folder ever runs the task. Raises TielineError.
    """
    refuse(launch, ground)
    try:
        known = _setting(launch, ground)
        _lay_out(launch, ground, known)
        return known, _start(launch, ground, known)
    except OSError as error:
        raise _refusal(error, launch) from error


def _refusal(error: OSError, launch: Launch) -> TielineError:
    code = "internal"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        code = "storage_full"
    elif error.errno in (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        code = "overloaded"
    return TielineError(code, f"run `{launch.run}` cannot be started: {error}")


def _setting(launch: Launch, ground: Ground) -> Setting:
    is_sandboxed = launch.sandbox == "bubblewrap"
    name = hashlib.sha256(os.path.realpath(launch.folder).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    groups = ground.cgroups.create(
        name,
        memory_bytes=launch.memory_bytes,
        core_count=launch.core_count,
        processes=ground.processes,
        is_accounted=is_sandboxed,
    )
    return Setting(
        engine="process",
        run=launch.run,
        node=launch.node,
        sandbox=launch.sandbox,
        boot=boot(),
        cgroups=groups,
        mark=f"TIELINE_MARK={name}",
        memory_bytes=launch.memory_bytes,
        disk_bytes=launch.disk_bytes,
        duration_s=launch.duration_s,
        grace_s=launch.grace_s,
        has_setup=bool(launch.setup),
    )


def _lay_out(launch: Launch, ground: Ground, known: Setting) -> None:
    folder = launch.folder
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - on the path of every start
    for path in writable(folder):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)  # noqa: PTH102
        if known.sandbox == "bubblewrap" and ground.sandbox.setpriv:
            _give(path)
    for path, text in _scripts(launch).items():
        _write(f"{folder}/{path}", text.encode("utf-8", "surrogateescape"), 0o644)
    _write(f"{folder}/exit.part", EXIT_SPACE, 0o600)
    os.close(os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    _write(f"{folder}/launch", msgspec.json.encode(known), 0o600)


def _scripts(launch: Launch) -> dict[str, str]:
    return {"run.sh": launch.script} | ({"setup.sh": launch.setup} if launch.setup else {})


def _write(path: str, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb", buffering=0) as file:
        file.write(content)


def _give(top: str) -> None:
    """Hand what the site laid out to user 65534, before any task can move it."""
    os.chown(top, NOBODY, NOBODY)
    for parent, folders, files in os.walk(top):
        for name in (*folders, *files):
            os.chown(f"{parent}/{name}", NOBODY, NOBODY, follow_symlinks=False)


def _wrapper(launch: Launch, ground: Ground, known: Setting) -> str:
    is_sandboxed = known.sandbox == "bubblewrap"
    has = ground.cgroups.hierarchies
    memory_kib = launch.memory_bytes // 1024 if "memory" not in has and not launch.devices else 0
    settings: dict[str, str | int] = {
        "folder": launch.folder,
        "shell": _shell(),
        "group": known.cgroups[0] if known.cgroups else "",
        "groups": " ".join(known.cgroups),
        "sandboxed": "yes" if is_sandboxed else "",
        "has_setup": "setup" if known.has_setup else "",
        "duration_s": launch.duration_s,
        "grace_s": launch.grace_s,
        "log_blocks": max(launch.log_bytes // BLOCK_BYTES, 1),
        "file_blocks": launch.disk_bytes // BLOCK_BYTES + 1 if launch.disk_bytes else 0,
        "memory_kib": memory_kib,
        "processes": ground.processes if is_sandboxed and "pids" not in has else 0,
    }
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in settings.items()]
    return "\n".join([*lines, f"enter() {{\n{_enter(launch, ground)}\n}}", _text("wrapper.sh")])


def _enter(launch: Launch, ground: Ground) -> str:
    """What the wrapper does in the place where the task shall be."""
    if launch.sandbox != "bubblewrap":
        return f'set -- "$shell" "$folder" "$folder/work" "$has_setup"\n{_text("task.sh")}'
    folder = os.path.realpath(launch.folder)
    work, temporary = writable(folder)
    view = View(
        work=work,
        temporary=temporary,
        scripts=[f"{folder}/{name}" for name in _scripts(launch)],
        network=launch.network,
        readable=launch.readable,
        hidden=ground.hidden,
        devices=device_files(launch.vendor, launch.devices),
        shared_bytes=launch.memory_bytes,
        is_filtered=bool(_filter()),
    )
    words = [*ground.sandbox.command(view), "/bin/sh", "-c", _text("task.sh"), "task"]
    words += [_shell(), folder, work, "setup" if launch.setup else ""]
    return f'exec {shlex.join(words)} 4>"$folder/sandbox"'


def _envs(launch: Launch, known: Setting) -> bytes:
    """What the task's shell reads first; later names win: the devices are the site's to give."""
    is_sandboxed = known.sandbox == "bubblewrap"
    devices: Sequence[int] = sorted(launch.devices)
    if is_sandboxed and has_own_files(launch.vendor, devices):
        devices = range(len(devices))  # the vendor's library counts the device files that it finds
    envs = {"PATH": SEARCH_PATH, **launch.envs, **device_environment(launch.vendor, devices)}
    name, _, value = known.mark.partition("=")
    return shell_exports({**envs, name: value})


def _start(launch: Launch, ground: Ground, known: Setting) -> int:
    with contextlib.ExitStack() as stack:
        reading, writing = os.pipe2(os.O_CLOEXEC)
        text = _wrapper(launch, ground, known).encode("utf-8", "surrogateescape")
        given = {3: _memory("wrapper", text), 6: reading, 7: writing}
        given[8] = _memory("environment", _envs(launch, known))
        if known.sandbox == "bubblewrap" and _filter():
            given[9] = _memory("filter", _filter())
        raised = {}
        for descriptor in given.values():
            stack.callback(os.close, descriptor)
        for target, descriptor in given.items():
            raised[target] = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
            stack.callback(os.close, raised[target])
        actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
        _keep_to_ourselves()
        moves = [(os.POSIX_SPAWN_DUP2, descriptor, target) for target, descriptor in raised.items()]
        needs_cores = launch.core_count and "cpu" not in ground.cgroups.hierarchies
        with _on_cores(launch.core_count if needs_cores else 0):
            return os.posix_spawn(
                "/bin/sh",
                ["/bin/sh", "/proc/self/fd/3", launch.folder],  # the last word is for people who list processes
                {"PATH": "/usr/bin:/bin"},
                file_actions=[*actions, *moves],
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


def _memory(name: str, content: bytes) -> int:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
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


@lru_cache(maxsize=1)
def _shell() -> str:
    return shutil.which("bash", path=SEARCH_PATH) or "/bin/sh"


@lru_cache(maxsize=1)
def _filter() -> bytes:
    return seccomp.program()


@lru_cache(maxsize=2)
def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text()
