"""Network coordinates on measured round trips: how wrong the estimates are, and whom they choose to measure next.

Every host measures 32 others of its own, again and again; both ends learn. Judged are pairs that neither end measured.
Then each host looks for the nearest of 20 others that it never saw: it measures the five that seem nearest. The anchors
are computed in the same run: one figure for everybody, and five that are drawn by lot. Seeds are 1 to 5.
"""

from __future__ import annotations

import random
from statistics import median
from time import process_time
from typing import NamedTuple

import numpy as np

from bench.row import Row
from bench.rtt_world import Micros, planetlab_us
from tieline.network.coordinates import Coordinates

NEIGHBOURS = 32
ROUNDS = 160  # each neighbour five times
JUDGED = 60_000
CANDIDATES = 20
PROBED = 5
SEEDS = (1, 2, 3, 4, 5)


class Run(NamedTuple):
    """What one seed gave."""

    error: float  # median relative
    error_p90: float
    error_constant: float  # of the median round trip for everybody
    extra_us: float  # mean, over the nearest
    extra_lot_us: float
    heard_us: float  # CPU of learning from one round trip


def run() -> list[Row]:
    """One row for the estimates, one for the choice."""
    rtt_us = planetlab_us()
    runs = [_run(rtt_us, seed) for seed in SEEDS]
    error, constant = median(each.error for each in runs), median(each.error_constant for each in runs)
    extra, lot = median(each.extra_us for each in runs), median(each.extra_lot_us for each in runs)
    errors = ", ".join(f"{100 * each.error:.1f}" for each in runs)
    return [
        Row(
            claim=f"estimates of unmeasured round trips, {len(rtt_us)} hosts, {NEIGHBOURS} neighbours: median error",
            figure=100 * error,
            unit="%",
            anchor=100 * constant,
            anchor_name="the median round trip for every pair",
            ratio=error / constant,
            target="at most 11 %",
            note=f"seeds 1-5: {errors}; p90 {100 * median(each.error_p90 for each in runs):.0f} %; "
            f"{median(each.heard_us for each in runs):.0f} us CPU a round trip; published Vivaldi: 11 %",
        ),
        Row(
            claim=f"nearest of {CANDIDATES} unmeasured hosts after {PROBED} chosen probes: mean extra",
            figure=extra / 1_000,
            unit="ms",
            anchor=lot / 1_000,
            anchor_name=f"{PROBED} drawn by lot",
            ratio=extra / lot,
            target="at most 8 ms",
            note="seeds 1-5: " + ", ".join(f"{each.extra_us / 1_000:.1f}" for each in runs),
        ),
    ]


def _run(rtt_us: Micros, seed: int) -> Run:
    count, lot = len(rtt_us), random.Random(seed)
    names = [f"h{at:03}" for at in range(count)]
    others = [[j for j in range(count) if j != i] for i in range(count)]
    neighbours = [lot.sample(others[i], NEIGHBOURS) for i in range(count)]
    coordinates, began_s = Coordinates(), process_time()
    for turn in range(ROUNDS):
        for i in lot.sample(range(count), count):
            j = neighbours[i][turn % NEIGHBOURS]
            coordinates.heard(names[i], names[j], int(rtt_us[i, j]))
    heard_us = 1e6 * (process_time() - began_s) / (ROUNDS * count)
    seen = np.eye(count, dtype=np.bool_)
    for i, chosen in enumerate(neighbours):
        seen[i, chosen] = seen[chosen, i] = True
    unseen = np.argwhere(~seen)
    judged = unseen[lot.sample(range(len(unseen)), min(JUDGED, len(unseen)))]
    truth = rtt_us[judged[:, 0], judged[:, 1]]
    estimates = np.array([coordinates.estimate_us(names[i], names[j]) for i, j in judged])
    errors = np.abs(estimates - truth) / truth
    extra, by_lot = [], []
    for i in range(count):
        wanted = lot.sample([j for j in others[i] if not seen[i, j]], CANDIDATES)
        first = coordinates.nearest(names[i], [names[j] for j in wanted], PROBED)
        best = rtt_us[i, wanted].min()
        extra.append(min(rtt_us[i, int(name[1:])] for name in first) - best)
        by_lot.append(rtt_us[i, wanted[:PROBED]].min() - best)  # `wanted` is in the order of the lot
    return Run(
        error=float(np.median(errors)),
        error_p90=float(np.percentile(errors, 90)),
        error_constant=float(np.median(np.abs(np.median(truth) - truth) / truth)),
        extra_us=float(np.mean(extra)),
        extra_lot_us=float(np.mean(by_lot)),
        heard_us=heard_us,
    )
