"""Wording: what is said over the control socket of a laboratory."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tieline.model.circuit import Circuit
from tieline.model.error import ErrorEnvelope

SOCKET: Final = "control"
MOST_LINE_BYTES: Final = 4 * 2**20


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked."""

    verb: str
    given: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is answered: a reply, or why there is none."""

    reply: Any = None
    error: ErrorEnvelope | None = None


class LinkSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A link as it is now; bytes are totals of both ports since the laboratory began."""

    name: str
    a: str
    b: str
    is_up: bool
    delay_us: int
    capacity_bps: int
    sent_bytes: int
    sent_back_bytes: int


class Stands(msgspec.Struct, frozen=True, kw_only=True):
    """A circuit as it stands: over which links its packets go (none: as all others), and the addresses of its ends."""

    circuit: Circuit
    on: tuple[str, ...]
    ends: tuple[str, ...]


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the keeper saw or did."""

    at_ms: int
    what: str
    subject: str
    took_us: int = 0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A laboratory. ``sites``, ``nodes``: by which descriptor of the keeper each network is entered."""

    topology: str
    links: tuple[LinkSeen, ...]
    circuits: tuple[Stands, ...]
    events: tuple[Happened, ...]
    sites: dict[str, int]
    nodes: dict[str, int]
    manager: int
    fibre: str = "tun"  # how packets are carried: by TAPs, or by a `pair` of ports each, where no TAP may be made
