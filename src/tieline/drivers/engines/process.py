"""The process engine: a task as a process group of its own, with or without a sandbox, that outlives the site process.

A shell wrapper beside the run (`wrapper.sh`) starts the task, keeps its time limit, cuts its log and writes its exit
code. The engine only watches.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence

from tieline.drivers.engines import sandbox
from tieline.drivers.engines.bare import ProcessWay
from tieline.drivers.engines.cgroups import Cgroups
from tieline.drivers.engines.watched import WatchedEngine


class ProcessEngine(WatchedEngine):
    """Runs tasks as processes of this machine. ``hidden`` are the folders of which a sandboxed task sees nothing: the
    site's own, above all. ``processes`` bounds the processes and threads of one task (0: by the number of cores)."""

    name = "process"

    def __init__(
        self,
        *,
        hidden: Sequence[str] = (),
        processes: int = 0,
        groups: Cgroups | None = None,
        box: sandbox.Sandbox | None = None,
    ) -> None:
        super().__init__()
        self._hidden = tuple(hidden)
        self._processes = processes
        self._groups = groups
        self._box = box
        self._way: ProcessWay | None = None

    @property
    def way(self) -> ProcessWay:
        """What this machine offers, found on first use."""
        if self._way is None:
            self._way = ProcessWay(
                cgroups=self._groups or Cgroups.found(),
                sandbox=self._box or sandbox.found(),
                processes=processes_most(self._processes),
                hidden=self._hidden,
            )
        return self._way

    @property
    def holds_memory(self) -> bool:
        """See `WatchedEngine.holds_memory`."""
        return "memory" in self.way.cgroups.hierarchies

    def offers(self) -> Mapping[str, str]:
        """What it can do here, with how limits are held and why no sandbox works where none does."""
        box, held = self.way.sandbox, self.way.cgroups.versions()
        limits = {
            "memory": held.get("memory", "address space (RLIMIT_AS), and looking"),
            "cpu": held.get("cpu", "a choice of cores that the task may leave"),
            "processes": held.get("pids", "user limit (RLIMIT_NPROC), in a sandbox only"),
            "disk": "looking, and RLIMIT_FSIZE per file",
            "time": "the wrapper",
        }
        offered = {
            "sandbox": "bubblewrap" if box.works else "",
            "networks": "host,none" if "none" in box.networks else "host",
            "version": f"{platform.system()} {platform.release()} {box.version}".strip(),
            "limits": "; ".join(f"{name}: {how}" for name, how in limits.items()),
        }
        return offered | ({} if box.works else {"why_no_sandbox": "; ".join(sorted(set(box.why_not.values())))})


def processes_most(wanted: int) -> int:
    """How many processes and threads one task may have: as wanted, else by the number of cores."""
    return wanted or max(1024, min(32_768, 512 * (os.cpu_count() or 1)))
