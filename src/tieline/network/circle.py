"""Circle 时延圈: which sites are within a time of a place. Direct measurement alone puts a site inside.

::

    reading from either end: direct, fresh, enough samples, not faster than light --.
    both ends say the same ---------------------------------------------------------+--> inside | outside
    no such reading, the ends disagree, the clocks are too loose ----------------------> unknown, with the reason
    no reading, and light alone is too slow for the stated distance -------------------> outside

Of a one-way time the slower direction counts. It is as sure as the clocks are, and between bounds that need no clock:
no direction takes longer than the round trip, and one of both takes at least half of it. What is left is half a round
trip, an estimate, and is marked so. Light is that in vacuum, over the distance less what stated places may be off
(`network.physics`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tieline.model.circle import Bound, Circle, Measure, Member, Quantile, Standing
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.reading import Method, OneWay, Reading
from tieline.model.reason import Reason
from tieline.model.topology import Place
from tieline.network.nearby import looked_at, nearest, ranked
from tieline.network.physics import light_us as light_one_way_us

replace = msgspec.structs.replace
LEAST_SAMPLES: Final = 3  # fewer say nothing of a distribution
MOST_NEXT: Final = 10  # sites that are named to be measured next
MOST_AHEAD_MS: Final = 60_000  # by which the clock of who measured may be ahead
DIRECT: Final = (Method.UDP, Method.TCP)  # the better first
TAKEN: Final = (Evidence.MEASURED, Evidence.EMULATED)  # the stronger first; nothing else decides
Places = Mapping[str, Place]


class Heard:
    """Readings by their two ends, in an order that does not depend on how they came."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self.between: dict[str, dict[str, list[Reading]]] = {}  # end -> other end -> readings of both directions
        for reading in sorted(dict.fromkeys(readings), key=_order):
            for one, other in ((reading.source, reading.target), (reading.target, reading.source)):
                self.between.setdefault(one, {}).setdefault(other, []).append(reading)

    def of(self, names: Sequence[str], site: str) -> list[Reading]:
        """What is known between a place of these names and a site."""
        return [reading for name in names for reading in self.between.get(name, {}).get(site, ())]

    def seen(self, names: Sequence[str]) -> dict[str, None]:
        """Everything that a reading joins with a place of these names."""
        return {other: None for name in names for other in self.between.get(name, {})}


def circle_of(
    names: Sequence[str],
    measure: Measure,
    sites: Sequence[str],
    readings: Sequence[Reading],
    places: Places,
    as_of_ms: int,
) -> Circle:
    """The circle of the place that has ``names``, the first of which it is asked by. ``readings`` may be of anything.

    Raises `invalid_request` for a measure that has no meaning.
    """
    check_measure(measure)
    heard = Heard(touching(readings, names))
    members = [member_of(names, site, measure, heard, places, as_of_ms) for site in sorted(set(sites))]
    unknown = _ranked(members, Standing.UNKNOWN)
    return Circle(
        place=names[0],
        measure=measure,
        as_of_ms=as_of_ms,
        inside=_ranked(members, Standing.INSIDE),
        outside=_ranked(members, Standing.OUTSIDE),
        unknown=unknown,
        measure_next=_next(members, unknown, readings),
    )


def touching(readings: Iterable[Reading], ends: Sequence[str]) -> Iterator[Reading]:
    """Those that have one of ``ends`` as an end."""
    wanted = frozenset(ends)
    return (reading for reading in readings if reading.source in wanted or reading.target in wanted)


def _next(members: Sequence[Member], unknown: Sequence[Member], readings: Sequence[Reading]) -> tuple[str, ...]:
    """Which of the unknown sites to measure first, by how the sites see each other."""
    seen_us = {member.site: member.p50_us for member in members if member.readings}
    open_sites = [member.site for member in unknown if not member.readings]
    if not open_sites:
        return ()
    mesh = Heard(touching(readings, nearest(seen_us) or looked_at(open_sites)))

    def between(one: str, other: str) -> int | None:
        times = [each.p50_us for each in mesh.of((one,), other) if each.method in DIRECT and each.count]
        return min(times, default=None)

    return tuple(ranked(seen_us, open_sites, between)[:MOST_NEXT])


def check_measure(measure: Measure) -> None:
    """Refuse a one-way bound of a high quantile: one-way times are known as medians only."""
    if measure.bound is Bound.ONE_WAY and measure.quantile is not Quantile.P50:
        raise TielineError(
            "invalid_request",
            f"one-way times are known as medians: `{measure.quantile}` decides round trips only",
            where="measure.quantile",
            hints=("tieline circle --of PLACE --within 1ms --round-trip --quantile p99",),
        )


