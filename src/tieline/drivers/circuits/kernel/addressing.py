"""Addressing: addresses, segments and port names of the nodes of a topology. Pure: the same file, the same numbers.

::

    fc00:0:N::/48             segments of node N (its `locator` where the topology states one)
    fc00:0:N:K:G::6           circuit K, its G-th way: the end of a segment list, or a step of it
    fd00:0:N::/48             what stands behind node N; fd00:0:N::1 is its site
    fd00:0:N:K::1             the site's end of circuit K;  10.K.K.1 and 10.K.K.2 are its IPv4 ends
    fd02:0:0:L::1, ::2        the two ports of link L
    fd03::N                   the site's port of the management network; the laboratory's own end is fd03::ffff:1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Network
from typing import Final

from tieline.model.error import TielineError
from tieline.model.topology import Link, Topology

MOST_NODES: Final = 64
MOST_LINKS: Final = 256
MOST_MTU_BYTES: Final = 65_535 - 14  # of a TAP: the kernel counts its header
MANAGER: Final = "fd03::ffff:1"
MANAGER_PLACE: Final = "manager"  # what the laboratory's own network is called


def locator(topology: Topology, node: str) -> str:
    """The first 48 bits of the segments of a node, such as ``fc00:0:1``. Raises TielineError for another length."""
    for at, each in enumerate(topology.nodes):
        if each.name == node:
            stated = each.locator or f"fc00:0:{at + 1:x}::/48"
            return _words(stated, node)
    raise TielineError("not_found", f"there is no node `{node}`", where=node)


def _words(stated: str, node: str) -> str:
    try:
        network = IPv6Network(stated)
    except ValueError as error:
        raise TielineError("invalid_request", f"the locator of `{node}` is no prefix: {error}", where=node) from None
    if network.prefixlen != 48:
        raise TielineError(
            "invalid_request", f"the locator of `{node}` has {network.prefixlen} bits; 48 are needed", where=node
        )
    return ":".join(f"{int(word, 16):x}" for word in network.network_address.exploded.split(":")[:3])


def segment(locator: str, circuit: int, way: int, action: int) -> str:
    """The segment of one way of a circuit at a node; ``action`` 6 and 4: what is inside, 1: a step."""
    return f"{locator}:{circuit:x}:{way:x}::{action:x}"


def prefix(number: int) -> str:
    """What stands behind node ``number``."""
    return f"fd00:0:{number:x}::/48"


def site_address(number: int, circuit: int = 0) -> str:
    """The site behind node ``number``; with ``circuit`` its end of that circuit."""
    return f"fd00:0:{number:x}:{circuit:x}::1"


def ipv4_address(circuit: int, end: int) -> str:
    """The IPv4 address of an end, 1 or 2, of a circuit."""
    return f"10.{circuit >> 8}.{circuit & 255}.{end}"


@dataclass(frozen=True)
class Addressing:
    """The numbers of one topology. Raises TielineError where it is more than a laboratory holds."""

    topology: Topology

    def __post_init__(self) -> None:
        nodes, links = len(self.topology.nodes), len(self.topology.links)
        if nodes > MOST_NODES or links > MOST_LINKS:
            raise TielineError(
                "too_large",
                f"the topology has {nodes} nodes and {links} links; a laboratory holds {MOST_NODES} and {MOST_LINKS}",
                where=self.topology.name,
            )
        for link in self.topology.links:
            if link.mtu_bytes > MOST_MTU_BYTES:
                raise TielineError(
                    "too_large",
                    f"link `{link.name}` carries packets of {link.mtu_bytes} bytes; a port of a laboratory carries "
                    f"{MOST_MTU_BYTES}",
                    where=link.name,
                )
        seen: dict[str, str] = {}
        for node, words in self.locators.items():
            if words in seen:
                raise TielineError("invalid_request", f"`{node}` and `{seen[words]}` have one locator", where=node)
            seen[words] = node
        taken: dict[str, None] = {}
        for name in (MANAGER_PLACE, *self.numbers, *self.sites.values()):
            if name in taken:
                raise TielineError(
                    "invalid_request",
                    f"`{name}` would name two networks of the laboratory: nodes, sites and `{MANAGER_PLACE}` differ",
                    where=name,
                )
            taken[name] = None

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Node -> its number, from 1."""
        return {node.name: at + 1 for at, node in enumerate(self.topology.nodes)}

    @cached_property
    def locators(self) -> Mapping[str, str]:
        """Node -> the first 48 bits of its segments."""
        return {node.name: locator(self.topology, node.name) for node in self.topology.nodes}

    @cached_property
    def sites(self) -> Mapping[str, str]:
        """Node -> the site that stands behind it, where one does."""
        return {node.name: node.site for node in self.topology.nodes if node.site}

    def node_of(self, end: str) -> str:
        """The node of an end of a circuit: itself, or that of the site. Raises TielineError `not_found`."""
        if end in self.numbers:
            return end
        for node, site in self.sites.items():
            if site == end:
                return node
        raise TielineError("not_found", f"`{end}` is no node and no site of `{self.topology.name}`", where=end)

    def port(self, link: Link) -> str:
        """The name of a link's ports: the same at both ends, so that one looks for it once."""
        return f"l{self.topology.links.index(link) + 1}"

    def port_address(self, link: Link, node: str) -> str:
        """The address of a link's port at a node."""
        return f"fd02:0:0:{self.topology.links.index(link) + 1:x}::{1 if node == link.a else 2}"
