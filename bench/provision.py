"""From the order for a circuit to traffic that was seen on it, and from an order for another rate to that rate.

Seven routers and four sites in namespaces; laid by netlink, verified by full-size probes, counters and a second of TCP.
"""

from __future__ import annotations

import asyncio
from statistics import median
from time import perf_counter

import msgspec

from bench.lab_world import NORTH, SOUTH, Lab, circuit, laboratory
from bench.row import Row

RUNS = 5
RATE_BPS = 16_000_000
MORE_BPS = 24_000_000
NOTE = "7 routers and 4 sites in namespaces of this machine, links of 40 Mbit/s with user-space delay"


def run() -> list[Row]:
    """Four rows."""
    with laboratory() as lab:
        return asyncio.run(_seen(lab))


async def _seen(lab: Lab) -> list[Row]:
    laid, whole, resized, shares = [], [], [], []
    for at in range(RUNS):
        asked = circuit(f"k-{at}", RATE_BPS, SOUTH, NORTH)
        began = perf_counter()
        await lab.circuits.apply([asked])
        laid.append(perf_counter() - began)
        receipt = await lab.circuits.verify(asked, 1)
        whole.append(perf_counter() - began)
        assert receipt.is_path_proven, receipt
        shares.append(receipt.goodput_bps / receipt.computed_bps)
        wider = msgspec.structs.replace(asked, granted_bps=MORE_BPS)
        began = perf_counter()
        await lab.circuits.apply([wider])
        resized.append(perf_counter() - began)
        receipt = await lab.circuits.verify(wider, 2)
        assert receipt.is_path_proven, receipt
        shares.append(receipt.goodput_bps / receipt.computed_bps)
        await lab.circuits.withdraw(asked.id)
    far = max(abs(1 - share) for share in shares)
    return [
        Row(
            claim="provision: order for a circuit to verified traffic",
            figure=median(whole), unit="s", target="2 s",
            note=f"median of {RUNS}, worst {max(whole):.2f} s, with a rate test of 1 s; {NOTE}",
        ),
        Row(
            claim="provision: way and spare way laid on the routers",
            figure=median(laid) * 1e3, unit="ms",
            note=f"two and three routers after the first; worst {max(laid) * 1e3:.0f} ms",
        ),
        Row(
            claim="provision: another rate, on way and spare way",
            figure=median(resized) * 1e3, unit="ms", target="200 ms",
            note=f"16 -> 24 Mbit/s, median of {RUNS}, worst {max(resized) * 1e3:.0f} ms",
        ),
        Row(
            claim="provision: goodput over what rate and headers allow",
            figure=median(shares), unit="of computed", target="0.97",
            note=f"TCP payload, median of {len(shares)}; farthest off by {far:.1%}",
        ),
    ]  # fmt: skip
