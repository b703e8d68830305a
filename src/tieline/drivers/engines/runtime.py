"""Which container runtime works here, and how it must be called: podman, docker or apptainer.

A client that is installed says nothing: podman is asked to run the machine's own `true` from an empty root with /usr
bound into it, docker to name its server, apptainer to run in a folder. Where podman's defaults do not work (it wants to
raise resource limits that this process may not raise, or a control group manager that is not there), the ways known to
work are tried in turn.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

TRIAL_S = 30.0
POLL_S = 0.01
ANSWER_BYTES = 4_096
KINDS = ("podman", "docker", "apptainer")
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
CLIENT_VARIABLES = (
    "HOME",
    "XDG_RUNTIME_DIR",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "CONTAINER_HOST",
    "DBUS_SESSION_BUS_ADDRESS",
)


@dataclass(frozen=True)
class Runtime:
    """A container client that works here. ``kind`` is empty where none does, and ``why_not`` says why."""

    kind: str = ""
    program: str = ""
    version: str = ""
    general: tuple[str, ...] = ()  # words before the verb
    running: tuple[str, ...] = ()  # words after `run`
    networks: tuple[str, ...] = ()
    why_not: dict[str, str] = field(default_factory=dict)  # kind -> why it does not work

    @property
    def works(self) -> bool:
        """Whether containers can be offered."""
        return bool(self.kind)

    @property
    def has_server(self) -> bool:
        """Whether containers are named things that the client can signal, inspect and remove."""
        return self.kind in ("podman", "docker")

    def words(self, *verb: str) -> list[str]:
        """The argument vector of a command."""
        return [self.program, *self.general, *verb]


class _Call:
    """One client process, its output in memory."""

    def __init__(self, words: Sequence[str]) -> None:
        self._said = os.memfd_create("answer", os.MFD_CLOEXEC)
        actions = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 2)]
        environment = {"PATH": os.environ.get("PATH", os.defpath), **client_environment()}
        self._pid = os.posix_spawn(
            words[0], list(words), environment, file_actions=[*actions, (os.POSIX_SPAWN_DUP2, self._said, 1)]
        )
        self.code: int | None = None

    @property
    def is_running(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def close(self) -> str:
        """The first line that it printed; it is killed if it still runs."""
        if self.is_running:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self.code = 124
        line = os.pread(self._said, ANSWER_BYTES, 0).decode("utf-8", "replace").partition("\n")[0]
        os.close(self._said)
        return line.strip()


async def command(words: Sequence[str], most_s: float = TRIAL_S) -> tuple[int, str]:
    """Run a client command to its end; its exit code (124: it took too long) and the first line that it printed."""
    call = _Call(words)
    turns = int(most_s / POLL_S)
    try:
        while call.is_running and turns:
            turns -= 1
            await asyncio.sleep(POLL_S)
    finally:
        said = call.close()
    return call.code if call.code is not None else 124, said


def client_environment() -> dict[str, str]:
    """What of the site's own environment a container client needs to find its server and its images."""
    return {name: os.environ[name] for name in CLIENT_VARIABLES if name in os.environ}


@lru_cache(maxsize=1)
def found() -> Runtime:
    """The first runtime that works, really tried. Cached for the process."""
    why_not: dict[str, str] = {}
    for kind in KINDS:
        program = shutil.which(kind) or (shutil.which("singularity") if kind == "apptainer" else None)
        if not program:
            why_not[kind] = "not installed"
            continue
        candidate = {"podman": _podman, "docker": _docker, "apptainer": _apptainer}[kind](program)
        if isinstance(candidate, Runtime):
            return candidate
        why_not[kind] = candidate
    return Runtime(why_not=why_not)


def _podman(program: str) -> Runtime | str:
    said: list[str] = []
    files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 20)
    limits = ("--ulimit", f"nofile={files}:{files}", "--ulimit", "nproc=32768:32768")
    plain = ("--runtime", "runc", "--cgroup-manager=cgroupfs", "--events-backend=file")
    ways: Sequence[tuple[tuple[str, ...], tuple[str, ...]]] = [((), ()), ((), limits), (plain, ()), (plain, limits)]
    for general, running in ways:
        candidate = Runtime("podman", program, general=general, running=running)
        with tempfile.TemporaryDirectory(prefix="tieline-trial-") as root:
            _fill(root)
            verb = ("run", "--rm", "--network", "none", "--log-driver", "none", *running, "--volume", "/usr:/usr:ro")
            why = _said_no(candidate.words(*verb, "--rootfs", root, "/usr/bin/true"))
        if not why:
            return Runtime("podman", program, _version(program), general, running, ("host", "none"))
        said.append(why)
    return "; ".join(dict.fromkeys(said))


def _docker(program: str) -> Runtime | str:
    why = _said_no([program, "version", "--format", "{{.Server.Version}}"])
    return why or Runtime("docker", program, _version(program), networks=("host", "none"))


def _apptainer(program: str) -> Runtime | str:
    why = ""
    networks = []
    for network in ("host", "none"):
        with tempfile.TemporaryDirectory(prefix="tieline-trial-") as root:
            _fill(root)
            words = [program, "exec", "--containall", "--bind", "/usr:/usr:ro"]
            words += ["--net", "--network", "none"] if network == "none" else []
            why = _said_no([*words, root, "/usr/bin/true"])
        if not why:
            networks.append(network)
        elif network == "host":
            return why
    return Runtime("apptainer", program, _version(program), networks=tuple(networks))


def _fill(root: str) -> None:
    """An empty root file system that finds the machine's own programs once /usr is bound into it."""
    for name in ("usr", "etc", "proc", "dev", "sys", "tmp", "var", "run"):
        Path(root, name).mkdir()
    for name in MERGED:
        path = Path("/", name)
        if path.is_symlink():
            Path(root, name).symlink_to(path.readlink())


def _said_no(words: Sequence[str]) -> str:
    try:
        with tempfile.TemporaryDirectory(prefix="tieline-trial-") as folder:  # conmon leaves a file where it stands
            trial = subprocess.run(
                words,
                capture_output=True,
                text=True,
                timeout=TRIAL_S,
                check=False,
                stdin=subprocess.DEVNULL,
                cwd=folder,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be run: {error}"
    if trial.returncode == 0:
        return ""
    return (trial.stderr.strip().splitlines() or [f"exit code {trial.returncode}"])[-1][:300]


def _version(program: str) -> str:
    trial = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=TRIAL_S, check=False)
    return trial.stdout.strip()[:100]
