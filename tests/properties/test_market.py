"""Money is conserved, a longer run never costs less, and a budget is never exceeded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.market import bills_of, charge_of, hold_of, stop_after_s, unit_seconds_of, usage_of
from tieline.model.error import TielineError
from tieline.model.job import Run, RunState

prices = st.integers(0, 10**12)
units = st.integers(1, 10**6)
durations_ms = st.integers(0, 10**10)


def a_run(name, user, owner, unit, unit_count, price):
    return Run(
        id=name, job=name, epoch=1, state=RunState.SUCCEEDED, pool="p", site="s", owner=owner, user=user, unit=unit,
        unit_count=unit_count, price_micro_cny_per_unit_hour=price,
    )  # fmt: skip


lines = st.lists(
    st.tuples(
        st.sampled_from(["alice", "bob"]),
        st.sampled_from(["cn.a", "cn.b", "cn.c"]),
        st.sampled_from(["accelerator", "core"]),
        units,
        prices,
        durations_ms,
    ),
    max_size=20,
)


@given(lines)
def test_money_is_conserved_from_usage_to_both_sides_bills(given_lines):
    usages = [
        usage_of(a_run(f"r-{at}", user, owner, unit, count, price), duration_ms=duration, ended_ms=at)
        for at, (user, owner, unit, count, price, duration) in enumerate(given_lines)
    ]
    exact = sum(usage.unit_seconds * usage.price_micro_cny_per_unit_hour for usage in usages)
    assert exact == sum(usage.charge_micro_cny * 3_600 + usage.remainder for usage in usages)
    for side in ("owner", "user"):
        bills = bills_of(usages, side)
        assert exact == sum(bill.charge_micro_cny * 3_600 + bill.remainder for bill in bills)
        assert all(
            bill.charge_micro_cny * 3_600 + bill.remainder
            == sum(line.unit_seconds * line.price_micro_cny_per_unit_hour for line in bill.lines)
            for bill in bills
        )


@given(units, prices, durations_ms, durations_ms)
def test_a_longer_run_never_costs_less(count, price, one_ms, more_ms):
    short = charge_of(unit_seconds_of(count, one_ms), price)
    long = charge_of(unit_seconds_of(count, one_ms + more_ms), price)
    assert short.charge_micro_cny <= long.charge_micro_cny
    assert 0 <= short.remainder < 3_600


@given(
    budget=st.integers(1, 10**12),
    price=prices,
    count=units,
    limit_s=st.integers(0, 10**6),
    grace_s=st.integers(0, 3_600),
    late_ms=st.integers(0, 999),
)
def test_a_run_that_stops_when_told_never_exceeds_its_budget_or_its_hold(
    budget, price, count, limit_s, grace_s, late_ms
):
    asked = {
        "budget_micro_cny": budget, "max_duration_s": limit_s, "unit_count": count,
        "price_micro_cny_per_unit_hour": price, "grace_s": grace_s,
    }  # fmt: skip
    if charge_of(count * (2 + grace_s), price).charge_micro_cny > budget:
        with pytest.raises(TielineError) as refused:
            stop_after_s(**asked)
        assert refused.value.reasons[0].code == "budget_below"
        return
    stop_s = stop_after_s(**asked)
    held = hold_of(**asked)
    assert held <= budget
    assert (stop_s == 0) == (price == 0 and limit_s == 0)
    if stop_s:
        assert limit_s == 0 or stop_s <= limit_s
        charge = charge_of(unit_seconds_of(count, (stop_s + grace_s) * 1_000 + late_ms), price)
        assert charge.charge_micro_cny <= held


@given(budget=st.integers(1, 10**9), price=prices, count=units, duration_ms=durations_ms)
def test_no_usage_line_exceeds_what_was_held_for_it(budget, price, count, duration_ms):
    usage = usage_of(
        a_run("r", "alice", "cn.a", "core", count, price), duration_ms=duration_ms, ended_ms=0, most_micro_cny=budget
    )
    assert usage.charge_micro_cny <= budget
    assert usage.charge_micro_cny * 3_600 + usage.remainder == usage.unit_seconds * price
