"""Verifying: what is seen of a circuit when something is sent through it. The receipt holds what was seen, good or bad.

The path is proven by counters: the circuit's own class at every port of its route grew by what was sent, and so did the
port as a whole; a class exists at no port beside the route and the spare one, and those of the spare one stood still.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tieline.drivers.circuits.kernel.addressing import site_address
from tieline.drivers.circuits.kernel.steps import arcs, wrapped_bytes
from tieline.drivers.circuits.kernel.traffic import End, goodput_bps, probe, rate_bps
from tieline.model.circuit import Receipt
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence

if TYPE_CHECKING:
    from tieline.drivers.circuits.kernel.driver import Standing
    from tieline.drivers.circuits.kernel.fabric import Fabric

PROBES: Final = 50
STRAY: Final = 0.02  # of what was sent may be missing at a port: what was still under way


def verified(fabric: Fabric, held: Standing, seq: int, evidence: Evidence) -> Receipt:
    """Probe, send for a second, read the counters before and after. Raises TielineError where an end has no site."""
    if not held.on:
        raise TielineError(
            "conflict", "no way of the circuit is whole: its packets go as all others do", where=held.circuit.id
        )
    way = held.ways[held.on]
    near, far = (_end(fabric, held.number, node) for node in (way.route.nodes[0], way.route.nodes[-1]))
    order = held.circuit.order
    begun_ms = time.time_ns() // 1_000_000
    before = _counts(fabric, held)
    probed = probe(near, far, order.mtu_bytes, PROBES)
    moved, goodput = 0, 0
    if probed.rtts_us:
        try:
            moved, goodput = rate_bps(near, far)
        except OSError:
            moved, goodput = 0, 0  # it let probes through and carries nothing: the receipt says so
    after = _counts(fabric, held)
    grown = {key: (after[key][0] - before[key][0], after[key][1] - before[key][1]) for key in before}
    there, back = ([(port.node, port.link) for port in ports] for ports in arcs(fabric, way.route))
    least = (moved + (probed.sent_bytes if probed.rtts_us else 1)) * (1 - STRAY)
    proven = [link for node, link in there if min(grown[node, link]) >= least]
    beside = [key for key in grown if key not in there and key not in back and grown[key][0] > STRAY * least]
    rtts = probed.rtts_us
    return Receipt(
        subject=held.circuit.id,
        seq=seq,
        begun_ms=begun_ms,
        ended_ms=time.time_ns() // 1_000_000,
        moved_bytes=moved,
        path=tuple(proven),
        is_path_proven=len(proven) == len(there) and not beside,
        probe_bytes=order.mtu_bytes if rtts else 0,
        goodput_bps=goodput,
        computed_bps=goodput_bps(held.circuit.held_bps, order.mtu_bytes, wrapped_bytes(len(way.route.links))),
        min_rtt_us=rtts[0] if rtts else 0,
        p99_rtt_us=rtts[(len(rtts) * 99 - 1) // 100] if rtts else 0,
        lost_ppm=probed.lost_ppm,
        evidence=evidence,
    )


def _end(fabric: Fabric, circuit: int, node: str) -> End:
    behind = fabric.behind.get(node)
    if behind is None:
        raise TielineError("conflict", f"nothing stands behind `{node}` that could send or answer", where=node)
    return End(behind.host.network, site_address(fabric.addressing.numbers[node], circuit))


def _counts(fabric: Fabric, held: Standing) -> dict[tuple[str, str], tuple[int, int]]:
    """Port of the circuit -> bytes that its class sent, bytes that the port sent."""
    found = {}
    try:
        for node, link in held.classes:
            router, port = fabric.routers[node], fabric.ports[node, link]
            sent = router.ports()[port.index][1]
            found[node, link] = (router.classes(port.index).get(held.number, (0, 0))[0], sent)
    finally:
        for node, _ in held.classes:
            fabric.routers[node].close()  # those of this thread
    return found
