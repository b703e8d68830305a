"""Score: what an hour of the work costs at each pool that fits, data included (formula: `tieline.place.terms`).

The lowest score wins. Ties go to the pool with the least units left free afterwards (best fit keeps large holes for
gangs), then to the identifier that sorts first: the same snapshot and ask give the same answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tieline.model.plan import Candidate, PlannedTransfer
from tieline.place.coded import Numbers, Rows
from tieline.place.scene import MOST, Asking, Trip

HOUR_US = 3_600_000_000
GB = 10**9
MOST_SETTLED = 512  # sites of one search for which it is asked what bringing the data really takes


class Costs(NamedTuple):
    """Per row: the score, and the part of it that the data causes, as a whole."""

    hourly_micro_cny: Numbers  # the score
    data_micro_cny: Numbers


def costs(asking: Asking, rows: Rows) -> Costs:
    """Score ``rows``; micro-yuan per hour, saturated at 2^62."""
    hourly = asking.hourly(rows)
    if not asking.demand.data:
        return Costs(hourly, np.zeros(len(rows), np.int64))
    terms, moves = asking.scene.terms, asking.moves(rows)
    waiting = moves.time_us * ((hourly + terms.hour_micro_cny) / HOUR_US)
    carriage = moves.size_bytes * (terms.transfer_micro_cny_per_gb / GB) + moves.price_micro_cny
    data = np.floor(waiting + carriage)
    expected_s = asking.demand.max_duration_s or terms.expected_s
    spread = np.floor(data * (3_600 / expected_s))
    score = np.minimum(hourly + spread, float(MOST)).astype(np.int64)
    return Costs(score, np.minimum(data, float(MOST)).astype(np.int64))


def left(asking: Asking, rows: Rows) -> Numbers:
    """Units that stay free if it were placed there."""
    return _free(asking)[rows] - asking.need.unit_count


def _free(asking: Asking) -> Numbers:
    pools = asking.pools
    return pools.accelerators.free if asking.need.unit == "accelerator" else pools.cores.free


class Best(NamedTuple):
    """The best of some rows. Compared as a tuple: the smaller is the better."""

    score_micro_cny: int
    spare: int
    rank: int
    row: int


def best(asking: Asking, rows: Rows) -> Best | None:
    """The best of ``rows``, all of which fit and which are in the order of a posting.

    What it takes to bring the data is settled for whichever seems best, until it is best by what it really takes. None
    where the data turns out to reach none of them in time.
    """
    if asking.is_price_all:  # the score rises with the price, and equal prices are in order of rank
        price = asking.pools.price[rows]
        if price[-1] != price[0]:
            rows = rows[: int(price.searchsorted(price[0], side="right"))]
        spare = left(asking, rows)
        at = int(spare.argmin())
        return _best(asking, rows, spare, at, floor_micro_cny(asking, int(price[0])))
    tries = MOST_SETTLED if asking.is_moving else 0
    while len(rows):
        scores = costs(asking, rows).hourly_micro_cny
        score = int(scores.min())
        first = rows[scores == score]
        spare = left(asking, first)
        at = int(np.lexsort((asking.pools.rank[first], spare))[0])
        if not tries or asking.settle(int(first[at])):
            return _best(asking, first, spare, at, score)
        tries -= 1
        rows = asking.reached(rows)
    return None


def _best(asking: Asking, rows: Rows, spare: Numbers, at: int, score: int) -> Best:
    row = int(rows[at])
    return Best(score, int(spare[at]), int(asking.pools.rank[row]), row)


def floor_micro_cny(asking: Asking, price_micro_cny: int) -> int:
    """No pool of this price or a higher one scores lower than this; exact where the price alone decides."""
    if asking.demand.price_micro_cny is not None:
        return 0
    return min(price_micro_cny, MOST // asking.need.unit_count) * asking.need.unit_count


def candidate(asking: Asking, row: int, *, is_chosen: bool) -> Candidate:
    """One pool as a plan shows it and a booking takes it."""
    pool, need = asking.pools.at(row), asking.need
    trips = asking.trips(row) if asking.is_moving else ()
    price, cost, data, data_us = _terms(asking, row)
    networks = pool.spec.networks
    return Candidate(
        pool=pool.id,
        site=pool.site,
        owner=pool.owner,
        alternative=need.index,
        accelerator=asking.pools.accelerator_of(row),
        unit=need.unit,
        unit_count=need.unit_count,
        free_units=int(_free(asking)[row]),
        price_micro_cny_per_unit_hour=price,
        cost_micro_cny_per_hour=cost,
        data_us=data_us,
        data_cost_micro_cny=data,
        transfers=tuple(_planned(asking, trip, pool.site) for trip in trips),
        network=asking.demand.network or ("host" if "host" in networks or not networks else networks[0]),
        sandbox=_sandbox(asking, row),
        evidence=pool.evidence,
        is_chosen=is_chosen,
    )


def _terms(asking: Asking, row: int) -> tuple[int, int, int, int]:
    """(price of a unit-hour, score, data's part of it, time that the data takes) at one pool."""
    if asking.is_price_all:
        price = int(asking.pools.price[row])
        return price, floor_micro_cny(asking, price), 0, 0
    rows = np.array([row], np.int64)
    score = costs(asking, rows)
    data_us = int(asking.moves(rows).time_us[0]) if asking.demand.data else 0
    return int(asking.price(rows)[0]), int(score.hourly_micro_cny[0]), int(score.data_micro_cny[0]), data_us


def _planned(asking: Asking, trip: Trip, target: str) -> PlannedTransfer:
    """One dataset's way as a plan shows it."""
    transit, distances = trip.transit, asking.scene.distances
    return PlannedTransfer(
        data=trip.data,
        source=trip.source,
        size_bytes=trip.size_bytes,
        time_us=transit.time_us,
        rate_bps=transit.rate_bps,
        rtt_us=distances.rtt_us(trip.source, target),
        links=transit.links,
        price_micro_cny=transit.price_micro_cny,
        is_laid=any(term.is_laid for term in asking.demand.data if term.name == trip.data),
        evidence=transit.evidence.value,
    )


def _sandbox(asking: Asking, row: int) -> str:
    """What would isolate it there: the image's container, the owner's sandbox, or nothing."""
    pool = asking.pools.at(row)
    if asking.need.image:
        return "container"
    return pool.spec.sandbox or "none"
