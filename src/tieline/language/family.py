"""Families of accelerators: which kinds a query's ``gpu`` and ``npu`` count."""

from __future__ import annotations

# Beginning of the accelerator's kind, or its vendor, and its family. The first row that fits wins.
FAMILIES: tuple[tuple[str, str], ...] = (
    ("ascend", "npu"),  # Huawei 昇腾
    ("huawei", "npu"),
    ("mlu", "npu"),  # Cambricon 寒武纪
    ("cambricon", "npu"),
    ("kunlun", "npu"),  # 昆仑芯
    ("enflame", "npu"),  # 燧原
    ("tpu", "npu"),
    ("google", "npu"),
    ("trainium", "npu"),
    ("inferentia", "npu"),
    ("gaudi", "npu"),
    ("npu", "npu"),
    ("dcu", "gpu"),  # Hygon 海光
    ("hygon", "gpu"),
    ("mtt", "gpu"),  # Moore Threads 摩尔线程
    ("moore", "gpu"),
    ("metax", "gpu"),  # 沐曦
    ("biren", "gpu"),  # 壁仞
    ("iluvatar", "gpu"),  # 天数智芯
    ("nvidia", "gpu"),
    ("amd", "gpu"),
    ("mi", "gpu"),
    ("gpu", "gpu"),
    ("intel", "gpu"),
)
DEFAULT_FAMILY = "gpu"  # every kind that sells by a bare model number (a100, h20, l40s, t4, rtx4090) is a GPU


def family(accelerator: str, vendor: str = "") -> str:
    """``npu`` or ``gpu``; empty where there is no accelerator."""
    if not accelerator:
        return ""
    for name in (accelerator, vendor):
        for beginning, group in FAMILIES:
            if name.startswith(beginning):
                return group
    return DEFAULT_FAMILY
