"""Gangs: nodes of one gang over several sites, with the bandwidth between them, all or nothing.

At most so many sites are taken. Between every two of them there must be a rate and a round trip that the gang asks, and
the rates of all pairs must fit together. Which sites: those that cost least by the hour, by branch and bound over
sites. The bound is Lagrangian: at any price of a node, a site is worth what it would gain by selling its nodes at that
price, and no set of ``k`` sites gains more than the ``k`` best of those that are joined with all that were taken
already (Geoffrion, Mathematical Programming Study 2, 1974). A search that ends by itself has proven its answer; one
that is cut says how far off it may be.

Cost: about 20 us for each set that is looked at; `MOST_LOOKS` bounds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from tieline.model.plan import Candidate
from tieline.model.reason import Reason
from tieline.place.coded import Flags, Numbers, Rows
from tieline.place.demand import Demand, Need
from tieline.place.pipeline import funnel, furthest, reasons_of
from tieline.place.pools import Amount, Pools
from tieline.place.scene import MOST, Asking, Scene
from tieline.place.score import GB, HOUR_US, candidate
from tieline.place.terms import Terms
from tieline.ports import Distances

MOST_SITES: Final = 8
MOST_LOOKS: Final = 800
SHARES: Final = 96  # of the looks: no site that a set may begin with takes more than one of so many parts of them
PRICES: Final = 40  # of a node, at which the bound is tried
SCARCE: Final = (1.25, 1.5, 2.0, 4.0, 8.0)  # and of the highest, beyond it

Floats = NDArray[np.float64]
Hold = TypeVar("Hold")


class Span(NamedTuple):
    """What a gang asks of its sites."""

    most_sites: int = MOST_SITES
    rate_bps: int = 0  # between every two sites, both ways, at once
    most_rtt_us: int = 0  # 0: whatever


class Between(Protocol[Hold]):
    """What is known of the ways between sites; see `network.joint`. ``Hold``: sites that are joined."""

    def allowed(self, sites: Sequence[str], span: Span) -> Flags:
        """Which two of ``sites`` have the rate and the round trip, each pair as if it were alone: n x n, symmetric."""

    def most_joined(self, sites: Sequence[str], span: Span) -> Numbers:
        """With how many others each of ``sites`` can be joined at most."""

    def first(self, site: str) -> Hold:
        """One site alone."""

    def extended(self, held: Hold, site: str, span: Span) -> Hold | None:
        """One site more, joined with all of them at once; None where there is no room for that."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """What one pool gives to a gang."""

    candidate: Candidate
    nodes: int
    amount: Amount  # over its nodes


class Gang(msgspec.Struct, frozen=True, kw_only=True):
    """Where a gang goes, by site and price. ``bound`` is what no choice of sites undercuts."""

    demand: str
    members: tuple[Member, ...]
    cost_micro_cny_per_hour: int
    bound_micro_cny_per_hour: int
    looks: int

    @property
    def gap(self) -> float:
        """How far above the bound it may be, as a share of its cost; 0: proven."""
        cost = self.cost_micro_cny_per_hour
        return (cost - self.bound_micro_cny_per_hour) / cost if cost else 0.0


class NoGang(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is none now. The counts of the reasons add up to ``considered``."""

    demand: str
    considered: int
    reasons: tuple[Reason, ...]


class Shelf(NamedTuple):
    """Pools that hold at least one node, the cheapest first, and their sites."""

    rows: Rows
    site: Numbers  # of each row, as a place in `names`
    price: Numbers  # micro-yuan of a node for an hour
    nodes: Numbers  # that fit now, none beyond what the gang needs of its site
    fixed: Floats  # of each site: what bringing the data costs, spread over the hours
    names: list[str]


def gang(
    demand: Demand,
    pools: Pools,
    distances: Distances,
    between: Between[Hold],
    span: Span,
    *,
    now_ms: int,
    terms: Terms | None = None,
    most_looks: int = MOST_LOOKS,
) -> Gang | NoGang:
    """Where ``demand.nodes`` nodes of its first alternative that fits go, or why nowhere. Nothing is held."""
    scene = Scene(pools, distances, now_ms, terms)
    refused: NoGang | None = None
    for need in demand.needs:
        asking = Asking(scene, msgspec.structs.replace(demand, nodes=1), _one(need, demand.nodes))
        answer = _Search(asking, demand, between, span, most_looks).answer()
        if isinstance(answer, Gang):
            return answer
        refused = refused or answer
    assert refused is not None
    return refused


