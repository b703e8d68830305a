"""Choose: the cheapest that fits, deterministic ties, a batch in its order, and a line that moves."""

import pytest
from place_world import GB, NOW_MS, a_demand, a_pool, chosen, cores, counts

from tieline.model.reason import Reason
from tieline.model.spec import DatasetSpec
from tieline.model.task import DataUse
from tieline.place import Amount, DataFact, Placement, Pools, Refusal, RunEnd, Terms
from tieline.place.backfill import shadow_ms
from tieline.ports import ConstantDistances

EIGHT = {"accelerator": "a100", "accelerator_count": 8}
ONE = {"accelerator": "a100", "accelerator_count": 1}


def where(answer):
    return answer.candidate.pool.rsplit("/", 1)[-1] if isinstance(answer, Placement) else None


def test_the_lowest_price_wins():
    assert where(chosen(a_demand(), [a_pool("a", price=9), a_pool("b", price=8), a_pool("c", price=10)])) == "b"


def test_equal_prices_go_to_the_pool_with_the_least_left_free():
    pools = Pools([a_pool("a"), a_pool("b"), a_pool("c")])
    pools.hold("cn.lab/pool/b", Amount(accelerators=5))
    assert where(chosen(a_demand(), pools)) == "b"


def test_the_last_tie_goes_to_the_identifier_that_sorts_first_in_whatever_order_pools_came():
    rows = [a_pool("b"), a_pool("c"), a_pool("a")]
    assert where(chosen(a_demand(), rows)) == "a"
    assert where(chosen(a_demand(), rows[::-1])) == "a"


def test_a_tie_is_found_behind_many_pools_that_are_full():
    pools = Pools([a_pool(f"p{at:03}", price=1) for at in range(700)] + [a_pool("z", price=2), a_pool("y", price=2)])
    for at in range(700):
        pools.hold(f"cn.lab/pool/p{at:03}", Amount(accelerators=8))
    assert where(chosen(a_demand(), pools)) == "y"


def test_a_placement_says_everything_that_a_booking_needs():
    placed = chosen(a_demand(ONE | {"core_count": 4, "memory_bytes": GB}, nodes=2), [a_pool("one", is_emulated=True)])
    assert placed.amount == Amount(2, 8, 2 * GB)
    candidate = placed.candidate
    assert (candidate.site, candidate.owner, candidate.accelerator) == ("cn.lab/site/one", "cn.lab", "a100")
    assert (candidate.unit, candidate.unit_count, candidate.free_units) == ("accelerator", 2, 8)
    assert (candidate.price_micro_cny_per_unit_hour, candidate.cost_micro_cny_per_hour) == (10_000_000, 20_000_000)
    assert (candidate.network, candidate.sandbox, candidate.evidence) == ("host", "bubblewrap", "emulated")
    assert candidate.is_chosen


def test_members_of_a_batch_see_what_those_before_them_took_and_nothing_stays_taken():
    pools = Pools([cores("a", price=1, core_count=4), cores("b", price=2, core_count=4)])
    asked = [a_demand({"core_count": 3}, id=f"j-{at}") for at in range(3)]
    assert [where(answer) for answer in chosen(asked, pools)] == ["a", "b", None]
    assert pools.free("cn.lab/pool/a").cores == pools.free("cn.lab/pool/b").cores == 4
    assert [where(answer) for answer in chosen(asked, pools)] == ["a", "b", None]


def test_a_refusal_is_repeated_for_demands_of_the_same_shape_under_their_own_names():
    pools = [cores("a", core_count=4, policy="label(team) == x")]
    asked = [a_demand({"core_count": 3}, id=f"j-{at}", labels={"team": team}) for at, team in enumerate("yyx")]
    one, two, three = chosen(asked, pools)
    assert (one.demand, two.demand) == ("j-0", "j-1")
    assert one.reasons == two.reasons
    assert where(three) == "a"


