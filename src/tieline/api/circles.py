"""Circles: which sites are within a time of a place, and how much of a region has compute so near."""

from __future__ import annotations

import msgspec

from tieline.api.call import Call
from tieline.api.operation import operation
from tieline.exchange.circles import Ground, ReadGround
from tieline.model.circle import Circle, CircleBody, CoverageBody, CoverageView
from tieline.model.error import TielineError
from tieline.network.circle import circle_of

replace = msgspec.structs.replace
EXAMPLE = {"measure": {"within_us": 1_000}, "points": [{"point": "pudong-1", "weight": 1_200, "region": "pudong"}]}


@operation(
    "POST",
    "/v1/circles",
    tag="network",
    errors=("not_found",),
    example={"place": "shanghai", "measure": {"within_us": 1_000}},
)
async def read_circle(call: Call, body: CircleBody) -> Circle:
    """The sites inside, outside and unknown with regard to a place, with the readings that say so.

    A place is a site, a reference point or a node of the topology. Direct, fresh measurements decide and nothing else:
    where there is none the site is unknown, and the reason is told.
    """
    ground: Ground = await call.platform.ask(ReadGround(actor=call.actor, place=body.place))
    sites = (*(site.site for site in ground.sites), *ground.idle)
    return await call.platform.read(_circle, ground, body, sites)


@operation("POST", "/v1/circles/coverage", tag="network", example=EXAMPLE)
async def read_coverage(call: Call, body: CoverageBody) -> CoverageView:
    """The weighted share of access points that have compute within the bound, by region.

    Without ``points`` the reference points are taken, each of weight 1. The answer holds every reading that it rests
    on, so that anybody can compute it again.
    """
    from tieline.network.coverage import coverage_of

    ground: Ground = await call.platform.ask(ReadGround(actor=call.actor))
    points = body.points or ground.points
    if not points:
        said = "no access points are given, and there are no reference points here"
        raise TielineError("invalid_request", said, where="points", hints=("tieline circle coverage --points FILE",))
    arguments = (points, ground.sites, ground.readings, body.measure, ground.as_of_ms, body.target_ppm, ground.idle)
    return await call.platform.read(coverage_of, *arguments)


def _circle(ground: Ground, body: CircleBody, sites: tuple[str, ...]) -> Circle:
    found = circle_of(ground.names, body.measure, sites, ground.readings, ground.places, ground.as_of_ms)
    if not ground.via:
        return found
    inside, outside, unknown = (
        tuple(replace(member, via=ground.via.get(member.site, "")) for member in members)
        for members in (found.inside, found.outside, found.unknown)
    )
    return replace(found, inside=inside, outside=outside, unknown=unknown)