def member_of(names: Sequence[str], site: str, measure: Measure, heard: Heard, places: Places, as_of_ms: int) -> Member:
    """One site with regard to the place that has ``names``."""
    if site in names:
        said = Reason(code="circle_itself")
        return Member(site=site, standing=Standing.INSIDE, why=said, evidence=Evidence.MEASURED)
    light_us = light_of(names, site, places)
    found = heard.of(names, site)
    best: dict[bool, Reading] = {}  # by whether the site is its target
    refusals: list[Reason] = []
    for reading in sorted(found, key=_preference):
        refusal = _refusal(reading, measure, light_us, as_of_ms)
        if refusal is not None:
            refusals.append(refusal)
        else:
            best.setdefault(reading.target == site, reading)
    if not best:
        return _unmeasured(site, measure, light_us, refusals)
    return _judged(site, measure, light_us, best.get(True), best.get(False))


def light_of(names: Sequence[str], site: str, places: Places) -> int:
    """The least round trip, in microseconds, that the stated distance allows; 0: it is not stated."""
    there = places.get(site)
    here = next((places[name] for name in names if name in places), None)
    return 0 if here is None or there is None else light_between(here, there)


def light_between(a: Place, b: Place) -> int:
    """The round trip of light in vacuum, in microseconds, over the distance less what stated places may be off."""
    return int(2 * light_one_way_us(a, b))


def _refusal(reading: Reading, measure: Measure, light_us: int, as_of_ms: int) -> Reason | None:
    """Why a reading decides nothing; None: it does."""
    age_ms = as_of_ms - reading.ended_ms
    if reading.method is Method.RELAY:
        return Reason(code="circle_relayed", values={"p50_us": reading.p50_us})
    if reading.method not in DIRECT:
        return Reason(code="circle_no_reading")
    if reading.evidence not in TAKEN:
        return Reason(code="circle_not_measured", values={"evidence": reading.evidence.value})
    if reading.sent and not reading.count:
        return Reason(code="circle_unanswered", values={"sent": reading.sent})
    if reading.count < LEAST_SAMPLES:
        return Reason(code="circle_few_samples", values={"count": reading.count, "least": LEAST_SAMPLES})
    if age_ms < -MOST_AHEAD_MS:
        return Reason(code="circle_ahead", values={"ahead_us": -age_ms * 1_000})
    if age_ms > measure.most_age_ms:
        most_us = measure.most_age_ms * 1_000
        return Reason(code="circle_stale", values={"age_us": age_ms * 1_000, "most_us": most_us})
    if not 0 < reading.min_us <= reading.p50_us <= reading.p99_us:
        values = {"min_us": reading.min_us, "p50_us": reading.p50_us, "p99_us": reading.p99_us}
        return Reason(code="circle_disordered", values={**values})
    if reading.min_us < light_us:
        return Reason(code="circle_faster_than_light", values={"min_us": reading.min_us, "light_us": light_us})
    return None


def _unmeasured(site: str, measure: Measure, light_us: int, refusals: list[Reason]) -> Member:
    """A site without a reading that decides: outside where light says so, else unknown."""
    caught = [refusal for refusal in refusals if refusal.code == "circle_faster_than_light"]
    if caught:  # the stated place or the clock is wrong, and nobody knows which
        return Member(site=site, standing=Standing.UNKNOWN, why=caught[0], light_us=light_us)
    least_us = light_us if measure.bound is Bound.ROUND_TRIP else light_us // 2
    if least_us > measure.within_us:
        why = Reason(code="circle_beyond_light", values={"light_us": least_us, "within_us": measure.within_us})
        return Member(site=site, standing=Standing.OUTSIDE, why=why, light_us=light_us, evidence=Evidence.DECLARED)
    told = [refusal for refusal in refusals if refusal.code != "circle_no_reading"]
    why = told[0] if told else Reason(code="circle_no_reading")
    return Member(site=site, standing=Standing.UNKNOWN, why=why, light_us=light_us)


