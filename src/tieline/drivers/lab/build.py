"""Build: the networks, ports, queues and routes of a laboratory, from a topology.

::

    site (host) == veth == router == TAP + delay == router ...        every box a network namespace
         \\______________ veth, the management network ______________/ the laboratory's own namespace
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tieline.drivers.circuits.kernel.addressing import MANAGER, Addressing, prefix, site_address
from tieline.drivers.circuits.kernel.fabric import Behind, Fabric, Port
from tieline.drivers.circuits.kernel.namespaces import here, inside, made
from tieline.drivers.circuits.kernel.router import Router, closed
from tieline.drivers.lab.fibre import has_taps, paired, tap
from tieline.drivers.lab.igp import next_hops
from tieline.model.topology import Topology

ACCESS_MTU: Final = 1_500
SETTINGS: Final = (
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/seg6_enabled", "1"),
    ("ipv6/conf/default/seg6_enabled", "1"),
    ("ipv6/conf/all/ignore_routes_with_linkdown", "1"),
    ("ipv6/conf/default/ignore_routes_with_linkdown", "1"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
)


@dataclass
class Laboratory:
    """What was built. ``taps`` are the far sides of the ports of each link, for the fibre."""

    fabric: Fabric
    taps: dict[str, tuple[int, int, int]]
    sites: dict[str, int]  # site -> its network
    manager: int  # the network of the laboratory's own, from which every site is reached beside all links
    networks: list[int]
    fibre: str = "tun"  # or `pair`, where this process may make no TAP
    routes: dict[str, dict[str, tuple[str, int, str]]] = field(default_factory=dict)

    def converge(self, down: Collection[str] = ()) -> int:
        """Route what belongs to no circuit around links that are down; gives how many routes changed."""
        fabric, changed = self.fabric, 0
        numbers, locators = fabric.addressing.numbers, fabric.addressing.locators
        for node, hops in next_hops(fabric.topology, down).items():
            held = self.routes.setdefault(node, {})
            wanted: dict[str, tuple[str, int, str]] = {}
            for other, (link, _) in hops.items():
                port = fabric.ports[node, link.name]
                for target in (f"{locators[other]}::/48", prefix(numbers[other])):
                    wanted[target] = (target, port.index, port.via)
            router = fabric.routers[node]
            for target in [each for each in held if each not in wanted]:
                router.no_route(target)
                del held[target]
                changed += 1
            for target, given in wanted.items():
                if held.get(target) != given:
                    router.route(*given)
                    held[target] = given
                    changed += 1
        return changed

    def let_go(self) -> None:
        """Let go of the far sides of all ports: when the process that carries the packets ends, so do the ports."""
        closed([port for a, b, _ in self.taps.values() for port in (a, b)])
        self.taps = {name: (-1, -1, delay_us) for name, (_, _, delay_us) in self.taps.items()}

    def close(self) -> None:
        """Let everything go."""
        self.let_go()
        for router in self.fabric.routers.values():
            router.close()
        for behind in self.fabric.behind.values():
            behind.host.close()
        closed(self.networks)


def built(topology: Topology) -> Laboratory:
    """Build it. Raises TielineError where the topology is too large or this machine does not let it."""
    addressing = Addressing(topology)
    networks: list[int] = []

    def network() -> int:
        networks.append(made())
        with inside(networks[-1]):
            for name, value in SETTINGS:
                Path("/proc/sys/net", name).write_text(value)
        return networks[-1]

    routers = {node.name: Router(node.name, network()) for node in topology.nodes}
    anchors = {node: _anchored(router) for node, router in routers.items()}
    taps, ports = {}, {}
    cables = None if has_taps() else _cables()
    for number, link in enumerate(topology.links):
        name = addressing.port(link)
        if cables is None:
            a, b = (tap(routers[node].network, name) for node in (link.a, link.b))
        else:
            ends = ((link.a, f"a{number}"), (link.b, f"b{number}"))
            a, b = (paired(routers[node], cables, name, end, link.mtu_bytes) for node, end in ends)
        taps[link.name] = (a, b, link.delay_us)
        back = link.capacity_bps if link.capacity_back_bps is None else link.capacity_back_bps
        for node, other, rate in ((link.a, link.b, link.capacity_bps), (link.b, link.a, back)):
            index = routers[node].set_up(name, link.mtu_bytes)
            routers[node].address(index, addressing.port_address(link, node), 64)
            routers[node].shaped(index, rate)
            ports[node, link.name] = Port(
                node=node, link=link.name, index=index, via=addressing.port_address(link, other), rate_bps=rate
            )
    if cables is not None:  # its ports are held by the fibre alone
        cables.close()
        os.close(cables.network)
    home = here()
    networks.append(home)
    manager = Router("manager", home)
    manager.set_up("lo", 65_536)
    manager.address(1, MANAGER, 128)
    behind = {}
    for node in addressing.sites:
        host = Router(f"{node}'s site", network())
        number = addressing.numbers[node]
        index, host_index = routers[node].join("site", host, "router", ACCESS_MTU)
        gateway, gateway_ipv4 = f"fd00:0:{number:x}::2", f"10.255.{number}.1"
        host.set_up("lo", 65_536)
        routers[node].address(index, gateway, 64)
        routers[node].address(index, gateway_ipv4, 30)
        routers[node].route(prefix(number), index, site_address(number))
        host.address(host_index, site_address(number), 64)
        host.address(host_index, f"10.255.{number}.2", 30)
        host.route("fd00::/16", host_index, gateway)
        near, far = manager.join(f"s{number}", host, "manager", ACCESS_MTU)
        host.address(far, f"fd03::{number:x}", 128)
        manager.address(near, MANAGER, 128)  # on every port: none answers for an address of another
        manager.route(f"fd03::{number:x}/128", near)
        host.route(f"{MANAGER}/128", far)
        behind[node] = Behind(index=index, host=host, host_index=host_index, gateway=gateway, gateway_ipv4=gateway_ipv4)
    manager.close()
    fabric = Fabric(
        topology=topology, addressing=addressing, routers=routers, ports=ports, anchors=anchors, behind=behind
    )
    sites = {site: behind[node].host.network for node, site in addressing.sites.items()}
    laboratory = Laboratory(fabric=fabric, taps=taps, sites=sites, manager=home, networks=networks)
    laboratory.fibre = "tun" if cables is None else "pair"
    laboratory.converge()
    return laboratory


def _cables() -> Router:
    """The network of the fibre's own ends. Nothing in it speaks by itself."""
    network = made()
    with inside(network):
        for name in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
    return Router("fibre", network)


def _anchored(router: Router) -> int:
    """A pair of ports inside one network: they never lose their light."""
    router.set_up("lo", 65_536)
    index, _ = router.join("anchor", router, "anchored", 65_535)
    return index
