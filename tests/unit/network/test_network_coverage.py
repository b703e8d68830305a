"""Coverage: exact sums of what was measured, by region, against a count by brute force."""

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_network_circle import NOW, measure, reading

from tieline.model.circle import AccessPoint, Bound, SitePlace, Standing
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.topology import Place
from tieline.network.apart import Apart
from tieline.network.coverage import coverage_of
from tieline.network.physics import distance_m


def points(*rows):
    return [AccessPoint(point=name, weight=weight, region=region) for name, weight, region in rows]


SITES = [SitePlace(site="a"), SitePlace(site="b")]


def test_the_share_is_weighted_and_by_region():
    asked = points(("p", 3, "east"), ("q", 1, "east"), ("r", 4, "west"))
    found = [reading(900, source="a", target="p"), reading(1_100, source="a", target="q"),
             reading(1_200, source="b", target="q")]  # fmt: skip
    made = coverage_of(asked, SITES, found, measure(), NOW, 375_000)
    assert (made.whole.covered, made.whole.outside, made.whole.unknown, made.whole.weight) == (3, 1, 4, 8)
    assert (made.whole.share_ppm, made.is_reached) == (375_000, True)
    assert [(each.region, each.covered, each.weight) for each in made.regions] == [("east", 3, 4), ("west", 0, 4)]
    assert [each.standing for each in made.points] == [Standing.INSIDE, Standing.OUTSIDE, Standing.UNKNOWN]
    assert [each.site for each in made.points] == ["a", "a", ""]
    assert (len(made.readings), made.evidence) == (3, Evidence.MEASURED)
    assert not coverage_of(asked, SITES, found, measure(), NOW, 375_001).is_reached


def test_the_same_readings_that_an_answer_names_give_the_same_answer():
    asked = points(("p", 3, "east"), ("q", 1, "east"))
    found = [reading(900, source="a", target="p"), reading(100, source="z", target="p"), reading(5, target="elsewhere")]
    made = coverage_of(asked, SITES, found, measure(), NOW)
    assert len(made.readings) == 1
    assert coverage_of(asked, SITES, made.readings, measure(), NOW) == made


def test_what_is_covered_by_half_a_round_trip_only_is_counted_apart():
    made = coverage_of(points(("p", 3, "")), SITES, [reading(1_600, source="a", target="p")],
                       measure(bound=Bound.ONE_WAY), NOW, 500_000)  # fmt: skip
    assert (made.whole.covered, made.whole.estimated, made.is_reached) == (0, 3, False)


def test_light_alone_puts_a_point_outside_and_unknown_sites_keep_it_unknown():
    here = AccessPoint(point="p", latitude_udeg=31_230_000, longitude_udeg=121_470_000)
    far = SitePlace(site="a", latitude_udeg=39_900_000, longitude_udeg=116_400_000)
    near = SitePlace(site="b", latitude_udeg=31_300_000, longitude_udeg=121_470_000)
    assert coverage_of([here], [far], [], measure(), NOW).points[0].standing is Standing.OUTSIDE
    both = coverage_of([here], [far, near], [], measure(), NOW).points[0]
    assert (both.standing, both.unmeasured) == (Standing.UNKNOWN, 1)
    probed = coverage_of([here], [far, near], [reading(1_500, source="b", target="p")], measure(), NOW).points[0]
    assert (probed.standing, probed.unmeasured, probed.p50_us) == (Standing.OUTSIDE, 0, 1_500)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([AccessPoint(point="p"), AccessPoint(point="p")], "twice: point 1 and point 2"),
        ([AccessPoint(point="p", latitude_udeg=1)], "a place has both"),
        ([AccessPoint(point="p", weight=0)], "sum to 0"),
    ],
)
def test_points_that_mean_nothing_are_refused(wrong, said):
    with pytest.raises(TielineError, match=said):
        coverage_of(wrong, SITES, [], measure(), NOW)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["", "east"])), min_size=1, max_size=6),
    st.dictionaries(st.tuples(st.integers(0, 5), st.sampled_from("ab")), st.integers(1, 2_000), max_size=12),
)
def test_coverage_is_what_counting_by_hand_gives(rows, times):
    asked = [AccessPoint(point=f"p{n}", weight=weight, region=region) for n, (weight, region) in enumerate(rows)]
    if not any(point.weight for point in asked):
        return
    found = [reading(us, source=site, target=f"p{n}") for (n, site), us in times.items()]
    made = coverage_of(asked, SITES, found, measure(), NOW)
    covered = sum(
        point.weight
        for n, point in enumerate(asked)
        if any(us <= 1_000 for (number, _), us in times.items() if number == n)
    )
    known = sum(point.weight for n, point in enumerate(asked) if all((n, site) in times for site in "ab"))
    assert made.whole.covered == covered
    assert made.whole.weight == sum(point.weight for point in asked)
    assert made.whole.covered + made.whole.outside + made.whole.unknown == made.whole.weight
    assert made.whole.outside <= known
    assert sum(each.covered for each in made.regions) == covered


places = st.builds(
    Place, latitude_udeg=st.integers(-90_000_000, 90_000_000), longitude_udeg=st.integers(-180_000_000, 180_000_000)
)


@given(places, st.lists(st.none() | places, max_size=5))
def test_many_distances_at_once_are_those_one_by_one(here, others):
    found = Apart(others).metres(here)
    assert [None if isnan(each) else each for each in found] == [
        None if other is None else pytest.approx(distance_m(here, other), abs=0.5) for other in others
    ]
