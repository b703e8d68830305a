"""Token buckets: what a caller may send, and how long it waits beyond that."""

from hypothesis import given
from hypothesis import strategies as st

from tieline.api.rates import MOST_CALLERS, SITE_FACTOR, Bucket, Rates
from tieline.model.limits import Limits


class Timer:
    def __init__(self) -> None:
        self.at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


def test_a_burst_passes_and_the_next_request_is_told_exactly_how_long_to_wait():
    timer = Timer()
    rates = Rates(Limits(requests_per_s=10, requests_burst=5), timer)
    meter = rates.meter("alice")
    assert [rates.request(meter) for _ in range(5)] == [0.0] * 5
    assert rates.request(meter) == 0.1
    timer.at_s += 0.125
    assert rates.request(meter) == 0.0


def test_a_refused_request_costs_nothing():
    timer = Timer()
    rates = Rates(Limits(requests_per_s=1, requests_burst=1), timer)
    meter = rates.meter("alice")
    rates.request(meter)
    waits = [rates.request(meter) for _ in range(50)]
    assert waits == [1.0] * 50


def test_one_caller_does_not_use_up_the_credit_of_another():
    rates = Rates(Limits(requests_per_s=1, requests_burst=1), Timer())
    rates.request(rates.meter("alice"))
    assert rates.request(rates.meter("alice")) > 0
    assert rates.request(rates.meter("bob")) == 0.0


def test_a_site_may_send_more_than_a_person():
    rates = Rates(Limits(requests_per_s=10, requests_burst=10), Timer())
    assert rates.meter("site", is_site=True).requests.burst == SITE_FACTOR * rates.meter("alice").requests.burst


def test_bytes_beyond_the_rate_are_paid_for_by_waiting():
    limits = Limits(upload_bytes_per_s=65_536)
    rates = Rates(limits, Timer())
    meter = rates.meter("alice")
    assert rates.body(meter, 65_536) == 0.0
    assert rates.body(meter, 65_536) == 1.0
    assert rates.body(meter, 65_536) == 2.0


def test_the_number_of_remembered_callers_is_bounded_and_one_with_open_streams_is_kept():
    rates = Rates(Limits(), Timer())
    first = rates.meter("caller 0")
    first.streams = 1
    for index in range(1, MOST_CALLERS + 100):
        rates.meter(f"caller {index}")
    assert len(rates.meters) == MOST_CALLERS
    assert rates.meter("caller 0") is first
    assert "caller 1" not in rates.meters


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), max_size=60))
def test_never_more_than_burst_and_rate_allow_is_let_through(steps):
    bucket, now_s, let_through, begun_s = Bucket(7.0, 20.0, 0.0), 0.0, 0, 0.0
    for pause_s, amount in steps:
        now_s += pause_s
        if bucket.take(amount, now_s) > 0:
            bucket.give_back(amount)
        else:
            let_through += amount
    assert let_through <= 20.0 + (now_s - begun_s) * 7.0 + 1e-6
