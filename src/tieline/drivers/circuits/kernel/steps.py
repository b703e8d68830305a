"""Steps: what routers have to do for a circuit, as data. Pure; each carries its opposite, so that all can be undone.

On every router of a way: a class of the circuit's rate at the port (HTB), a filter that puts the circuit's packets into
it, a route that pins the next segment to the port, and the segment of the next router. The last router unpacks
(End.DT6, End.DX4), the first one packs (H.Encaps) once everything else stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tieline.drivers.circuits.kernel.addressing import ipv4_address, segment, site_address
from tieline.drivers.circuits.kernel.fabric import Fabric, Port
from tieline.drivers.circuits.kernel.router import POLICY_METRIC
from tieline.model.circuit import Circuit, Route
from tieline.model.error import TielineError
from tieline.network.lease import ENCAPSULATION_BYTES

STEP, INSIDE_IPV4, INSIDE_IPV6 = 1, 4, 6
MOST_SEGMENTS: Final = (ENCAPSULATION_BYTES - 40 - 8) // 16
MOST_WAYS: Final = 8  # of one circuit at once


@dataclass(frozen=True, slots=True)
class Step:
    """A call of a method of `Router`, and the call that undoes it."""

    node: str
    verb: str
    given: tuple[Any, ...]
    back: str
    back_given: tuple[Any, ...]

    @property
    def opposite(self) -> Step:
        """The step back."""
        return Step(self.node, self.back, self.back_given, self.verb, self.given)


@dataclass(frozen=True, slots=True)
class Way:
    """A route as it lies on the routers: the ``number``-th of its circuit."""

    route: Route
    number: int


def kept_segments(count: int) -> range:
    """Which of the ``count`` routers after the first are segments: the last ones, no more than the header has room for.

    Those before them are passed on a pinned route.
    """
    return range(max(0, count - MOST_SEGMENTS), count)


def wrapped_bytes(links: int) -> int:
    """What packing adds to a packet on a route of so many links: an outer header, a routing header, its segments."""
    return 40 + 8 + 16 * len(kept_segments(links))


def arcs(fabric: Fabric, route: Route) -> Iterator[tuple[Port, ...]]:
    """The ports that a route leaves by, there and back. Raises TielineError where it is no path of the topology."""
    if len(route.nodes) != len(route.links) + 1 or len(route.nodes) < 2:
        raise TielineError(
            "invalid_request",
            f"the route has {len(route.nodes)} nodes and {len(route.links)} links; one more is needed",
        )
    if len(frozenset(route.nodes)) != len(route.nodes):
        raise TielineError("invalid_request", "the route passes a node twice")
    for nodes, links in ((route.nodes, route.links), (route.nodes[::-1], route.links[::-1])):
        found = []
        for at, link in enumerate(links):
            port = fabric.ports.get((nodes[at], link))
            if port is None or (nodes[at + 1], link) not in fabric.ports:
                raise TielineError(
                    "invalid_request", f"no link `{link}` leads from `{nodes[at]}` to `{nodes[at + 1]}`", where=link
                )
            found.append(port)
        yield tuple(found)


def way_steps(fabric: Fabric, circuit: int, way: Way) -> Iterator[Step]:
    """Everything of a way but its classes and its heads."""
    for ports, nodes in zip(arcs(fabric, way.route), (way.route.nodes, way.route.nodes[::-1]), strict=True):
        after = nodes[1:]
        kept = kept_segments(len(after))
        for at, node in enumerate(after):
            if at not in kept:
                continue
            anchor = fabric.anchors[node]
            is_last = at == len(after) - 1
            for address, action, inner in _segments(fabric, circuit, way.number, node, is_last):
                yield Step(node, "segment", (address, anchor, action, inner), "no_segment", (address,))
        for at, port in enumerate(ports):
            active = after[max(at, kept.start)]
            base = segment(fabric.addressing.locators[active], circuit, way.number, 0)
            order = circuit * MOST_WAYS + way.number
            prefix = f"{base}/80"
            yield Step(port.node, "route", (prefix, port.index, port.via), "no_route", (prefix,))
            yield Step(port.node, "classify", (port.index, order, base, circuit), "no_classify", (port.index, order))


def _segments(
    fabric: Fabric, circuit: int, way: int, node: str, is_last: bool
) -> Iterator[tuple[str, str, str]]:  # address, action, IPv4 address behind it
    words = fabric.addressing.locators[node]
    if not is_last:
        yield segment(words, circuit, way, STEP), "End", ""
        return
    behind = fabric.behind.get(node)
    yield segment(words, circuit, way, INSIDE_IPV6), "End.DT6", ""
    if behind is not None:
        yield segment(words, circuit, way, INSIDE_IPV4), "End.DX4", _ipv4_of(fabric, circuit, node)


def _ipv4_of(fabric: Fabric, circuit: int, node: str) -> str:
    """The IPv4 end of a circuit behind a node: its number is the node's, so that both ends differ."""
    return ipv4_address(circuit, fabric.addressing.numbers[node])


