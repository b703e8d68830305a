"""Reading 测量值: what one point saw of the way to another. A distribution with an age, never one number.

Sites measure and sign; an exchange keeps the newest of each source, target and method, and recent ones in its store.
A round trip is measured; a one-way time is measured only where both clocks are known to agree better than it is long,
otherwise it is half a round trip and says so (`OneWay.HALF`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.evidence import Evidence
from tieline.model.reason import Reason

Micros = Annotated[int, msgspec.Meta(ge=0, le=600_000_000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
End = Annotated[str, msgspec.Meta(max_length=200)]  # what is refuted is remembered as it was said


class Method(StrEnum):
    """How it was measured."""

    UDP = "udp"  # authenticated echo over UDP
    TCP = "tcp"  # time of the three-way handshake, or an echo over an open connection
    RELAY = "relay"  # an echo through the relay: an upper bound, never of a direct way
    RATE = "rate"  # a short bounded transfer
    MTU = "mtu"  # packets that may not be fragmented (RFC 8899)


class OneWay(StrEnum):
    """What a one-way time rests on."""

    CLOCKS = "clocks"  # both clocks, with their stated error
    HALF = "half"  # half of the round trip: an estimate
    UNKNOWN = "unknown"


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``source`` saw of the way to ``target`` from ``begun_ms`` to ``ended_ms``."""

    source: End  # identifier of a site
    target: End  # identifier of a site, or the name of a reference point
    method: Method
    count: Count  # samples; of probes those that were answered
    sent: Count = 0  # probes that were sent
    min_us: Micros = 0
    p50_us: Micros = 0
    p99_us: Micros = 0
    jitter_us: Micros = 0  # mean difference of one round trip from the next (RFC 3550)
    one_way_us: Micros = 0
    one_way: OneWay = OneWay.UNKNOWN
    clock_error_us: Micros = 0  # of a one-way time by clocks
    rate_bps: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = 0
    moved_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0  # what the measuring itself cost, both directions
    path_mtu_bytes: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    begun_ms: int = 0
    ended_ms: int = 0
    evidence: Evidence = Evidence.MEASURED
    address: Annotated[str, msgspec.Meta(max_length=255)] = ""  # of a reference point: what was called there

    @property
    def loss_ppm(self) -> int:
        """Probes that were not answered, of a million."""
        return 0 if not self.sent else max(0, self.sent - self.count) * 1_000_000 // self.sent


# -- who measures what, and how it is brought --------------------------------------------------------------------------

READINGS = "site-readings"  # type of the statement that a `ReadingBatch` is signed as
PointName = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"\A[a-z0-9][a-z0-9._-]*\Z")]
Address = Annotated[str, msgspec.Meta(max_length=255, pattern=r"\A[!-~]*\Z")]


class ReadingBatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a site measured since its last batch, signed with the site's key. ``seq`` only grows within a session."""

    site: Annotated[str, msgspec.Meta(max_length=200)]
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
    readings: Annotated[tuple[Reading, ...], msgspec.Meta(max_length=256)] = ()
    undone: Annotated[tuple[Reason, ...], msgspec.Meta(max_length=8)] = ()  # probes that its owner does not let it send


class Point(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named reference point 测量点 of the network's operator: `rtt(shanghai)` is the round trip to it."""

    name: PointName
    address: Address = ""  # `host:port` that answers a TCP handshake; empty: nobody probes it
    latitude_udeg: Annotated[int, msgspec.Meta(ge=-90_000_000, le=90_000_000)] | None = None
    longitude_udeg: Annotated[int, msgspec.Meta(ge=-180_000_000, le=180_000_000)] | None = None
    region: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Probe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing to measure, and the most that it may cost."""

    target: str  # identifier of a site, or the name of a reference point
    method: Method
    address: Address  # URL of the target's door, or `host:port` of a reference point
    public: str = ""  # Ed25519 key of the target, base64url; empty: a reference point
    door_pass: str = ""  # signed by the exchange: lets this site, and nobody else, through that door
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 10
    gap_ms: Annotated[int, msgspec.Meta(ge=1, le=60_000)] = 100  # from one packet to the next
    packet_bytes: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 64
    rate_bps: Annotated[int, msgspec.Meta(ge=0, le=10**15)] = 0  # the most that a test of the rate may take
    most_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0  # of the whole probe, both directions


class ProbePlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a site measures until it asks again, in this order, evenly over the time."""

    at_ms: int
    again_ms: Annotated[int, msgspec.Meta(ge=1_000, le=86_400_000)]  # ask again so long after ``at_ms``
    probes: Annotated[tuple[Probe, ...], msgspec.Meta(max_length=1_024)] = ()
