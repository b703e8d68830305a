"""Bodies of the HTTP API of the network: what a caller sends and what comes back.

::

    topology   GET  /v1/network/topology   POST /v1/network/topology (whole)   POST /v1/network/links (cut, restored)
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.api import Body, View
from tieline.model.reason import Reason
from tieline.model.topology import Name, Topology

Why = Annotated[str, msgspec.Meta(max_length=400)]
Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=1_000)]


class TopologyBody(Body, frozen=True, kw_only=True):
    """A topology that takes the place of the one before, whole."""

    topology: Topology
    why: Why = ""


class LinksBody(Body, frozen=True, kw_only=True):
    """Links that do not carry from now on, and links that carry again."""

    down: Names = ()
    up: Names = ()
    why: Why = ""


class ShortView(View, frozen=True, kw_only=True):
    """What was booked and has less now than it was promised."""

    id: str  # of a transfer or a circuit
    short_bytes: int  # of a transfer: what does not arrive in time
    reasons: tuple[Reason, ...]


class TopologyView(View, frozen=True, kw_only=True):
    """The topology, and what of it does not carry now."""

    topology: Topology
    down: tuple[str, ...]
    changes: int = 0  # another number whenever what is booked, cut or declared is another; from 0 with each process


class NetworkChangedView(View, frozen=True, kw_only=True):
    """The network after a change, and what the change did to what is booked."""

    name: str
    node_count: int
    link_count: int
    down: tuple[str, ...]
    waiting: int = 0  # bookings on the links that changed, or in their way, that are looked at next, a few at a time
    moved_circuits: tuple[str, ...] = ()
    moved_transfers: tuple[str, ...] = ()
    short: tuple[ShortView, ...] = ()
