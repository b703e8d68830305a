"""Circles: direct measurement alone puts a site inside; what is unknown stays unknown; light refutes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.model.circle import Bound, Measure, Quantile, Standing
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.reading import Method, OneWay, Reading
from tieline.model.reason import CATALOGUE
from tieline.model.topology import Place
from tieline.network.circle import Heard, circle_of, light_between, member_of

NOW = 1_800_000_000_000
SITE, POINT = "cn.sh.lab7/site/a", "shanghai"
SHANGHAI = Place(latitude_udeg=31_230_000, longitude_udeg=121_470_000)
BEIJING = Place(latitude_udeg=39_900_000, longitude_udeg=116_400_000)


def reading(p50_us, *, source=SITE, target=POINT, min_us=0, p99_us=0, age_ms=1_000, method=Method.UDP, **more):
    more = {"count": 10, "sent": 10, **more}
    ended_ms = NOW - age_ms
    return Reading(
        source=source, target=target, method=method, min_us=min_us or p50_us, p50_us=p50_us, p99_us=p99_us or p50_us,
        begun_ms=ended_ms - 500, ended_ms=ended_ms, **more,
    )  # fmt: skip


def measure(within_us=1_000, **more):
    return Measure(within_us=within_us, **more)


ONE_WAY = {"bound": Bound.ONE_WAY}


def member(*readings, places=None, **more):
    return member_of((POINT,), SITE, measure(**more), Heard(readings), places or {}, NOW)


def test_a_site_is_inside_or_outside_by_what_was_measured():
    assert member(reading(1_000)).standing is Standing.INSIDE
    assert member(reading(1_001)).standing is Standing.OUTSIDE
    assert member(reading(900, p99_us=1_200), quantile=Quantile.P99).standing is Standing.OUTSIDE
    assert member(reading(1_000)).evidence is Evidence.MEASURED
    assert member(reading(1_000, evidence=Evidence.EMULATED)).evidence is Evidence.EMULATED


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ((), "circle_no_reading"),
        ((reading(500, method=Method.RELAY),), "circle_relayed"),
        ((reading(500, method=Method.RATE),), "circle_no_reading"),
        ((reading(500, evidence=Evidence.DECLARED),), "circle_not_measured"),
        ((reading(500, evidence=Evidence.SIMULATED),), "circle_not_measured"),
        ((reading(500, count=0),), "circle_unanswered"),
        ((reading(500, count=2),), "circle_few_samples"),
        ((reading(500, age_ms=3_600_001),), "circle_stale"),
        ((reading(500, age_ms=-60_001),), "circle_ahead"),
        ((reading(500, p99_us=400),), "circle_disordered"),
        ((reading(800), reading(1_200, source=POINT, target=SITE)), "circle_ends_disagree"),
    ],
)
def test_what_does_not_decide_leaves_the_site_unknown_and_says_why(found, code):
    made = member(*found)
    assert (made.standing, made.why.code) == (Standing.UNKNOWN, code)
    assert all(text.format(**made.why.values) for text in CATALOGUE[code])


def test_a_worse_method_or_an_older_reading_does_not_overrule_a_better_one():
    assert member(reading(900), reading(2_000, method=Method.TCP)).p50_us == 900
    assert member(reading(900), reading(2_000, age_ms=9_000)).p50_us == 900
    assert member(reading(900, age_ms=4_000_000), reading(2_000, method=Method.TCP)).p50_us == 2_000


def test_both_ends_are_heard_and_the_slower_one_counts():
    made = member(reading(700), reading(900, source=POINT, target=SITE))
    assert (made.standing, made.p50_us, len(made.readings)) == (Standing.INSIDE, 900, 2)


def test_a_claim_that_beats_light_is_refuted_and_a_place_beyond_light_is_outside():
    places = {SITE: BEIJING, POINT: SHANGHAI}
    light_us = light_between(SHANGHAI, BEIJING)
    assert 7_000 < light_us < 7_200
    lied = member(reading(800), places=places)
    assert (lied.standing, lied.why.code) == (Standing.UNKNOWN, "circle_faster_than_light")
    assert lied.why.values == {"min_us": 800, "light_us": light_us}
    silent = member(places=places)
    assert (silent.standing, silent.why.code, silent.evidence) == (
        Standing.OUTSIDE, "circle_beyond_light", Evidence.DECLARED,
    )  # fmt: skip
    assert member(places=places, within_us=8_000).standing is Standing.UNKNOWN
    assert member(places=places, within_us=3_600, bound=Bound.ONE_WAY).standing is Standing.UNKNOWN


def test_half_a_round_trip_is_an_estimate_and_what_needs_no_clock_is_none():
    proven = member(reading(900), **ONE_WAY)
    assert (proven.standing, proven.is_estimate) == (Standing.INSIDE, False)
    half = member(reading(1_601), **ONE_WAY)
    assert (half.standing, half.is_estimate, half.one_way) == (Standing.INSIDE, True, OneWay.HALF)
    assert (half.there_us, half.back_us) == (800, 801)
    too_far = member(reading(2_001), **ONE_WAY)
    assert (too_far.standing, too_far.is_estimate) == (Standing.OUTSIDE, False)


def test_one_way_by_clocks_is_as_sure_as_the_clocks_are():
    def clocked(one_way_us, error_us):
        by = {"one_way": OneWay.CLOCKS, "one_way_us": one_way_us, "clock_error_us": error_us}
        return member(reading(1_600, source=POINT, target=SITE, **by), **ONE_WAY)

    inside = clocked(700, 50)
    assert (inside.standing, inside.there_us, inside.back_us) == (Standing.INSIDE, 700, 900)
    assert clocked(500, 50).standing is Standing.OUTSIDE  # the way back takes 1,100 us
    loose = clocked(700, 150)
    assert (loose.standing, loose.why.code) == (Standing.UNKNOWN, "circle_loose_clocks")
    assert clocked(1_800, 50).one_way is OneWay.HALF  # longer than the round trip: no clock says that


def test_a_high_quantile_of_a_one_way_time_is_refused():
    with pytest.raises(TielineError, match="medians") as refused:
        circle_of((POINT,), measure(quantile=Quantile.P99, **ONE_WAY), (SITE,), (), {}, NOW)
    assert refused.value.code == "invalid_request"


def test_a_site_is_in_its_own_circle():
    made = circle_of((SITE, "node-1"), measure(), (SITE,), (), {}, NOW)
    assert [(each.site, each.why.code) for each in made.inside] == [(SITE, "circle_itself")]


times = st.integers(1, 4_000)
readings = st.builds(
    lambda p50_us, place, site, is_back, age_ms, method, count, evidence: reading(
        p50_us,
        source=place if is_back else site,
        target=site if is_back else place,
        age_ms=age_ms,
        method=method,
        count=count,
        evidence=evidence,
    ),
    times, st.sampled_from(["p", "q"]), st.sampled_from(["a", "b", "c"]), st.booleans(), st.integers(0, 5_000_000),
    st.sampled_from(list(Method)), st.integers(0, 5), st.sampled_from(list(Evidence)),
)  # fmt: skip


@given(st.lists(readings, max_size=12), times, st.randoms(use_true_random=False))
def test_the_order_of_readings_changes_nothing_and_a_wider_circle_loses_nobody(found, within_us, order):
    sites = ["a", "b", "c", "d"]
    made = circle_of(("p",), measure(within_us), sites, found, {}, NOW)
    shuffled = list(found)
    order.shuffle(shuffled)
    order.shuffle(sites)
    assert circle_of(("p",), measure(within_us), sites, shuffled, {}, NOW) == made
    assert sorted(each.site for each in (*made.inside, *made.outside, *made.unknown)) == ["a", "b", "c", "d"]
    wider = circle_of(("p",), measure(within_us + 1_000), sites, found, {}, NOW)
    assert not {each.site for each in made.inside} & {each.site for each in wider.outside}
    for each in made.inside:
        assert max(one.p50_us for one in each.readings) <= within_us
        assert all(one.method in ("udp", "tcp") and one.count >= 3 for one in each.readings)
