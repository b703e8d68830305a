"""Fabric: the routers of a network as this driver sees them: which port lies on which link, and what is behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tieline.model.topology import Topology

if TYPE_CHECKING:
    from tieline.drivers.circuits.kernel.addressing import Addressing
    from tieline.drivers.circuits.kernel.router import Router


@dataclass(frozen=True, kw_only=True)
class Port:
    """One end of a link."""

    node: str
    link: str
    index: int
    via: str  # address of the port at the other end
    rate_bps: int  # what the link carries away from here


@dataclass(frozen=True, kw_only=True)
class Behind:
    """What stands behind a router: the port towards it, and its own network, where circuits end."""

    index: int  # of the router's port
    host: Router
    host_index: int
    gateway: str  # of the host: the router's address on that port
    gateway_ipv4: str


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """Everything that circuits are laid on."""

    topology: Topology
    addressing: Addressing
    routers: Mapping[str, Router]
    ports: Mapping[tuple[str, str], Port]  # (node, link)
    anchors: Mapping[str, int]  # node -> a port that never loses its light: local segments hang on it
    behind: Mapping[str, Behind]