def _judged(site: str, measure: Measure, light_us: int, there: Reading | None, back: Reading | None) -> Member:
    """A site that was measured: ``there`` by the place, ``back`` by the site."""
    ends = [reading for reading in (there, back) if reading is not None]
    slower = max(ends, key=lambda reading: (_time(reading, measure.quantile), reading.p50_us))
    made = Member(
        site=site,
        standing=Standing.UNKNOWN,
        min_us=slower.min_us,
        p50_us=slower.p50_us,
        p99_us=slower.p99_us,
        light_us=light_us,
        evidence=max((reading.evidence for reading in ends), key=TAKEN.index),
        readings=tuple(ends),
    )
    made = _with_one_way(made, there, back)
    verdicts = [
        _round_trip(reading, measure) if measure.bound is Bound.ROUND_TRIP else _one_way(made, reading, measure)
        for reading in ends
    ]
    standings = {standing: None for standing, _ in verdicts}
    if Standing.INSIDE in standings and Standing.OUTSIDE in standings:
        times = sorted(_time(reading, measure.quantile) for reading in ends)
        why = Reason(code="circle_ends_disagree", values={"least_us": times[0], "most_us": times[-1]})
        return replace(made, why=why)
    if Standing.UNKNOWN in standings:
        one_way_us = max(made.there_us, made.back_us)
        values = {"one_way_us": one_way_us, "error_us": made.clock_error_us}
        return replace(made, why=Reason(code="circle_loose_clocks", values={**values}))
    return replace(made, standing=verdicts[0][0], is_estimate=any(is_estimate for _, is_estimate in verdicts))


def _with_one_way(made: Member, there: Reading | None, back: Reading | None) -> Member:
    """The same with both one-way times: by clocks from either end, the other direction being the rest; else halves."""
    ways = [None if each is None or not _has_clocks(each) else each for each in (there, back)]
    if ways[0] is not None and ways[1] is not None:
        there_us, back_us = ways[0].one_way_us, ways[1].one_way_us
    elif ways[0] is not None:
        there_us, back_us = ways[0].one_way_us, max(0, ways[0].p50_us - ways[0].one_way_us)
    elif ways[1] is not None:
        there_us, back_us = max(0, ways[1].p50_us - ways[1].one_way_us), ways[1].one_way_us
    else:
        half_us = made.p50_us // 2
        return replace(made, there_us=half_us, back_us=made.p50_us - half_us, one_way=OneWay.HALF)
    error_us = max(each.clock_error_us for each in ways if each is not None)
    return replace(made, there_us=there_us, back_us=back_us, one_way=OneWay.CLOCKS, clock_error_us=error_us)


def _has_clocks(reading: Reading) -> bool:
    """Whether its one-way time is by clocks, and possible: no longer than the round trip."""
    return reading.one_way is OneWay.CLOCKS and 0 < reading.one_way_us <= reading.p50_us + reading.clock_error_us


def _round_trip(reading: Reading, measure: Measure) -> tuple[Standing, bool]:
    is_in = _time(reading, measure.quantile) <= measure.within_us
    return (Standing.INSIDE if is_in else Standing.OUTSIDE), False


def _one_way(made: Member, reading: Reading, measure: Measure) -> tuple[Standing, bool]:
    """By what needs no clock, then by clocks, then by half of the round trip."""
    if reading.p50_us <= measure.within_us:
        return Standing.INSIDE, False
    if reading.p50_us > 2 * measure.within_us:
        return Standing.OUTSIDE, False
    if made.one_way is not OneWay.CLOCKS:
        return Standing.INSIDE, True
    slower_us = max(made.there_us, made.back_us)
    if slower_us + made.clock_error_us <= measure.within_us:
        return Standing.INSIDE, False
    return (Standing.OUTSIDE if slower_us - made.clock_error_us > measure.within_us else Standing.UNKNOWN), False


def _time(reading: Reading, quantile: Quantile) -> int:
    return reading.p50_us if quantile is Quantile.P50 else reading.p99_us


def _order(reading: Reading) -> tuple[Any, ...]:
    return (reading.source, reading.target, reading.method.value, -reading.ended_ms, msgspec.structs.astuple(reading))


def _preference(reading: Reading) -> tuple[bool, int, int, str, str]:
    """UDP before TCP, the newest first."""
    rank = DIRECT.index(reading.method) if reading.method in DIRECT else len(DIRECT)
    return (reading.evidence not in TAKEN, rank, -reading.ended_ms, reading.source, reading.target)


def _ranked(members: list[Member], standing: Standing) -> tuple[Member, ...]:
    """The nearest first; what has no time last."""
    found = [member for member in members if member.standing is standing]
    return tuple(sorted(found, key=lambda member: (not member.readings, member.p50_us, member.site)))
