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

Micros = Annotated[int, msgspec.Meta(ge=0, le=600_000_000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


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

    source: str  # identifier of a site
    target: str  # identifier of a site, or the name of a reference point
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

    @property
    def loss_ppm(self) -> int:
        """Probes that were not answered, of a million."""
        return 0 if not self.sent else max(0, self.sent - self.count) * 1_000_000 // self.sent
