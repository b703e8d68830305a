"""Whatever two sites sign: nobody speaks for another, nothing impossible is held, and no lie makes anyone look nearer
than the honest end saw."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.exchange.readings import FRESH_MS, MOST_REFUTED, Readings
from tieline.model.evidence import Evidence
from tieline.model.reading import Method, OneWay, Reading
from tieline.model.topology import Place
from tieline.network.physics import Frame, light_us, refuted

NOW_MS = 1_763_000_000_000
LIAR, HONEST, POINT = "cn.a/site/liar", "cn.b/site/honest", "shanghai"
NAMES = (LIAR, HONEST, POINT, "cn.c/site/nobody")
PLACES = {
    LIAR: Place(latitude_udeg=31_200_000, longitude_udeg=121_500_000),
    HONEST: Place(latitude_udeg=23_100_000, longitude_udeg=113_300_000),
}
micros = st.sampled_from((0, 1, 500, 8_000, 40_000, 600_000_000)) | st.integers(0, 100_000)
times = st.sampled_from((0, NOW_MS, NOW_MS - 1_000, NOW_MS + 3_600_000)) | st.integers(NOW_MS - 10**8, NOW_MS + 10**6)
readings = st.builds(
    Reading,
    source=st.sampled_from(NAMES),
    target=st.sampled_from(NAMES),
    method=st.sampled_from(Method),
    count=st.integers(0, 20),
    sent=st.integers(0, 20),
    min_us=micros,
    p50_us=micros,
    p99_us=micros,
    one_way_us=micros,
    one_way=st.sampled_from(OneWay),
    clock_error_us=micros,
    rate_bps=st.sampled_from((0, 1, 10**9, 10**15)),
    moved_bytes=st.sampled_from((0, 1, 10**6)),
    path_mtu_bytes=st.integers(0, 9_000),
    begun_ms=times,
    ended_ms=times,
    evidence=st.sampled_from(Evidence),
)
ALMOST = Reading(
    source=LIAR, target=HONEST, method=Method.UDP, count=9, sent=9, min_us=15_000, p50_us=15_000, p99_us=95_000,
    begun_ms=NOW_MS - 1_000, ended_ms=NOW_MS,
)  # fmt: skip
almost = st.fixed_dictionaries(
    {},
    optional={
        "target": st.sampled_from((HONEST, POINT)),
        "method": st.sampled_from((Method.UDP, Method.TCP, Method.RELAY)),
        "min_us": st.integers(0, 16_000),
        "p50_us": st.integers(0, 95_000),
        "ended_ms": st.integers(NOW_MS - 900, NOW_MS + 6_000),
        "evidence": st.sampled_from(Evidence),
    },
).map(lambda changes: msgspec.structs.replace(ALMOST, **changes))


def honest(p50_us):
    return Reading(
        source=HONEST, target=LIAR, method=Method.UDP, count=9, sent=9, min_us=p50_us, p50_us=p50_us, p99_us=p50_us,
        begun_ms=NOW_MS - 2_000, ended_ms=NOW_MS,
    )  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(readings | almost, max_size=8), max_size=5), st.integers(12_000, 90_000))
def test_a_liar_speaks_for_nobody_else_and_is_never_nearer_than_light_or_the_honest_end_say(batches, p50_us):
    held = Readings()
    frame = Frame(LIAR, NOW_MS, {LIAR: None, HONEST: None, POINT: None}, PLACES)
    held.take(HONEST, 1, 1, [honest(p50_us)], frame._replace(site=HONEST))
    assert held.rtt_us(LIAR, HONEST) == p50_us
    for seq, batch in enumerate(batches):
        kept, wrong = held.take(LIAR, 1, seq, batch, frame)
        assert wrong == sum(refuted(each, frame) is not None for each in batch)
        assert kept + wrong <= len(batch)
    assert held.of(HONEST) == (honest(p50_us),)
    assert [each for each in held if each.source not in (LIAR, HONEST)] == []
    assert held.rtt_us(LIAR, HONEST) >= p50_us
    assert held.rtt_us(HONEST, LIAR) >= 2 * light_us(*PLACES.values())
    assert held.rtt_us(HONEST, POINT) is None
    for each in held.of(LIAR):
        assert refuted(each, frame) is None
        assert each.ended_ms <= NOW_MS + 5_000
    assert len(held.refuted) == min(MOST_REFUTED, sum(held.counts.get(LIAR, {}).values()))
    held.turn(NOW_MS + FRESH_MS + 6_000)
    assert held.rtt_us(LIAR, HONEST) is None
