"""Placing: nothing is oversold, every refusal accounts for every pool, and the answer does not hang on history."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from tieline.market import stop_after_s
from tieline.model.error import TielineError
from tieline.model.reason import CATALOGUE, sentence
from tieline.model.spec import PoolSpec, SiteSpec
from tieline.model.task import Resources, Task
from tieline.place import (
    OPEN_SITE,
    Amount,
    Caller,
    Placement,
    Pools,
    SiteFlags,
    choose,
    demand_of,
    is_possible,
    plan,
    pool_row,
)
from tieline.place.pipeline import STEPS
from tieline.ports import ConstantDistances

ALICE = Caller(name="alice")
DISTANCES = ConstantDistances()
NAMES = [f"cn.o{at % 2}/pool/p{at}" for at in range(5)]
kinds = st.sampled_from(["a100", "h100", ""])
prices = st.sampled_from([0, 3, 3, 4]).map(lambda price: price * 10**6)


def a_row(name, kind, accelerators, cores, memory, price, site="s"):
    spec = PoolSpec(
        accelerator=kind, accelerator_count=accelerators if kind else 0, core_count=cores, memory_bytes=memory,
        sandbox="bubblewrap", price_micro_cny_per_accelerator_hour=price,
    )  # fmt: skip
    return pool_row(name, name.split("/")[0], spec, SiteSpec(), site_id=f"{name.split('/')[0]}/site/{site}")


rows = st.builds(
    a_row, st.sampled_from(NAMES), kinds, st.integers(0, 8), st.integers(0, 16), st.integers(0, 8), prices,
    st.sampled_from("st"),
)  # fmt: skip
resources = st.builds(
    Resources, accelerator=st.sampled_from(["", "a100", "any"]), accelerator_count=st.integers(0, 3),
    core_count=st.integers(0, 4), memory_bytes=st.integers(0, 3), where=st.sampled_from(["", "price < 4"]),
)  # fmt: skip
tasks = st.builds(
    Task, name=st.just("t"), nodes=st.integers(1, 3), resources=st.lists(resources, min_size=1, max_size=2).map(tuple),
    is_ordered=st.booleans(),
)  # fmt: skip


class Bookings(RuleBasedStateMachine):
    """Records, heartbeats and bookings in any order, against a ledger kept by hand."""

    held = Bundle("held")

    @initialize()
    def begin(self):
        self.pools = Pools()
        self.totals: dict[str, Amount] = {}
        self.open: dict[str, Amount] = {}
        self.ledger: dict[str, list[int]] = {name: [0, 0, 0] for name in NAMES}
        self.now_ms = 0

    @rule(row=rows)
    def record(self, row):
        self.pools.put(row)
        spec = row.spec
        self.totals[row.id] = self.open[row.id] = Amount(spec.accelerator_count, spec.core_count, spec.memory_bytes)
        if self.pools.site_flags(row.site) == SiteFlags():
            self.pools.set_site(row.site, OPEN_SITE)

    @rule(name=st.sampled_from(NAMES))
    def withdraw(self, name):
        self.pools.remove(name)
        self.totals.pop(name, None)

    @rule(name=st.sampled_from(NAMES), price=prices)
    def reprice(self, name, price):
        if name in self.totals:
            self.pools.set_price(name, price)

    @rule(name=st.sampled_from(NAMES), amount=st.builds(Amount, *[st.integers(-1, 20)] * 3))
    def beat(self, name, amount):
        self.pools.set_available(name, amount)
        if name in self.totals:
            self.open[name] = Amount(
                *(max(0, min(one, most)) for one, most in zip(amount, self.totals[name], strict=True))
            )

    @rule(site=st.sampled_from(["cn.o0/site/s", "cn.o1/site/s"]), flags=st.builds(SiteFlags, *[st.booleans()] * 3))
    def flag(self, site, flags):
        self.pools.set_site(site, flags)

    @rule(target=held, batch=st.lists(tasks, min_size=1, max_size=4))
    def place(self, batch):
        self.now_ms += 20_000
        demands = [demand_of(task, ALICE, id=f"j-{at}") for at, task in enumerate(batch)]
        before = {name: self.pools.held(name) for name in NAMES}
        answers = choose(demands, self.pools, DISTANCES, now_ms=self.now_ms)
        assert before == {name: self.pools.held(name) for name in NAMES}
        taken = []
        for answer in answers:
            if isinstance(answer, Placement):
                pool = answer.candidate.pool
                self.pools.hold(pool, answer.amount)  # an assertion there if the batch oversold it
                self.ledger[pool] = [one + more for one, more in zip(self.ledger[pool], answer.amount, strict=True)]
                taken.append((pool, answer.amount))
            else:
                accounts_for_everything(answer, len(self.totals))
        return taken

    @rule(taken=consumes(held))
    def end(self, taken):
        for pool, amount in taken:
            self.pools.release(pool, amount)
            self.ledger[pool] = [one - less for one, less in zip(self.ledger[pool], amount, strict=True)]

    @invariant()
    def nothing_is_oversold(self):
        assert len(self.pools) == len(self.totals)
        for name in NAMES:
            held = self.pools.held(name)
            assert list(held) == self.ledger[name]
            if name in self.totals:
                free = self.pools.free(name)
                opened = self.open[name]
                assert free == Amount(*(max(0, most - one) for most, one in zip(opened, held, strict=True)))

    @invariant()
    def postings_hold_exactly_the_live_pools(self):
        posted = sorted(self.pools.at(int(row)).id for asked in ("", "any") for row in self.pools.posting(asked).rows)
        assert posted == sorted(self.totals)


TestBookings = Bookings.TestCase
TestBookings.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def accounts_for_everything(answer, considered):
    assert answer.considered == considered
    assert len(answer.reasons) >= 1
    assert sum(reason.count for reason in answer.reasons) == considered
    for reason in answer.reasons:
        assert reason.code in CATALOGUE
        assert reason.code == "no_pools" or any(reason.code in step.codes for step in STEPS)
        assert "{" not in sentence(reason) + sentence(reason, "zh")


worlds = st.lists(rows, max_size=5, unique_by=lambda row: row.id)


def pools_of(given_rows):
    return Pools(given_rows)


@settings(deadline=None)
@given(worlds, st.permutations(range(5)), tasks)
def test_the_answer_does_not_hang_on_the_order_in_which_pools_came(given_rows, shuffle, task):
    shuffled = [given_rows[at] for at in shuffle if at < len(given_rows)]
    demand = demand_of(task, ALICE)
    one, two = (choose([demand], pools_of(each), DISTANCES, now_ms=0) for each in (given_rows, shuffled))
    assert one == two
    assert plan(demand, pools_of(given_rows), DISTANCES, now_ms=0) == plan(
        demand, pools_of(shuffled), DISTANCES, now_ms=0
    )


@settings(deadline=None)
@given(worlds, tasks)
def test_a_narrower_ask_never_fits_more(given_rows, task):
    pools = pools_of(given_rows)
    wide = plan(demand_of(task, ALICE), pools, DISTANCES, now_ms=0)
    narrow_task = Task(
        name="t", nodes=task.nodes, is_ordered=task.is_ordered,
        resources=tuple(
            Resources(
                accelerator=one.accelerator, accelerator_count=one.accelerator_count, core_count=one.core_count,
                memory_bytes=one.memory_bytes + 1, where=f"{one.where or 'price >= 0'} and price > 0",
            )
            for one in task.resources
        ),
    )  # fmt: skip
    narrow = plan(demand_of(narrow_task, ALICE), pools, DISTANCES, now_ms=0)
    assert {each.pool for each in narrow.candidates} <= {each.pool for each in wide.candidates}


@settings(deadline=None)
@given(worlds, tasks)
def test_a_plan_twice_is_the_same_plan_and_its_first_is_what_choose_takes(given_rows, task):
    pools = pools_of(given_rows)
    demand = demand_of(task, ALICE)
    one, two = (plan(demand, pools, DISTANCES, now_ms=0) for _ in range(2))
    assert one == two
    assert is_possible(demand, pools, DISTANCES, now_ms=0) == one.is_possible
    (answer,) = choose([demand], pools, DISTANCES, now_ms=0)
    if isinstance(answer, Placement):
        assert one.candidates[0] == answer.candidate
    else:
        assert one.candidates == ()
        assert (one.reasons, one.is_possible) == (answer.reasons, answer.is_possible)
        accounts_for_everything(answer, len(given_rows))


@settings(deadline=None)
@given(worlds, tasks)
def test_the_nearest_change_really_helps(given_rows, task):
    pools = pools_of(given_rows)
    found = plan(demand_of(task, ALICE), pools, DISTANCES, now_ms=0)
    if found.nearest is None:
        return
    assert found.candidates == ()
    assert found.nearest.admits >= 1
    mended = tuple(changed(one, found.nearest) for one in task.resources)
    nodes = int(found.nearest.needed) if found.nearest.term == "nodes" else task.nodes
    again = Task(name="t", nodes=nodes, resources=mended, is_ordered=task.is_ordered)
    assert plan(demand_of(again, ALICE), pools, DISTANCES, now_ms=0).fitting >= 1


@settings(deadline=None)
@given(st.integers(1, 10**6), st.one_of(st.none(), st.integers(-2, 2)), st.integers(1, 8), st.integers(0, 100))
def test_placing_and_rating_agree_which_budget_is_too_small(budget, beside, count, grace_s):
    edge = ((budget + 1) * 3_600 - 1) // (count * (2 + grace_s))  # the dearest price that it still covers
    price = 0 if beside is None else max(0, edge + beside)
    task = Task(
        name="t", grace_s=grace_s, budget_micro_cny=budget,
        resources=(Resources(accelerator="a100", accelerator_count=count),),
    )  # fmt: skip
    row = a_row(NAMES[0], "a100", 8, 0, 0, price)
    (answer,) = choose([demand_of(task, ALICE)], Pools([row]), DISTANCES, now_ms=0)
    limits = {
        "budget_micro_cny": budget, "max_duration_s": 0, "unit_count": count, "grace_s": grace_s,
        "price_micro_cny_per_unit_hour": price,
    }  # fmt: skip
    if isinstance(answer, Placement):
        assert (stop_after_s(**limits) > 0) == (price > 0)
    else:
        with pytest.raises(TielineError) as refused:
            stop_after_s(**limits)
        assert refused.value.reasons == answer.reasons


def changed(one, nearest):
    fields = {name: getattr(one, name) for name in one.__struct_fields__}
    if nearest.term == "accelerators":
        fields["accelerator_count"] = min(one.accelerator_count, int(nearest.needed))
        if not one.accelerator_count:
            fields["accelerator"] = one.accelerator
    elif nearest.term == "cores":
        fields["core_count"] = min(one.core_count, int(nearest.needed))
    elif nearest.term == "memory":
        fields["memory_bytes"] = min(one.memory_bytes, int(nearest.needed.split()[0]))
    elif nearest.term == "accelerator":
        fields["accelerator"] = nearest.needed
    elif nearest.term == "price":
        fields["where"] = ""
    return Resources(**fields)
