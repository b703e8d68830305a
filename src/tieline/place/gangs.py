"""Gangs: nodes of one gang over several sites, with the bandwidth between them, all or nothing.

At most so many sites are taken. Between every two of them there must be a rate and a round trip that the gang asks, and
the rates of all pairs must fit together. Which sites: those that cost least by the hour, by branch and bound over
sites. The bound is Lagrangian: at any price of a node, a site is worth what it would gain by selling its nodes at that
price, and no set of ``k`` sites gains more than the ``k`` best of those that are joined with all that were taken
already (Geoffrion, Mathematical Programming Study 2, 1974). A search that ends by itself has proven its answer; one
that is cut says how far off it may be.

The ways between the sites cost by the hour too, the same for every two: the fewer sites the fewer ways. An owner's
policy is asked about the part that its pool would take, as its site will ask: the most nodes that it admits are
looked for by halves, as if it admitted all below what it admits; where it does not, that pool is left out.

Cost: about 20 us for each set that is looked at; `MOST_LOOKS` bounds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from tieline.model.plan import Candidate
from tieline.model.protocol import MOST_MEMBERS, MOST_NODES
from tieline.model.reason import Reason, Value
from tieline.model.task import Span
from tieline.place.coded import Flags, Numbers, Rows
from tieline.place.demand import Demand, Need
from tieline.place.pipeline import LASTING, STEPS, Funnel, fitting, funnel, furthest, reasons_of
from tieline.place.policy import OwnerPolicy
from tieline.place.pools import Amount, Pools
from tieline.place.present import Free
from tieline.place.scene import Asking, Scene
from tieline.place.score import GB, HOUR_US, candidate
from tieline.place.terms import Terms
from tieline.ports import Distances

MOST_SITES: Final = 8
MOST_LOOKS: Final = 800
SHARES: Final = 96  # of the looks: no site that a set may begin with takes more than one of so many parts of them
PRICES: Final = 40  # of a node, at which the bound is tried
SCARCE: Final = (1.25, 1.5, 2.0, 4.0, 8.0)  # and of the highest, beyond it
MOST_ALTERNATIVES: Final = 8  # of a task, that are looked at
TRIES: Final = 4  # searches for one alternative: pools whose part turns out to be refused are left out of the next
NETWORK: Final = "host"  # nodes meet on it

NO_ROWS: Final[Rows] = np.zeros(0, np.int64)

Floats = NDArray[np.float64]
Hold = TypeVar("Hold")


class Room(Enum):
    """Of which room a gang is to be made."""

    NOW = "free"  # now
    IDLE = "open"  # what owners make available, whoever has it
    EVER = "total"  # what there is


class Between(Protocol[Hold]):
    """What is known of the ways between sites; see `network.joint`. ``Hold``: sites that are joined."""

    def takes_part(self, sites: Sequence[str]) -> Flags:
        """Which of ``sites`` can be in a gang over several sites at all."""

    def meeting(self, sites: Sequence[str]) -> Flags:
        """Which two of ``sites`` can carry bytes for each other's nodes at all: n x n, symmetric."""

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
    joined: Any = None  # its sites and maybe more, as `Between` holds them; None where no rate is asked

    @property
    def sites(self) -> tuple[str, ...]:
        """Its sites, in the order of its members."""
        return tuple(dict.fromkeys(member.candidate.site for member in self.members))

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
    between: Between[Any],
    *,
    now_ms: int,
    terms: Terms | None = None,
    way_micro_cny: int = 0,
    most_looks: int = MOST_LOOKS,
    held_back: Mapping[str, str] | None = None,
) -> Gang | NoGang:
    """Where the nodes of ``demand``, which has a span, go, or why nowhere. Nothing is held.

    ``way_micro_cny``: what a way between two sites costs by the hour. ``held_back``: pools that wait for others.
    """
    scene = Scene(pools, distances, now_ms, terms)
    scene.hold_back(held_back or {})
    return gang_in(scene, demand, between, way_micro_cny=way_micro_cny, most_looks=most_looks)


