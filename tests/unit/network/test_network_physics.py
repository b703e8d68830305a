"""What no reading can be: every lie that pays, and figures that contradict each other; the honest pass."""

import msgspec
import pytest

from tieline.model.reading import Method, OneWay, Reading
from tieline.model.reason import CATALOGUE, sentence
from tieline.model.topology import Place
from tieline.network.physics import AHEAD_MS, OLD_MS, Frame, distance_m, fibre_us, light_us, refuted

A, B = "cn.a/site/a", "cn.b/site/b"
NOW_MS = 1_763_000_000_000
SHANGHAI = Place(latitude_udeg=31_230_000, longitude_udeg=121_470_000)
BEIJING = Place(latitude_udeg=39_900_000, longitude_udeg=116_400_000)
FRAME = Frame(A, NOW_MS, (A, B, "beijing"), {A: SHANGHAI, "beijing": BEIJING}, {A: 10**9})
HONEST = Reading(
    source=A,
    target=B,
    method=Method.UDP,
    count=10,
    sent=10,
    min_us=900,
    p50_us=1_000,
    p99_us=2_000,
    begun_ms=NOW_MS - 1_000,
    ended_ms=NOW_MS,
)
RATE = msgspec.structs.replace(
    HONEST, method=Method.RATE, min_us=0, p50_us=0, p99_us=0, count=1, sent=1, rate_bps=8 * 10**8, moved_bytes=10**6
)


def said(reading, **changes):
    why = refuted(msgspec.structs.replace(reading, **changes), FRAME)
    return why.code if why is not None else ""


LIES = (
    ("reading_not_own", {"source": B}),
    ("reading_of_itself", {"target": A}),
    ("reading_target", {"target": "cn.x/site/nobody"}),
    ("reading_backwards", {"begun_ms": NOW_MS + 1}),
    ("reading_backwards", {"begun_ms": -1}),
    ("reading_ahead", {"ended_ms": NOW_MS + AHEAD_MS + 1}),
    ("reading_old", {"begun_ms": 0, "ended_ms": NOW_MS - OLD_MS - 1}),
    ("reading_count", {"count": 11}),
    ("reading_count", {"count": 0, "sent": 0}),
    ("reading_order", {"min_us": 1_001}),
    ("reading_order", {"p99_us": 999}),
    ("reading_empty", {"min_us": 0}),
    ("reading_empty", {"count": 0}),
    ("reading_longer", {"p99_us": 1_002_000}),
    ("reading_one_way", {"one_way_us": 5}),
    ("reading_one_way", {"one_way": OneWay.CLOCKS, "one_way_us": 2_100, "clock_error_us": 99}),
    ("reading_light", {"target": "beijing", "min_us": 7_000, "p50_us": 7_000, "p99_us": 7_000}),
    (
        "reading_light",
        {
            "target": "beijing", "min_us": 9_000, "p50_us": 9_000, "p99_us": 9_000,
            "one_way": OneWay.CLOCKS, "one_way_us": 3_000, "clock_error_us": 300,
        },
    ),
)  # fmt: skip


@pytest.mark.parametrize(("code", "changes"), LIES, ids=[f"{code}-{at}" for at, (code, _) in enumerate(LIES)])
def test_a_lie_is_refuted_with_its_figures(code, changes):
    assert said(HONEST, **changes) == code
    why = refuted(msgspec.structs.replace(HONEST, **changes), FRAME)
    for lang in ("en", "zh"):
        assert "{" not in sentence(why, lang)
        assert "-" not in sentence(why, lang).split(), "every figure of the sentence is there"


def test_rates_and_sizes_that_cannot_be_are_refuted():
    assert said(RATE) == ""
    assert said(RATE, rate_bps=2 * 10**9, moved_bytes=10**8) == "reading_rate_over"
    assert said(RATE, moved_bytes=9_000) == "reading_rate_short"
    assert said(RATE, method=Method.MTU, rate_bps=0, path_mtu_bytes=60) == "reading_mtu"
    assert said(RATE, method=Method.MTU, rate_bps=0, path_mtu_bytes=1_400) == ""


def test_the_honest_pass_also_unanswered_unplaced_and_one_way():
    assert said(HONEST) == ""
    assert said(HONEST, count=0, min_us=0, p50_us=0, p99_us=0) == ""
    assert said(HONEST, target="beijing", min_us=9_000, p50_us=9_000, p99_us=9_000) == ""
    assert said(HONEST, one_way=OneWay.HALF, one_way_us=450) == ""
    assert said(HONEST, one_way=OneWay.CLOCKS, one_way_us=700, clock_error_us=50) == ""
    assert said(HONEST, ended_ms=NOW_MS + AHEAD_MS) == ""


def test_distances_and_the_times_of_light():
    assert distance_m(SHANGHAI, BEIJING) == pytest.approx(1_068_000, rel=0.005)
    assert light_us(SHANGHAI, BEIJING) == pytest.approx(3_549, rel=0.01)
    assert fibre_us(SHANGHAI, BEIJING) == pytest.approx(5_230, rel=0.01)
    assert light_us(SHANGHAI, SHANGHAI) == 0
    assert {code for code, _ in LIES} <= set(CATALOGUE)
