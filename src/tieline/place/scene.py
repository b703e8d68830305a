"""What one batch is decided against: the pools, the distances, the time, the weights, and what is held back.

A scene lives for one batch. It keeps what several demands of the batch share: rates between sites, and the query
context of each caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tieline.language import Context
from tieline.place.coded import Flags, Numbers, Rows
from tieline.place.demand import Caller, DataTerm, Demand, Need
from tieline.place.policy import OwnerPolicy
from tieline.place.pools import Pools
from tieline.place.terms import Terms
from tieline.ports import Distances, Transit

MOST = 2**62  # numbers saturate here, far from where int64 ends
MOST_US = 2**53
FEW = 8
MOST_COPIES = 32  # of a dataset that are looked at, those at sites that are known here first


class Moves(NamedTuple):
    """What it takes to bring a demand's data to each of some sites."""

    time_us: Numbers
    is_known: Flags  # False: the rate from every copy is unknown
    size_bytes: Numbers
    price_micro_cny: Numbers


class Load(NamedTuple):
    """Data that is to be brought, and until when; 0: whenever."""

    data: tuple[DataTerm, ...]
    due_ms: int = 0


class Trip(NamedTuple):
    """One dataset's way to a site."""

    data: str
    source: str
    size_bytes: int
    transit: Transit


class Settled:
    """What it really takes to bring some data to the sites for which that was asked; by the codes of sites."""

    def __init__(self, count: int) -> None:
        self.is_asked: Flags = np.zeros(count, np.bool_)
        self.is_known: Flags = np.zeros(count, np.bool_)
        self.time_us: Numbers = np.zeros(count, np.int64)
        self.price_micro_cny: Numbers = np.zeros(count, np.int64)
        self.trips: dict[int, tuple[Trip, ...]] = {}

    def put(self, code: int, trips: tuple[Trip, ...] | None) -> None:
        """Note what was found for a site; None: the data cannot be brought there."""
        self.is_asked[code] = True
        self.is_known[code] = trips is not None
        self.trips[code] = trips or ()
        self.time_us[code] = min(sum(trip.transit.time_us for trip in trips or ()), MOST_US)
        self.price_micro_cny[code] = min(sum(trip.transit.price_micro_cny for trip in trips or ()), MOST)


class HeldBack(NamedTuple):
    """A pool that waits for a demand which has been passed over for too long."""

    demand: str
    until_ms: int | None  # when enough of it will be free, where the ends of its runs are known