def head_steps(fabric: Fabric, circuit: int, way: Way, before: Way | None) -> Iterator[Step]:
    """Let what goes from one end to the other enter the way; undone, it enters the one ``before``, or none."""
    for nodes in (way.route.nodes, way.route.nodes[::-1]):
        head, tail = nodes[0], nodes[-1]
        number = fabric.addressing.numbers[tail]
        anchor = fabric.anchors[head]
        for action in (INSIDE_IPV6, INSIDE_IPV4):
            if action == INSIDE_IPV6:
                prefix = f"{site_address(number, circuit)}/128"
            else:
                prefix = f"{_ipv4_of(fabric, circuit, tail)}/32"
            there = (prefix, _listed(fabric, circuit, way, nodes, action), anchor)
            if before is None:
                yield Step(head, "policy", there, "no_policy", (prefix,))
                continue
            old = before.route.nodes if before.route.nodes[0] == head else before.route.nodes[::-1]
            back = (prefix, _listed(fabric, circuit, before, old, action), anchor)
            yield Step(head, "policy", there, "policy", back)


def _listed(fabric: Fabric, circuit: int, way: Way, nodes: Sequence[str], action: int) -> tuple[str, ...]:
    after = nodes[1:]
    kept = kept_segments(len(after))
    words = fabric.addressing.locators
    steps = [segment(words[after[at]], circuit, way.number, STEP) for at in kept[:-1]]
    return (*steps, segment(words[after[-1]], circuit, way.number, action))


def end_steps(fabric: Fabric, circuit: int, order: Circuit, nodes: Sequence[str]) -> Iterator[Step]:
    """What stands behind both ends gets an address of the circuit's own, and uses it towards the other end."""
    for node, other in ((nodes[0], nodes[-1]), (nodes[-1], nodes[0])):
        behind = fabric.behind.get(node)
        if behind is None:
            continue
        numbers = fabric.addressing.numbers
        own, far = site_address(numbers[node], circuit), site_address(numbers[other], circuit)
        own4, far4 = _ipv4_of(fabric, circuit, node), _ipv4_of(fabric, circuit, other)
        mtu, host = order.order.mtu_bytes, f"{node}'s site"
        yield Step(host, "address", (behind.host_index, own, 128), "no_address", (behind.host_index, own, 128))
        given = (f"{far}/128", behind.host_index, behind.gateway, POLICY_METRIC, own, mtu)
        yield Step(host, "route", given, "no_route", (f"{far}/128", POLICY_METRIC))
        yield Step(host, "address", (behind.host_index, own4, 32), "no_address", (behind.host_index, own4, 32))
        yield Step(node, "route", (f"{own4}/32", behind.index), "no_route", (f"{own4}/32",))
        given = (f"{far4}/32", behind.host_index, behind.gateway_ipv4, POLICY_METRIC, own4, mtu)
        yield Step(host, "route", given, "no_route", (f"{far4}/32", POLICY_METRIC))


def class_steps(
    fabric: Fabric,
    circuit: int,
    before: Mapping[tuple[str, str], tuple[int, int]],
    after: Mapping[tuple[str, str], tuple[int, int]],
) -> Iterator[Step]:
    """The classes of a circuit at ports: (node, link) -> rate and most, as they stood and as they should."""
    for key in sorted({*before, *after}):
        port, old, new = fabric.ports[key], before.get(key), after.get(key)
        if old == new:
            continue
        there = ("shape", (port.index, circuit, *new)) if new else ("no_shape", (port.index, circuit))
        back = ("shape", (port.index, circuit, *old)) if old else ("no_shape", (port.index, circuit))
        yield Step(port.node, *there, *back)
