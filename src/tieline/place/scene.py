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
from tieline.ports import Distances

MOST = 2**62  # numbers saturate here, far from where int64 ends
FEW = 8
MOST_COPIES = 32  # of a dataset that are looked at, those at sites that are known here first


class Moves(NamedTuple):
    """What it takes to bring a demand's data to each of some sites."""

    time_us: Numbers
    is_known: Flags  # False: the rate from every copy is unknown
    size_bytes: Numbers


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
        self._contexts: dict[Caller, Context] = {}

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

    def moves(self, data: tuple[DataTerm, ...], sites: NDArray[np.int32]) -> Moves:
        """Bytes and time to bring ``data`` to each of ``sites``, given by their codes."""
        count = len(sites)
        time = np.zeros(count, np.float64)
        known = np.ones(count, np.bool_)
        size = np.zeros(count, np.int64)
        code_of = self.pools.table.texts("site").code
        for term in data:
            if not term.sites or not term.size_bytes:
                continue  # no place or no bytes: nothing that one pool has over another
            copies = {site: code for site in term.sites if (code := code_of(site)) > 0}
            here = among(sites, list(copies.values()))
            sources = list(copies or term.sites)[:MOST_COPIES]
            rate = np.maximum.reduce([self._rate(site, sites) for site in sources])
            known &= here | (rate > 0)
            time += np.where(here, 0.0, np.ceil(term.size_bytes * 8e6 / np.maximum(rate, 1.0)))
            size += np.where(here, 0, term.size_bytes)
        time[~known] = 0.0
        return Moves(np.minimum(time, float(2**53)).astype(np.int64), known, size)

    def _rate(self, source: str, sites: NDArray[np.int32]) -> NDArray[np.float64]:
        """bit/s from ``source`` to each of ``sites``; 0 where it is unknown. Each pair is asked once."""
        rates = self._rates.get(source)
        if rates is None:
            rates = self._rates[source] = np.full(len(self.sites), -1.0)
        found = rates[sites]
        unasked = found < 0
        if not unasked.any():
            return found
        names = self.sites
        for code in np.unique(sites[unasked]).tolist():
            rates[code] = self.distances.rate_bps(source, names[code]) or 0
        return rates[sites]

    def _readings(self, function: str, point: str, sites: Sequence[str]) -> tuple[Numbers, Flags]:
        ask = self.distances.rtt_us if function == "rtt" else self.distances.rate_bps
        found = [ask(point, site) for site in sites]
        values = np.array([value or 0 for value in found], np.int64)
        return values, np.array([value is not None for value in found], np.bool_)


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
        return self.scene.moves(self.demand.data, self.pools.table.texts("site").codes[rows])

    def admits(self, policy: OwnerPolicy) -> bool | None:
        """Whether an owner's policy admits this; None: it cannot be known. Each policy is asked once."""
        if policy not in self._verdicts:
            self._verdicts[policy] = policy.admits(self.values)
        return self._verdicts[policy]