class Scene:
    """The snapshot and the moment. Nothing here changes but what is kept, and ``held_back`` by `choose`."""

    def __init__(self, pools: Pools, distances: Distances, now_ms: int, terms: Terms | None = None) -> None:
        self.pools = pools
        self.distances = distances
        self.now_ms = now_ms
        self.terms = terms or Terms()
        self.held_back: dict[int, HeldBack] = {}
        self._rates: dict[str, NDArray[np.float64]] = {}
        self._settled: dict[Load, Settled] = {}
        self._contexts: dict[Caller, Context] = {}
        self._coming: dict[tuple[str, str], Flags] = {}

    def hold_back(self, pools: Mapping[str, str]) -> None:
        """Keep pools (pool -> demand) for those who wait for them; when that will be is not known."""
        for pool, demand in pools.items():
            at = self.pools.index(pool)
            if at is not None:
                self.held_back[at] = HeldBack(demand, None)

    @property
    def sites(self) -> list[str]:
        """Identifiers of sites in the order of their codes; code 0 is none."""
        return self.pools.table.texts("site").texts

    def context(self, caller: Caller) -> Context:
        """What a query of this caller reads beside the table."""
        context = self._contexts.get(caller)
        if context is None:
            context = Context(sets={"partners": caller.partners}, readings=self._readings)
            self._contexts[caller] = context
        return context

    def moves(self, load: Load, sites: NDArray[np.int32]) -> Moves:
        """Bytes and time to bring the data to each of ``sites``, given by their codes.

        The time is the least that it can take, until `settle` was asked for a site.
        """
        least = self._least(load.data, sites)
        settled = self._settled.get(load)
        if settled is None:
            return least
        asked = settled.is_asked[sites]
        return Moves(
            np.where(asked, settled.time_us[sites], least.time_us),
            np.where(asked, settled.is_known[sites], least.is_known),
            least.size_bytes,
            np.where(asked, settled.price_micro_cny[sites], 0),
        )

    def settle(self, load: Load, code: int) -> bool:
        """Find out what it really takes to bring the data to a site. Whether that was known, or is the least."""
        settled = self._settled.get(load)
        if settled is None:
            settled = self._settled[load] = Settled(len(self.sites))
        if settled.is_asked[code]:
            return True
        least = self._least(load.data, np.array([code], np.int32))
        settled.put(code, self._trips(load, code))
        known, price = bool(settled.is_known[code]), int(settled.price_micro_cny[code])
        return known and not price and int(settled.time_us[code]) <= int(least.time_us[0])

    def trips(self, load: Load, code: int) -> tuple[Trip, ...]:
        """The ways of the data to a site, settled now if they were not."""
        self.settle(load, code)
        return self._settled[load].trips[code]

    def unsettle(self) -> None:
        """Something was booked: what was settled holds no more."""
        self._settled.clear()

    def _trips(self, load: Load, code: int) -> tuple[Trip, ...] | None:
        found: list[Trip] = []
        target = self.sites[code]
        for term in load.data:
            if not term.sites or not term.size_bytes or target in term.sites:
                continue
            one = self._trip(term, code, load.due_ms)
            if one is None:
                return None
            found.append(one)
        return tuple(found)

    def _trip(self, term: DataTerm, code: int, due_ms: int) -> Trip | None:
        """The quickest way from any copy: those that can be quickest are asked first, no more than may win."""
        site = np.array([code], np.int32)
        rates = [(-float(self._rate(source, site)[0]), at) for at, source in enumerate(self._sources(term))]
        best: Trip | None = None
        for least, at in sorted(rates):
            if least >= 0 or (best is not None and term.size_bytes * 8e6 / -least >= best.transit.time_us):
                break
            source = self._sources(term)[at]
            transit = self.distances.transit(source, self.sites[code], term.size_bytes, self.now_ms, due_ms)
            if transit is not None and (best is None or transit.time_us < best.transit.time_us):
                best = Trip(term.name, source, term.size_bytes, transit)
        return best

    def _sources(self, term: DataTerm) -> list[str]:
        """The copies that are looked at: those at sites that are known here, if any is."""
        code_of = self.pools.table.texts("site").code
        here = [site for site in term.sites if code_of(site) > 0]
        return (here or list(term.sites))[:MOST_COPIES]

    def _least(self, data: tuple[DataTerm, ...], sites: NDArray[np.int32]) -> Moves:
        count = len(sites)
        time = np.zeros(count, np.float64)
        known = np.ones(count, np.bool_)
        size = np.zeros(count, np.int64)
        code_of = self.pools.table.texts("site").code
        for term in data:
            if not term.sites or not term.size_bytes:
                continue  # no place or no bytes: nothing that one pool has over another
            here = among(sites, [code for site in term.sites if (code := code_of(site)) > 0])
            rate = np.maximum.reduce([self._rate(site, sites) for site in self._sources(term)])
            known &= here | (rate > 0)
            time += np.where(here, 0.0, np.ceil(term.size_bytes * 8e6 / np.maximum(rate, 1.0)))
            size += np.where(here, 0, term.size_bytes)
        time[~known] = 0.0
        return Moves(np.minimum(time, float(MOST_US)).astype(np.int64), known, size, np.zeros(count, np.int64))

    def _rate(self, source: str, sites: NDArray[np.int32]) -> NDArray[np.float64]:
        """bit/s from ``source`` to each of ``sites`` at most; 0 where it is unknown. Each pair is asked once."""
        rates = self._rates.get(source)
        if rates is None:
            rates = self._rates[source] = np.full(len(self.sites), -1.0)
        found = rates[sites]
        unasked = found < 0
        if not unasked.any():
            return found
        names = self.sites
        for code in np.unique(sites[unasked]).tolist():
            rates[code] = self.distances.most_bps(source, names[code]) or 0
        return rates[sites]

    def _readings(self, function: str, point: str, sites: Sequence[str]) -> tuple[Numbers, Flags]:
        ask = self.distances.rtt_us if function == "rtt" else self.distances.read_bps
        found = [ask(point, site) for site in sites]
        values = np.array([value or 0 for value in found], np.int64)
        return values, np.array([value is not None for value in found], np.bool_)

    def may_read(self, function: str, point: str) -> Flags:
        """Of which sites, by their codes, a reading may still come."""
        sites, found = self.sites, self._coming.get((function, point))
        if found is None or len(found) != len(sites):
            may = [code > 0 and self.distances.may_read(function, point, site) for code, site in enumerate(sites)]
            found = self._coming[function, point] = np.array(may, np.bool_)
        return found


