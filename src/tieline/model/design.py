"""Design 网络设计: what is asked of a network that is not built yet, and the network that answers it.

A request names places, demands and what may be built; the answer is which links are built with which modules, at what
price, and how far above the cheapest network that could do it that price may be: a bound that is proven.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.topology import Delay, Name, Place, Rate, Topology

MicroCny = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Percent = Annotated[int, msgspec.Meta(ge=1, le=100)]
MOST_NODES = 60
MOST_CANDIDATES = 240
MOST_DEMANDS = 2_000


class Survival(StrEnum):
    """What a demand survives whole: it may be routed anew then, and keeps its rate and its latency bound."""

    NONE = "none"
    LINK = "link"  # any one link
    GROUP = "group"  # any one link, and any one shared risk


class DesignNode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A place where a router may stand. It costs its price once a link ends there."""

    name: Name
    site: str = ""
    owner: str = ""
    region: str = ""
    place: Place | None = None
    price_micro_cny: MicroCny = 0


class Module(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A pair of ports with what lies between them: a capacity that can be bought for a link, several times."""

    name: Name
    capacity_bps: Rate
    price_micro_cny: MicroCny = 0
    price_per_km_micro_cny: MicroCny = 0


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A link that may be built, or that is there already with a capacity that costs nothing."""

    a: Name
    b: Name
    name: Annotated[str, msgspec.Meta(max_length=200, pattern=r"\A[^\s\x00-\x1f\x7f-\x9f]*\Z")] = ""  # empty: its ends
    delay_us: Delay = 0  # 0: that of a fibre between the places
    length_km: Annotated[int, msgspec.Meta(ge=0, le=50_000)] = 0  # 0: from the places
    groups: Annotated[tuple[Name, ...], msgspec.Meta(max_length=32)] = ()
    price_micro_cny: MicroCny = 0  # of having it at all
    capacity_bps: Rate = 0  # that is there already
    most_modules: Annotated[int, msgspec.Meta(ge=0, le=64)] = 8
    mtu_bytes: Annotated[int, msgspec.Meta(ge=1_280, le=65_535)] = 1_500


class DesignDemand(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename={"source": "from", "target": "to"},
):
    """A rate between two places, in both directions unless said otherwise."""

    source: Name
    target: Name
    rate_bps: Rate
    latency_us: Annotated[int, msgspec.Meta(ge=0, le=60_000_000)] = 0  # one way, at most; 0: no bound
    survives: Survival = Survival.LINK
    both_ways: bool = True


class DesignRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a network is to be."""

    name: Name
    nodes: Annotated[tuple[DesignNode, ...], msgspec.Meta(min_length=2, max_length=MOST_NODES)]
    modules: Annotated[tuple[Module, ...], msgspec.Meta(min_length=1, max_length=8)]
    demands: Annotated[tuple[DesignDemand, ...], msgspec.Meta(min_length=1, max_length=MOST_DEMANDS)]
    links: Annotated[tuple[Candidate, ...], msgspec.Meta(max_length=MOST_CANDIDATES)] = ()  # none: every pair
    budget_micro_cny: MicroCny = 0  # 0: no bound
    most_filled_percent: Percent = 95  # of a link: the rest is for headers and bursts


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the bill of materials."""

    what: str  # router, link or module
    name: str
    where: str
    count: int
    price_micro_cny: int  # of one
    total_micro_cny: int


class ProofLine(msgspec.Struct, frozen=True, kw_only=True):
    """A rate on one path between the ends of a demand; in both directions alike where the demand has both."""

    demand: int  # its place in the request
    nodes: tuple[str, ...]
    links: tuple[str, ...]
    delay_us: int
    rate_bps: int
    latency_us: int  # that the demand allows; 0: no bound


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The network in one state: nothing lost, or links cut that fall together. Every demand that is to survive it was
    routed whole, within its latency bound."""

    cut: tuple[str, ...]
    demands: int
    asked_bps: int
    carried_bps: int
    slowest_us: int  # of the paths that are used
    fullest_ppm: int  # of a link's capacity
    lines: tuple[ProofLine, ...]


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """A network that answers a request."""

    topology: Topology
    price_micro_cny: int
    least_micro_cny: int  # no network of these candidates that does what is asked costs less
    gap_ppm: int  # of the price: by how much it may be above the least
    is_within_budget: bool
    items: tuple[Item, ...]
    proofs: tuple[Proof, ...]
    rounds: int
