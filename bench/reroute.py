"""A link is cut under traffic: how long until packets of the circuit arrive again.

The keeper looks at the light of every port each 5 ms, and leads the circuit over the spare way that lies ready.
A fault that leaves the light on would be found by probes, later.
"""

from __future__ import annotations

import json
import time

from bench.lab_world import NORTH, SOUTH, Lab, circuit, laboratory
from bench.row import Row

CUTS = 20
REST_S = 0.6
PATIENCE_S = 30.0


def run() -> list[Row]:
    """One row."""
    with laboratory() as lab:
        asked = circuit("k-1", 16_000_000, SOUTH, NORTH)
        lab.ask("apply", circuits=(asked,))
        near, far = lab.ends("k-1")
        pinger = lab.start("ping", near, far, CUTS * REST_S * 2 + 4)
        assert pinger.stdout is not None
        pinger.stdout.readline()
        cuts = [_cut(lab) for _ in range(CUTS)]
        seen: list[tuple[float, float]] = json.loads(pinger.communicate()[0])
    outages = []
    for at_s in cuts:
        rtt_s = min(came - sent for sent, came in seen)
        first = min((came - rtt_s for sent, came in seen if sent > at_s), default=at_s + PATIENCE_S)
        outages.append(max(0.0, first - at_s))
    outages.sort()
    p95 = outages[int(0.95 * (len(outages) - 1))]
    return [
        Row(
            claim="reroute: cut of a link to packets on the spare way, p95",
            figure=p95 * 1e3, unit="ms", target="100 ms",
            note=f"{CUTS} cuts under a packet every 2 ms, median {outages[len(outages) // 2] * 1e3:.1f} ms, worst "
            f"{outages[-1] * 1e3:.1f} ms; carrier loss seen, spare way entered, first packet through",
        ),
    ]  # fmt: skip


def _cut(lab: Lab) -> float:
    """Cut the first link of the way, give it its light again, and let the circuit return; the moment of the cut."""
    time.sleep(REST_S / 2)
    at_s = time.monotonic()
    lab.ask("cut", link="shanghai-jiaxing")
    _wait(lab, NORTH.links)
    time.sleep(REST_S / 2)
    lab.ask("restore", link="shanghai-jiaxing")
    while not all(link.is_up for link in lab.show().links):
        time.sleep(0.02)
    lab.ask("apply", circuits=(circuit("k-1", 16_000_000, SOUTH, NORTH),))
    _wait(lab, SOUTH.links)
    return at_s


def _wait(lab: Lab, links: tuple[str, ...]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while lab.show().circuits[0].on != links:
        assert time.monotonic() < deadline
        time.sleep(0.01)
