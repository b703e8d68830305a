"""Simulated: circuits on a topology without routers. What it says it saw is reckoned, and its receipts say so.

Delay is that of the links, goodput what the headers leave of the rate. Links can be cut; a circuit over a cut link
carries nothing until it is applied on another route.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tieline.model.circuit import Circuit, Receipt, Route
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.topology import Line, Topology
from tieline.ports import Applied, PortCount

WRAPPED_BYTES = 96  # as `tieline.network.lease` reckons for IP
FRAME_BYTES = 14
HEADERS_BYTES = 72  # IPv6 and TCP with time stamps
SECOND_MS = 1_000


class SimulatedCircuits:
    """Circuits that stand in memory, with bounds as real ones have: rate, room, packet size, whole routes."""

    name = "simulated"
    evidence = Evidence.SIMULATED

    def __init__(self, topology: Topology, now_ms: Callable[[], int]) -> None:
        self.topology = topology
        self.down: dict[str, None] = {}
        self.standing: dict[str, Circuit] = {}
        self._now_ms = now_ms
        self._links = {link.name: link for link in topology.links}
        self._sent: dict[tuple[str, str], int] = {}  # (node, link) -> bytes

    async def apply(self, circuits: Sequence[Circuit]) -> Applied:
        """As `tieline.ports.Circuits`."""
        after = dict(self.standing)
        for circuit in circuits:
            self._check(circuit)
            after[circuit.id] = circuit
        self._fit(after)
        self.standing = after
        names = [circuit.id for circuit in circuits]
        return Applied(circuits=names, step_count=len(names), took_us=0, evidence=self.evidence)

    async def verify(self, circuit: Circuit, seq: int) -> Receipt:
        """As `tieline.ports.Circuits`."""
        held = self.standing.get(circuit.id)
        if held is None or held.route is None:
            raise TielineError("not_found", f"circuit `{circuit.id}` does not stand here", where=circuit.id)
        size, rate = held.order.mtu_bytes, held.held_bps
        wrapped = WRAPPED_BYTES if held.order.line is Line.IP else 0
        computed = rate * (size - HEADERS_BYTES) // (size + wrapped + FRAME_BYTES)
        is_whole = not any(name in self.down for name in held.route.links)
        moved = computed * SECOND_MS // 8_000 if is_whole else 0
        for at, link in enumerate(held.route.links if is_whole else ()):
            key = (held.route.nodes[at], link)
            self._sent[key] = self._sent.get(key, 0) + rate * SECOND_MS // 8_000
        begun = self._now_ms()
        return Receipt(
            subject=circuit.id, seq=seq, begun_ms=begun, ended_ms=begun + SECOND_MS, moved_bytes=moved,
            path=held.route.links if is_whole else (), is_path_proven=is_whole, probe_bytes=size if is_whole else 0,
            goodput_bps=computed if is_whole else 0, computed_bps=computed,
            min_rtt_us=2 * held.route.delay_us if is_whole else 0,
            p99_rtt_us=2 * held.route.delay_us if is_whole else 0,
            lost_ppm=0 if is_whole else 1_000_000, evidence=self.evidence,
        )  # fmt: skip

    async def counters(self) -> Sequence[PortCount]:
        """As `tieline.ports.Circuits`."""
        return [
            PortCount(
                link=link.name, node=node, sent_bytes=self._sent.get((node, link.name), 0),
                received_bytes=self._sent.get((other, link.name), 0), is_carrying=link.name not in self.down,
            )
            for link in self.topology.links
            for node, other in ((link.a, link.b), (link.b, link.a))
        ]  # fmt: skip

    async def withdraw(self, circuit: str) -> None:
        """As `tieline.ports.Circuits`."""
        self.standing.pop(circuit, None)

    def _check(self, circuit: Circuit) -> None:
        if circuit.route is None:
            raise TielineError("invalid_request", f"circuit `{circuit.id}` has no route", where=circuit.id)
        for route in (circuit.route, circuit.spare):
            if route is None:
                continue
            wrapped = WRAPPED_BYTES if circuit.order.line is Line.IP else 0
            for link, a, b in _hops(route):
                found = self._links.get(link)
                if found is None or {found.a, found.b} != {a, b}:
                    raise TielineError("invalid_request", f"no link `{link}` leads from `{a}` to `{b}`", where=link)
                if found.mtu_bytes < circuit.order.mtu_bytes + wrapped:
                    raise TielineError(
                        "circuit_refused",
                        f"link `{link}` carries packets of {found.mtu_bytes} bytes; those of the circuit are "
                        f"{circuit.order.mtu_bytes + wrapped} when wrapped",
                        where=link,
                    )

    def _fit(self, after: dict[str, Circuit]) -> None:
        held: dict[tuple[str, str], int] = {}
        for circuit in after.values():
            ports = {
                (node, link): None
                for route in (circuit.route, circuit.spare) if route is not None
                for link, a, b in _hops(route)
                for node in (a, b)
            }  # fmt: skip
            for key in ports:
                held[key] = held.get(key, 0) + circuit.held_bps
        for (node, name), rate in held.items():
            link = self._links[name]
            back = link.capacity_bps if link.capacity_back_bps is None else link.capacity_back_bps
            most = link.capacity_bps if node == link.a else back
            if rate > most:
                raise TielineError(
                    "circuit_refused",
                    f"circuits would hold {rate} bit/s of `{name}` at `{node}`, which carries {most}",
                    where=name,
                )


def _hops(route: Route) -> list[tuple[str, str, str]]:
    if len(route.nodes) != len(route.links) + 1:
        raise TielineError(
            "invalid_request",
            f"the route has {len(route.nodes)} nodes and {len(route.links)} links; one more is needed",
        )
    return list(zip(route.links, route.nodes[:-1], route.nodes[1:], strict=True))
