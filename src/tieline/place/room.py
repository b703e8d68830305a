"""Room: which pools would fit a demand if enough of them were free."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tieline.place.coded import Rows
from tieline.place.demand import Demand, Need
from tieline.place.pipeline import asked_steps, fitting
from tieline.place.pools import Pools
from tieline.place.present import Free
from tieline.place.scene import Asking, Scene
from tieline.ports import Distances


def would_fit(
    demand: Demand,
    need: Need,
    pools: Pools,
    distances: Distances,
    rows: Rows,
    *,
    now_ms: int,
    held_back: Mapping[str, str],
) -> Rows:
    """Those of ``rows``, in their order, that fit one alternative of the demand but for what is free of them now.

    ``held_back`` maps pools to the demands that they wait for: those are passed over.
    """
    scene = Scene(pools, distances, now_ms)
    scene.hold_back(held_back)
    asking = Asking(scene, demand, need)
    rows = rows[np.isin(rows, pools.posting(need.asked).rows)]
    rows = fitting(asking, rows, [step for step in asked_steps(asking) if not isinstance(step, Free)])
    amount = need.amount
    for dimension, asked in zip((pools.accelerators, pools.cores, pools.memory), amount, strict=True):
        rows = rows[dimension.total[rows] >= asked]
    admitted = pools.policy.test(rows, lambda policy: asking.admits(policy) is True)
    return rows[admitted]
