"""Estimates of round trips that nobody measured: near the truth where there is one, always the same, and bounded."""

import random

import pytest

from tieline.network.coordinates import MOST_FILTERED, Coordinates

SIDE_US = 40_000


def world(count, seed):
    """Hosts on a plane, each behind an access line of its own: round trips that coordinates can express."""
    rng = random.Random(seed)
    hosts = {
        f"h{at:03}": (rng.uniform(0, SIDE_US), rng.uniform(0, SIDE_US), rng.uniform(100, 2_000)) for at in range(count)
    }

    def rtt_us(a, b):
        (xa, ya, ha), (xb, yb, hb) = hosts[a], hosts[b]
        return round(((xa - xb) ** 2 + (ya - yb) ** 2) ** 0.5 + ha + hb)

    return sorted(hosts), rtt_us


def taught(names, rtt_us, seed, neighbours=10, rounds=100):
    rng = random.Random(seed)
    chosen = {name: rng.sample([other for other in names if other != name], neighbours) for name in names}
    coordinates, seen = Coordinates(), set()
    for at in range(rounds):
        for name in names:
            other = chosen[name][at % neighbours]
            seen |= {(name, other), (other, name)}
            coordinates.heard(name, other, rtt_us(name, other))
    return coordinates, seen


def test_unmeasured_round_trips_are_estimated_and_the_nearest_are_found_among_the_first():
    names, rtt_us = world(60, 1)
    coordinates, seen = taught(names, rtt_us, 2)
    unseen = [(a, b) for a in names for b in names if a < b and (a, b) not in seen]
    errors = sorted(abs(coordinates.estimate_us(a, b) - rtt_us(a, b)) / rtt_us(a, b) for a, b in unseen)
    assert len(unseen) > 1_000
    assert errors[len(errors) // 2] < 0.12
    assert max(coordinates.error_ppm(name) for name in names) < 300_000
    found = sum(
        min((other for other in names if other != name), key=lambda other: rtt_us(name, other))
        in coordinates.nearest(name, names, 5)
        for name in names
    )
    assert found >= 0.8 * len(names)


def test_one_slow_round_trip_moves_nobody_and_the_same_readings_give_the_same_estimates():
    names, rtt_us = world(20, 3)
    one, _ = taught(names, rtt_us, 4)
    other, _ = taught(names, rtt_us, 4)
    pairs = [(a, b) for a in names for b in names]
    assert [one.estimate_us(*pair) for pair in pairs] == [other.estimate_us(*pair) for pair in pairs]
    a, b = names[:2]
    for _ in range(3):
        one.heard(a, b, rtt_us(a, b))
    calm = one.estimate_us(a, b)
    one.heard(a, b, 9_000_000)
    assert one.estimate_us(a, b) == pytest.approx(calm, rel=0.1)


def test_what_is_no_round_trip_teaches_nothing_and_who_is_unknown_has_no_estimate():
    coordinates = Coordinates()
    for rtt_us in (0, -5, 10_000_001):
        coordinates.heard("a", "b", rtt_us)
    coordinates.heard("a", "a", 5)
    assert "a" not in coordinates
    assert coordinates.estimate_us("a", "b") is None
    assert coordinates.error_ppm("a") == 1_500_000
    coordinates.heard("a", "b", 20_000)
    assert coordinates.estimate_us("a", "a") == 0
    assert coordinates.nearest("a", ("c", "b", "a", "d"), 2) == ("b", "c")
    coordinates.forget("b")
    assert coordinates.estimate_us("a", "b") is None


def test_two_that_lie_on_each_other_part_and_memory_is_bounded():
    coordinates = Coordinates()
    for _ in range(50):
        coordinates.heard("a", "b", 30_000)
    assert coordinates.estimate_us("a", "b") == pytest.approx(30_000, rel=0.05)
    for at in range(MOST_FILTERED + 40):
        coordinates.heard("a", f"n{at}", 1_000)
    assert len(coordinates._nodes["a"].filters) == MOST_FILTERED
