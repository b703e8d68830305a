"""Control groups: what holds a task's memory, CPU and number of processes, and tells what it used.

Both hierarchies are served, controller by controller (a hybrid machine has some of each). Groups are made below the
group of the site process itself, so that whatever limits the site also limits its tasks. Source: the kernel's
`cgroup-v1/` documents and `cgroup-v2.rst`.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CONTROLLERS = ("pids", "memory", "cpu", "cpuacct")
NO_LIMIT_BYTES = 1 << 60  # version 1 writes "no limit" as a number near 2^63
STALE_S = 3_600
PERIOD_US = 100_000  # of the CPU quota
PARENT = "tieline"  # the group that holds one group per run
OWN = "tieline-site"  # where the site process itself moves in version 2, which allows no processes in inner groups
SPACE = re.compile(r"\s")


@dataclass(frozen=True)
class Hierarchy:
    """Where one controller can be used: the folder below which groups are made."""

    base: str
    version: int


@dataclass(frozen=True)
class Spent:
    """What a group used. Zero: no controller told."""

    cpu_ms: int = 0
    max_memory_bytes: int = 0
    memory_kills: int = 0  # processes that the kernel killed for the memory limit


@dataclass
class Cgroups:
    """The controllers that this process may use, found once. ``proc`` is ``/proc/self`` outside tests."""

    proc: str = "/proc/self"
    hierarchies: dict[str, Hierarchy] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # controller -> why it cannot be used

    @classmethod
    def found(cls, proc: str = "/proc/self") -> Cgroups:
        """Find the mounted hierarchies and try in each whether a group can be made."""
        cgroups = cls(proc=proc)
        try:
            mounts, own = _mounts(proc), _own(proc)
        except OSError as error:
            cgroups.missing = dict.fromkeys(CONTROLLERS, f"{error.filename} cannot be read")
            return cgroups
        for controller in CONTROLLERS:
            if controller in mounts:
                cgroups._try_v1(controller, mounts[controller], own.get(controller, "/"))
            elif "" in mounts and controller != "cpuacct":  # version 2 accounts without a controller
                cgroups._try_v2(controller, mounts[""], own.get("", "/"))
            else:
                cgroups.missing[controller] = "no hierarchy is mounted"
        return cgroups

    def _try_v1(self, controller: str, mount: tuple[str, str], own: str) -> None:
        base = str(Path(_below(mount, own)) / PARENT)
        try:
            Path(base).mkdir(exist_ok=True)
        except OSError as error:
            self.missing[controller] = f"{base}: {error.strerror}"
            return
        if not os.access(base, os.W_OK) or SPACE.search(base):
            self.missing[controller] = f"{base} is not writable"
            return
        _tidy(base)
        self.hierarchies[controller] = Hierarchy(base, 1)

    def _try_v2(self, controller: str, mount: tuple[str, str], own: str) -> None:
        home = Path(_below(mount, own))
        if home.name == OWN:  # a restarted site that moved before
            home = home.parent
        base = home / PARENT
        try:
            is_delegated = controller in (home / "cgroup.controllers").read_text().split()
            if is_delegated:
                _delegate(home, controller)
                base.mkdir(exist_ok=True)
                _delegate(base, controller)
        except OSError as error:
            self.missing[controller] = f"{home}: {error.strerror}"
            return
        if is_delegated:
            _tidy(str(base))
            self.hierarchies[controller] = Hierarchy(str(base), 2)
        else:
            self.missing[controller] = f"{home}: `{controller}` is not delegated to this process"

    def versions(self) -> dict[str, str]:
        """Controller -> ``cgroup v1`` or ``cgroup v2``, for people."""
        return {name: f"cgroup v{hierarchy.version}" for name, hierarchy in self.hierarchies.items()}

    def create(
        self, name: str, *, memory_bytes: int = 0, core_count: int = 0, processes: int = 0, is_accounted: bool = False
    ) -> tuple[str, ...]:
        """Make the groups that hold these limits (0: none); returns their folders, the one to list members first.

        A limit whose controller is missing is left to the caller: see ``hierarchies``. Raises OSError.
        """
        wanted = {"pids": True, "memory": True, "cpu": core_count > 0, "cpuacct": is_accounted}
        folders: dict[str, int] = {}
        for controller, is_wanted in wanted.items():
            hierarchy = self.hierarchies.get(controller)
            if is_wanted and hierarchy is not None:
                folders[str(Path(hierarchy.base) / name)] = hierarchy.version
        for folder, version in folders.items():
            path = Path(folder)
            path.mkdir(exist_ok=True)
            for file, value in _limits(version, memory_bytes, core_count, processes):
                if (path / file).exists():
                    (path / file).write_text(value)
        return tuple(folders)


def own_limits(proc: str = "/proc/self") -> tuple[int, int]:
    """Memory in bytes and whole cores that the groups above this process leave it; 0 where they set no limit."""
    try:
        mounts, own = _mounts(proc), _own(proc)
    except OSError:
        return 0, 0
    memory = cores = 0
    for controller in ("memory", "cpu", ""):
        if controller not in mounts:
            continue
        path = Path(_below(mounts[controller], own.get(controller, "/")))
        for folder in (path, *path.parents):
            if not (folder / "cgroup.procs").exists():
                break
            limits = (_number(folder / file) for file in ("memory.limit_in_bytes", "memory.max"))
            memory = min((size for size in (memory, *limits) if 0 < size < NO_LIMIT_BYTES), default=0)
            quota, period = _quota(folder)
            if quota > 0 and period > 0:
                whole = max(quota // period, 1)
                cores = min(cores or whole, whole)
    return memory, cores


def _quota(folder: Path) -> tuple[int, int]:
    """CPU quota and its period in us; (0, 0) where there is none."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return (0 if quota == "max" else int(quota)), int(period)
    return _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")


