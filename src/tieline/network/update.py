"""Update: from one routing to another without overloading a link on the way, whichever router changes first.

Routers do not change at one instant. Going from ``old`` to ``new`` in one step loads a link with up to the larger of
the two rates of each path. A step is safe if that sum fits everywhere (SWAN, Hong et al., SIGCOMM 2013). Where the
direct step is not, one in between is looked for by a linear programme: rates ``mid`` such that ``old -> mid`` and
``mid -> new`` both are safe and as much as possible is carried meanwhile. With a share ``s`` of every link left free
by both ends, such a step exists for ``1/s - 1`` steps; here two steps are made, and what cannot stay is carried less
in between, never overloaded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tieline.network.columns import Columns
from tieline.network.graph import Floats


class Steps(NamedTuple):
    """The rates to set one after another, the last of them the new ones."""

    rates_bps: tuple[Floats, ...]
    carried_bps: float  # at the lowest point
    is_lossless: bool  # nothing is carried less than both ends carry


def is_safe(columns: Columns, before: Floats, after: Floats, capacity_bps: Floats) -> bool:
    """Whether every mixture of the two fits."""
    load = columns.by_arc() @ np.maximum(before, after)
    return bool(np.all(load <= capacity_bps * (1 + 1e-9) + 1e-6))


def steps_between(columns: Columns, old: Floats, new: Floats, capacity_bps: Floats) -> Steps:
    """One step where it is safe, else two. ``old`` and ``new`` are rates of the same paths, each within capacity."""
    least = min(float(old.sum()), float(new.sum()))
    if is_safe(columns, old, new, capacity_bps):
        return Steps((new,), least, is_lossless=True)
    middle = _middle(columns, old, new, capacity_bps)
    assert is_safe(columns, old, middle, capacity_bps)
    assert is_safe(columns, middle, new, capacity_bps)
    carried = float(middle.sum())
    return Steps((middle, new), min(least, carried), is_lossless=carried >= least * (1 - 1e-9))


def _middle(columns: Columns, old: Floats, new: Floats, capacity_bps: Floats) -> Floats:
    """max sum(mid) with by_arc @ max(old, mid) <= capacity and by_arc @ max(mid, new) <= capacity.

    Both maxima are linear in ``mid`` and what it exceeds each end by: mid <= end + over, over >= 0.
    """
    from scipy.optimize import linprog
    from scipy.sparse import block_array, csr_array, eye_array

    paths = np.flatnonzero((old > 0) | (new > 0))
    by_arc = columns.by_arc()[:, paths]
    used = np.flatnonzero(by_arc.sum(axis=1))
    by_arc = csr_array(by_arc)[used]
    before, after = old[paths], new[paths]
    scale = float(np.median(np.maximum(before, after)))  # the solver's tolerances are absolute
    one, none = eye_array(len(paths), format="csr"), None
    rows = block_array(
        [[none, by_arc, none], [none, none, by_arc], [one, -one, none], [one, none, -one]],
        format="csc",
    )
    free = capacity_bps[used]
    bounds = np.concatenate([free - by_arc @ before, free - by_arc @ after, before, after])
    aim = np.concatenate([-np.ones(len(paths)), np.full(2 * len(paths), 1e-6)])
    limit = [(0.0, float(most)) for most in np.maximum(before, after) / scale] + [(0.0, None)] * (2 * len(paths))
    answer = linprog(aim, A_ub=rows, b_ub=np.maximum(bounds, 0.0) / scale, bounds=limit, method="highs")
    if answer.status != 0:  # nothing at all is always safe
        raise ArithmeticError(f"the solver gave up: {answer.message}")
    middle = np.zeros(len(old))
    middle[paths] = np.maximum(answer.x[: len(paths)], 0.0) * scale
    # What exceeds both ends is what crowds arcs: a solver's trifle of that is taken back.
    for end in (old, new):
        over = np.maximum(middle - end, 0.0)
        room = np.maximum(capacity_bps - columns.by_arc() @ end, 0.0)
        share = np.minimum(1.0, room / np.maximum(columns.by_arc() @ over, 1e-12))
        middle = np.minimum(middle, end + over * np.minimum.reduceat(share[columns.arcs], columns.start[:-1]))
    return middle
