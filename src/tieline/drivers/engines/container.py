"""The container engine: `image:` tasks by podman, docker or apptainer, with the same promises as the process engine.

The wrapper stands around the client, so that log, time limit, exit code and adoption work the same way; the container
itself has a name made from its folder, which is enough to signal and remove it whoever asks. Environment variables go
in through standard input: no argument vector, file or image ever holds one. Inside, the shell that is process 1 hands
signals on to everything, and nothing outlives it.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tieline.drivers.engines import cgroups, members, run_folder, runtime
from tieline.drivers.engines.cgroups import Cgroups, Spent
from tieline.drivers.engines.environment import SEARCH_PATH, device_environment, shell_exports
from tieline.drivers.engines.process import processes_most
from tieline.drivers.engines.run_folder import Setting, boot, writable
from tieline.drivers.engines.runtime import Runtime, command
from tieline.drivers.engines.sandbox import device_files
from tieline.drivers.engines.spawn import Entrance, scripts, text
from tieline.drivers.engines.watched import Watch, WatchedEngine
from tieline.model.accelerators import VENDORS
from tieline.model.error import TielineError
from tieline.model.reason import Reason
from tieline.ports import Ending, Launch

IMAGE = re.compile(r"[A-Za-z0-9/.][A-Za-z0-9._/:@+-]{0,399}\Z")
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")  # what installing a package takes


@dataclass(frozen=True, kw_only=True)
class ContainerWay:
    """Containers by this runtime. See `Way`."""

    runtime: Runtime
    cgroups: Cgroups  # for apptainer, whose containers are plain descendants
    processes: int

    def refuse(self, launch: Launch) -> None:
        """Nothing is ever run with less isolation than was asked."""
        asked = launch.image[:100]
        if not self.runtime.works:
            why = "; ".join(f"{kind}: {why}" for kind, why in self.runtime.why_not.items())
            reason = Reason(code="image_not_offered", values={"asked": asked})
            raise TielineError("unplaceable", f"no container runtime works here ({why})", reasons=(reason,))
        if not IMAGE.match(launch.image.removeprefix("docker://")):
            raise TielineError("invalid_task", f"`{asked}` is no name of an image", where="image")
        if launch.sandbox != "container":
            raise TielineError("unplaceable", f"containers have no sandbox called `{launch.sandbox}`")
        if launch.network not in self.runtime.networks:
            reason = Reason(code="network_not_offered", values={"asked": launch.network})
            what = f"network `{launch.network}` is not offered by {self.runtime.kind} here"
            raise TielineError("unplaceable", what, reasons=(reason,))
        for path in (launch.folder, *(path for pair in launch.laid for path in pair)):
            if any(mark in path for mark in ",:"):
                raise TielineError("invalid_request", f"`{path}` cannot be bound: it holds a comma or a colon")

    def setting(self, launch: Launch, name: str) -> Setting:
        """See `Way.setting`."""
        groups: tuple[str, ...] = ()
        if not self.runtime.has_server:
            groups = self.cgroups.create(
                name,
                memory_bytes=launch.memory_bytes,
                core_count=launch.core_count,
                processes=self.processes,
                is_accounted=True,
            )
        return Setting(
            engine="container",
            run=launch.run,
            node=launch.node,
            sandbox="container",
            boot=boot(),
            cgroups=groups,
            mark=f"TIELINE_MARK={name}",
            memory_bytes=launch.memory_bytes,
            disk_bytes=launch.disk_bytes,
            duration_s=launch.duration_s,
            grace_s=launch.grace_s,
            has_setup=bool(launch.setup),
            container=f"tieline-{name}" if self.runtime.has_server else "",
        )

    def prepare(self, launch: Launch) -> None:
        """The user that the image names must be able to write; nobody else comes past the run's own folder."""
        for path in writable(launch.folder):
            Path(path).chmod(0o777)
        phase = Path(launch.folder, "phase")
        phase.touch()
        phase.chmod(0o666)

    def entrance(self, launch: Launch, known: Setting) -> Entrance:
        """``enter`` runs the client, ``container`` is the client for the rest; what is limited is the container."""
        exports = [f"export {name}={shlex.quote(value)}" for name, value in runtime.client_environment().items()]
        run = self._run(launch, known) if self.runtime.has_server else self._exec(launch)
        inner = ["-c", text("container.sh"), "task", launch.folder, writable(launch.folder)[0]]
        inner += ["setup" if launch.setup else "", "first" if known.container else ""]
        # podman's monitor leaves its note of a kill by the kernel where it stands
        there = 'cd "$folder" || exit 126\n' if known.container else ""
        functions = [
            f'container() {{\n{shlex.join(self.runtime.words())} "$@"\n}}',
            f"enter() {{\n{there}exec {shlex.join([*run, *inner])} <&8 8<&-\n}}",
        ]
        return Entrance(
            functions="\n".join([*exports, *functions]),
            environment=_environment(launch, known),
            variables={"file_blocks": 0} if known.container else {},
        )

    def _binds(self, launch: Launch) -> list[tuple[str, str, bool]]:
        """(outside, inside, writable)."""
        work, temporary = writable(launch.folder)
        binds = [(f"{launch.folder}/{name}", f"{launch.folder}/{name}", False) for name in scripts(launch)]
        binds += [(work, work, True), (temporary, temporary, True), (temporary, "/tmp", True)]  # noqa: S108 - inside
        binds.append((f"{launch.folder}/phase", f"{launch.folder}/phase", True))
        binds += [(source, f"{work}/{path}", False) for source, path in launch.laid]
        return binds + [(path, path, False) for path in launch.readable if Path(path).exists()]

    def _run(self, launch: Launch, known: Setting) -> list[str]:
        """`podman run` or `docker run` up to the arguments of the shell."""
        words = self.runtime.words("run", "--name", known.container, "--interactive", "--log-driver", "none")
        words += [*self.runtime.running, "--ulimit", "core=0:0", "--network", launch.network]
        words += [] if launch.network == "host" else ["--hostname", "run"]
        words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", str(self.processes)]
        for capability in CAPABILITIES:
            words += ["--cap-add", capability]
        if launch.memory_bytes:
            words += ["--memory", str(launch.memory_bytes), "--memory-swap", str(launch.memory_bytes)]
        if launch.core_count:
            words += ["--cpus", str(launch.core_count)]
        if launch.disk_bytes:
            words += ["--ulimit", f"fsize={launch.disk_bytes}:{launch.disk_bytes}"]
        for outside, inside, is_writable in self._binds(launch):
            words += ["--mount", f"type=bind,src={outside},dst={inside}" + ("" if is_writable else ",ro")]
        words += self._device_words(launch)
        return [*words, "--workdir", "/", "--entrypoint", "/bin/sh", launch.image.removeprefix("docker://")]

    def _device_words(self, launch: Launch) -> list[str]:
        if not launch.devices:
            return []
        if _vendor(launch) != "nvidia":
            return [word for file in device_files(launch.vendor, launch.devices) for word in ("--device", file)]
        if self.runtime.kind == "docker":
            return ["--gpus", f'"device={",".join(map(str, sorted(launch.devices)))}"']
        return [word for index in sorted(launch.devices) for word in ("--device", f"nvidia.com/gpu={index}")]

    def _exec(self, launch: Launch) -> list[str]:
        """`apptainer exec` up to the arguments of the shell."""
        words = self.runtime.words("exec", "--containall", "--cleanenv", "--writable-tmpfs", "--pwd", "/")
        for outside, inside, is_writable in self._binds(launch):
            words += ["--bind", f"{outside}:{inside}:{'rw' if is_writable else 'ro'}"]
        words += ["--net", "--network", "none"] if launch.network == "none" else []
        words += {"nvidia": ["--nv"], "amd": ["--rocm"]}.get(_vendor(launch), []) if launch.devices else []
        image = launch.image
        if not image.startswith(("docker://", "/", "./")):
            image = f"docker://{image}"
        return [*words, image, "/bin/sh"]


