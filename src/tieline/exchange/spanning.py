"""Spanning: gangs over several pools, booked whole or not at all: cards, the circuits between their sites, and data.

::

    no single pool has room  -->  where its nodes go (`place.gangs`), over what is free of the network (`joining`)
                             -->  what each part may cost and how long all may last
                             -->  a circuit for every two sites, transfers of its data, then a run in each pool

All that is counted on is held for the rest of the pass, and becomes real by the events in this order. Nobody else's
transfer or circuit is moved for a gang.

Money: what the job may still cost, and what its project has left, goes to members and circuits by what each costs an
hour, so that all of it lasts equally long. All members stop after the same time, which is what their sum pays for, the
circuits included, and their time until the last owner has answered and the last member has its bytes; so the parts
never come to more than the whole.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from tieline.exchange.bookings import MOST_CIRCUITS, dearest
from tieline.exchange.bringing import brought
from tieline.exchange.jobrow import JobRow
from tieline.exchange.joining import Joining, mtu_of
from tieline.exchange.offering import longest_s, new_run
from tieline.exchange.orders import as_gang
from tieline.exchange.view import View
from tieline.market.rating import HOUR_S, MAX_STOP_S, ROUNDING_S, charge_of
from tieline.model.circuit import Circuit, CircuitOrder, Route
from tieline.model.event import CircuitChanged, Events, RunOffered, TransferChanged
from tieline.model.job import Job, Run
from tieline.model.plan import PlannedGang, PlannedMember, PlannedWay
from tieline.model.reason import Reason
from tieline.model.tariff import Hours
from tieline.model.task import Span
from tieline.model.transfer import TrafficClass
from tieline.place import Demand
from tieline.place.choose import Choosing
from tieline.place.gangs import Gang, NoGang, Room
from tieline.place.share import NO_BOUND, Left
from tieline.ports import Ids

if TYPE_CHECKING:
    from tieline.network.calendar import Calendar

replace = msgspec.structs.replace

LOOKS: Final = 400  # at sets of sites, for one gang
STAGING_S: Final = 3_600  # that circuits stay for members whose own time begins late: their bytes had to come first
MENDING: Final = "network_mending"
NETWORK: Final = ("gang_apart", "gang_joint")  # what is short is of the network


class Way(NamedTuple):
    """What would be booked between two sites."""

    a: str
    b: str
    route: Route


class Lasting(NamedTuple):
    """How long a gang may last, and what that holds."""

    stop_s: int  # after which its members are stopped; 0: never
    held_micro_cny: tuple[int, ...]  # of each member
    ways_micro_cny: int  # of the circuits together


class Found(NamedTuple):
    """A gang with all that is to be booked for it."""

    gang: Gang
    ways: tuple[Way, ...]
    lasting: Lasting


class Spanning:
    """The gangs of one pass."""

    def __init__(self, view: View, choosing: Choosing, now_ms: int, ids: Ids) -> None:
        self._view, self._choosing, self._now_ms, self._ids = view, choosing, now_ms, ids

    def booked(self, row: JobRow, demand: Demand, left: Left = NO_BOUND) -> list[Events] | None:
        """The events that book a gang for a job which no single pool has room for; None: there is none now.

        ``left`` is what its project may still use up this month. What is booked is held until the pass ends.
        """
        view, now_ms = self._view, self._now_ms
        found = find(view, self._choosing, demand, now_ms, left)
        if isinstance(found, NoGang):
            view.network.is_mend_awaited |= any(reason.code == MENDING for reason in found.reasons)
            return None
        job = view.jobs[row.id]
        runs = runs_of(view, job, found, now_ms)
        self._choosing.hold(found.gang)
        events: list[Events] = []
        for circuit in circuits_of(view, job, demand, found, runs, now_ms, self._ids):
            view.network.hold_circuit(circuit)
            events.append(CircuitChanged(circuit=circuit, why=f"joins the gang of {job.id}"))
        transfers = self._brought(job, found, runs, left)
        if events or transfers:
            self._choosing.unsettle()
        offers = (RunOffered(run=run, held_micro_cny=run.held_micro_cny) for run in runs)
        return [*events, *transfers, *offers]

    def pass_over(self, row: JobRow) -> None:
        """A gang has its turn in the next pass; the pools that wait for it go on doing so in this one."""
        self._choosing.hold_back({pool: job for pool, job in self._view.held_back.items() if job == row.id})

    def keep(self, row: JobRow, demand: Demand, left: Left = NO_BOUND) -> None:
        """Let pools wait for a gang that found no room and has waited for long, and no other ones any more."""
        pools: tuple[str, ...] = ()
        if self._choosing.may_keep(demand):
            found = find(self._view, self._choosing, demand, self._now_ms, left, room=Room.IDLE)
            pools = self._choosing.keep(demand, found.gang) if isinstance(found, Found) else ()
        self._view.supply.version += self._view.keep_back(row.id, pools)

    def _brought(self, job: Job, found: Found, runs: tuple[Run, ...], left: Left) -> list[TransferChanged]:
        """The transfers that bring its data to each of its sites, once."""
        room = None if left.micro_cny is None else left.micro_cny - sum(run.pledged_micro_cny for run in runs)
        events: list[TransferChanged] = []
        sites: dict[str, None] = {}
        for run, member in zip(runs, found.gang.members, strict=True):
            if run.site not in sites and member.candidate.transfers:
                events += brought(self._view, job, run, member.candidate, self._now_ms, self._ids, room)
            sites[run.site] = None
        return events


def find(
    view: View, choosing: Choosing, demand: Demand, now_ms: int, left: Left, *, room: Room = Room.NOW
) -> Found | NoGang:
    """Where a gang goes, over what, and for how long; or why nowhere. Nothing is held."""
    span = span_of(demand)
    calendar = view.network.calendar_at(now_ms) if span.rate_bps else None
    if calendar is not None and (waiting := calendar.waiting().total):
        return _refused(demand, choosing, Reason(code=MENDING, values={"waiting": waiting}))  # who came first
    cards = max(need.amount.accelerators for need in demand.needs)
    limit_s = longest_s(demand.max_duration_s, demand.deadline_ms, cards, demand.grace_s, now_ms, left)
    ends_ms = _ends_ms(view, demand, limit_s, now_ms)
    joining = Joining(view, now_ms, ends_ms)
    price_micro_cny = way_price(view, span)
    answer = choosing.gang(demand, joining, way_micro_cny=price_micro_cny, most_looks=LOOKS, room=room)
    if isinstance(answer, NoGang):
        if calendar is None or not any(reason.code in NETWORK for reason in answer.reasons):
            return answer
        view.network.await_room(now_ms)
        return _by_packets(calendar, choosing, demand, Joining(view, now_ms, ends_ms, mtu_bytes=0), answer, room)
    ways = () if calendar is None else _ways(calendar, answer)
    if len(view.network.circuits) + len(view.network.held_circuits) + len(ways) > MOST_CIRCUITS:
        return _refused(demand, choosing, Reason(code="gang_circuits", values={"most": MOST_CIRCUITS}))
    lasting = _lasting(view, demand, answer, limit_s, len(ways) * way_dearest(view, span))
    return _refused(demand, choosing, lasting) if isinstance(lasting, Reason) else Found(answer, ways, lasting)


def _by_packets(
    calendar: Calendar, choosing: Choosing, demand: Demand, joining: Joining, answer: NoGang, room: Room
) -> NoGang:
    """The same refusal, by its own name where links for small packets are in the way; ``joining`` has those too."""
    needed_bytes = mtu_of(span_of(demand))
    if all(link.mtu_bytes >= needed_bytes for link in calendar.wires.topology.links):
        return answer
    other = choosing.gang(demand, joining, way_micro_cny=0, most_looks=1, room=room)
    short = [reason.code for reason in other.reasons if reason.code in NETWORK] if isinstance(other, NoGang) else []
    reasons = tuple(
        replace(each, code="gang_mtu", values={**each.values, "needed_bytes": needed_bytes})
        if each.code in NETWORK and each.code not in short
        else each
        for each in answer.reasons
    )
    return replace(answer, reasons=reasons)


def span_of(demand: Demand) -> Span:
    """What its nodes ask of each other."""
    assert demand.span is not None, demand.id
    return demand.span


def _refused(demand: Demand, choosing: Choosing, why: Reason) -> NoGang:
    """What stands in the way, wherever there may be room."""
    count = choosing.considered
    return NoGang(demand=demand.id, considered=count, reasons=(replace(why, count=count),))


def _ends_ms(view: View, demand: Demand, stop_s: int, now_ms: int) -> int:
    """When the last of its members is over at the latest; 0: whenever."""
    last_s = _staging_s(stop_s) + stop_s + demand.grace_s + ROUNDING_S
    return now_ms + view.limits.offer_ttl_ms + last_s * 1_000 if stop_s else 0


def _staging_s(stop_s: int) -> int:
    """How late after all have accepted a member's own time may begin; a site stages no longer than it would run."""
    return min(stop_s, STAGING_S)


