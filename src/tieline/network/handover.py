"""Handover: demands that may not be split go over to their new paths, make before break.

While one goes over it holds both paths; an arc of both carries it once. Who has no room for both beside those that came
before it, and beside what may be split of the classes before its own, stops in between. The rest of an update is
`update.steps_between`: what may be split makes room first, and takes what is left over last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tieline.network.classes import Rank, Share
from tieline.network.graph import Floats, Ints
from tieline.network.update import Beside


class Handover(NamedTuple):
    """What those demands hold of each arc, and what they carry in all: before, while they go over, and after."""

    beside: Beside
    before_bps: float
    between_bps: float
    after_bps: float
    stopped: tuple[tuple[Rank, int], ...]  # class, and which of its demands


def handover(
    capacity_bps: Floats, old: Sequence[Share], new: Sequence[Share], held_bps: Callable[[Rank], Floats]
) -> Handover:
    """From one choice of paths to another, both within capacity. ``old`` and ``new``: shares of the same classes by
    rank; ``held_bps``: what may be split of the classes before a rank holds of each arc, at most."""
    before, between, after, together = (np.zeros(len(capacity_bps)) for _ in range(4))
    carried = np.zeros(3)
    moving: list[tuple[Rank, int, Ints | None, Ints | None, float]] = []
    for was, will in zip(old, new, strict=True):
        if was.pin is None or will.pin is None:
            continue
        for demand, rate in enumerate(will.pin.traffic.asked_bps.tolist()):
            ends = [
                pin.columns.path(int(pin.path[demand])) if pin.path[demand] >= 0 else None
                for pin in (was.pin, will.pin)
            ]
            moving.append((will.rank, demand, ends[0], ends[1], rate))
    stays = [
        each for each in moving if each[2] is not None and each[3] is not None and np.array_equal(each[2], each[3])
    ]
    for _, _, arcs, _, rate in stays:
        for held in (before, between, after, together):
            held[arcs] += rate
        carried += rate
    kept = {(rank, demand) for rank, demand, *_ in stays}
    stopped = []
    for rank, demand, way, other, rate in moving:
        if (rank, demand) in kept or (way is None and other is None):
            continue
        both = np.unique(np.concatenate([arcs for arcs in (way, other) if arcs is not None]))
        together[both] += rate
        if way is not None:
            before[way] += rate
            carried[0] += rate
        if other is not None:
            after[other] += rate
            carried[2] += rate
        room = capacity_bps[both] * (1.0 + 1e-9) - between[both] - held_bps(rank)[both]
        if np.all(room >= rate):
            between[both] += rate
            carried[1] += rate if way is not None and other is not None else 0.0
        elif way is not None and other is not None:
            stopped.append((rank, demand))
    beside = Beside(before, between, after, together)
    return Handover(beside, float(carried[0]), float(carried[1]), float(carried[2]), tuple(stopped))
