"""Kernel: `tieline.ports.Circuits` on Linux routers. All netlink calls are made by one thread.

The new way is made before the old one is left: classes, filters, pinned routes and segments of a way stand on all
routers before the two ends are switched to it, each by one call. A spare route lies ready: falling back to it is
nothing but that switch. Every step that was done is kept until the call is over; when a router refuses one, they are
undone in reverse.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from tieline.drivers.circuits.kernel.fabric import Fabric
from tieline.drivers.circuits.kernel.router import REST
from tieline.drivers.circuits.kernel.steps import (
    MOST_WAYS,
    Step,
    Way,
    arcs,
    class_steps,
    end_steps,
    head_steps,
    way_steps,
    wrapped_bytes,
)
from tieline.drivers.circuits.kernel.verifying import verified
from tieline.model.circuit import Circuit, Receipt, Route
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.topology import Line
from tieline.ports import Applied, PortCount

T = TypeVar("T")
Key = tuple[str, str]  # (node, link): a port
FIRST: Final = 2  # number of a circuit: class 1 is the whole port
LAST: Final = 8_000  # the order of a filter is 16 bits: LAST x MOST_WAYS
DRAIN_S: Final = 0.1  # packets that entered the old way have left it


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A circuit as it lies on the routers."""

    circuit: Circuit
    number: int
    ways: Mapping[tuple[str, ...], Way]  # links -> way
    on: tuple[str, ...] = ()  # links of the way that its packets enter
    classes: Mapping[Key, tuple[int, int]]


