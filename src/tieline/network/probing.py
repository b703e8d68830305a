"""Probing: who measures whom next, so that all of it together stays below 1 % of any link.

Time is cut into spans of a minute. In a span, a ledger holds the bytes that were handed out: of the links of each site
and reference point (its own probes and those that others send to it), and of the core, which is charged for everything.
A probe is handed out only where its most bytes, both directions together, still fit into all three::

    of a link of C bit/s, in a span      SHARE_PPM / 10^6 * C * 60 s / 8  bytes, with a share of 0.5 %

Proof. Whatever is sent over an access link has that site as an end, and was charged to it; whatever is sent over any
other link was charged to the core, whose capacity is that of the slowest link inside, so that it does not matter which
way packets take. A plan is carried out within a span of being asked for. So in any m spans what was charged in m + 2 is
sent at most, less than (m + 2) / m * 0.5 %: in any two minutes or more less than 1 %. For a moment a test of a rate
takes what it measures, bounded by its bytes.

Half of the core is for round trips, in equal parts. Half is for what is heavy (rates, path MTU), to one site after the
other in turn. What was never measured comes first, there those that seem near by coordinates; then what waits longest
in terms of how often it should be measured, the near ones more often. One of two sites with doors measures at a time,
each in its turn, so that either can refute the other: what one says delays the other by one turn at most.

A site of another exchange measures a door here under a pass of ours: it is charged to the door, to the core and to the
part of the core that is for such (`PEERS`), before the pass is given; and its own exchange charges it there.

Two sites without doors measure each other through the relay of the exchange: an upper bound, which says that there is a
way at all. Every byte of it goes over the core twice and is charged so, and all sites together have few such probes in
a span, since each is work for the exchange.

Cost: sorts the targets of one site; some 2 ms for 300 sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from tieline.model.reading import Method, Probe, ProbePlan
from tieline.model.topology import Topology

SPAN_MS: Final = 60_000
SHARE_PPM: Final = 5_000
ACCESS_BPS: Final = 100_000_000  # of whose links nothing is known
CORE_BPS: Final = 1_000_000_000
MOST_PROBES: Final = 64  # in one plan
FEW: Final = 16  # sites, up to which each looks again soon for something to measure
SOON_MS: Final = 5_000
NEAR: Final = 16  # sites that are measured often
NEAR_MS: Final = 300_000
FAR_MS: Final = 1_500_000
STREAM_MS: Final = 7_200_000  # round trips of TCP between doors
MTU_MS: Final = 6 * 3_600_000
RATE_NEAR_MS: Final = 3_600_000
RATE_FAR_MS: Final = 12 * 3_600_000
RELAY_MS: Final = 7_200_000

ECHO_BYTES: Final = 8_000  # ten echoes of 64 bytes, and opening the door
POINT_BYTES: Final = 6_000  # ten handshakes
MTU_BYTES: Final = 200_000
RATE_BYTES: Final = 2_000_000
RELAY_BYTES: Final = 16_000  # five echoes through the relay, and opening the door there
RELAYED_MOST: Final = 32  # probes through the relay, of all sites in a span
PEERS_SHARE: Final = 4  # one part in so many of the core is for sites of other exchanges
COUNTS: Final = {Method.MTU: 20, Method.RELAY: 5}
HEAVY: Final = (Method.RATE, Method.MTU)
CORE: Final = ""
PEERS: Final = "/peers"  # what sites of other exchanges measure here; with a peer's name behind it: of that one, half
RELAY: Final = "/relay"  # no name of a site or point
NEVER: Final = {  # as if so overdue
    Method.UDP: 1_000.0,
    Method.TCP: 998.0,
    Method.RATE: 996.0,
    Method.MTU: 994.0,
    Method.RELAY: 992.0,
}
UNHEARD: Final = 10.0  # of a way that only its other end has spoken of


class Side(NamedTuple):
    """What can be measured: a site with a door, one that is reached through the relay alone, or a reference point."""

    name: str
    address: str
    public: str = ""  # empty: a reference point
    is_relayed: bool = False

    @property
    def is_point(self) -> bool:
        """A reference point answers handshakes and nothing else."""
        return not self.public


class Links(NamedTuple):
    """The slowest link of each end, and of everything between; as they are stated, or assumed."""

    access_bps: Mapping[str, int] = {}
    core_bps: int = CORE_BPS

    def budget_bytes(self, name: str) -> int:
        """Most that is handed out in a span over the links of a name; `CORE`: in all; `RELAY`: by the relay."""
        if name == RELAY:
            return RELAYED_MOST * 2 * RELAY_BYTES
        if name.startswith(PEERS):
            return self.budget_bytes(CORE) // (PEERS_SHARE if name == PEERS else 2 * PEERS_SHARE)
        rate_bps = self.access_bps.get(name, ACCESS_BPS) if name else self.core_bps
        return rate_bps * SHARE_PPM * SPAN_MS // (8 * 1_000 * 1_000_000)


class Ledger:
    """What was handed out in the present span."""

    def __init__(self) -> None:
        self.span = -1
        self.used_bytes: dict[str, int] = {}
        self.asked: dict[str, None] = {}

    def turn(self, now_ms: int) -> None:
        """Let time pass; a clock that goes back begins nothing anew."""
        if now_ms // SPAN_MS > self.span:
            self.span = now_ms // SPAN_MS
            self.used_bytes, self.asked = {}, {}

    def take(self, links: Links, names: Sequence[str], size_bytes: int) -> bool:
        """Charge all of ``names``, or none where one has no room."""
        if any(self.used_bytes.get(name, 0) + size_bytes > links.budget_bytes(name) for name in names):
            return False
        for name in names:
            self.used_bytes[name] = self.used_bytes.get(name, 0) + size_bytes
        return True


Ended = Callable[[str, str, Method], int | None]  # source, target, method -> when the newest reading ended
Nearest = Callable[[str, Sequence[str], int], Sequence[str]]


class _Due(NamedTuple):
    urgency: float
    side: Side
    method: Method
    size_bytes: int


def links_of(topology: Topology | None) -> Links:
    """The slowest links that carry: of each site, and of the rest; of a topology without a core, of all."""
    if topology is None:
        return Links()
    site_of = {node.name: node.site for node in topology.nodes if node.site}
    access: dict[str, int] = {}
    inside: list[int] = []
    for link in topology.links:
        rates = (link.capacity_bps, link.capacity_bps if link.capacity_back_bps is None else link.capacity_back_bps)
        least_bps = min((rate for rate in rates if rate), default=0)
        ends = [site_of[end] for end in (link.a, link.b) if end in site_of]
        for site in ends if least_bps else ():
            access[site] = min(least_bps, access.get(site, least_bps))
        if least_bps and not ends:
            inside.append(least_bps)
    return Links(access, min(inside, default=min(access.values(), default=CORE_BPS)))


def planned(
    site: str,
    sides: Sequence[Side],
    sites: Sequence[str],
    ended_ms: Ended,
    nearest: Nearest,
    ledger: Ledger,
    links: Links,
    now_ms: int,
) -> ProbePlan:
    """What ``site`` measures in this span, charged to ``ledger``. Asked again within the span: nothing more.

    ``sites`` are all that may ask, ``sides`` all that can be measured; both in an order that stays the same.
    """
    ledger.turn(now_ms)
    again_ms = max(1_000, (ledger.span + 1) * SPAN_MS - now_ms + _offset_ms(site))
    if site in ledger.asked or site not in sites:
        return ProbePlan(at_ms=now_ms, again_ms=again_ms)
    first = {side.name: at for at, side in enumerate(_after(site, sides))}
    room_bytes = links.budget_bytes(CORE) // 2 // len(sites)
    has_turn = _has_turn(sites.index(site), len(sites), ledger.span, links.budget_bytes(CORE) // 2)
    due = sorted(
        _due(site, sides, ended_ms, nearest, ledger.span, now_ms, has_turn),
        key=lambda each: (-each.urgency, first[each.side.name]),
    )
    probes: list[Probe] = []
    for each in due:
        is_heavy = each.method in HEAVY
        if len(probes) == MOST_PROBES or (is_heavy and not has_turn) or (not is_heavy and each.size_bytes > room_bytes):
            continue
        names = (CORE, site, each.side.name, *((RELAY,) if each.side.is_relayed else ()))
        if ledger.take(links, names, each.size_bytes):
            probes.append(_probe(each))
            if is_heavy:
                has_turn = False
            else:
                room_bytes -= each.size_bytes
    if probes:
        ledger.asked[site] = None
    elif len(sites) <= FEW:
        again_ms = min(again_ms, SOON_MS)
    return ProbePlan(at_ms=now_ms, again_ms=again_ms, probes=tuple(probes))


def _after(site: str, sides: Sequence[Side]) -> list[Side]:
    """The same, from the one behind ``site`` on, so that not all begin with the same."""
    return [side for side in sides if side.name > site] + [side for side in sides if side.name <= site]


def _offset_ms(site: str) -> int:
    """Where in a span a site asks, so that not all ask at once."""
    return sum(site.encode()) * 7_919 % (SPAN_MS // 2)


def _has_turn(rank: int, count: int, span: int, room_bytes: int) -> bool:
    """Whether a site may do something heavy now: as many in a span as there is room for, one after the other."""
    width = min(count, room_bytes // RATE_BYTES)
    return (rank - span * width) % count < width


def _due(
    site: str,
    sides: Sequence[Side],
    ended_ms: Ended,
    nearest: Nearest,
    span: int,
    now_ms: int,
    has_turn: bool,
) -> Iterator[_Due]:
    """Everything that should be measured now, with how urgent it is; 1 is due. Without a turn nothing that is heavy."""
    doors = [side.name for side in sides if side.public and not side.is_relayed]
    near = dict.fromkeys(nearest(site, [name for name in doors if name != site], NEAR))
    has_door = site in doors
    for side in sides:
        if side.name == site or (side.is_relayed and has_door):  # it measures our door, without a relay
            continue
        for method, every_ms, size_bytes in _wanted(side, side.name in near):
            is_light = method not in HEAVY
            if not is_light and not has_turn:
                continue
            is_mutual = (has_door or side.is_relayed) and not side.is_point
            if is_light and is_mutual and not side.is_relayed and ((site < side.name) + span) % 2:
                continue  # the other end measures now
            mine = ended_ms(site, side.name, method)
            theirs = ended_ms(side.name, site, method) if is_mutual else None
            if side.is_relayed:  # decides nothing, so that it does not matter who says it
                mine, theirs = max((each for each in (mine, theirs) if each is not None), default=None), None
            if mine is None and theirs is None:
                urgency = NEVER[method] + (1 if side.name in near else 0)
            elif mine is None:
                urgency = UNHEARD
            else:
                urgency = (now_ms - mine) / _own_ms(every_ms, mine, theirs, is_first=site < side.name)
            if urgency >= 1:
                yield _Due(urgency, side, method, size_bytes)


def _own_ms(every_ms: int, mine_ms: int, theirs_ms: int | None, *, is_first: bool) -> int:
    """How long an end waits to measure again a way that both measure: twice as long as the way does, whatever the other
    end says that it measured meanwhile, since it may want to be heard alone. Where both measured at the same time, the
    first of them does so once more in between, so that from then on they take turns.
    """
    if theirs_ms is None or (is_first and abs(mine_ms - theirs_ms) < every_ms // 2):
        return every_ms
    return 2 * every_ms


def _wanted(side: Side, is_near: bool) -> tuple[tuple[Method, int, int], ...]:
    """Method, how often, most bytes."""
    if side.is_point:
        return ((Method.TCP, NEAR_MS, POINT_BYTES),)
    if side.is_relayed:
        return ((Method.RELAY, RELAY_MS, 2 * RELAY_BYTES),)
    return (
        (Method.UDP, NEAR_MS if is_near else FAR_MS, ECHO_BYTES),
        (Method.TCP, STREAM_MS, ECHO_BYTES),
        (Method.MTU, MTU_MS, MTU_BYTES),
        (Method.RATE, RATE_NEAR_MS if is_near else RATE_FAR_MS, RATE_BYTES),
    )


def _probe(due: _Due) -> Probe:
    side, method = due.side, due.method
    if method is Method.RATE:
        return Probe(
            target=side.name, method=method, address=side.address, public=side.public, count=1,
            most_bytes=due.size_bytes, packet_bytes=1_200,
        )  # fmt: skip
    return Probe(
        target=side.name, method=method, address=side.address, public=side.public,
        count=COUNTS.get(method, 10), most_bytes=RELAY_BYTES if side.is_relayed else due.size_bytes,
    )  # fmt: skip
