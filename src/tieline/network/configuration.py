"""Configuration: what a topology becomes on routers: addresses, segments, and FRRouting's files.

The addresses are those of the laboratory and of the kernel driver for the same topology file, so that what was tried
there is what is configured. FRRouting gets IS-IS over IPv6 with SRv6 locators; its metric is the delay, so that what no
circuit carries takes the quickest way. The text follows FRRouting's documentation; no FRRouting has loaded it here.
"""

from __future__ import annotations

from typing import Final

import msgspec

from tieline.model.error import TielineError
from tieline.model.topology import Link, Node, Topology

MOST_METRIC: Final = 2**24 - 2  # wide metrics of IS-IS (RFC 5305)
US_A_METRIC: Final = 10


class PortAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One end of a link at a router."""

    port: str
    link: str
    neighbour: str
    address: str
    neighbour_address: str
    metric: int


class NodeAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is addressed at one router."""

    node: str
    number: int
    locator: str  # segments of circuits and of the router itself
    prefix: str  # what stands behind it
    router_address: str
    site_address: str  # empty: no site
    ports: tuple[PortAddress, ...]


def addresses(topology: Topology) -> tuple[NodeAddresses, ...]:
    """The addressing plan: the same topology, the same numbers."""
    number = {node.name: at + 1 for at, node in enumerate(topology.nodes)}
    ports: dict[str, list[PortAddress]] = {node.name: [] for node in topology.nodes}
    for at, link in enumerate(topology.links):
        ports[link.a].append(_port(at + 1, link, 1, link.b))
        ports[link.b].append(_port(at + 1, link, 2, link.a))
    return tuple(_node(node, number[node.name], ports[node.name]) for node in topology.nodes)


def _node(node: Node, number: int, ports: list[PortAddress]) -> NodeAddresses:
    return NodeAddresses(
        node=node.name,
        number=number,
        locator=node.locator or f"fc00:0:{number:x}::/48",
        prefix=f"fd00:0:{number:x}::/48",
        router_address=f"fd01::{number:x}",
        site_address=f"fd00:0:{number:x}:0::1" if node.site else "",
        ports=tuple(ports),
    )


def _port(number: int, link: Link, end: int, neighbour: str) -> PortAddress:
    return PortAddress(
        port=f"l{number}",
        link=link.name,
        neighbour=neighbour,
        address=f"fd02:0:0:{number:x}::{end}/64",
        neighbour_address=f"fd02:0:0:{number:x}::{3 - end}",
        metric=max(1, min(MOST_METRIC, link.delay_us // US_A_METRIC)),
    )


def frr(node: NodeAddresses) -> str:
    """`/etc/frr/frr.conf` of one router."""
    for name in (node.node, *(name for port in node.ports for name in (port.link, port.neighbour))):
        if not name.isprintable() or " " in name:  # it would be a line of the configuration of its own
            raise TielineError(
                "invalid_request", f"{name[:60]!r} is no name that a configuration holds", where=node.node
            )
    lines = [
        "frr defaults datacenter",
        f"hostname {node.node}",
        "service integrated-vtysh-config",
        "ipv6 forwarding",
        "!",
        "segment-routing",
        " srv6",
        "  locators",
        "   locator MAIN",
        f"    prefix {node.locator} block-len 32 node-len 16 func-bits 16",
        "   exit",
        "  exit",
        " exit",
        "exit",
        "!",
        "interface lo",
        f" ipv6 address {node.router_address}/128",
        " ipv6 router isis tieline",
        " isis passive",
        "exit",
        "!",
    ]
    for port in node.ports:
        lines += [
            f"interface {port.port}",
            f" description {port.link} to {port.neighbour}",
            f" ipv6 address {port.address}",
            " ipv6 router isis tieline",
            " isis network point-to-point",
            f" isis metric {port.metric}",
            "exit",
            "!",
        ]
    lines += [
        "router isis tieline",
        " is-type level-2-only",
        f" net 49.0001.0000.0000.{node.number:04x}.00",
        " metric-style wide",
        " topology ipv6-unicast",
        " segment-routing srv6",
        "  locator MAIN",
        " exit",
        "exit",
        "!",
        "end",
        "",
    ]
    return "\n".join(lines)
