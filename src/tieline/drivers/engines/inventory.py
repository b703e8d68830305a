"""What is here: cores, memory, disk and accelerators, as the kernel and the vendor's library tell them.

Every figure is measured 实测. What another control group or a CPU mask takes away is not counted. Accelerators of
vendors without a library here are declared by their owner; an NVIDIA card that NVML knows and that fails to answer is
left out, with the reason.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tieline.drivers.engines.cgroups import own_limits
from tieline.model.accelerators import architecture, named
from tieline.model.evidence import Evidence

NVML_MOST = 1_024


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator. ``index`` is what a launch names, ``uuid`` stays the same when cards are moved."""

    index: int
    kind: str
    vendor: str
    memory_bytes: int
    uuid: str = ""


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Accelerators of one kind and memory size: what becomes one pool."""

    kind: str
    vendor: str
    memory_bytes: int  # of one
    indices: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.indices)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """This machine. ``problems`` say what could not be found out, for people."""

    architecture: str
    core_count: int
    memory_bytes: int
    disk_bytes: int  # of the file system that runs lie on
    disk_free_bytes: int
    system: str
    devices: tuple[Device, ...] = ()
    problems: tuple[str, ...] = ()
    evidence: Evidence = Evidence.MEASURED

    @property
    def accelerators(self) -> tuple[Devices, ...]:
        """The devices by kind and memory, ordered by kind, then by memory."""
        groups: dict[tuple[str, str, int], list[int]] = {}
        for device in self.devices:
            groups.setdefault((device.kind, device.vendor, device.memory_bytes), []).append(device.index)
        return tuple(
            Devices(kind=kind, vendor=vendor, memory_bytes=memory, indices=tuple(sorted(indices)))
            for (kind, vendor, memory), indices in sorted(groups.items())
        )


def take(folder: str, nvml: Any = None) -> Inventory:
    """Look at this machine; ``folder`` is where runs will lie. ``nvml`` stands in for `pynvml` in tests."""
    import psutil  # here: a command line that needs no inventory does not pay for it

    limit_bytes, limit_cores = own_limits()
    memory, disk = int(psutil.virtual_memory().total), psutil.disk_usage(folder)
    cores = len(os.sched_getaffinity(0))
    devices, problems = _nvidia(nvml)
    return Inventory(
        architecture=_architecture(platform.machine()),
        core_count=min(cores, limit_cores) if limit_cores else cores,
        memory_bytes=min(memory, limit_bytes) if limit_bytes else memory,
        disk_bytes=int(disk.total),
        disk_free_bytes=int(disk.free),
        system=f"{platform.system()} {platform.release()}",
        devices=tuple(devices),
        problems=tuple(problems),
    )


def _architecture(machine: str) -> str:
    try:
        return architecture(machine)
    except ValueError:
        return machine.lower()


def _nvidia(nvml: Any) -> tuple[list[Device], list[str]]:
    """The NVIDIA cards; none, and no problem, where there is no NVIDIA driver."""
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        is_absent = not Path("/proc/driver/nvidia").exists()
        return [], [] if is_absent else [f"NVIDIA driver present, but NVML says: {error}"]
    devices: list[Device] = []
    problems: list[str] = []
    try:
        for index in range(min(nvml.nvmlDeviceGetCount(), NVML_MOST)):
            try:
                devices += _nvidia_card(nvml, index)
            except (nvml.NVMLError, ValueError) as error:
                problems.append(f"NVIDIA card {index}: {error}")
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
    return devices, problems


def _nvidia_card(nvml: Any, index: int) -> Iterator[Device]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = _said(nvml.nvmlDeviceGetName(handle))
    yield Device(
        index=index,
        kind=named(name).kind,
        vendor="nvidia",
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        uuid=_said(nvml.nvmlDeviceGetUUID(handle)),
    )


def _said(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def shown(inventory: Inventory) -> Sequence[str]:
    """Lines for people."""
    cores = f"{inventory.core_count} cores ({inventory.architecture})"
    disk = f"{_gib(inventory.disk_free_bytes)} of {_gib(inventory.disk_bytes)} GiB disk free"
    groups = (f"{group.count} x {group.kind}, {_gib(group.memory_bytes)} GiB each" for group in inventory.accelerators)
    return [f"{cores}, {_gib(inventory.memory_bytes)} GiB memory, {disk}", *groups, *inventory.problems]


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.0f}"
