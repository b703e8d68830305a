"""What a site says of itself: the machine, its accelerators, and its short measurements."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tieline.drivers.engines import inventory, probes
from tieline.model.evidence import Evidence

GB = 10**9


class FakeNvmlError(Exception):
    """Stands in for the library's own."""


class FakeNvml:
    """A stand-in for `pynvml` with scripted cards: (name, bytes, uuid), or words that the card fails with."""

    NVMLError = FakeNvmlError

    def __init__(self, *cards: tuple[str | bytes, int, str] | str, fails: str = "") -> None:
        self.cards = cards
        self.fails = fails
        self.is_open = False

    def nvmlInit(self) -> None:  # noqa: N802
        if self.fails:
            raise FakeNvmlError(self.fails)
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        card = self.cards[index]
        if isinstance(card, str):
            raise FakeNvmlError(card)
        return card

    def nvmlDeviceGetName(self, card: Any) -> Any:  # noqa: N802
        return card[0]

    def nvmlDeviceGetMemoryInfo(self, card: Any) -> Any:  # noqa: N802
        return SimpleNamespace(total=card[1])

    def nvmlDeviceGetUUID(self, card: Any) -> Any:  # noqa: N802
        return card[2]


def test_the_machine_is_told_as_the_kernel_knows_it(tmp_path: Path) -> None:
    seen = inventory.take(str(tmp_path), FakeNvml(fails="no driver"))
    assert 1 <= seen.core_count <= len(os.sched_getaffinity(0))
    assert 0 < seen.memory_bytes <= psutil.virtual_memory().total
    assert 0 < seen.disk_free_bytes <= seen.disk_bytes
    assert seen.architecture in ("x86_64", "aarch64", "loongarch64", "riscv64", "ppc64le", "sw_64")
    assert seen.evidence is Evidence.MEASURED


def test_cards_are_grouped_by_kind_and_memory_with_their_indices(tmp_path: Path) -> None:
    nvml = FakeNvml(
        ("NVIDIA A100-SXM4-80GB", 80 * GB, "GPU-1"),
        (b"Tesla T4", 16 * GB, "GPU-2"),
        ("NVIDIA A100-SXM4-80GB", 80 * GB, "GPU-3"),
        ("NVIDIA A100-SXM4-40GB", 40 * GB, "GPU-4"),
    )
    seen = inventory.take(str(tmp_path), nvml)
    assert [(group.kind, group.memory_bytes, group.indices) for group in seen.accelerators] == [
        ("a100", 40 * GB, (3,)),
        ("a100", 80 * GB, (0, 2)),
        ("t4", 16 * GB, (1,)),
    ]
    assert {device.vendor for device in seen.devices} == {"nvidia"}
    assert [device.uuid for device in seen.devices] == ["GPU-1", "GPU-2", "GPU-3", "GPU-4"]
    assert not nvml.is_open
    assert "2 x a100, 75 GiB each" in inventory.shown(seen)


def test_a_card_that_does_not_answer_is_left_out_and_named(tmp_path: Path) -> None:
    nvml = FakeNvml("GPU is lost", ("NVIDIA H100 80GB HBM3", 85 * GB, "GPU-2"))
    seen = inventory.take(str(tmp_path), nvml)
    assert [(group.kind, group.indices) for group in seen.accelerators] == [("h100", (1,))]
    assert seen.problems == ("NVIDIA card 0: GPU is lost",)


def test_no_driver_is_no_problem(tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    seen = inventory.take(str(tmp_path), FakeNvml(fails="library not found"))
    assert (seen.accelerators, seen.problems) == ((), ())


def test_every_probe_reads_something_and_names_its_unit_last(tmp_path: Path) -> None:
    readings = probes.measure(str(tmp_path))
    assert set(readings) == {"cpu_single_bps", "cpu_all_bps", "memory_copy_bps", "disk_write_bps", "disk_read_bps"}
    assert all(isinstance(value, int) and value > 0 for value in readings.values())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_is_unknown_and_not_zero(tmp_path: Path) -> None:
    readings = probes.measure(str(tmp_path / "nowhere"))
    assert "cpu_single_bps" in readings
    assert not {"disk_write_bps", "disk_read_bps"} & set(readings)
