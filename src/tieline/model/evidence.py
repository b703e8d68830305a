"""Evidence 证据: what a value rests on. It travels with the value from the reading to the bill."""

from __future__ import annotations

from enum import StrEnum


class Evidence(StrEnum):
    """How a value came to be known. Unknown never counts as good."""

    MEASURED = "measured"  # 实测: a probe saw it
    DECLARED = "declared"  # 申报: its owner says so
    EMULATED = "emulated"  # 仿真: a stand-in device or network
    SIMULATED = "simulated"  # 推演: a model computed it
    UNKNOWN = "unknown"  # 未知