def gang_in(
    scene: Scene,
    demand: Demand,
    between: Between[Any],
    *,
    way_micro_cny: int = 0,
    most_looks: int = MOST_LOOKS,
    room: Room = Room.NOW,
) -> Gang | NoGang:
    """The same in a scene: the cheapest of its alternatives, or the first where they are ordered; sites where a run
    was lost come last. The looks are shared by the alternatives."""
    needs = demand.needs[:MOST_ALTERNATIVES]
    most_looks = max(1, most_looks // len(needs))
    avoided = _at_sites(scene.pools, demand.avoid)
    for left_out in (avoided, NO_ROWS) if len(avoided) else (NO_ROWS,):
        best: Gang | None = None
        refused: NoGang | None = None
        for need in needs:
            answer = _of_alternative(scene, demand, need, between, way_micro_cny, most_looks, room, left_out)
            if isinstance(answer, NoGang):
                refused = refused or answer
            elif best is None or answer.cost_micro_cny_per_hour < best.cost_micro_cny_per_hour:
                best = answer
                if demand.is_ordered:
                    break
        if best is not None:
            return best
    assert refused is not None
    return refused


def is_possible_gang(scene: Scene, demand: Demand, between: Between[Any]) -> bool:
    """Whether what exists here could ever hold it: enough nodes in all at sites of which every two may be joined."""
    for need in demand.needs[:MOST_ALTERNATIVES]:
        asking = _asking(scene, demand, need)
        rows = scene.pools.posting(need.asked).rows
        rows = fitting(asking, rows, [step for step in LASTING if step.asked(asking)])
        shelf = _shelf(asking, _able(asking, rows, between), demand.nodes, Room.EVER)
        if _Reach(shelf, demand, between).lack is None:
            return True
    return False


def _of_alternative(
    scene: Scene,
    demand: Demand,
    need: Need,
    between: Between[Any],
    way_micro_cny: int,
    most_looks: int,
    room: Room,
    left_out: Rows,
) -> Gang | NoGang:
    asking = _asking(scene, demand, need)
    for _ in range(TRIES):
        search = _Search(asking, demand, between, way_micro_cny, most_looks, room, left_out)
        answer = search.answer()
        if isinstance(answer, NoGang):
            return answer
        wrong = search.wrong(answer)
        if not len(wrong):
            return answer
        left_out = np.concatenate([left_out, wrong])
    return search.refused("gang_joint", demand.nodes, rate_bps=_span(demand).rate_bps)


def _asking(scene: Scene, demand: Demand, need: Need) -> Asking:
    """One node of an alternative, as the owner of a pool is asked about it."""
    one = _one(need, demand.nodes)
    values = tuple(_part(each, one, 1) if at == need.index else each for at, each in enumerate(demand.values))
    return Asking(scene, msgspec.structs.replace(demand, nodes=1, network=NETWORK, values=values), one)


def _part(values: dict[str, Any], one: Need, nodes: int) -> dict[str, Any]:
    """What an owner's policy reads of so many nodes of an alternative: what its own site will read."""
    amount = one.amount
    part = {
        "accelerators": amount.accelerators * nodes,
        "cores": amount.cores * nodes,
        "memory": amount.memory_bytes * nodes,
        "disk": one.disk_bytes * nodes,
        "nodes": nodes,
        "network": NETWORK,
    }
    return values | part


def _span(demand: Demand) -> Span:
    assert demand.span is not None, demand.id
    return demand.span


def _at_sites(pools: Pools, sites: Sequence[str]) -> Rows:
    """The pools of some sites."""
    if not sites:
        return NO_ROWS
    column = pools.table.texts("site")
    codes = [code for code in map(column.code, sites) if code > 0]
    live = pools.live
    return live[np.isin(column.codes[live], codes)]


def _able(asking: Asking, rows: Rows, between: Between[Any]) -> Rows:
    """Those of ``rows`` whose sites can be in a gang over several sites at all."""
    column = asking.pools.table.texts("site")
    kinds, site = np.unique(column.codes[rows], return_inverse=True)
    if not len(kinds):
        return rows
    return rows[between.takes_part([asking.scene.sites[code] for code in kinds.tolist()])[site]]


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


class _Reach:
    """Whether there are enough nodes at all: the checks that need no search."""

    def __init__(self, shelf: Shelf, demand: Demand, between: Between[Any]) -> None:
        span, wanted = _span(demand), demand.nodes
        self.most = most = max(1, min(span.sites, MOST_SITES))
        self.near: Flags = np.zeros((0, 0), np.bool_)
        self.reach = self.least = 0  # nodes at most at sites that may be joined; sites that it takes at least
        count = len(shelf.names)
        self.supply = np.bincount(shelf.site, shelf.nodes, count).astype(np.int64) if count else np.zeros(0, np.int64)
        self.lack = self._lacks(shelf, span, wanted, between, most)

    def _lacks(
        self, shelf: Shelf, span: Span, wanted: int, between: Between[Any], most: int
    ) -> tuple[str, int, dict[str, Value]] | None:
        """(code, how many nodes at most, values) of what is short; None: nothing."""
        supply = self.supply
        if supply.sum() < wanted:
            return "gang_nodes", int(supply.sum()), {}
        top = np.sort(supply)[::-1].cumsum()
        if wanted > MOST_NODES or np.sort(shelf.nodes)[-MOST_MEMBERS:].sum() < wanted:
            return "gang_large", MOST_NODES, {"parts": MOST_MEMBERS}
        if top[min(most, len(top)) - 1] < wanted:
            return "gang_sites", int(top[min(most, len(top)) - 1]), {"sites": most}
        self.least = int((top < wanted).sum()) + 1
        count = len(supply)
        itself = np.eye(count, dtype=np.bool_)
        meeting = between.meeting(shelf.names) | itself
        if not meeting.all() and (reach := _reach(meeting, supply, most)) < wanted:
            return "gang_unmet", reach, {}
        self.near = between.allowed(shelf.names, span) & meeting | itself
        self.reach = _reach(self.near, supply, most)
        if self.reach < wanted:
            return "gang_apart", self.reach, {"rate_bps": span.rate_bps, "rtt_us": span.rtt_us}
        return None


def _reach(near: Flags, supply: Numbers, most: int) -> int:
    """How many nodes there are at most at a site and ``most`` - 1 others that are near it."""
    return max(int(np.sort(supply[near[at]])[-most:].sum()) for at in range(len(supply)))


class _Search(Generic[Hold]):
    """One alternative: the sets of sites that may be cheapest, the most promising first."""

    def __init__(
        self,
        asking: Asking,
        demand: Demand,
        between: Between[Hold],
        way_micro_cny: int,
        most_looks: int,
        room: Room,
        left_out: Rows,
    ) -> None:
        self._asking, self._demand, self._between, self._span = asking, demand, between, _span(demand)
        self._wanted = demand.nodes
        self._funnel = _fitting(asking, room)
        rows = _able(asking, self._funnel.fitting, between)
        self._unable = len(self._funnel.fitting) - len(rows)
        if len(left_out):
            rows = rows[~np.isin(rows, left_out)]
        self._shelf = _shelf(asking, rows, self._wanted, room)
        self._way = way_micro_cny
        self._least_ways = 0.0  # what the ways cost at least
        self._left = most_looks
        self._share = max(1, most_looks // SHARES)
        self._looks, self._until = 0, 0
        self._best: tuple[float, Numbers, Hold] | None = None  # cost, nodes of each row, and how sites are joined
        self._is_large = False  # sites were found that hold it in more pools than it may have
        self._open = np.inf  # the least bound of what was not looked at, or could not be joined

    def answer(self) -> Gang | NoGang:
        """Search, or say what is short."""
        shelf, found = self._shelf, _Reach(self._shelf, self._demand, self._between)
        if found.lack is not None:
            code, most, values = found.lack
            return self.refused(code, most, **values)
        joins = np.minimum(self._between.most_joined(shelf.names, self._span) + 1, found.most)
        if not self._span.rate_bps:
            joins[:] = found.most
        self._least_ways = self._way * _pairs(found.least)
        self._anchored(found.near, found.supply, joins)
        if self._best is None and self._is_large:
            return self.refused("gang_large", MOST_NODES, parts=MOST_MEMBERS)
        if self._best is None:
            return self.refused("gang_joint", found.reach, rate_bps=self._span.rate_bps)
        cost, taken, held = self._best
        return Gang(
            demand=self._demand.id,
            members=self._members(taken),
            cost_micro_cny_per_hour=round(cost),
            bound_micro_cny_per_hour=round(min(cost, self._open)),
            looks=self._looks,
            joined=held if self._span.rate_bps else None,
        )

    def wrong(self, found: Gang) -> Rows:
        """Members that cannot take their part after all: by their owner's word on so many nodes, or by their data."""
        asking, pools = self._asking, self._asking.pools
        values = asking.values
        wrong = []
        for member in found.members:
            row = pools.index(member.candidate.pool)
            assert row is not None
            is_admitted = pools.policy.of(row).admits(_part(values, asking.need, member.nodes)) is True
            if not is_admitted or (asking.is_moving and not len(asking.reached(np.array([row], np.int64)))):
                wrong.append(row)
        return np.array(wrong, np.int64)

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
        bound_of = bound_of + self._least_ways
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
            self._looked(taken, held)
        places = int(facts.joins[taken].min()) - len(taken)
        sold = facts.worth - float(gain[taken].sum()) + self._least_ways
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

    def _looked(self, sites: list[int], held: Hold) -> None:
        """Fill a set of joined sites from the cheapest node on; keep it where it is the best so far.

        Where that takes more pools than a gang may have, the largest ones are filled first: others might cost less.
        """
        shelf = self._shelf
        is_in = np.zeros(len(shelf.names), np.bool_)
        is_in[sites] = True
        at = np.flatnonzero(is_in[shelf.site])
        given, cost = self._filled(at)
        if np.count_nonzero(given) > MOST_MEMBERS:
            self._open = min(self._open, cost)
            at = at[np.argsort(-shelf.nodes[at], kind="stable")]
            given, cost = self._filled(at)
            if np.count_nonzero(given) > MOST_MEMBERS:
                self._is_large = True
                return
        if self._best is not None and cost >= self._best[0]:
            return
        taken = np.zeros(len(shelf.rows), np.int64)
        taken[at] = given
        self._best = cost, taken, held

    def _filled(self, at: Numbers) -> tuple[Numbers, float]:
        """What is taken of some rows, the first of them first, and what that costs."""
        shelf = self._shelf
        before = np.cumsum(shelf.nodes[at]) - shelf.nodes[at]
        given: Numbers = np.clip(self._wanted - before, 0, shelf.nodes[at])
        used = np.unique(shelf.site[at[given > 0]])
        ways = self._way * _pairs(len(used))
        return given, float((given * shelf.price[at]).sum()) + float(shelf.fixed[used].sum()) + ways

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

    def refused(self, code: str, most: int, **values: Value) -> NoGang:
        """Why there is none: pools that hold a node are counted under ``code``, the others where they fell out."""
        live = self._asking.pools.live
        losses = furthest([self._funnel], self._asking.pools.table.capacity)
        reasons = reasons_of(losses, self._demand, len(live))
        able = len(self._funnel.fitting) - self._unable
        if self._unable:
            reasons = (Reason(code="gang_no_part", count=self._unable), *reasons)
        if able:
            asked: dict[str, Value] = {"asked": self._wanted, "most": most, **values}
            reasons = (Reason(code=code, count=able, values=asked), *reasons)
        return NoGang(demand=self._demand.id, considered=len(live), reasons=reasons)


def _pairs(sites: int) -> int:
    return sites * (sites - 1) // 2


def _fitting(asking: Asking, room: Room) -> Funnel:
    """The pools that hold a node: now, or if nobody had anything of them."""
    if room is Room.NOW:
        return funnel(asking, asking.pools.live)
    steps = [step for step in STEPS if not isinstance(step, Free) and step.asked(asking)]
    return Funnel(asking, fitting(asking, asking.pools.posting(asking.need.asked).rows, steps), [])


def _shelf(asking: Asking, rows: Rows, wanted: int, room: Room) -> Shelf:
    pools, need = asking.pools, asking.need
    fits = np.full(len(rows), wanted, np.int64)
    for dimension, each in zip((pools.accelerators, pools.cores, pools.memory), need.amount, strict=True):
        if each:
            there: Numbers = getattr(dimension, room.value)
            fits = np.minimum(fits, there[rows] // each)
    if pools.policies:
        fits = _admitted(asking, rows, fits)
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


def _admitted(asking: Asking, rows: Rows, fits: Numbers) -> Numbers:
    """The nodes that fit of each row, as far as its owner's policy admits them; one node is admitted everywhere."""
    codes = asking.pools.policy.codes[rows]
    for code in np.unique(codes).tolist():
        policy = asking.pools.policy.words[code]
        mine = codes == code
        if policy.text and len(fits[mine]) and (most := int(fits[mine].max())) > 1:
            fits[mine] = np.minimum(fits[mine], _most_admitted(asking, policy, most))
    return fits


def _most_admitted(asking: Asking, policy: OwnerPolicy, most: int) -> int:
    """The most nodes up to ``most`` that a policy admits, if it admits all that is less than what it admits."""
    low, high = 1, most
    while low < high:
        middle = most if high == most and low == 1 else (low + high + 1) // 2
        if policy.admits(_part(asking.values, asking.need, middle)) is True:
            low = middle
        else:
            high = middle - 1
    return low


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
