"""Look: what the machine has, told by a process of its own: the vendor's library would stay in memory for ever."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from tieline.site.found import Cards, Machine

NVIDIA = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg")  # the driver; the last is WSL's


class NoNvml:
    """Stands in for NVIDIA's library where no driver is: to import it only to be told so costs 16 MB."""

    class NVMLError(Exception):
        """No driver."""

    def nvmlInit(self) -> None:  # noqa: N802 - the library's own name
        """Refuse."""
        raise self.NVMLError


def has_nvidia() -> bool:
    """Whether an NVIDIA driver is loaded here."""
    return any(Path(path).exists() for path in NVIDIA)


def machine_of(folder: Path) -> Machine:
    """What the kernel and the vendors' libraries say. Cards of one kind are counted together, by the least memory."""
    from tieline.drivers.engines.inventory import take

    nvml: Any = None if has_nvidia() else NoNvml()
    found = take(str(folder), nvml)
    cards: dict[str, Cards] = {}
    for group in found.accelerators:
        same = cards.get(group.kind)
        cards[group.kind] = Cards(
            kind=group.kind,
            vendor=group.vendor,
            memory_bytes=min(group.memory_bytes, same.memory_bytes) if same else group.memory_bytes,
            devices=tuple(sorted((*(same.devices if same else ()), *group.indices))),
        )
    return Machine(
        architecture=found.architecture,
        core_count=found.core_count,
        memory_bytes=found.memory_bytes,
        disk_bytes=found.disk_bytes,
        cards=tuple(cards.values()),
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(machine_of(Path(sys.argv[1]))))
