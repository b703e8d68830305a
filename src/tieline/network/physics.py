"""Physics: what no reading can be. A claim that light, its own figures or the clock refute is not believed.

Nothing here says that a reading is true: a site that adds a millisecond is not found out. What can be found out is a
site that claims to be nearer than it can be, which is the lie that pays. Light in vacuum is the bound, because some
links are radio; a fibre is 1.468 times slower and never straight, so that most false claims stay below the bound of a
fibre (`fibre_us`) and above that of vacuum: those are left to whoever measures from the other end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import asin, cos, radians, sin, sqrt
from typing import Final, NamedTuple

from tieline.model.reading import Method, OneWay, Reading
from tieline.model.reason import Reason, Value
from tieline.model.topology import Place

EARTH_M: Final = 6_371_009  # mean radius
LIGHT_M_PER_US: Final = 299.792_458  # in vacuum: nothing is faster
FIBRE_US_PER_M: Final = 1.468 / LIGHT_M_PER_US  # light in glass of that index
DETOUR: Final = 1.4  # cable over great circle, where nobody says how long it is
PLACE_M: Final = 2_000  # by which stated places may be off
AHEAD_MS: Final = 5_000  # by which a site's clock may be ahead of ours
OLD_MS: Final = 86_400_000  # what is older is no news
SHORTEST_US: Final = 100  # a transfer of less time says nothing of a rate
ROUND_TRIPS: Final = (Method.UDP, Method.TCP, Method.RELAY)


class Frame(NamedTuple):
    """What a reading is judged by."""

    site: str  # who signed it
    now_ms: int
    targets: Collection[str]  # sites and reference points that are known
    places: Mapping[str, Place] = {}  # of sites and reference points, where they are stated
    access_bps: Mapping[str, int] = {}  # sum of the links of a site, where they are stated
    addresses: Mapping[str, str] = {}  # of reference points
    is_far: bool = False  # a site of another exchange: its points are ours only where it says the same address


def distance_m(a: Place, b: Place) -> float:
    """Along the great circle."""
    lat_a, lat_b = radians(a.latitude_udeg / 1e6), radians(b.latitude_udeg / 1e6)
    east = radians((b.longitude_udeg - a.longitude_udeg) / 1e6)
    half = sin((lat_b - lat_a) / 2) ** 2 + cos(lat_a) * cos(lat_b) * sin(east / 2) ** 2
    return 2 * EARTH_M * asin(min(1.0, sqrt(half)))


def light_us(a: Place, b: Place) -> float:
    """The least time one way between two stated places, each of which may be off by `PLACE_M`."""
    return max(0.0, distance_m(a, b) - 2 * PLACE_M) / LIGHT_M_PER_US


def fibre_us(a: Place, b: Place) -> int:
    """What a straight fibre between two places takes one way."""
    return round(distance_m(a, b) * FIBRE_US_PER_M)


def refuted(reading: Reading, frame: Frame) -> Reason | None:
    """Why a reading cannot be; None: nothing speaks against it.

    >>> frame = Frame("cn.x/site/a", 1_000, ("cn.x/site/b",))
    >>> late = Reading(source="cn.x/site/a", target="cn.x/site/b", method=Method.UDP, count=1, ended_ms=99_000)
    >>> refuted(late, frame).code
    'reading_ahead'
    """
    return _misplaced(reading, frame) or _mistimed(reading, frame) or _at_odds(reading) or _too_good(reading, frame)


def _misplaced(reading: Reading, frame: Frame) -> Reason | None:
    if reading.source != frame.site:
        return _because("reading_not_own", source=reading.source[:200], site=frame.site)
    if reading.target == frame.site:
        return _because("reading_of_itself", site=frame.site)
    if reading.target not in frame.targets:
        return _because("reading_target", target=reading.target[:200])
    stated = frame.addresses.get(reading.target)
    is_same = reading.address == stated != "" if frame.is_far else reading.address in ("", stated)
    if stated is not None and not is_same:
        return _because("reading_moved", target=reading.target, address=reading.address, stated=stated)
    return None


def _mistimed(reading: Reading, frame: Frame) -> Reason | None:
    if reading.begun_ms > reading.ended_ms or reading.begun_ms < 0:
        return _because("reading_backwards", begun_ms=reading.begun_ms, ended_ms=reading.ended_ms)
    if reading.ended_ms > frame.now_ms + AHEAD_MS:
        return _because("reading_ahead", ahead_us=(reading.ended_ms - frame.now_ms) * 1000)
    if reading.ended_ms < frame.now_ms - OLD_MS:
        return _because("reading_old", age_us=(frame.now_ms - reading.ended_ms) * 1000, most_us=OLD_MS * 1000)
    return None


def _at_odds(reading: Reading) -> Reason | None:
    """Figures that contradict each other."""
    if not reading.sent or reading.count > reading.sent:
        return _because("reading_count", count=reading.count, sent=reading.sent)
    times = {"min_us": reading.min_us, "p50_us": reading.p50_us, "p99_us": reading.p99_us}
    if not reading.min_us <= reading.p50_us <= reading.p99_us:
        return _because("reading_order", **times)
    if reading.method in ROUND_TRIPS and bool(reading.count) != bool(reading.min_us):
        return _because("reading_empty", count=reading.count, min_us=reading.min_us)
    took_us = (reading.ended_ms - reading.begun_ms + 1) * 1000  # both ends are cut to whole milliseconds
    if reading.p99_us > took_us:
        return _because("reading_longer", p99_us=reading.p99_us, took_us=took_us)
    if reading.one_way is OneWay.UNKNOWN and reading.one_way_us:
        return _because("reading_one_way", one_way_us=reading.one_way_us, p99_us=reading.p99_us)
    if reading.one_way is not OneWay.UNKNOWN and reading.one_way_us > reading.p99_us + reading.clock_error_us:
        return _because("reading_one_way", one_way_us=reading.one_way_us, p99_us=reading.p99_us)
    return _at_odds_in_bytes(reading)


def _at_odds_in_bytes(reading: Reading) -> Reason | None:
    if reading.method is Method.MTU and reading.count and reading.path_mtu_bytes < 68:
        return _because("reading_mtu", path_mtu_bytes=reading.path_mtu_bytes)
    if reading.rate_bps and reading.moved_bytes * 8_000_000 < reading.rate_bps * SHORTEST_US:
        return _because("reading_rate_short", rate_bps=reading.rate_bps, moved_bytes=reading.moved_bytes)
    return None


def _too_good(reading: Reading, frame: Frame) -> Reason | None:
    """Nearer or wider than can be."""
    here, there = frame.places.get(reading.source), frame.places.get(reading.target)
    if here is not None and there is not None and reading.count:
        least_us = light_us(here, there)
        far = {"apart_km": round(distance_m(here, there) / 1000)}
        if reading.method in ROUND_TRIPS and reading.min_us < 2 * least_us:
            return _because("reading_light", claimed_us=reading.min_us, least_us=round(2 * least_us), **far)
        if reading.one_way is OneWay.CLOCKS and reading.one_way_us + reading.clock_error_us < least_us:
            return _because("reading_light", claimed_us=reading.one_way_us, least_us=round(least_us), **far)
    for end in (reading.source, reading.target):
        most_bps = frame.access_bps.get(end)
        if most_bps is not None and reading.rate_bps > most_bps:
            return _because("reading_rate_over", rate_bps=reading.rate_bps, most_bps=most_bps, site=end)
    return None


def _because(code: str, **values: Value) -> Reason:
    return Reason(code=code, values=values)