def test_any_of_takes_the_cheapest_alternative_and_ordered_the_first_that_fits():
    pools = [a_pool("h", accelerator="h100", price=30), a_pool("a", price=10)]
    alternatives = ({"accelerator": "h100"}, {"accelerator": "a100"})
    free = chosen(a_demand(*alternatives), pools)
    assert (where(free), free.candidate.alternative) == ("a", 1)
    ordered = chosen(a_demand(*alternatives, is_ordered=True), pools)
    assert (where(ordered), ordered.candidate.alternative) == ("h", 0)
    missing = chosen(a_demand({"accelerator": "b200"}, {"accelerator": "a100"}, is_ordered=True), pools)
    assert (where(missing), missing.candidate.alternative) == ("a", 1)


def test_sites_to_be_avoided_come_last_and_are_not_excluded():
    pools = [a_pool("a", price=1), a_pool("b", price=9)]
    asked = a_demand(avoid=("cn.lab/site/a",))
    assert where(chosen(asked, pools)) == "b"
    assert where(chosen(asked, pools[:1])) == "a"
    assert where(chosen(a_demand(avoid=("cn.nowhere/site/x",)), pools)) == "a"


def test_a_gang_stands_within_one_pool_or_nowhere():
    pools = [a_pool("a"), a_pool("b")]
    assert counts(chosen(a_demand({"accelerator": "a100", "accelerator_count": 4}, nodes=3), pools)) == {
        "accelerators_total": 2
    }
    assert chosen(a_demand({"accelerator": "a100", "accelerator_count": 4}, nodes=2), pools).candidate.unit_count == 8


def test_a_quote_is_for_its_pool_at_its_price():
    pools = [a_pool("a", price=1), a_pool("b", price=9)]
    limit = ONE | {"max_price_micro_cny": 8_000_000}
    assert where(chosen(a_demand(ONE, pool="cn.lab/pool/b"), pools)) == "b"
    assert counts(chosen(a_demand(limit, pool="cn.lab/pool/b"), pools)) == {"price_above": 1, "pool_not_asked": 1}
    quoted = chosen(a_demand(limit, pool="cn.lab/pool/b", price_micro_cny=7_000_000), pools)
    assert where(quoted) == "b"
    assert quoted.candidate.price_micro_cny_per_unit_hour == 7_000_000


# -- data -------------------------------------------------------------------------------------------------------------


def reading(size_bytes, site="cn.lab/site/near", **fields):
    use = DataUse(id="cn.lab/dataset/d")
    fact = DataFact(owner="cn.lab", spec=DatasetSpec(size_bytes=size_bytes, sites=(site,)))
    return a_demand(ONE, data=(use,), data_facts={"cn.lab/dataset/d": fact}, **fields)


NEAR_AND_FAR = [a_pool("near", price=12), a_pool("far", price=10)]


def test_a_job_goes_to_its_data_unless_moving_it_is_cheaper():
    gigabit = ConstantDistances(constant_bps=10**9)
    assert where(chosen(reading(1_000 * GB, max_duration_s=3_600), NEAR_AND_FAR, gigabit)) == "near"
    assert where(chosen(reading(1 * GB, max_duration_s=3_600), NEAR_AND_FAR, gigabit)) == "far"


def test_the_same_data_weighs_less_before_longer_work():
    gigabit = ConstantDistances(constant_bps=10**9)
    assert where(chosen(reading(100 * GB, max_duration_s=600), NEAR_AND_FAR, gigabit)) == "near"
    assert where(chosen(reading(100 * GB, max_duration_s=86_400), NEAR_AND_FAR, gigabit)) == "far"


def test_the_score_is_the_documented_formula():
    gigabit = ConstantDistances(constant_bps=10**9)
    terms = Terms(hour_micro_cny=2_000_000, transfer_micro_cny_per_gb=50_000)
    placed = chosen(reading(90 * GB, max_duration_s=7_200), [a_pool("far", price=10)], gigabit, terms=terms).candidate
    assert placed.data_us == 720_000_000  # 90 GB at 1 Gbit/s: 0.2 h
    assert placed.data_cost_micro_cny == 2_400_000 + 4_500_000  # 0.2 h x (10 + 2) CNY, and 90 GB x 0.05 CNY
    assert placed.cost_micro_cny_per_hour == 10_000_000 + 3_450_000  # spread over two hours