def _one(need: Need, nodes: int) -> Need:
    """One node of an alternative whose amounts are over all nodes."""
    amount = Amount(*(each // nodes for each in need.amount))
    return msgspec.structs.replace(
        need, amount=amount, unit_count=need.unit_count // nodes, disk_bytes=need.disk_bytes // nodes
    )


class _Facts(NamedTuple):
    """Of the sites, at one price of a node."""

    gain: Floats
    worth: float  # of all nodes at that price
    near: Flags
    supply: Numbers  # nodes
    joins: Numbers  # how many sites a set with this one can have


class _Search(Generic[Hold]):
    """One alternative: the sets of sites that may be cheapest, the most promising first."""

    def __init__(self, asking: Asking, demand: Demand, between: Between[Hold], span: Span, most_looks: int) -> None:
        self._asking, self._demand, self._between, self._span = asking, demand, between, span
        self._wanted = demand.nodes
        self._funnel = funnel(asking, asking.pools.live)
        self._shelf = _shelf(asking, self._admitted(), self._wanted)
        self._left = most_looks
        self._share = max(1, most_looks // SHARES)
        self._looks, self._until = 0, 0
        self._best: tuple[float, Numbers] | None = None  # cost, and nodes of each row
        self._open = np.inf  # the least bound of what was not looked at, or could not be joined

    def answer(self) -> Gang | NoGang:
        """Search, or say what is short."""
        shelf, wanted, most = self._shelf, self._wanted, max(1, min(self._span.most_sites, MOST_SITES))
        count = len(shelf.names)
        supply = np.bincount(shelf.site, shelf.nodes, count).astype(np.int64) if count else np.zeros(0, np.int64)
        if supply.sum() < wanted:
            return self._refused("gang_nodes", int(supply.sum()))
        top = int(np.sort(supply)[-most:].sum())
        if top < wanted:
            return self._refused("gang_sites", top, sites=most)
        near = self._between.allowed(shelf.names, self._span) | np.eye(count, dtype=np.bool_)
        reach = max(int(np.sort(supply[near[at]])[-most:].sum()) for at in range(count))
        if reach < wanted:
            return self._refused("gang_apart", reach, rate_bps=self._span.rate_bps, rtt_us=self._span.most_rtt_us)
        joins = np.minimum(self._between.most_joined(shelf.names, self._span) + 1, most)
        if not self._span.rate_bps:
            joins[:] = most
        self._anchored(near, supply, joins)
        if self._best is None:
            return self._refused("gang_joint", reach, rate_bps=self._span.rate_bps)
        cost, taken = self._best
        return Gang(
            demand=self._demand.id,
            members=self._members(taken),
            cost_micro_cny_per_hour=round(cost),
            bound_micro_cny_per_hour=round(min(cost, self._open)),
            looks=self._looks,
        )

    def _anchored(self, near: Flags, supply: Numbers, joins: Numbers) -> None:
        """Sets by one of their sites, the one with the lowest bound first; then without that site."""
        gains, prices = _gains(self._shelf)
        order = np.argsort(-gains, axis=1, kind="stable")
        beside = near & ~np.eye(len(supply), dtype=np.bool_)
        bounds = np.full((len(prices), len(supply)), -np.inf)
        for level, price in enumerate(prices.tolist()):
            # A site, and the best of those that it is joined with.
            ranked, joined = gains[level][order[level]], beside[:, order[level]]
            is_first = joined & (joined.cumsum(axis=1) < joins[:, None])
            bounds[level] = price * self._wanted - gains[level] - (ranked * is_first).sum(axis=1)
        level_of, bound_of = bounds.argmax(axis=0), bounds.max(axis=0)
        is_left = np.ones(len(supply), np.bool_)
        for anchor in np.lexsort((np.arange(len(supply)), bound_of)).tolist():
            if self._best is not None and bound_of[anchor] >= self._best[0]:
                break
            is_left[anchor] = False
            if self._left <= 0:
                self._open = min(self._open, float(bound_of[anchor]))
                continue
            level = int(level_of[anchor])
            self._until = self._left - min(self._left, self._share)
            facts = _Facts(gains[level], float(prices[level]) * self._wanted, near, supply, joins)
            free = order[level][(beside[anchor] & is_left)[order[level]]]
            self._deepened([anchor], self._between.first(self._shelf.names[anchor]), free, facts)

    def _deepened(self, taken: list[int], held: Hold, free: Numbers, facts: _Facts) -> None:
        """Sets that hold ``taken`` and some of ``free`` (by gain), all joined with each other."""
        gain, near, supply = facts.gain, facts.near, facts.supply
        have = int(supply[taken].sum())
        if have >= self._wanted:
            self._looked(taken)
        places = int(facts.joins[taken].min()) - len(taken)
        sold = facts.worth - float(gain[taken].sum())
        while len(free) and places > 0:
            bound = sold - float(gain[free[:places]].sum())
            if self._best is not None and bound >= self._best[0]:
                return
            lacks = self._wanted - have
            if lacks > 0 and int(np.sort(supply[free])[-places:].sum()) < lacks:
                return
            if self._left <= self._until:
                self._open = min(self._open, bound)
                return
            first, free = int(free[0]), free[1:]
            self._left -= 1
            self._looks += 1
            more = held if not self._span.rate_bps else None
            if more is None:
                more = self._between.extended(held, self._shelf.names[first], self._span)
            if more is not None:
                self._deepened([*taken, first], more, free[near[first][free]], facts)
            else:  # another order of joining might do: it counts as not looked at
                least = sold - float(gain[first]) - float(gain[free[: places - 1]].sum())
                self._open = min(self._open, least)

    def _looked(self, sites: list[int]) -> None:
        """Fill a set of joined sites from the cheapest node on; keep it where it is the best so far."""
        shelf = self._shelf
        is_in = np.zeros(len(shelf.names), np.bool_)
        is_in[sites] = True
        at = np.flatnonzero(is_in[shelf.site])
        before = np.cumsum(shelf.nodes[at]) - shelf.nodes[at]
        given = np.clip(self._wanted - before, 0, shelf.nodes[at])
        used = np.unique(shelf.site[at[given > 0]])
        cost = float((given * shelf.price[at]).sum()) + float(shelf.fixed[used].sum())
        if self._best is not None and cost >= self._best[0]:
            return
        taken = np.zeros(len(shelf.rows), np.int64)
        taken[at] = given
        self._best = cost, taken

    def _admitted(self) -> Rows:
        rows = self._funnel.fitting
        return rows[self._asking.pools.policy.test(rows, lambda policy: self._asking.admits(policy) is True)]

    def _members(self, taken: Numbers) -> tuple[Member, ...]:
        shelf, need = self._shelf, self._asking.need
        chosen = [at for at in np.lexsort((shelf.rows, shelf.price, shelf.site)).tolist() if taken[at]]
        members = []
        for at in chosen:
            nodes = int(taken[at])
            found = candidate(self._asking, int(shelf.rows[at]), is_chosen=True)
            amount = Amount(*(each * nodes for each in need.amount))
            found = msgspec.structs.replace(
                found, unit_count=found.unit_count * nodes, cost_micro_cny_per_hour=int(shelf.price[at]) * nodes
            )
            members.append(Member(candidate=found, nodes=nodes, amount=amount))
        return tuple(members)

    def _refused(self, code: str, most: int, **values: int | str) -> NoGang:
        live = self._asking.pools.live
        losses = furthest([self._funnel], self._asking.pools.table.capacity)
        reasons = reasons_of(losses, self._demand, len(live))
        if len(self._funnel.fitting):
            asked: dict[str, int | str] = {"asked": self._wanted, "most": most, **values}
            reasons = (Reason(code=code, count=len(self._funnel.fitting), values=asked), *reasons)
        return NoGang(demand=self._demand.id, considered=len(live), reasons=reasons)


def _shelf(asking: Asking, rows: Rows, wanted: int) -> Shelf:
    pools, need = asking.pools, asking.need
    fits = np.full(len(rows), MOST, np.int64)
    for dimension, each in zip((pools.accelerators, pools.cores, pools.memory), need.amount, strict=True):
        if each:
            fits = np.minimum(fits, dimension.free[rows] // each)
    price = asking.hourly(rows)
    order = np.lexsort((pools.rank[rows], price))
    rows, fits, price = rows[order], fits[order], price[order]
    codes = pools.table.texts("site").codes[rows]
    kinds, site = np.unique(codes, return_inverse=True)
    left = np.full(len(kinds), wanted, np.int64)
    for at, where in enumerate(site.tolist()):  # no site sells more than all that is wanted
        fits[at] = min(int(fits[at]), int(left[where]))
        left[where] -= fits[at]
    names = [asking.scene.sites[code] for code in kinds.tolist()]
    return Shelf(rows, site.astype(np.int64), price, fits, _fixed(asking, kinds), names)


def _fixed(asking: Asking, codes: NDArray[np.int32]) -> Floats:
    """What bringing the data to each site costs by the hour of the work, whoever waits for it."""
    if not asking.is_moving or not len(codes):
        return np.zeros(len(codes))
    terms, moves = asking.scene.terms, asking.scene.moves(asking.load, codes)
    once = moves.time_us * (terms.hour_micro_cny / HOUR_US) + moves.size_bytes * (terms.transfer_micro_cny_per_gb / GB)
    hours = (asking.demand.max_duration_s or terms.expected_s) / 3_600
    return np.asarray((once + moves.price_micro_cny) / hours, np.float64)


def _gains(shelf: Shelf) -> tuple[Floats, Floats]:
    """What each site gains when a node is worth a price, for several prices: prices x sites; and the prices."""
    there = np.unique(np.quantile(shelf.price.astype(np.float64), np.linspace(0, 1, PRICES), method="higher"))
    # Where few places are to hold many nodes, a node is worth more than any costs.
    prices = np.concatenate([there, (there[-1] + 1.0) * np.array(SCARCE)]).astype(np.float64)
    gains = np.zeros((len(prices), len(shelf.names)))
    for level, price in enumerate(prices.tolist()):
        more = np.maximum(price - shelf.price, 0.0) * shelf.nodes
        gains[level] = np.maximum(np.bincount(shelf.site, more, len(shelf.names)) - shelf.fixed, 0.0)
    return gains, prices
