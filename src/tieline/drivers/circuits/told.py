"""Told: what a receipt can say of a circuit that a controller keeps and we do not see: its own word, no proof.

Such a receipt is declared, proves no path and carries no rate: nothing is charged for it until somebody measures.
"""

from __future__ import annotations

import time

from tieline.model.circuit import Receipt
from tieline.model.evidence import Evidence

UP = ("up", "ietf-vpn-common:op-up", "op-up")


def told(circuit: str, seq: int, status: str) -> Receipt:
    """A receipt of the controller's word. ``status``: of the slice; everything but up lost all."""
    now_ms = time.time_ns() // 1_000_000
    return Receipt(
        subject=circuit,
        seq=seq,
        begun_ms=now_ms,
        ended_ms=now_ms,
        lost_ppm=0 if status in UP else 1_000_000,
        evidence=Evidence.DECLARED,
    )
