"""Rating: integers only, rounded once, and a budget that is never exceeded."""

import pytest

from tieline.market import charge_of, covered_s, hold_of, stop_after_s, unit_seconds_of, usage_of
from tieline.model.error import TielineError
from tieline.model.job import Run, RunState

PRICE = 3_600_000  # 3.60 CNY an hour: 1,000 micro-yuan a second


def a_run(**changes):
    fields = {
        "id": "r-1", "job": "j-1", "epoch": 1, "state": RunState.RUNNING, "pool": "cn.a/pool/p", "site": "s",
        "owner": "cn.a", "user": "alice", "price_micro_cny_per_unit_hour": PRICE, "unit": "accelerator",
        "unit_count": 4,
    }  # fmt: skip
    return Run(**(fields | changes))


def test_a_started_second_counts_whole_and_once_for_all_units():
    assert unit_seconds_of(8, 1) == 8
    assert unit_seconds_of(8, 1_000) == 8
    assert unit_seconds_of(8, 1_001) == 16
    assert unit_seconds_of(8, 0) == 0


def test_seconds_past_the_cap_are_not_counted():
    assert unit_seconds_of(2, 9_500, most_s=7) == 14
    assert unit_seconds_of(2, 9_500, most_s=0) == 20


def test_a_charge_is_rounded_down_once_and_keeps_the_remainder():
    assert charge_of(1, 3_601) == (1, 1)
    assert charge_of(90, 2_500_001) == (62_500, 90)
    assert charge_of(7, 0) == (0, 0)


def test_the_covered_seconds_are_the_last_whose_charge_is_within_the_budget():
    seconds = covered_s(10_000, 3, PRICE)
    assert seconds == 3
    assert charge_of(3 * seconds, PRICE).charge_micro_cny <= 10_000
    assert charge_of(3 * (seconds + 1), PRICE).charge_micro_cny > 10_000


def test_what_costs_nothing_is_covered_for_ever():
    assert covered_s(10, 4, 0) is None
    assert stop_after_s(budget_micro_cny=10, max_duration_s=0, unit_count=4, price_micro_cny_per_unit_hour=0) == 0
    assert hold_of(budget_micro_cny=10, max_duration_s=0, unit_count=4, price_micro_cny_per_unit_hour=0) == 0


def test_without_limits_nothing_stops_a_run_and_nothing_is_held():
    limits = {"budget_micro_cny": 0, "max_duration_s": 0, "unit_count": 1, "price_micro_cny_per_unit_hour": PRICE}
    assert stop_after_s(**limits) == 0
    assert hold_of(**limits) == 0


def test_the_duration_limit_is_meant_as_written():
    limits = {"budget_micro_cny": 0, "max_duration_s": 60, "unit_count": 1, "price_micro_cny_per_unit_hour": PRICE}
    assert stop_after_s(**limits, grace_s=5) == 60
    assert hold_of(**limits, grace_s=5) == 66_000  # sixty seconds, the grace, and the second of rounding


def test_the_budget_stops_a_run_early_enough_to_pay_for_its_grace():
    stop_s = stop_after_s(
        budget_micro_cny=100_000, max_duration_s=3_600, unit_count=1, price_micro_cny_per_unit_hour=PRICE, grace_s=5
    )
    assert stop_s == 94
    assert charge_of(unit_seconds_of(1, (stop_s + 5) * 1_000 + 999), PRICE).charge_micro_cny == 100_000


def test_a_budget_that_does_not_pay_for_a_second_is_refused_with_numbers():
    with pytest.raises(TielineError) as refused:
        stop_after_s(
            budget_micro_cny=6_000, max_duration_s=0, unit_count=1, price_micro_cny_per_unit_hour=PRICE, grace_s=5
        )
    assert refused.value.code == "unplaceable"
    assert refused.value.reasons[0].code == "budget_below"
    assert refused.value.reasons[0].values == {
        "budget_micro_cny": 6_000, "lowest_micro_cny": 7_000, "least_us": 7_000_000
    }  # fmt: skip


def test_a_hold_never_exceeds_the_budget():
    held = hold_of(budget_micro_cny=50_000, max_duration_s=3_600, unit_count=1, price_micro_cny_per_unit_hour=PRICE)
    assert held == 50_000


def test_a_usage_line_says_units_seconds_price_charge_and_remainder():
    usage = usage_of(a_run(), duration_ms=2_500, ended_ms=9, cpu_ms=7, max_memory_bytes=8)
    assert (usage.unit_seconds, usage.charge_micro_cny, usage.remainder) == (12, 12_000, 0)
    assert (usage.duration_ms, usage.ended_ms, usage.cpu_ms, usage.max_memory_bytes) == (2_500, 9, 7, 8)
    assert (usage.run, usage.job, usage.user, usage.owner, usage.pool) == ("r-1", "j-1", "alice", "cn.a", "cn.a/pool/p")


def test_a_run_that_outlived_its_stop_is_rated_for_what_its_hold_covers():
    usage = usage_of(a_run(), duration_ms=60_000, ended_ms=0, most_micro_cny=10_000)
    assert usage.charge_micro_cny == 8_000  # two whole seconds of four units
    assert usage.duration_ms == 60_000
    assert usage_of(a_run(), duration_ms=60_000, ended_ms=0, most_micro_cny=1).charge_micro_cny == 0
