"""Whom to measure next: what stands beside the place comes first, and nothing is lost or named twice."""

from hypothesis import given
from hypothesis import strategies as st
from test_network_circle import NOW, measure, reading

from tieline.network.circle import circle_of
from tieline.network.nearby import LANDMARKS, landmarks, ranked


def on_a_line(places):
    return lambda one, other: abs(places[one] - places[other])


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 10_000), min_size=1), st.integers(0, 10_000))
def test_on_a_line_two_probes_at_its_ends_rank_the_others_by_their_distance(places, here):
    ends = {"left": -1, "right": 10_001}
    between = on_a_line({**places, **ends})
    seen = {end: abs(at - here) for end, at in ends.items()}
    found = ranked(seen, [*places, *ends], between)
    assert sorted(found) == sorted(places)
    assert found == sorted(places, key=lambda site: (abs(places[site] - here), site))


def test_without_a_probe_the_middle_is_asked_first_and_unknown_distances_come_last():
    places = {"a": 0, "b": 10, "c": 20, "far": 5_000}
    assert landmarks(list(places), on_a_line(places), 2) == ["b", "far"]
    assert ranked({}, list(places), on_a_line(places))[:LANDMARKS] == ["b", "far"]
    assert ranked({"a": 3}, ["b", "c"], lambda one, other: 9 if "c" in (one, other) else None) == ["c", "b"]
    assert landmarks(["a", "b"], lambda one, other: None) == ["a", "b"]
    assert ranked({}, [], lambda one, other: None) == []


def test_a_circle_names_whom_to_measure_next_and_puts_nobody_inside_for_it():
    found = [
        reading(500, source="a", target="p"),
        reading(5_000, source="b", target="p"),
        *(reading(us, source=one, target=other) for one, other, us in (("a", "c", 4_000), ("b", "c", 900))),
        *(reading(us, source=one, target=other) for one, other, us in (("a", "d", 400), ("b", "d", 5_100))),
    ]
    made = circle_of(("p",), measure(), ["a", "b", "c", "d"], found, {}, NOW)
    assert made.measure_next == ("d", "c")
    assert [each.site for each in made.inside] == ["a"]
