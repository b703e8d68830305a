"""What goes where: feasible -> score -> choose -> plan, with counted reasons for everything that was not taken.

Decides: which pools fit a demand (`pipeline.STEPS`, one visible list), which of them costs least with its data, whose
turn it is (`queue`), and what would help where nothing fits. Never: takes anything. A plan is optimistic; a booking is
real when the owner's site has accepted it. Pure: pools, demands, distances and the time go in, answers come out.

    pools = Pools([...])                      # kept from records, heartbeats and bookings
    demand = demand_of(task, caller, id=job)
    choose([demand], pools, distances, now_ms=now)   -> [Placement | Refusal]
    plan(demand, pools, distances, now_ms=now)       -> model.plan.Plan
    is_possible(demand, pools, distances, now_ms=now) -> bool
"""

from tieline.place.backfill import RunEnd
from tieline.place.choose import Placement, Refusal, choose
from tieline.place.demand import Caller, DataFact, Demand, demand_of, demand_values
from tieline.place.planning import is_possible, plan
from tieline.place.pools import OPEN_SITE, Amount, Pools, SiteFlags
from tieline.place.row import PoolRow, pool_row
from tieline.place.terms import Terms

__all__ = [
    "OPEN_SITE",
    "Amount",
    "Caller",
    "DataFact",
    "Demand",
    "Placement",
    "PoolRow",
    "Pools",
    "Refusal",
    "RunEnd",
    "SiteFlags",
    "Terms",
    "choose",
    "demand_of",
    "demand_values",
    "is_possible",
    "plan",
    "pool_row",
]