def test_data_weighs_also_between_pools_that_cost_nothing():
    pools = [a_pool("near", price=0), a_pool("a-far", price=0)]
    assert where(chosen(reading(GB), pools)) == "near"


def test_the_nearest_copy_counts():
    class Two(ConstantDistances):
        def rate_bps(self, source, target):
            return {"cn.x/site/slow": 10**6, "cn.x/site/fast": 10**9}[source]

    use = DataUse(id="d")
    fact = DataFact(owner="cn.x", spec=DatasetSpec(size_bytes=GB, sites=("cn.x/site/slow", "cn.x/site/fast")))
    placed = chosen(a_demand(ONE, data=(use,), data_facts={"d": fact}), [a_pool("a")], Two())
    assert placed.candidate.data_us == 8_000_000


def test_a_deadline_counts_the_time_that_the_data_takes():
    megabit = ConstantDistances(constant_bps=10**6)
    refusal = chosen(reading(GB, deadline_s=3_600), [a_pool("far")], megabit)
    assert refusal.reasons == (Reason(code="deadline_missed", values={"earliest_us": 4_400_000_000}),)
    assert where(chosen(reading(GB, deadline_s=3_600), [a_pool("far"), a_pool("near", price=99)], megabit)) == "near"


# -- the line ---------------------------------------------------------------------------------------------------------

BIG, SMALL = {"core_count": 64}, {"core_count": 1}


def a_line(pools, *, now_ms=NOW_MS + 60_000, small_duration_s=0, **more):
    """A gang that waits since NOW_MS, and a small job that came just now."""
    gang = a_demand(BIG, id="gang", waits_since_ms=NOW_MS)
    small = a_demand(SMALL, id="small", waits_since_ms=now_ms, max_duration_s=small_duration_s)
    return chosen([gang, small], pools, now_ms=now_ms, **more)


def busy_pools():
    pools = Pools([cores("a", price=1), cores("b", price=2)])
    pools.hold("cn.lab/pool/a", Amount(cores=40))
    pools.hold("cn.lab/pool/b", Amount(cores=10))
    return pools


def test_after_its_patience_a_gang_has_the_pool_that_lacks_least_held_back_for_it():
    gang, small = a_line(busy_pools())
    assert isinstance(gang, Refusal)
    assert gang.held_back == "cn.lab/pool/b"
    assert where(small) == "a"


def test_before_its_patience_nothing_is_held_back():
    gang, small = a_line(Pools([cores("a", core_count=64)]), now_ms=NOW_MS + 59_999)
    assert isinstance(gang, Placement)
    assert small.reasons[0].code == "cores_free"
    pools = busy_pools()
    pools.remove("cn.lab/pool/a")
    gang, small = a_line(pools, now_ms=NOW_MS + 59_999)
    assert gang.held_back == ""
    assert where(small) == "b"


def test_what_is_held_back_is_a_reason_that_names_who_waits():
    pools = busy_pools()
    pools.remove("cn.lab/pool/a")
    gang, small = a_line(pools)
    assert gang.held_back == "cn.lab/pool/b"
    assert small.reasons == (Reason(code="held_back", values={"job": "gang"}),)
    assert small.is_possible


def test_work_that_ends_before_the_gang_could_start_runs_meanwhile():
    pools = busy_pools()
    pools.remove("cn.lab/pool/a")
    ends = {"cn.lab/pool/b": [RunEnd(NOW_MS + 60_000 + 100_000, Amount(cores=10))]}
    assert where(a_line(pools, small_duration_s=100, ends=ends)[1]) == "b"
    assert where(a_line(pools, small_duration_s=101, ends=ends)[1]) is None
    assert where(a_line(pools, small_duration_s=0, ends=ends)[1]) is None


def test_the_number_of_pools_that_are_held_back_is_bounded():
    gang, small = a_line(busy_pools(), most_held_back=0)
    assert gang.held_back == ""
    assert where(small) == "a"


def test_a_pool_goes_on_waiting_in_batches_without_the_demand_that_it_waits_for():
    pools = Pools([cores("a"), cores("b", price=20)])
    held = {"cn.lab/pool/a": "gang", "cn.lab/pool/gone": "other"}
    assert where(chosen(a_demand(SMALL, id="small"), pools, held_back=held)) == "b"
    gang, small = chosen([a_demand(BIG, id="gang"), a_demand(SMALL, id="small")], pools, held_back=held)
    assert (where(gang), where(small)) == ("a", "b")