def among(codes: NDArray[np.int32], wanted: list[int]) -> Flags:
    """Which of ``codes`` are ``wanted``; a few are compared one by one, which is faster."""
    if len(wanted) > FEW:
        return np.isin(codes, wanted)
    found = np.zeros(len(codes), np.bool_)
    for code in wanted:
        found |= codes == code
    return found


class Asking:
    """One alternative of one demand in a scene: what every step of the pipeline is given."""

    def __init__(self, scene: Scene, demand: Demand, need: Need) -> None:
        self.scene = scene
        self.pools = scene.pools
        self.demand = demand
        self.need = need
        self.load = Load(demand.data, demand.due_ms)
        self._verdicts: dict[OwnerPolicy, bool | None] = {}

    @property
    def is_price_all(self) -> bool:
        """Whether nothing but the owner's price decides the score: no data is moved, no quote sets the price."""
        return not self.demand.data and self.demand.price_micro_cny is None

    @property
    def context(self) -> Context:
        """What the demand's query reads beside the table."""
        return self.scene.context(self.demand.caller)

    @property
    def values(self) -> dict[str, Any]:
        """What an owner's policy reads of this alternative."""
        return self.demand.values[self.need.index]

    def price(self, rows: Rows) -> Numbers:
        """Micro-yuan per unit-hour: the owner's price, or what a quote agreed."""
        if self.demand.price_micro_cny is not None:
            return np.full(len(rows), self.demand.price_micro_cny, np.int64)
        return self.pools.price[rows]

    def hourly(self, rows: Rows) -> Numbers:
        """Micro-yuan per hour for all units, saturated so that no sum overflows."""
        units = self.need.unit_count
        price = self.price(rows)
        if len(price) and int(price.max()) * units > MOST:
            price = np.minimum(price, MOST // units)
        return price * units

    def moves(self, rows: Rows) -> Moves:
        """What it takes to bring the data to the site of each row."""
        return self.scene.moves(self.load, self.pools.table.texts("site").codes[rows])

    @property
    def is_moving(self) -> bool:
        """Whether there is data that has a place."""
        return any(term.sites and term.size_bytes for term in self.demand.data)

    @property
    def slack_us(self) -> int:
        """How long the data may take so that the longest run ends before the deadline; there is one."""
        return (self.demand.due_ms - self.scene.now_ms) * 1_000

    def settle(self, row: int) -> bool:
        """Find out what it really takes to bring the data to a row's site. Whether that was known, or is the least."""
        return self.scene.settle(self.load, int(self.pools.table.texts("site").codes[row]))

    def trips(self, row: int) -> tuple[Trip, ...]:
        """The ways of the data to a row's site."""
        return self.scene.trips(self.load, int(self.pools.table.texts("site").codes[row]))

    def reached(self, rows: Rows) -> Rows:
        """Those of ``rows`` to which the data can be brought in time, as far as that is settled."""
        moves = self.moves(rows)
        kept = moves.is_known
        if self.demand.deadline_ms:
            kept = kept & (moves.time_us <= self.slack_us)
        return rows[kept]

    def admits(self, policy: OwnerPolicy) -> bool | None:
        """Whether an owner's policy admits this; None: it cannot be known. Each policy is asked once."""
        if policy not in self._verdicts:
            self._verdicts[policy] = policy.admits(self.values)
        return self._verdicts[policy]
