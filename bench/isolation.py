"""What a circuit keeps of its guarantee while its neighbours send as much as they can over the same links."""

from __future__ import annotations

import json

from bench.lab_world import SOUTH, Lab, circuit, laboratory, site
from bench.row import Row
from tieline.drivers.circuits.kernel.addressing import site_address
from tieline.drivers.circuits.kernel.traffic import goodput_bps

RUNS = 5
SECONDS = 2.0
CAPACITY_BPS = 40_000_000
FIRST_BPS, SECOND_BPS = 20_000_000, 12_000_000
WRAPPED_BYTES = 80  # two segments


def run() -> list[Row]:
    """Three rows."""
    with laboratory() as lab:
        lab.ask(
            "apply", circuits=(circuit("k-1", FIRST_BPS, SOUTH), circuit("k-2", SECOND_BPS, SOUTH, most=CAPACITY_BPS))
        )
        rest = ((site("shanghai"), site_address(1)), (site("hangzhou"), site_address(3)))
        both = [_together(lab, ("k-1", "k-2"), rest) for _ in range(RUNS)]
        alone = _together(lab, ("k-2",), None)
    first, second = (sorted(each[at] for each in both)[RUNS // 2] for at in (0, 1))
    keep = min(
        first / goodput_bps(FIRST_BPS, 1_400, WRAPPED_BYTES), second / goodput_bps(SECOND_BPS, 1_400, WRAPPED_BYTES)
    )
    worst = min(
        min(each[0] / goodput_bps(FIRST_BPS, 1_400, WRAPPED_BYTES) for each in both),
        min(each[1] / goodput_bps(SECOND_BPS, 1_400, WRAPPED_BYTES) for each in both),
    )
    return [
        Row(
            claim="isolation: guarantee kept beside greedy neighbours",
            figure=keep, unit="of the guarantee", target="0.95",
            note=f"least of two circuits, medians of {RUNS}, worst {worst:.3f}; guarantees 20 + 12 of 40 Mbit/s, "
            "beside a neighbour without one; all three send as much as TCP lets them",
        ),
        Row(
            claim="isolation: circuit of 20 Mbit/s, all sending",
            figure=first / 1e6, unit="Mbit/s",
            anchor=goodput_bps(FIRST_BPS, 1_400, WRAPPED_BYTES) / 1e6, anchor_name="computed for its guarantee",
            ratio=first / goodput_bps(FIRST_BPS, 1_400, WRAPPED_BYTES), note="may not have more than its guarantee",
        ),
        Row(
            claim="isolation: circuit of 12 Mbit/s that may have more, alone",
            figure=alone[0] / 1e6, unit="Mbit/s",
            anchor=goodput_bps(SECOND_BPS, 1_400, WRAPPED_BYTES) / 1e6, anchor_name="computed for its guarantee",
            ratio=alone[0] / goodput_bps(SECOND_BPS, 1_400, WRAPPED_BYTES),
            note="the circuit whose order allows more, while the others are silent",
        ),
    ]  # fmt: skip


def _together(lab: Lab, circuits: tuple[str, ...], rest: tuple[tuple[str, str], tuple[str, str]] | None) -> list[int]:
    """What each carries while all send."""
    started = [lab.start("rate", *rest, SECONDS + 2)] if rest is not None else []
    told = [lab.start("rate", *lab.ends(name), SECONDS) for name in circuits]
    rates = [int(json.loads(each.communicate()[0])[1]) for each in told]
    for each in started:
        each.communicate()
    return rates
