"""A fabric whose routers write down what they were told, and refuse when they are asked to."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec

from tieline.drivers.circuits.kernel.addressing import Addressing
from tieline.drivers.circuits.kernel.fabric import Behind, Fabric, Port
from tieline.model.circuit import Circuit, CircuitOrder, Route
from tieline.model.topology import Link, Node, Topology

LINKS = ("ab", "bc", "cd", "ad", "be", "ed")  # a-b-c-d, a-d, a-b-e-d


class Told:
    """A router in memory: what stands on it, by what it is called and where."""

    def __init__(self, name: str, budget: list[int]) -> None:
        self.name = name
        self.budget = budget
        self.stands: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def __getattr__(self, verb: str) -> Callable[..., None]:
        if verb.startswith("__"):
            raise AttributeError(verb)

        def told(*given: Any) -> None:
            self.budget[0] -= 1
            if self.budget[0] == 0:
                raise OSError(f"{self.name} refused {verb}")
            plain = verb.removeprefix("no_")
            count = 3 if plain == "address" else 2 if plain in ("shape", "classify") else 1
            key = (plain, *given[:count])
            if plain == "route" and len(given) == 2 and verb == "no_route":
                key = (plain, given[0])
            if verb.startswith("no_"):
                self.stands.pop(key, None)
            else:
                self.stands[key] = given

        return told


def fabric_of(budget: list[int]) -> Fabric:
    """``budget``: how many calls the routers still take before one is refused; 0: all."""
    nodes = tuple(Node(name=name, site=f"cn.{name}/site/s" if name in "ad" else "") for name in "abcde")
    links = tuple(Link(name=n, a=n[0], b=n[1], capacity_bps=100_000_000, delay_us=1_000) for n in LINKS)
    topology = Topology(name="five", nodes=nodes, links=links)
    addressing = Addressing(topology)
    routers = {node.name: Told(node.name, budget) for node in nodes}
    ports = {
        (node, link.name): Port(
            node=node, link=link.name, index=10 + at, via=addressing.port_address(link, other), rate_bps=100_000_000
        )
        for at, link in enumerate(links)
        for node, other in ((link.a, link.b), (link.b, link.a))
    }
    behind = {
        node: Behind(
            index=9, host=Told(f"{node}'s site", budget), host_index=2, gateway="fd00::2", gateway_ipv4="10.255.0.1"
        )
        for node in addressing.sites
    }
    return Fabric(
        topology=topology, addressing=addressing, routers=routers, ports=ports,
        anchors=dict.fromkeys(routers, 3), behind=behind,
    )  # type: ignore[arg-type]  # fmt: skip


def route(path: str) -> Route:
    links = tuple(a + b if a + b in LINKS else b + a for a, b in pairwise(path))
    return Route(nodes=tuple(path), links=links, delay_us=1_000 * len(links))


def circuit(name: str = "k-1", path: str = "abcd", spare: str = "", rate: int = 10_000_000, **order: Any) -> Circuit:
    return Circuit(
        id=name,
        order=CircuitOrder(a=path[0], b=path[-1], rate_bps=rate, **order),
        user="u",
        route=route(path),
        spare=route(spare) if spare else None,
    )


def state(fabric: Fabric) -> dict[str, dict[Any, Any]]:
    """What stands on all routers, but for the classes of the rest, which every port has."""
    told = [*fabric.routers.values(), *(each.host for each in fabric.behind.values())]
    return msgspec.to_builtins(
        {
            each.name: {str(key): list(map(str, given)) for key, given in sorted(each.stands.items(), key=str)}  # type: ignore[attr-defined]
            for each in told
        }
    )
