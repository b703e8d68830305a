"""Bills: the same lines once for the owner and once for the user, so that both sides add up to one figure."""

import pytest

from tieline.market import bills_of, charge_of
from tieline.model.job import Usage


def a_usage(run, user="alice", owner="cn.a", unit="accelerator", unit_seconds=10, price=1_234_567, ended_ms=0):
    charge = charge_of(unit_seconds, price)
    return Usage(
        run=run, job=f"j-{run}", user=user, owner=owner, pool=f"{owner}/pool/p", unit=unit, unit_count=1,
        duration_ms=unit_seconds * 1_000, unit_seconds=unit_seconds, price_micro_cny_per_unit_hour=price,
        charge_micro_cny=charge.charge_micro_cny, remainder=charge.remainder, ended_ms=ended_ms,
    )  # fmt: skip


USAGES = [
    a_usage("r-3", user="bob", owner="cn.b", ended_ms=30),
    a_usage("r-1", user="alice", owner="cn.b", ended_ms=10, unit="core", unit_seconds=77),
    a_usage("r-2", user="alice", owner="cn.a", ended_ms=20),
]


def test_every_owner_and_every_user_has_one_bill_in_order_of_name():
    assert [bill.party for bill in bills_of(USAGES, "owner")] == ["cn.a", "cn.b"]
    assert [bill.party for bill in bills_of(USAGES, "user")] == ["alice", "bob"]


def test_both_sides_add_up_to_the_sum_of_the_lines():
    total = sum(usage.charge_micro_cny for usage in USAGES)
    for side in ("owner", "user"):
        bills = bills_of(USAGES, side)
        assert sum(bill.charge_micro_cny for bill in bills) == total
        assert sum(each.charge_micro_cny for bill in bills for each in bill.sums) == total
        assert sum(line.charge_micro_cny for bill in bills for line in bill.lines) == total


def test_lines_stand_oldest_first_and_name_their_run_and_job():
    bill = bills_of(USAGES, "owner")[1]
    assert [(line.run, line.job) for line in bill.lines] == [("r-1", "j-r-1"), ("r-3", "j-r-3")]
    assert (bill.from_ms, bill.until_ms) == (10, 30)


def test_accelerator_seconds_and_core_seconds_are_told_apart():
    bill = bills_of(USAGES, "owner")[1]
    assert (bill.accelerator_seconds, bill.core_seconds) == (10, 77)
    assert [(each.party, each.run_count) for each in bill.sums] == [("alice", 1), ("bob", 1)]


def test_a_second_line_for_one_run_is_a_defect():
    with pytest.raises(AssertionError):
        bills_of([USAGES[0], USAGES[0]], "owner")


def test_no_usage_makes_no_bill():
    assert bills_of([], "owner") == ()