def test_a_late_gang_is_served_although_one_of_its_shape_came_just_now():
    pools = busy_pools()
    pools.remove("cn.lab/pool/a")
    now_ms = NOW_MS + 60_000
    fresh = a_demand(BIG, id="fresh", priority=9, waits_since_ms=now_ms)
    late = a_demand(BIG, id="late", waits_since_ms=NOW_MS)
    small = a_demand(SMALL, id="small", waits_since_ms=now_ms)
    one, two, three = chosen([fresh, late, small], pools, now_ms=now_ms)
    assert (one.held_back, two.held_back) == ("", "cn.lab/pool/b")
    assert where(three) is None


def test_a_gang_starts_at_last_although_small_jobs_keep_coming():
    pools = Pools([cores("a", core_count=8)])
    running = [0] * 8  # ends of one-core runs, in passes from now
    for at in range(8):
        running[at] = at + 1
    pools.hold("cn.lab/pool/a", Amount(cores=8))
    for turn in range(1, 40):
        now_ms = NOW_MS + turn * 10_000
        ended = sum(1 for end in running if end == turn)
        running = [end for end in running if end != turn]
        if ended:
            pools.release("cn.lab/pool/a", Amount(cores=ended))
        gang = a_demand({"core_count": 8}, id="gang", waits_since_ms=NOW_MS)
        small = [a_demand(SMALL, id=f"s-{turn}-{at}", waits_since_ms=now_ms) for at in range(4)]
        gang_answer, *answers = chosen([gang, *small], pools, now_ms=now_ms)
        if isinstance(gang_answer, Placement):
            return
        for answer in answers:
            if isinstance(answer, Placement):
                pools.hold("cn.lab/pool/a", Amount(cores=1))
                running.append(turn + 8)
    pytest.fail("the gang starved")


def test_the_shadow_is_the_first_end_after_which_enough_is_free():
    ends = [RunEnd(30, Amount(cores=4)), RunEnd(10, Amount(cores=1)), RunEnd(20, Amount(accelerators=1))]
    assert shadow_ms(Amount(cores=3), Amount(cores=2), ends) == 10
    assert shadow_ms(Amount(1, 3), Amount(cores=2), ends) == 20
    assert shadow_ms(Amount(cores=7), Amount(cores=2), ends) == 30
    assert shadow_ms(Amount(cores=8), Amount(cores=2), ends) is None


def test_ties_between_pools_to_which_data_moves_are_broken_as_all_others():
    pools = Pools([a_pool("b"), a_pool("c"), a_pool("a")])
    assert where(chosen(reading(GB), pools)) == "a"
    pools.hold("cn.lab/pool/c", Amount(accelerators=1))
    assert where(chosen(reading(GB), pools)) == "c"


def test_a_dearer_pool_beside_the_data_wins_a_tie_behind_many_cheaper_ones():
    pools = Pools([a_pool(f"p{at:03}", price=9) for at in range(130)] + [a_pool("near", price=10)])
    pools.hold("cn.lab/pool/near", Amount(accelerators=1))
    fast, terms = ConstantDistances(constant_bps=10**16), Terms(transfer_micro_cny_per_gb=1_000_000)
    assert where(chosen(reading(GB, max_duration_s=3_600), pools, fast, terms=terms)) == "near"


def test_the_best_pool_whose_owner_admits_is_found_behind_many_that_refuse():
    pools = [a_pool(f"p{at:02}", price=at, policy=f"duration < {at}h or nodes > {at}") for at in range(1, 20)]
    assert where(chosen(a_demand(max_duration_s=12 * 3_600), pools)) == "p13"
    assert where(chosen(a_demand(max_duration_s=1), pools)) == "p01"
    assert where(chosen(a_demand(max_duration_s=99 * 3_600, nodes=2), pools)) == "p01"
    assert counts(chosen(a_demand(max_duration_s=99 * 3_600), pools)) == {"policy_not_met": 19}
