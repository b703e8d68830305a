"""Traffic plan 流量规划: what is wanted between places, and which paths carry how much of it.

What is wanted comes in a file: a list of demands, and how each class shares. What is planned says of every class how
far it may be below the best that any routing could carry; that bound is proven, not estimated.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.topology import Name, Rate
from tieline.model.transfer import TrafficClass

Weight = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
MOST_DEMANDS = 400_000


class PlanDemand(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename={"source": "from", "target": "to", "traffic_class": "class"},
):
    """A rate that is wanted between two nodes or sites, one way."""

    source: Name
    target: Name
    rate_bps: Rate
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    traffic_class: TrafficClass | None = None  # None: as whoever reads the file says
    latency_us: Annotated[int, msgspec.Meta(ge=0, le=60_000_000)] = 0  # one way, at most; 0: no bound
    weight: Weight = 1


class ClassTerms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How the demands of a class share what is left to them."""

    fair: bool = False  # max-min by weights; else as much as possible in all
    split: bool = True  # over several paths; else each on one path, whole or not at all


class DemandFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is wanted of a network."""

    demands: Annotated[tuple[PlanDemand, ...], msgspec.Meta(max_length=MOST_DEMANDS)]
    classes: dict[TrafficClass, ClassTerms] = {}


class PathShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one path carries of a demand."""

    nodes: tuple[str, ...]
    links: tuple[str, ...]
    delay_us: int
    rate_bps: int


class DemandShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one demand gets."""

    name: str
    source: str
    target: str
    traffic_class: TrafficClass
    asked_bps: int
    carried_bps: int
    paths: tuple[PathShare, ...]


class ClassShare(msgspec.Struct, frozen=True, kw_only=True):
    """What one class gets. No routing that leaves the classes before it what they have can be better than by this."""

    traffic_class: TrafficClass
    asked_bps: int
    carried_bps: int
    least_ppm: int  # of the best over all paths, proven


class LinkLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What one direction of a link carries."""

    link: str
    source: str
    target: str
    load_bps: int
    capacity_bps: int


class CutPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a plan when links are cut."""

    links: tuple[str, ...]
    untouched_bps: int  # of what was carried, over no link that was cut
    refilled_bps: int  # after the first repair, which moves what survived only where too much stays lost otherwise
    replanned_bps: int  # by the new plan
    classes: tuple[ClassShare, ...]  # of the new plan
    steps: int  # from the first repair to the new plan without overload; whole demands go over after the first of two
    least_bps: int  # that is carried meanwhile
    demands: tuple[DemandShare, ...]  # of the new plan
    stopped: tuple[str, ...] = ()  # demands that may not be split and have no room for their old and new path at once


class TrafficPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Paths and rates over a topology."""

    topology: str
    demands: tuple[DemandShare, ...]
    classes: tuple[ClassShare, ...]
    links: tuple[LinkLoad, ...]  # that carry something, the fullest first
    cut: CutPlan | None = None