# -- ways -------------------------------------------------------------------------------------------------------------


def way_price(view: View, span: Span) -> int:
    """Micro-yuan for an hour of a circuit between two sites, at the plain hour."""
    if not span.rate_bps:
        return 0
    from tieline.network.tariff import circuit_price

    return circuit_price(view.network.tariff, CircuitOrder(a="", b="", rate_bps=span.rate_bps))


def way_dearest(view: View, span: Span) -> int:
    """The same at the dearest hour."""
    order = CircuitOrder(a="", b="", rate_bps=span.rate_bps)
    price = way_price(view, span)
    return dearest(Circuit(id="", order=order, user="", price_micro_cny_per_hour=price, hours=_hours(view)))


def _hours(view: View) -> tuple[Hours, ...]:
    """The factors of the hours that concern a circuit."""
    return tuple(
        each for each in view.network.tariff.hours if not each.classes or TrafficClass.PROTECTED in each.classes
    )


def _ways(calendar: Calendar, answer: Gang) -> tuple[Way, ...]:
    """The way of every two of its sites that do not share a node of the network."""
    from tieline.network.lease import route_of

    ways = []
    for a, b in combinations(answer.sites, 2):
        paths = answer.joined.paths
        one, other = (a, b) if (a, b) in paths else (b, a)
        path = paths[one, other]
        if len(path):
            ways.append(Way(one, other, route_of(calendar, path)))
    return tuple(ways)


