"""The time that data takes is the real one of whoever is chosen or shown; no more sites are asked than that needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from place_world import GB, a_demand, a_pool, chosen, counts, planned

from tieline.model.spec import DatasetSpec
from tieline.model.task import DataUse
from tieline.place import DataFact, Pools
from tieline.ports import ConstantDistances, Transit

ONE = {"accelerator": "a100", "accelerator_count": 1}
HOME = "cn.lab/site/home"


class Booked(ConstantDistances):
    """A gigabit everywhere at most; ``real_us`` says what it takes to a site, None that there is no room."""

    def __init__(self, real_us, prices=None):
        super().__init__(constant_bps=10**9)
        object.__setattr__(self, "real_us", real_us)
        object.__setattr__(self, "prices", prices or {})
        object.__setattr__(self, "asked", [])

    def transit(self, source, target, size_bytes, now_ms, due_ms=0):
        name = target.rpartition("/")[2]
        self.asked.append(name)
        real = self.real_us.get(name, size_bytes // 125)
        return None if real is None else Transit(real, self.prices.get(name, 0), 10**6, ("l1", "l2"))


def reading(size_bytes=GB, sites=(HOME,), **fields):
    fact = DataFact(owner="cn.lab", spec=DatasetSpec(size_bytes=size_bytes, sites=sites))
    return a_demand(ONE, data=(DataUse(id="d"),), data_facts={"d": fact}, **fields)


def test_a_pool_whose_way_is_full_loses_to_the_next():
    pools = [a_pool("a", price=10), a_pool("b", price=10.1)]
    placed = chosen(reading(), pools, Booked({"a": 3_600_000_000})).candidate
    assert (placed.pool, placed.data_us) == ("cn.lab/pool/b", 8_000_000)
    (trip,) = placed.transfers
    assert (trip.data, trip.source, trip.size_bytes, trip.links) == ("d", HOME, GB, ("l1", "l2"))


def test_no_more_sites_are_asked_than_can_win():
    pools = [a_pool(f"p{at:02}", price=10 + at) for at in range(40)]
    distances = Booked({"p00": 8_000_000 * 90})
    assert chosen(reading(max_duration_s=3_600), pools, distances).candidate.pool == "cn.lab/pool/p01"
    assert distances.asked == ["p00", "p01"]


def test_the_operators_price_counts():
    pools = [a_pool("a", price=10), a_pool("b", price=11)]
    dear = Booked({}, {"a": 2_000_000, "b": 500_000})
    placed = chosen(reading(max_duration_s=3_600), pools, dear).candidate
    assert placed.pool == "cn.lab/pool/b"
    assert placed.transfers[0].price_micro_cny == 500_000
    assert placed.data_cost_micro_cny == 500_000 + 8 * (11 + 1) * 10**6 // 3_600


def test_a_deadline_is_held_against_the_real_time():
    pools = [a_pool("a", price=1), a_pool("b", price=9)]
    late = Booked({"a": 3_601_000_000})
    assert chosen(reading(deadline_s=3_600), pools, late).candidate.pool == "cn.lab/pool/b"
    refusal = chosen(reading(deadline_s=3_600), pools[:1], late)
    assert counts(refusal) == {"deadline_missed": 1}
    plan = planned(reading(deadline_s=3_600), pools, late)
    assert ([each.pool for each in plan.candidates], counts(plan)) == (["cn.lab/pool/b"], {"deadline_missed": 1})


def test_no_room_at_all_is_a_reason_of_its_own():
    pools = [a_pool("a", price=1), a_pool("home", price=9)]
    full = Booked({"a": None})
    assert chosen(reading(), pools, full).candidate.pool == "cn.lab/pool/home"
    assert counts(chosen(reading(), pools[:1], full)) == {"data_rate_unknown": 1}


def test_the_nearest_copy_by_its_real_time_counts():
    class Two(Booked):
        def most_bps(self, source, target):
            return {"cn.lab/site/fast": 2 * 10**9, "cn.lab/site/slow": 10**9}[source]

        def transit(self, source, target, size_bytes, now_ms, due_ms=0):
            return Transit(60_000_000 if source.endswith("fast") else 9_000_000)

    placed = chosen(reading(sites=("cn.lab/site/fast", "cn.lab/site/slow")), [a_pool("a")], Two({})).candidate
    assert (placed.transfers[0].source, placed.data_us) == ("cn.lab/site/slow", 9_000_000)


@given(
    prices=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    real=st.lists(st.one_of(st.none(), st.integers(8_000_000, 9_000_000_000)), min_size=12, max_size=12),
    deadline_s=st.sampled_from((0, 1_000, 100_000)),
)
def test_what_is_chosen_is_what_asking_everybody_would_choose(prices, real, deadline_s):
    names = [f"p{at:02}" for at in range(len(prices))]
    pools = Pools(a_pool(name, price=price) for name, price in zip(names, prices, strict=True))
    distances = Booked(dict(zip(names, real, strict=False)))
    answer = chosen(reading(deadline_s=deadline_s), pools, distances)
    plan = planned(reading(deadline_s=deadline_s), pools, distances, limit=5)
    best = min(
        (
            (price * 10**6 + us * (price + 1) * 10**6 // (3_600 * 10**6), name)
            for name, price, us in zip(names, prices, real, strict=False)
            if us is not None and (not deadline_s or us <= deadline_s * 10**6)
        ),
        default=None,
    )
    assert plan.fitting + sum(reason.count for reason in plan.reasons) == plan.considered
    if best is None:
        assert not hasattr(answer, "candidate")
        assert not plan.candidates
        return
    assert answer.candidate.cost_micro_cny_per_hour == pytest.approx(best[0], abs=1)
    assert plan.chosen == answer.candidate.pool
    scores = [each.cost_micro_cny_per_hour for each in plan.candidates]
    assert scores == sorted(scores)
