"""Circuit 专线: a rate between two ends for a time, on a path that was proven to carry it.

The order form follows the words of RFC 9543 (network slices): ends are service demarcation points, the rate, latency
and diversity are service level objectives. One form serves every kind of line; IP circuits are driven for real (SRv6
and HTB in a kernel), the others are models of their attributes and say so.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.evidence import Evidence
from tieline.model.reason import Reason
from tieline.model.tariff import Hours
from tieline.model.topology import Line, Name, Rate, Window
from tieline.model.transfer import End

Millis = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Diversity(StrEnum):
    """How far the spare path keeps from the first."""

    NONE = "none"
    LINK = "link"
    NODE = "node"
    GROUP = "group"  # no shared risk


class CircuitState(StrEnum):
    """States of a circuit."""

    ORDERED = "ordered"  # admitted, its time has not come
    UP = "up"  # applied and verified
    PAUSED = "paused"  # in a maintenance window of its path, beside which there is no other
    DEGRADED = "degraded"  # carries less than was ordered, or stands on its spare path
    DOWN = "down"
    ENDED = "ended"
    CANCELLED = "cancelled"


CIRCUIT_ENDED = frozenset({CircuitState.ENDED, CircuitState.CANCELLED})


class Recurrence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same window again: from ``begin_s`` for ``length_s`` of every ``period_s`` since the order's ``from_ms``."""

    period_s: Annotated[int, msgspec.Meta(ge=60, le=31_622_400)] = 86_400
    begin_s: Annotated[int, msgspec.Meta(ge=0, le=31_622_400)] = 0
    length_s: Annotated[int, msgspec.Meta(ge=1, le=31_622_400)] = 86_400


class CircuitOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What somebody asks for. With ``most_bps`` the rate is a range: the least is guaranteed, the rest is tried."""

    a: End  # identifier of a site, or a node of the topology
    b: End
    rate_bps: Rate
    most_bps: Rate = 0
    latency_us: Number = 0  # one way, at most; 0: no bound
    diversity: Diversity = Diversity.NONE
    from_ms: Millis = 0  # 0: now
    until_ms: Millis = 0  # 0: until it is cancelled
    recurrence: Recurrence | None = None
    line: Line = Line.IP
    mtu_bytes: Annotated[int, msgspec.Meta(ge=1_280, le=65_535)] = 1_400
    limit_micro_cny_per_hour: Number | None = None
    label: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A path through the topology."""

    nodes: tuple[str, ...]
    links: tuple[str, ...]
    delay_us: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What was seen of a circuit or a transfer: the proof that is billed from. Signed by whoever saw it."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]  # circuit or transfer
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]  # grows with every receipt of the subject
    begun_ms: Millis
    ended_ms: Millis
    moved_bytes: Number = 0  # since the receipt before
    path: Annotated[tuple[Name, ...], msgspec.Meta(max_length=256)] = ()  # links whose counters grew by what was sent
    is_path_proven: bool = False
    probe_bytes: Number = 0  # size of the largest probe that passed unfragmented
    goodput_bps: Number = 0
    computed_bps: Number = 0  # goodput that the rate and the headers allow
    min_rtt_us: Number = 0
    p99_rtt_us: Number = 0
    lost_ppm: Number = 0
    sha256: Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")] = ""  # of what arrived
    evidence: Evidence = Evidence.MEASURED


class Meter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of a circuit was proven and is billed: one usage line a day (UTC) and price."""

    until_ms: int = 0  # everything before it is accounted for
    line: int = 0  # number of the usage line
    day: int = 0  # since the epoch
    price_micro_cny_per_hour: int = 0
    proven_ms: int = 0  # in this line
    worth: int = 0  # of this line: ms x permille of the hour x permille of what could be carried
    charged_micro_cny: int = 0  # of this line
    line_ms: int = 0  # when the line was begun


class Former(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The price that a circuit had before it was resized, for time of which no receipt has come yet."""

    until_ms: int
    price_micro_cny_per_hour: int
    spare_micro_cny_per_hour: int = 0
    hours: tuple[Hours, ...] = ()
    utc_offset_s: int = 0


class Circuit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An admitted circuit."""

    id: str
    order: CircuitOrder
    user: str
    state: CircuitState = CircuitState.ORDERED
    route: Route | None = None
    spare: Route | None = None
    back_bps: Rate | None = None  # from `b` to `a`, for the one-way path of a transfer; None: the same
    granted_bps: Rate = 0  # what is held, from the order's least to its most; 0: the least
    windows: tuple[Window, ...] = ()  # admitted so far; a recurring one is admitted a horizon ahead
    paused: tuple[Window, ...] = ()  # maintenance of its path: it holds nothing then, and is not charged
    price_micro_cny_per_hour: int = 0
    spare_micro_cny_per_hour: int = 0  # of this price, for the spare path; not charged while there is none
    spare_from_ms: int = 0  # since when it has had the spare path that it has
    hours: tuple[Hours, ...] = ()  # factors of its price, as the tariff said when it was ordered
    utc_offset_s: int = 0
    former: tuple[Former, ...] = ()  # prices before it was resized, the oldest first, until receipts have passed them
    meter: Meter = Meter()
    seq: int = 0  # of the newest receipt
    charged_micro_cny: int = 0
    receipt: Receipt | None = None  # the newest
    reasons: tuple[Reason, ...] = ()
    project: str = ""
    ordered_ms: int = 0
    changed_ms: int = 0
    job: str = ""  # whose gang it joins: it ends with the gang
    run: str = ""  # the first run of that gang

    @property
    def held_bps(self) -> int:
        """What it holds in the calendar, in each direction of each of its routes."""
        return self.granted_bps or self.order.rate_bps
