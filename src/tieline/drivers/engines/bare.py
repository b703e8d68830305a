"""The way of a process of this machine: bare or in a bubblewrap sandbox, with control groups where there are any."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tieline.drivers.engines import seccomp
from tieline.drivers.engines.cgroups import Cgroups
from tieline.drivers.engines.environment import SEARCH_PATH, device_environment, shell_exports
from tieline.drivers.engines.run_folder import Setting, boot, writable
from tieline.drivers.engines.sandbox import NOBODY, Sandbox, View, device_files, has_own_files
from tieline.drivers.engines.spawn import Entrance, scripts, text
from tieline.model.error import TielineError
from tieline.model.reason import Reason
from tieline.ports import Launch

BOX = "bubblewrap"
BARE = 'set -- "$shell" "$folder" "$folder/work" "$has_setup"\n'


@dataclass(frozen=True, kw_only=True)
class ProcessWay:
    """Processes on this ground. See `Way`."""

    cgroups: Cgroups
    sandbox: Sandbox
    processes: int  # most processes and threads of one task
    hidden: Sequence[str] = ()

    def refuse(self, launch: Launch) -> None:
        """Nothing is ever run with less isolation than was asked."""
        if launch.image:
            reason = Reason(code="image_not_offered", values={"asked": launch.image})
            raise TielineError("unplaceable", f"processes cannot run `image: {launch.image}`", reasons=(reason,))
        if launch.sandbox not in ("none", BOX):
            raise TielineError("unplaceable", f"processes have no sandbox called `{launch.sandbox}`")
        if launch.sandbox == BOX and not self.sandbox.works:
            why = "; ".join(dict.fromkeys(self.sandbox.why_not.values()))
            reason = Reason(code="sandbox_missing")
            hints = ("tieline check",)
            raise TielineError("unplaceable", f"no sandbox works here: {why}", reasons=(reason,), hints=hints)
        networks = self.sandbox.networks if launch.sandbox == BOX else ("host",)
        if launch.network not in networks:
            why = self.sandbox.why_not.get(launch.network, "it takes a sandbox")
            reason = Reason(code="network_not_offered", values={"asked": launch.network})
            what = f"network `{launch.network}` is not offered here: {why}"
            raise TielineError("unplaceable", what, reasons=(reason,))

    def setting(self, launch: Launch, name: str) -> Setting:
        """See `Way.setting`."""
        groups = self.cgroups.create(
            name,
            memory_bytes=launch.memory_bytes,
            core_count=launch.core_count,
            processes=self.processes,
            is_accounted=launch.sandbox == BOX,
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

    def prepare(self, launch: Launch) -> None:
        """A sandboxed task of a site that runs as root owns what it may write."""
        if launch.sandbox == BOX and self.sandbox.setpriv:
            for path in writable(launch.folder):
                _give(path)

    def entrance(self, launch: Launch, known: Setting) -> Entrance:
        """The task's own text, in the wrapper's subshell or in bubblewrap, with limits of the shell where need be."""
        has, is_sandboxed = self.cgroups.hierarchies, known.sandbox == BOX
        return Entrance(
            functions=f"enter() {{\n{self._boxed(launch) if is_sandboxed else BARE + text('task.sh')}\n}}",
            environment=_environment(launch, known),
            variables={
                "shell": _shell(),
                "sandboxed": "yes" if is_sandboxed else "",
                "memory_kib": launch.memory_bytes // 1024 if "memory" not in has and not launch.devices else 0,
                "processes": self.processes if is_sandboxed and "pids" not in has else 0,
            },
            filter=_filter() if is_sandboxed else b"",
            core_count=0 if "cpu" in has else launch.core_count,
        )

    def _boxed(self, launch: Launch) -> str:
        folder = os.path.realpath(launch.folder)
        work, temporary = writable(folder)
        view = View(
            work=work,
            temporary=temporary,
            scripts=[f"{folder}/{name}" for name in scripts(launch)],
            network=launch.network,
            readable=launch.readable,
            laid=[(source, f"{work}/{path}") for source, path in launch.laid],
            hidden=self.hidden,
            devices=device_files(launch.vendor, launch.devices),
            shared_bytes=launch.memory_bytes,
            is_filtered=bool(_filter()),
        )
        words = [*self.sandbox.command(view), "/bin/sh", "-c", text("task.sh"), "task"]
        words += [_shell(), folder, work, "setup" if launch.setup else ""]
        return f'exec {shlex.join(words)} 4>"$folder/sandbox"'


def _environment(launch: Launch, known: Setting) -> bytes:
    """Later names win: the devices are the site's to give."""
    devices: Sequence[int] = sorted(launch.devices)
    if known.sandbox == BOX and has_own_files(launch.vendor, devices):
        devices = range(len(devices))  # the vendor's library counts the device files that it finds
    envs = {"PATH": SEARCH_PATH, **launch.envs, **device_environment(launch.vendor, devices)}
    name, _, value = known.mark.partition("=")
    return shell_exports({**envs, name: value})


def _give(top: str) -> None:
    """Hand what the site laid out to user 65534, before any task can move it."""
    os.chown(top, NOBODY, NOBODY)
    for parent, folders, files in os.walk(top):
        for name in (*folders, *files):
            os.chown(f"{parent}/{name}", NOBODY, NOBODY, follow_symlinks=False)


@lru_cache(maxsize=1)
def _shell() -> str:
    return shutil.which("bash", path=SEARCH_PATH) or "/bin/sh"


@lru_cache(maxsize=1)
def _filter() -> bytes:
    return seccomp.program()