class KernelCircuits:
    """Circuits on the routers of a fabric."""

    name = "kernel"

    def __init__(self, fabric: Fabric, evidence: Evidence = Evidence.MEASURED) -> None:
        self.fabric = fabric
        self.evidence = evidence
        self.standing: dict[str, Standing] = {}
        self._thread = ThreadPoolExecutor(1, "circuits")
        self._tail: list[Step] = []  # what was done in the call that runs

    async def apply(self, circuits: Sequence[Circuit]) -> Applied:
        """As `tieline.ports.Circuits`."""
        return await self.run(lambda: self.bring(circuits))

    async def verify(self, circuit: Circuit, seq: int) -> Receipt:
        """As `tieline.ports.Circuits`; takes about two seconds."""
        held = self.standing.get(circuit.id)
        if held is None:
            raise TielineError("not_found", f"circuit `{circuit.id}` does not stand here", where=circuit.id)
        return await asyncio.to_thread(verified, self.fabric, held, seq, self.evidence)

    async def counters(self) -> Sequence[PortCount]:
        """As `tieline.ports.Circuits`."""
        return await self.run(self.count)

    async def withdraw(self, circuit: str) -> None:
        """As `tieline.ports.Circuits`."""
        await self.run(lambda: self.remove(circuit))

    def close(self) -> None:
        """End the thread, and its sockets."""
        self._thread.submit(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        for router in self.fabric.routers.values():
            router.close()
        for behind in self.fabric.behind.values():
            behind.host.close()

    async def run(self, work: Callable[[], T]) -> T:
        """Do something in the thread that speaks with routers."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # -- in the thread --------------------------------------------------------------------------------------------

    def bring(self, circuits: Sequence[Circuit]) -> Applied:
        """Bring circuits to the state given, all or none."""
        begun = time.perf_counter_ns()
        before, self._tail = dict(self.standing), []
        try:
            for circuit in circuits:
                self._bring(circuit)
        except Exception as error:
            self.standing = before
            undone = self._undo()
            if isinstance(error, TielineError):
                raise
            raise TielineError(
                "circuit_refused", f"a router refused step {undone + 1} ({error}); {undone} steps were undone"
            ) from error
        took_us = (time.perf_counter_ns() - begun) // 1_000
        names = [circuit.id for circuit in circuits]
        return Applied(circuits=names, step_count=len(self._tail), took_us=took_us, evidence=self.evidence)

    def remove(self, name: str) -> None:
        """Take a circuit down."""
        held = self.standing.get(name)
        if held is None:
            return
        self._tail = []
        try:
            way = next(iter(held.ways.values()))
            if held.on:
                self._do(step.opposite for step in head_steps(self.fabric, held.number, held.ways[held.on], None))
                time.sleep(DRAIN_S)
            ends = end_steps(self.fabric, held.number, held.circuit, way.route.nodes)
            self._do(step.opposite for step in ends)
            self._leave(held, tuple(held.ways))
            self._reshape(held, {})
        except Exception as error:
            undone = self._undo()
            raise TielineError(
                "circuit_refused", f"a router refused to let `{name}` go ({error}); {undone} steps were undone"
            ) from error
        del self.standing[name]

    def spare(self, down: Collection[str]) -> Mapping[str, str]:
        """Let circuits leave links that are down, at once: name -> ``spare``, or ``igp`` where no spare way is whole.

        A circuit without a whole way gives up its policy: its packets go as all others do until it is applied again.
        What a kernel has cached of a route over a dead port would else be used on. Who refuses is passed over.
        """
        moved = {}
        for name, held in list(self.standing.items()):
            if not held.on or not any(link in down for link in held.on):
                continue
            old = held.ways[held.on]
            whole = [links for links in held.ways if not any(link in down for link in links)]
            if whole:
                steps = head_steps(self.fabric, held.number, held.ways[whole[0]], old)
            else:
                steps = (step.opposite for step in head_steps(self.fabric, held.number, old, None))
            self._tail = []
            try:
                self._do(steps)
            except Exception:  # noqa: BLE001 - the others have to leave as well; this one is applied again by its owner
                self._undo()
                continue
            self.standing[name] = replace(held, on=whole[0] if whole else ())
            moved[name] = "spare" if whole else "igp"
        return moved

    def count(self) -> tuple[PortCount, ...]:
        """Totals of all ports."""
        seen = {node: router.ports() for node, router in self.fabric.routers.items()}
        found = []
        for (node, link), port in self.fabric.ports.items():
            _, sent, received, dropped, is_lit = seen[node][port.index]
            found.append(
                PortCount(
                    link=link, node=node, sent_bytes=sent, received_bytes=received,
                    dropped_packets=dropped, is_carrying=is_lit,
                )
            )  # fmt: skip
        return tuple(found)

    def _bring(self, circuit: Circuit) -> None:
        route = _soundly(self.fabric, circuit)
        wanted = [each for each in (route, circuit.spare) if each is not None]
        held = self.standing.get(circuit.id)
        if held is not None and {held.circuit.route.nodes[0], held.circuit.route.nodes[-1]} != {  # type: ignore[union-attr]
            route.nodes[0], route.nodes[-1],
        }:  # fmt: skip
            raise TielineError("conflict", f"circuit `{circuit.id}` stands between other ends", where=circuit.id)
        is_new = held is None
        held = held or Standing(circuit=circuit, number=self._free_number(), ways={}, classes={})
        both = [*wanted, *(way.route for way in held.ways.values())]
        held = self._reshape(held, _classes(self.fabric, circuit, both))
        ways = dict(held.ways)
        for each in wanted:
            if each.links not in ways:
                ways[each.links] = way = Way(each, _free_way(ways))
                self._do(way_steps(self.fabric, held.number, way))
        if is_new:
            self._do(end_steps(self.fabric, held.number, circuit, route.nodes))
        if held.on != route.links:
            old = held.ways[held.on] if held.on else None
            self._do(head_steps(self.fabric, held.number, ways[route.links], old))
        unwanted = tuple(links for links in ways if links not in {each.links: None for each in wanted})
        held = replace(held, circuit=circuit, ways=ways, on=route.links)
        if unwanted:
            time.sleep(DRAIN_S)
            held = self._leave(held, unwanted)
        self.standing[circuit.id] = self._reshape(held, _classes(self.fabric, circuit, wanted))

    def _leave(self, held: Standing, unwanted: Iterable[tuple[str, ...]]) -> Standing:
        ways = dict(held.ways)
        for links in unwanted:
            steps = list(way_steps(self.fabric, held.number, ways.pop(links)))
            self._do(step.opposite for step in reversed(steps))
        return replace(held, ways=ways)

    def _reshape(self, held: Standing, classes: Mapping[Key, tuple[int, int]]) -> Standing:
        """Give the circuit these classes, and what belongs to no circuit the rest of each port."""
        self.standing = {**self.standing, held.circuit.id: replace(held, classes=classes)}
        changed = [key for key in sorted({*held.classes, *classes}) if held.classes.get(key) != classes.get(key)]
        for key in changed:
            port = self.fabric.ports[key]
            taken = self.taken(key)
            if taken > port.rate_bps:
                raise TielineError(
                    "circuit_refused",
                    f"{taken} bit/s of `{port.link}` at `{port.node}` would be held; it carries {port.rate_bps}",
                    where=port.link,
                )
            was = taken - classes.get(key, (0, 0))[0] + held.classes.get(key, (0, 0))[0]
            there = (port.index, REST, port.rate_bps - taken, port.rate_bps)
            back = (port.index, REST, port.rate_bps - was, port.rate_bps)
            self._do((Step(port.node, "shape", there, "shape", back),))
        self._do(class_steps(self.fabric, held.number, held.classes, classes))
        return replace(held, classes=classes)

    def taken(self, key: Key) -> int:
        """What circuits hold of a port, in bit/s."""
        return sum(each.classes[key][0] for each in self.standing.values() if key in each.classes)

    def _free_number(self) -> int:
        used = {each.number: None for each in self.standing.values()}
        for number in range(FIRST, LAST + 1):
            if number not in used:
                return number
        raise TielineError("overloaded", f"{len(used)} circuits stand; the routers number at most {LAST - FIRST + 1}")

    def _do(self, steps: Iterable[Step]) -> None:
        for step in steps:
            _take(self.fabric, step)
            self._tail.append(step)

    def _undo(self) -> int:
        """Undo all steps of this call; what a router refuses even now is passed over, so that the others are undone."""
        done, self._tail = self._tail, []
        for step in reversed(done):
            try:
                _take(self.fabric, step.opposite)
            except Exception:  # noqa: BLE001, S112 - the router that failed may be gone; the rest must go back
                continue
        return len(done)


def _take(fabric: Fabric, step: Step) -> None:
    node, _, is_site = step.node.partition("'s ")
    router = fabric.behind[node].host if is_site else fabric.routers[node]
    getattr(router, step.verb)(*step.given)


def _free_way(ways: Mapping[tuple[str, ...], Way]) -> int:
    used = {way.number: None for way in ways.values()}
    return next(number for number in range(MOST_WAYS) if number not in used)


def _classes(fabric: Fabric, circuit: Circuit, routes: Iterable[Route]) -> dict[Key, tuple[int, int]]:
    ways = (circuit.held_bps, circuit.order.most_bps), (circuit.held_bps, circuit.order.most_bps)
    if circuit.back_bps is not None:  # answers alone: they may have what is left of each port
        ways = ways[0], (circuit.back_bps, 10**15)
    return {
        (port.node, port.link): (rate, max(rate, min(most, port.rate_bps)))
        for route in routes
        for ports, (rate, most) in zip(arcs(fabric, route), ways, strict=True)
        for port in ports
    }


def _soundly(fabric: Fabric, circuit: Circuit) -> Route:
    """Its route, if routers can be told of all of it. Raises TielineError."""
    if circuit.order.line is not Line.IP:
        raise TielineError(
            "invalid_request",
            f"a kernel carries IP; a line of type `{circuit.order.line}` is a model",
            where=circuit.id,
        )
    if circuit.route is None:
        raise TielineError("invalid_request", f"circuit `{circuit.id}` has no route", where=circuit.id)
    mtu = {link.name: link.mtu_bytes for link in fabric.topology.links}
    for route in (circuit.route, circuit.spare):
        if route is None:
            continue
        for _ in arcs(fabric, route):
            pass
        if {route.nodes[0], route.nodes[-1]} != {circuit.route.nodes[0], circuit.route.nodes[-1]}:
            raise TielineError("invalid_request", "its spare route joins other ends", where=circuit.id)
        needed = circuit.order.mtu_bytes + wrapped_bytes(len(route.links))
        for link in route.links:
            if mtu[link] < needed:
                raise TielineError(
                    "circuit_refused",
                    f"link `{link}` carries packets of {mtu[link]} bytes; wrapped ones have {needed}",
                    where=link,
                )
    return circuit.route
