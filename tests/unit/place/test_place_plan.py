"""Plan: ranked candidates, everything accounted for, and the change that would help."""

from place_world import GB, NOW_MS, a_demand, a_pool, a_task, chosen, cores, counts, planned

from tieline.model.reason import Reason
from tieline.model.task import NotApplied
from tieline.place import Amount, Pools, demand_of

EIGHT = {"accelerator": "a100", "accelerator_count": 8}


def names(plan):
    return [candidate.pool.rsplit("/", 1)[-1] for candidate in plan.candidates]


def test_candidates_are_ranked_and_the_first_is_chosen_and_says_why():
    plan = planned(a_demand(), [a_pool("a", price=9), a_pool("b", price=8), a_pool("c", price=10)])
    assert names(plan) == ["b", "a", "c"]
    assert plan.chosen == "cn.lab/pool/b"
    assert [candidate.is_chosen for candidate in plan.candidates] == [True, False, False]
    assert plan.because == Reason(
        code="chosen_cheapest", count=3, values={"pool": "cn.lab/pool/b", "cost_micro_cny": 8_000_000}
    )
    assert plan.nearest is None


def test_the_only_one_says_so():
    assert planned(a_demand(), [a_pool("a")]).because == Reason(code="chosen_only", values={"pool": "cn.lab/pool/a"})


def test_what_fits_and_what_does_not_add_up_to_what_was_considered():
    plan = planned(a_demand(), [a_pool("a"), a_pool("b"), cores("c"), a_pool("d", accelerator="h100")], limit=1)
    assert (plan.considered, plan.fitting, len(plan.candidates)) == (4, 2, 1)
    assert counts(plan) == {"accelerator_kind": 2}


def test_a_plan_shows_first_what_choose_takes_and_holds_nothing():
    pools = Pools([a_pool("a", price=9), a_pool("b", price=8)])
    pools.hold("cn.lab/pool/b", Amount(accelerators=1))
    plan = planned(a_demand(EIGHT), pools)
    assert plan.candidates[0] == chosen(a_demand(EIGHT), pools).candidate
    assert pools.free("cn.lab/pool/a").accelerators == 8


def test_a_pool_stands_once_under_its_best_alternative():
    demand = a_demand({"accelerator": "a100", "accelerator_count": 4}, {"accelerator": "a100", "accelerator_count": 2})
    plan = planned(demand, [a_pool("a"), a_pool("b", price=11)])
    assert [(candidate.pool[-1], candidate.alternative) for candidate in plan.candidates] == [("a", 1), ("b", 1)]
    assert plan.fitting == 2


def test_avoided_sites_stand_last():
    plan = planned(a_demand(avoid=("cn.lab/site/a",)), [a_pool("a", price=1), a_pool("b", price=9)])
    assert names(plan) == ["b", "a"]


def test_the_nearest_change_is_looked_for_in_a_fixed_order_over_single_changes():
    both = {"accelerator": "a100", "accelerator_count": 1, "max_price_micro_cny": 5_000_000, "architecture": "aarch64"}
    assert planned(a_demand(both), [a_pool("a")]).nearest is None  # two changes would be needed
    pools = [a_pool("a", architecture="aarch64"), a_pool("b", price=4)]
    assert planned(a_demand(both), pools).nearest.term == "max_price"


def test_a_price_is_relaxed_to_the_lowest_that_fits_in_every_other_way():
    asked = a_demand({"accelerator": "a100", "accelerator_count": 2, "max_price_micro_cny": 5_000_000})
    pools = [
        a_pool("a", price=7),
        a_pool("b", price=7),
        a_pool("c", price=6, accelerator_count=1),
        a_pool("d", price=9),
    ]
    nearest = planned(asked, pools).nearest
    assert (nearest.term, nearest.asked, nearest.needed, nearest.admits) == ("max_price", "5.00", "7.00", 2)


def test_what_is_free_now_is_offered_to_a_demand_that_must_wait():
    pools = Pools([a_pool("a")])
    pools.hold("cn.lab/pool/a", Amount(accelerators=2))
    plan = planned(a_demand(EIGHT), pools)
    assert plan.is_possible
    assert (plan.nearest.term, plan.nearest.asked, plan.nearest.needed) == ("accelerators", "8", "6")


def test_memory_is_offered_in_sizes():
    pools = Pools([a_pool("a")])
    pools.hold("cn.lab/pool/a", Amount(memory_bytes=500 * GB))
    nearest = planned(a_demand({"accelerator": "a100", "memory_bytes": 100 * GB}), pools).nearest
    assert (nearest.term, nearest.asked, nearest.needed) == ("memory", "100 GB", "12 GB")


def test_pools_that_wait_for_others_are_told_apart():
    plan = planned(a_demand(), [a_pool("a")], held_back={"cn.lab/pool/a": "gang", "cn.lab/pool/gone": "x"})
    assert plan.reasons == (Reason(code="held_back", values={"job": "gang"}),)
    assert plan.is_possible


def test_a_plan_carries_what_was_not_applied_and_its_time():
    task = a_task(not_applied=(NotApplied(field="disk_tier", why="no cloud"),))
    plan = planned(demand_of(task, a_demand().caller), [a_pool("a")])
    assert plan.not_applied[0].field == "disk_tier"
    assert plan.as_of_ms == NOW_MS
    assert plan.name == "train"
