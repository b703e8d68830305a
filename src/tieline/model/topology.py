"""Topology: nodes and links of networks that different owners run, as they declare or measure them.

A link carries the same in both directions unless ``capacity_back_bps`` says otherwise. Delays are one way. Links of one
*group* fail together (a duct, a line card, a sea cable). Places are integers of a millionth of a degree (WGS 84).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.evidence import Evidence

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"\A[^\s\x00-\x1f\x7f-\x9f]+\Z")]
Rate = Annotated[int, msgspec.Meta(ge=0, le=10**15)]  # bit/s
Delay = Annotated[int, msgspec.Meta(ge=0, le=60_000_000)]  # us
Millis = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]


class Line(StrEnum):
    """What a link or circuit is made of. Only `IP` is driven for real; the others are models of their attributes."""

    IP = "ip"
    OTN = "otn"
    OSU = "osu"
    PON = "pon"


class Place(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where something stands."""

    latitude_udeg: Annotated[int, msgspec.Meta(ge=-90_000_000, le=90_000_000)]
    longitude_udeg: Annotated[int, msgspec.Meta(ge=-180_000_000, le=180_000_000)]


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A span of time, its end not included."""

    from_ms: Millis
    until_ms: Millis


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A router, or the edge of a site."""

    name: Name
    owner: str = ""
    site: str = ""  # identifier of the site whose traffic begins and ends here
    place: Place | None = None
    region: str = ""
    locator: str = ""  # IPv6 prefix of its segment identifiers, such as `fc00:0:1::/48`


class Link(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A link between two nodes."""

    name: Name
    a: Name
    b: Name
    capacity_bps: Rate  # from a to b
    capacity_back_bps: Rate | None = None  # from b to a; None: the same
    delay_us: Delay = 0
    mtu_bytes: Annotated[int, msgspec.Meta(ge=1_280, le=65_535)] = 1_500
    price_micro_cny_per_gb: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    owner: str = ""
    groups: Annotated[tuple[Name, ...], msgspec.Meta(max_length=32)] = ()
    maintenance: Annotated[tuple[Window, ...], msgspec.Meta(max_length=256)] = ()
    line: Line = Line.IP
    evidence: Evidence = Evidence.DECLARED


class Topology(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A network. `tieline.network.survey` says whether it is sound."""

    name: Name
    nodes: Annotated[tuple[Node, ...], msgspec.Meta(max_length=20_000)] = ()
    links: Annotated[tuple[Link, ...], msgspec.Meta(max_length=100_000)] = ()
    slot_s: Annotated[int, msgspec.Meta(ge=5, le=3_600)] = 300  # of the calendar of its links


class TrafficDemand(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A rate that is wanted between two nodes, one way: a row of a traffic matrix."""

    name: Name
    source: Name
    target: Name
    rate_bps: Rate