class ContainerEngine(WatchedEngine):
    """Runs `image:` tasks. It offers nothing where no runtime works."""

    name = "container"

    def __init__(self, *, processes: int = 0, groups: Cgroups | None = None, containers: Runtime | None = None) -> None:
        super().__init__()
        self._processes = processes
        self._groups = groups
        self._containers = containers
        self._way: ContainerWay | None = None
        self._peaks: dict[str, Spent] = {}  # container -> what was seen of its use
        self._accounts: dict[str, tuple[str, ...]] = {}  # container -> its control groups

    @property
    def way(self) -> ContainerWay:
        """What this machine offers, found on first use."""
        if self._way is None:
            self._way = ContainerWay(
                runtime=self._containers or runtime.found(),
                cgroups=self._groups or Cgroups.found(),
                processes=processes_most(self._processes),
            )
        return self._way

    @property
    def holds_memory(self) -> bool:
        """See `WatchedEngine.holds_memory`."""
        return self.way.runtime.has_server or "memory" in self.way.cgroups.hierarchies

    def offers(self) -> Mapping[str, str]:
        """What it can do here; empty where no runtime works."""
        found = self.way.runtime
        if not found.works:
            return {}
        return {"sandbox": "container", "networks": ",".join(found.networks), "version": found.version}

    @property
    def why_not(self) -> Mapping[str, str]:
        """Runtime -> why it does not work, where none does."""
        return self.way.runtime.why_not

    def _send(self, folder: str, watch: Watch, number: int) -> int:
        if not watch.known.container:
            return super()._send(folder, watch, number)
        if watch.ended.done():
            return 0
        words = self.way.runtime.words("kill", "--signal", str(number), watch.known.container)
        client = run_folder.task(folder) if number in (signal.SIGTERM, signal.SIGKILL) else 0
        self._keep(watch, self._tell(words, client))
        return 1

    async def _tell(self, words: Sequence[str], client: int) -> None:
        """Run a client command; where there is no container yet, TERM its client: the image may be on the way."""
        if (await command(words))[0] != 0 and client and members.process(client):
            members.send([client], signal.SIGTERM, is_sandboxed=False)

    async def _clear(self, folder: str, cpu_ms: int) -> Ending:
        known = run_folder.setting(folder)
        if known is not None and known.container and run_folder.ended(folder) is None:
            await command(self.way.runtime.words("rm", "--force", known.container))
        return await super()._clear(folder, cpu_ms)

    def _spent(self, known: Setting) -> Spent:
        self._accounts.pop(known.container, None)
        return self._peaks.pop(known.container, Spent()) if known.container else super()._spent(known)

    def _look_at(self, folder: str, watch: Watch) -> None:
        super()._look_at(folder, watch)
        name = watch.known.container
        if not name or watch.ended.done():
            return
        if name not in self._accounts:
            self._accounts[name] = ()
            self._keep(watch, self._find_account(name))
        elif self._accounts[name]:
            now, peak = cgroups.spent(self._accounts[name]), self._peaks.get(name, Spent())
            self._peaks[name] = Spent(
                cpu_ms=max(now.cpu_ms, peak.cpu_ms),
                max_memory_bytes=max(now.max_memory_bytes, peak.max_memory_bytes),
                memory_kills=max(now.memory_kills, peak.memory_kills),
            )

    async def _find_account(self, name: str) -> None:
        """Where the container's use is counted, once it has a process."""
        _, said = await command(self.way.runtime.words("inspect", "--format", "{{.State.Pid}}", name))
        if said.isdigit() and int(said):
            self._accounts[name] = cgroups.of_process(int(said))
        else:
            await asyncio.sleep(1.0)
            self._accounts.pop(name, None)


def _environment(launch: Launch, known: Setting) -> bytes:
    """The image's own PATH stays unless the task states one; later names win."""
    envs = {name: value for name, value in launch.envs.items() if (name, value) != ("PATH", SEARCH_PATH)}
    devices: Sequence[int] = sorted(launch.devices)
    if known.container and _vendor(launch) == "nvidia":
        devices = range(len(devices))  # the container holds only these
    name, _, value = known.mark.partition("=")
    return shell_exports({**envs, **device_environment(launch.vendor, devices), name: value})


def _vendor(launch: Launch) -> str:
    return VENDORS.get(launch.vendor, launch.vendor)
