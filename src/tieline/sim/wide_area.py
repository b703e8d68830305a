"""Wide area: sites, a network, data and work over a few hours, all from one seed, to try placing on.

Nodes lie in a square of 2,000 km: a tree that joins them all and some short links beside it, of a few usual
capacities. Each node is a site with one pool of equal cards at a price of its own. Datasets are at one or two sites.
Jobs come at random times, each reads one dataset, and some are read far more often than others. Other people's
transfers are on the links from the start. The parameters are fixed; only the seed differs from one to the next.
"""

from __future__ import annotations

from math import exp, hypot
from random import Random
from typing import Final, NamedTuple

from tieline.model.topology import Link, Node, Topology
from tieline.model.transfer import TransferOrder
from tieline.sim.chance import Chance

SITES: Final = 12
MORE_LINKS: Final = 8
SQUARE_KM: Final = 2_000
US_PER_KM: Final = 4.9 * 1.4  # light in fibre, and a detour
CAPACITIES_GBPS: Final = (1.0, 2.5, 10.0, 40.0)
CAPACITY_WEIGHTS: Final = (3, 3, 3, 1)
CARDS: Final = (32, 64, 128)
PRICE_MICRO_CNY: Final = (8_000_000, 12_000_000)  # of a card-hour: lowest and highest
DATASETS: Final = 24
DATA_GB: Final = (300.0, 1.0)  # median, and the spread of its logarithm
MOST_DATA_GB: Final = 4_000.0
JOBS: Final = 150
HOURS: Final = 6
JOB_CARDS: Final = (1, 2, 4, 8, 16)
WORK_MIN: Final = (40.0, 0.7)  # median, and the spread of its logarithm
MOST_WORK_MIN: Final = 300.0
SAID_OVER: Final = 1.25  # what a job says that it takes at most, over what it takes
OTHERS: Final = 16  # transfers of other people
OTHERS_GB: Final = (50.0, 1_500.0)
GB: Final = 10**9
PREFIX: Final = "cn.wide"


class WideSite(NamedTuple):
    """A site and its pool."""

    id: str
    pool: str
    node: str
    cards: int
    price_micro_cny: int


class WideData(NamedTuple):
    """A dataset and where it is."""

    id: str
    sites: tuple[str, ...]
    size_bytes: int


class WideJob(NamedTuple):
    """Work that comes at a time after the beginning."""

    name: str
    at_ms: int
    data: str
    cards: int
    work_ms: int
    most_s: int


class WideArea(NamedTuple):
    """One scenario."""

    seed: int
    topology: Topology
    sites: tuple[WideSite, ...]
    datasets: tuple[WideData, ...]
    jobs: tuple[WideJob, ...]  # by their time
    others: tuple[TransferOrder, ...]


def wide_area(seed: int) -> WideArea:
    """The scenario of a seed: the same on every machine."""
    chance = Chance(seed)
    sites = _sites(chance.of("sites"))
    datasets = _datasets(chance.of("data"), sites)
    return WideArea(
        seed=seed,
        topology=_topology(chance.of("network"), sites),
        sites=sites,
        datasets=datasets,
        jobs=_jobs(chance.of("jobs"), datasets),
        others=_others(chance.of("others"), sites),
    )


def _sites(dice: Random) -> tuple[WideSite, ...]:
    return tuple(
        WideSite(
            f"{PREFIX}/site/s{at:02}",
            f"{PREFIX}/pool/s{at:02}",
            f"n{at:02}",
            dice.choice(CARDS),
            dice.randint(*PRICE_MICRO_CNY),
        )
        for at in range(SITES)
    )


def _topology(dice: Random, sites: tuple[WideSite, ...]) -> Topology:
    at = [(dice.random() * SQUARE_KM, dice.random() * SQUARE_KM) for _ in sites]
    away = {(a, b): hypot(at[a][0] - at[b][0], at[a][1] - at[b][1]) for b in range(len(at)) for a in range(b)}
    joined = {0}
    pairs: list[tuple[int, int]] = []
    while len(joined) < len(at):  # Prim's tree
        a, b = min((pair for pair in away if (pair[0] in joined) != (pair[1] in joined)), key=away.__getitem__)
        joined |= {a, b}
        pairs.append((a, b))
    near = sorted(set(away) - set(pairs), key=lambda pair: (away[pair] * exp(dice.gauss(0, 0.4)), pair))
    links = tuple(
        Link(
            name=f"{sites[a].node}-{sites[b].node}",
            a=sites[a].node,
            b=sites[b].node,
            capacity_bps=round(dice.choices(CAPACITIES_GBPS, CAPACITY_WEIGHTS)[0] * GB),
            delay_us=round(away[a, b] * US_PER_KM),
        )
        for a, b in sorted(pairs + near[:MORE_LINKS])
    )
    return Topology(name=PREFIX, nodes=tuple(Node(name=site.node, site=site.id) for site in sites), links=links)


def _datasets(dice: Random, sites: tuple[WideSite, ...]) -> tuple[WideData, ...]:
    return tuple(
        WideData(
            f"{PREFIX}/dataset/d{at:02}",
            tuple(sorted(site.id for site in dice.sample(sites, dice.choice((1, 2))))),
            round(min(MOST_DATA_GB, _lognormal(dice, *DATA_GB)) * GB),
        )
        for at in range(DATASETS)
    )


def _jobs(dice: Random, datasets: tuple[WideData, ...]) -> tuple[WideJob, ...]:
    times = sorted(dice.randrange(HOURS * 3_600_000) for _ in range(JOBS))
    popular = [1 / (rank + 1) for rank in range(len(datasets))]
    jobs = []
    for number, at_ms in enumerate(times):
        work_ms = round(min(MOST_WORK_MIN, _lognormal(dice, *WORK_MIN)) * 60_000)
        data = dice.choices(datasets, popular)[0].id
        most_s = round(work_ms * SAID_OVER / 1_000)
        jobs.append(WideJob(f"j{number:03}", at_ms, data, dice.choice(JOB_CARDS), work_ms, most_s))
    return tuple(jobs)


def _others(dice: Random, sites: tuple[WideSite, ...]) -> tuple[TransferOrder, ...]:
    orders = []
    for number in range(OTHERS):
        source, target = dice.sample(sites, 2)
        size = round(dice.uniform(*OTHERS_GB) * GB)
        orders.append(TransferOrder(source=source.id, target=target.id, size_bytes=size, label=f"other {number}"))
    return tuple(orders)


def _lognormal(dice: Random, median: float, spread: float) -> float:
    return median * exp(dice.gauss(0, spread))
