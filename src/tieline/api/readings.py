"""Readings: what sites measure and bring, reference points, and what is known of the way between two points."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated

import msgspec

from tieline.api.call import Call
from tieline.api.operation import operation
from tieline.api.peercaller import active_peer
from tieline.api.platform import Platform
from tieline.drivers.peers.readings import ReadingsDuty
from tieline.exchange.commands import ChangePoints, PlanProbes, ReadCats, ReadReadings, ReadWay, TakeReadings
from tieline.exchange.crossing import AllowProbes
from tieline.exchange.said import ReadSaid
from tieline.model.cats import CatsView
from tieline.model.door import PASS_MOST_MS, Pass, Right
from tieline.model.error import TielineError
from tieline.model.measuring import (
    GivenPass,
    PassesBody,
    PassesView,
    PeerReadings,
    PeerReadingsBody,
    PointPage,
    PointsBody,
    ReadingPage,
    ReadingsTaken,
    WayView,
    Wish,
)
from tieline.model.protocol import Signed
from tieline.model.reading import READINGS, Method, Probe, ProbePlan, ReadingBatch
from tieline.registry import stated
from tieline.registry.passes import issued

GUEST_MS = 300_000  # a plan is asked for again by then
MOST_WISHES = 16
GRACE_MS = 120_000  # by which a pass outlives the plan that it belongs to
ENVELOPE_EXAMPLE = {"statement": '{"payload":"e30","protected":"e30","signature":"AA"}'}
POINT_PATTERN = r"\A[!-~]*\Z"
PointText = Annotated[str, msgspec.Meta(max_length=200, pattern=POINT_PATTERN)]


class ReadingsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which readings."""

    source: Annotated[PointText, msgspec.Meta(description="only those that this site made")] = ""
    target: Annotated[PointText, msgspec.Meta(description="only those of the way to this site or reference point")] = ""
    after: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{0,9}\Z", description="go on there (`next`)")] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 200


class WayQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Between which points. Without one of them there is no such way."""

    source: Annotated[PointText, msgspec.Meta(description="a site, reference point or node of the topology")] = ""
    target: Annotated[PointText, msgspec.Meta(description="another one")] = ""


class CatsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where."""

    point: Annotated[
        PointText, msgspec.Meta(description="the site or reference point that asks; empty: computing metrics alone")
    ] = ""


# -- the site's side --------------------------------------------------------------------------------------------------


@operation("GET", "/v1/site/probes", tag="site side", errors=("forbidden",))
async def plan_probes(call: Call) -> ProbePlan:
    """What this site measures until it asks again, with a pass for each door.

    All plans together stay below 1 % of any link. Whoever asks again within a minute is given nothing more.
    """
    platform, site = call.platform, call.actor.name
    call.note(site=site)
    plan: ProbePlan = await platform.ask(PlanProbes(actor=call.actor, site=site))
    return msgspec.structs.replace(plan, probes=await _with_passes(platform, site, plan))


async def _with_passes(platform: Platform, site: str, plan: ProbePlan) -> tuple[Probe, ...]:
    """The same probes; all that go through one door share a pass. At doors of peers those for which it gives one."""
    doors: dict[str, list[Probe]] = {}
    for probe in plan.probes:
        if probe.public:
            doors.setdefault(probe.target, []).append(probe)
    view = platform.view
    until_ms = plan.at_ms + min(PASS_MOST_MS, plan.again_ms + GRACE_MS)
    passes: dict[str, str] = {}
    far: dict[str, list[Wish]] = {}
    for door, probes in doors.items():
        is_rated = any(each.method is Method.RATE for each in probes)
        wish = Wish(door=door, most_bytes=sum(each.most_bytes for each in probes), is_rated=is_rated)
        via = view.way_to(door)
        if via:
            far.setdefault(via, []).append(wish)
        else:
            passes[door] = _issued(platform, site, view.sites[site].public, wish, plan.at_ms, until_ms)
    asked = (
        far_passes(platform, peer, PassesBody(holder=site, public=view.sites[site].public, wishes=tuple(some)))
        for peer, wishes in far.items()
        if (some := wishes[:MOST_WISHES])
    )
    for found in await asyncio.gather(*asked):
        passes |= found
    return tuple(
        msgspec.structs.replace(each, door_pass=passes.get(each.target, ""))
        for each in plan.probes
        if not each.public or each.target in passes
    )


def _issued(platform: Platform, holder: str, public: str, wish: Wish, from_ms: int, until_ms: int) -> str:
    """A pass of ours; with the right to upload one to echo too: an echo comes first and proves whose door it is."""
    given = Pass(
        id=secrets.token_urlsafe(16),
        door=wish.door,
        holder=holder,
        public=public,
        rights=(Right.ECHO, Right.RATE) if wish.is_rated else (Right.ECHO,),
        from_ms=from_ms,
        until_ms=until_ms,
        most_bytes=wish.most_bytes,
    )
    return issued(given, platform.keys.key, platform.keys.kid)


