"""Transfer 数据传输: so many bytes from here to there between two times, and what the calendar gave it.

A transfer is admitted whole or not at all, unless it says that a part is of use. An admitted one is dropped by a
failure only, and then it says at once how much of it will still arrive in time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.reason import Reason

Bytes = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
End = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
MicroCny = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class TrafficClass(StrEnum):
    """In this order they get what there is: a later one never takes from an earlier one."""

    PROTECTED = "protected"  # circuits
    DEADLINE = "deadline"  # transfers with a deadline
    BEST_EFFORT = "best_effort"  # what is left


class TransferState(StrEnum):
    """States of a transfer."""

    BOOKED = "booked"
    MOVING = "moving"
    ARRIVED = "arrived"
    SHORT = "short"  # a failure took its room: less arrives in time, or later; says what is left
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSFER_ENDED = frozenset({TransferState.ARRIVED, TransferState.FAILED, TransferState.CANCELLED})


class TransferOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What somebody asks for."""

    source: End  # identifier of a site, or a node of the topology
    target: End
    size_bytes: Bytes
    earliest_ms: Millis = 0  # 0: now
    deadline_ms: Millis = 0  # 0: none, best effort
    is_splittable: bool = True  # over several paths at once
    is_partial_useful: bool = False
    limit_micro_cny: MicroCny | None = None
    label: Annotated[str, msgspec.Meta(max_length=200)] = ""
    job: Annotated[str, msgspec.Meta(max_length=200)] = ""  # it brings data to this job


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A rate on one path from one time to another: a token bucket of the mover, and a row of the calendar."""

    path: tuple[str, ...]  # names of links, in order
    is_forward: tuple[bool, ...]  # from `a` to `b` of each link
    from_ms: Millis
    until_ms: Millis
    rate_bps: Annotated[int, msgspec.Meta(ge=1, le=10**15)]

    @property
    def size_bytes(self) -> int:
        """What it carries."""
        return self.rate_bps * (self.until_ms - self.from_ms) // 8_000


class Transfer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An admitted transfer."""

    id: str
    order: TransferOrder
    user: str
    state: TransferState = TransferState.BOOKED
    segments: tuple[Segment, ...] = ()
    price_micro_cny: int = 0  # of the whole as booked
    priced_bytes: int = 0  # that the price is for; 0: all that was ordered
    arrives_ms: int = 0  # by the booking
    moved_bytes: int = 0  # by receipts
    late_bytes: int = 0  # of these, after the deadline
    late_permille: int = 500  # of the price, for late bytes; as the tariff said when it was booked
    seq: int = 0  # of the newest receipt
    measured_seq: int = 0  # of the newest that a site or an operator gave: its user's word never stands in its way
    begun_ms: int = 0  # of what the first receipt saw
    line_ms: int = 0  # when its usage line was begun
    charged_micro_cny: int = 0
    short_bytes: int = 0  # will not arrive before the deadline
    reasons: tuple[Reason, ...] = ()
    project: str = ""
    run: str = ""  # whose data it brings; it ends with that run
    booked_ms: int = 0
    changed_ms: int = 0