def circuits_of(
    view: View, job: Job, demand: Demand, found: Found, runs: tuple[Run, ...], now_ms: int, ids: Ids
) -> list[Circuit]:
    """The circuits of a gang, as they are to be booked."""
    from tieline.network.calendar import windows_in

    span, tariff = span_of(demand), view.network.tariff
    until_ms = _ends_ms(view, demand, found.lasting.stop_s, now_ms)
    circuits = []
    for way in found.ways:
        calendar = view.network.calendar_at(now_ms)
        assert calendar is not None
        order = CircuitOrder(
            a=way.a,
            b=way.b,
            rate_bps=span.rate_bps,
            latency_us=-(-span.rtt_us // 2),
            from_ms=now_ms,
            until_ms=until_ms,
            label=f"gang of {job.id}"[:200],
        )
        circuits.append(
            Circuit(
                id=ids.new("circuit"),
                order=order,
                user=job.user,
                route=way.route,
                granted_bps=span.rate_bps,
                windows=tuple(windows_in(now_ms, until_ms, None, now_ms, calendar.grid.until_ms)),
                price_micro_cny_per_hour=way_price(view, span),
                hours=_hours(view),
                utc_offset_s=tariff.utc_offset_s,
                project=job.project,
                ordered_ms=now_ms,
                changed_ms=now_ms,
                job=job.id,
                run=runs[0].id,
            )
        )
    return circuits


# -- money ------------------------------------------------------------------------------------------------------------


def _lasting(view: View, demand: Demand, answer: Gang, limit_s: int, ways_micro_cny: int) -> Lasting | Reason:
    """How long it may last: the budget, where there is one, pays for all of it up to the end of the last member.

    ``ways_micro_cny``: of all circuits, for their dearest hour.
    """
    candidates = [member.candidate for member in answer.members]
    rates = [each.unit_count * each.price_micro_cny_per_unit_hour for each in candidates]
    rate, stop_s = sum(rates) + ways_micro_cny, limit_s
    lead_s = -(-view.limits.offer_ttl_ms // 1_000)  # circuits stand from now on
    end_s = demand.grace_s + ROUNDING_S
    budget = demand.budget_micro_cny
    if budget is not None and rate:
        ends = rate * end_s + ways_micro_cny * lead_s  # what is not time of its members
        least = ends + rate + ways_micro_cny * _staging_s(1)
        if budget * HOUR_S < least:
            values = {
                "budget_micro_cny": budget,
                "lowest_micro_cny": -(-least // HOUR_S),
                "least_us": (1 + end_s) * 10**6,
            }
            return Reason(code="budget_below", values=dict(values))
        left = budget * HOUR_S - ends
        paid_s = left // (rate + ways_micro_cny)  # where all of it is shorter than staging may be
        if paid_s > STAGING_S:
            paid_s = (left - ways_micro_cny * STAGING_S) // rate
        stop_s = min(paid_s, MAX_STOP_S, stop_s or MAX_STOP_S)
    if not stop_s:
        return Lasting(0, (0,) * len(rates), 0)
    whole_s = stop_s + end_s
    held = (
        charge_of(each.unit_count * whole_s, each.price_micro_cny_per_unit_hour).charge_micro_cny for each in candidates
    )
    ways_s = lead_s + _staging_s(stop_s) + whole_s
    return Lasting(stop_s, tuple(held), -(-ways_micro_cny * ways_s // HOUR_S))


def runs_of(view: View, job: Job, found: Found, now_ms: int) -> tuple[Run, ...]:
    """The run of each member, by rank. What the circuits may cost of its project's month is pledged to the first."""
    lasting, runs, rank = found.lasting, [], 0
    for at, member in enumerate(found.gang.members):
        held = lasting.held_micro_cny[at]
        run = new_run(view, job, member.candidate, member.amount, lasting.stop_s, held, now_ms)
        pledged = run.pledged_micro_cny + (lasting.ways_micro_cny if job.project and not at else 0)
        runs.append(
            replace(
                run,
                id=f"{run.id}.{at}" if at else run.id,
                rank=rank,
                nodes=member.nodes,
                held_micro_cny=held,
                pledged_micro_cny=pledged,
                is_preemptible=False,  # one that gave way would end all of them
            )
        )
        rank += member.nodes
    return as_gang(runs)


# -- what a plan shows ------------------------------------------------------------------------------------------------


def planned(view: View, demand: Demand, found: Found, now_ms: int) -> PlannedGang:
    """The gang as a plan shows it."""
    span, gang = span_of(demand), found.gang
    joining, price = Joining(view, now_ms, _ends_ms(view, demand, 0, now_ms)), way_price(view, span)
    members, rank = [], 0
    for member in gang.members:
        members.append(PlannedMember(candidate=member.candidate, nodes=member.nodes, rank=rank))
        rank += member.nodes
    booked = {frozenset((way.a, way.b)): way.route for way in found.ways}
    ways = []
    for a, b in combinations(gang.sites, 2):
        route = booked.get(frozenset((a, b)))
        ways.append(
            PlannedWay(
                a=a,
                b=b,
                meets=joining.meets(a, b),
                links=route.links if route is not None else (),
                rate_bps=span.rate_bps if route is not None else 0,
                rtt_us=2 * route.delay_us if route is not None else joining.rtt_us(a, b, replace(span, rate_bps=0)),
                price_micro_cny_per_hour=price if route is not None else 0,
            )
        )
    return PlannedGang(
        members=tuple(members),
        ways=tuple(ways),
        cost_micro_cny_per_hour=gang.cost_micro_cny_per_hour,
        bound_micro_cny_per_hour=gang.bound_micro_cny_per_hour,
    )