async def far_passes(platform: Platform, peer: str, body: PassesBody) -> dict[str, str]:
    """What a peer gives of what is asked, by door; nothing where it does not answer."""
    branch = platform.federation.branches.get(peer) if platform.federation is not None else None
    duty = next((each for each in (branch.duties if branch else ()) if isinstance(each, ReadingsDuty)), None)
    return await duty.passes(body) if duty is not None else {}


@operation("POST", "/v1/site/readings", tag="site side", errors=("conflict", "forbidden"), example=ENVELOPE_EXAMPLE)
async def take_readings(call: Call, body: Signed) -> ReadingsTaken:
    """What a site measured, signed with its key as a statement `site-readings`. Last value only.

    What cannot be (faster than light, from the future, of somebody else) is refuted one by one, counted and shown.
    """
    platform, name = call.platform, call.actor.name
    call.note(site=name)
    site = platform.view.sites.get(name)
    if site is None:
        raise TielineError("unauthenticated", f"`{name}` has no session here")
    batch = stated(body.statement.encode(), site.public, READINGS, ReadingBatch)
    command = TakeReadings(actor=call.actor, site=name, batch=batch, statement=body.statement)
    taken: ReadingsTaken = await platform.ask(command)
    return taken


# -- the peer's side --------------------------------------------------------------------------------------------------


@operation("POST", "/v1/peer/readings", tag="peers", errors=("forbidden",), example={"after": 0})
async def read_peer_readings(call: Call, body: PeerReadingsBody) -> PeerReadings:
    """What sites measured that the peer is shown, in batches as the sites signed them: it checks them itself.

    A peer that may not read records here is told nothing: a batch names every site that was measured.
    """
    peer = await active_peer(call, reads=True)
    said: PeerReadings = await call.platform.ask(ReadSaid(peer=peer.id, body=body))
    return said


@operation(
    "POST",
    "/v1/peer/passes",
    tag="peers",
    errors=("forbidden",),
    example={"holder": "cn.b.lab/site/main", "public": "AAAA", "wishes": []},
)
async def give_peer_passes(call: Call, body: PassesBody) -> PassesView:
    """Passes for a site of the peer through doors of sites here that the peer is shown, to measure the way.

    A door is left out where its measuring is used up for now: all of it stays below 1 % of any link here.
    """
    platform, peer = call.platform, await active_peer(call, uses=True)
    granted: tuple[Wish, ...] = await platform.ask(AllowProbes(peer=peer.id, body=body))
    now_ms = platform.clock.now_ms()
    passes = [
        GivenPass(
            door=wish.door,
            door_pass=_issued(platform, body.holder, body.public, wish, now_ms, now_ms + GUEST_MS),
        )
        for wish in granted
    ]
    return PassesView(passes=tuple(passes))


# -- everybody --------------------------------------------------------------------------------------------------------


@operation("GET", "/v1/readings", tag="network")
async def list_readings(call: Call, query: ReadingsQuery) -> ReadingPage:
    """The newest readings of every way, with their age; what was refuted lately, and how often.

    They are not kept: after a restart sites send them again.
    """
    page: ReadingPage = await call.platform.ask(
        ReadReadings(
            actor=call.actor,
            source=query.source,
            target=query.target,
            after=int(query.after or 0),
            limit=query.limit,
        )
    )
    return page


@operation("GET", "/v1/ways", tag="network", errors=("not_found",))
async def read_way(call: Call, query: WayQuery) -> WayView:
    """What is known of the way between two points: measured, bounded by light, estimated."""
    found: WayView = await call.platform.ask(ReadWay(actor=call.actor, source=query.source, target=query.target))
    return found


@operation("GET", "/v1/points", tag="network")
async def list_points(call: Call) -> PointPage:
    """Every reference point: `rtt(shanghai)` is the round trip to the one of that name."""
    points = call.platform.view.network.points.copy()
    return PointPage(points=tuple(points[name] for name in sorted(points)))


@operation(
    "POST",
    "/v1/points",
    tag="network",
    is_change=True,
    errors=("conflict", "not_found", "overloaded"),
    example={"put": [{"name": "shanghai", "address": "192.0.2.7:443", "region": "cn-east"}]},
)
async def change_points(call: Call, body: PointsBody) -> PointPage:
    """Name reference points, change them, take them back; all or nothing. Sites measure those with an address."""
    page: PointPage = await call.platform.ask(call.command(ChangePoints, put=body.put, remove=body.remove))
    return page


@operation("GET", "/v1/cats", tag="network", errors=("not_found",))
async def read_cats(call: Call, query: CatsQuery) -> CatsView:
    """CATS metrics of every pool that is shown to the caller: raw (level 0), by category (1), in one figure (2)."""
    found: CatsView = await call.platform.ask(ReadCats(actor=call.actor, point=query.point))
    return found