def of_process(pid: int) -> tuple[str, ...]:
    """The groups that count what ``pid`` and its neighbours use, as this process sees them."""
    try:
        mounts, own = _mounts("/proc/self"), _own(f"/proc/{pid}")
    except OSError:
        return ()
    wanted = (name for name in (*CONTROLLERS, "") if name in mounts and name in own)
    folders = dict.fromkeys(_below(mounts[name], own[name]) for name in wanted)
    return tuple(folder for folder in folders if Path(folder).is_dir())


def processes_in(folders: Sequence[str]) -> list[int]:
    """Every process in the first of these groups; none when the group is gone."""
    if not folders:
        return []
    try:
        found = (int(line) for line in (Path(folders[0]) / "cgroup.procs").read_text().split())
        return [pid for pid in found if pid > 1]  # 0: of another process namespace; a signal to 0 would hit ourselves
    except (OSError, ValueError):
        return []


def spent(folders: Sequence[str]) -> Spent:
    """What these groups used so far."""
    cpu_us = memory = kills = 0
    for folder in map(Path, folders):
        cpu_us = max(cpu_us, _number(folder / "cpuacct.usage") // 1000, _keyed(folder / "cpu.stat", "usage_usec"))
        peaks = ("memory.max_usage_in_bytes", "memory.peak")
        memory = max(memory, *(_number(folder / peak) for peak in peaks))
        kills = max(kills, *(_keyed(folder / file, "oom_kill") for file in ("memory.oom_control", "memory.events")))
    return Spent(cpu_ms=cpu_us // 1000, max_memory_bytes=memory, memory_kills=kills)


def remove(folders: Sequence[str]) -> bool:
    """Remove the groups; False while one still has processes."""
    is_gone = True
    for folder in folders:
        try:
            Path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            is_gone = False
    return is_gone


def _limits(version: int, memory_bytes: int, core_count: int, processes: int) -> list[tuple[str, str]]:
    quota = core_count * PERIOD_US
    if version == 1:
        memory = [("memory.limit_in_bytes", str(memory_bytes)), ("memory.memsw.limit_in_bytes", str(memory_bytes))]
        cpu = [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]
    else:  # the whole group dies at its limit; what is left of a task is of no use
        memory = [("memory.max", str(memory_bytes)), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
        cpu = [("cpu.max", f"{quota} {PERIOD_US}")]
    pids = [("pids.max", str(processes))]
    return (memory if memory_bytes else []) + (cpu if core_count else []) + (pids if processes else [])


def _mounts(proc: str) -> dict[str, tuple[str, str]]:
    """Controller ("" for version 2) -> (root within the hierarchy, mount point)."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in Path(proc, "mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        fields, kind = mount.split(), source.split()
        if kind[0] == "cgroup2":
            mounts.setdefault("", (fields[3], fields[4]))
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                if option in CONTROLLERS:
                    mounts.setdefault(option, (fields[3], fields[4]))
    return mounts


def _own(proc: str) -> dict[str, str]:
    """Controller ("" for version 2) -> this process's group."""
    own: dict[str, str] = {}
    for line in Path(proc, "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path
    return own


def _below(mount: tuple[str, str], own: str) -> str:
    root, point = mount
    inside = own.removeprefix(root.rstrip("/")) if own.startswith(root) else "/"
    return os.path.normpath(point + "/" + inside.lstrip("/"))


def _delegate(home: Path, controller: str) -> None:
    """Hand ``controller`` to the groups below ``home``; this process moves out of the way if it is alone there."""
    control = home / "cgroup.subtree_control"
    if controller in control.read_text().split():
        return
    try:
        control.write_text(f"+{controller}")
    except OSError:
        own = str(os.getpid())
        if (home / "cgroup.procs").read_text().split() != [own]:
            raise
        leaf = home / OWN
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(own)
        try:
            control.write_text(f"+{controller}")
        except OSError:
            (home / "cgroup.procs").write_text(own)
            raise


def _tidy(base: str) -> None:
    """Remove groups whose runs nobody concluded: empty ones (the kernel checks) that are not about to be used."""
    before_s = time.time() - STALE_S
    with os.scandir(base) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False) and entry.stat().st_mtime < before_s:
                    Path(entry.path).rmdir()


def _number(file: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return 0


def _keyed(file: Path, key: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0
