"""Families of accelerators: which kinds a query's ``gpu`` and ``npu`` count."""

from __future__ import annotations

from tieline.model.accelerators import ACCELERATORS, known

# A vendor's own word for its family, and which of the query's two words counts it.
COUNTED: dict[str, str] = {
    "gpu": "gpu",
    "dcu": "gpu",  # Hygon 海光: a general-purpose GPU
    "ppu": "gpu",  # T-Head 平头哥
    "npu": "npu",
    "tpu": "npu",
    "mlu": "npu",  # Cambricon 寒武纪
    "xpu": "npu",  # Kunlunxin 昆仑芯
    "gcu": "npu",  # Enflame 燧原
}
_OF_VENDOR: dict[str, str] = {row.vendor: row.family for row in reversed(ACCELERATORS)}


def family(accelerator: str, vendor: str = "") -> str:
    """``npu`` or ``gpu``; empty where there is no accelerator. A kind that no table knows is taken for its vendor's.

    >>> family("ascend-910b"), family("h20"), family("")
    ('npu', 'gpu', '')
    """
    if not accelerator:
        return ""
    row = known(accelerator)
    word = row.family if row else _OF_VENDOR.get(vendor, accelerator.partition("-")[0])
    return COUNTED.get(word, "gpu")
