"""A record from the exchange where its owner stored it, through the hub, to the third tier; against one hop.

Three exchanges as processes of the product's own command line on loopback: a region, the hub above it, and another
region below the hub. Both times begin when the owner's exchange itself says the record (it is committed there) and end
when the other exchange says it (verified and committed there), each heard on that exchange's own tail.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from tempfile import mkdtemp

from bench.peer_world import linked, opened, until_seen
from bench.row import Row

RECORDS = 300
WARM = 20
EVERY_S = 0.04
PATIENCE_S = 60.0


def run() -> list[Row]:
    """Two rows: p50 and p99 of two hops, each against one hop of the same records."""
    one, two = asyncio.run(_measured())
    rows = []
    for name, of in (("p50", median), ("p99", _p99)):
        figure, anchor = of(two) * 1000, of(one) * 1000
        rows.append(
            Row(
                claim=f"propagate: a record to the third tier, {name}",
                figure=figure,
                unit="ms",
                anchor=anchor,
                anchor_name="ms, one hop, same records",
                ratio=figure / anchor,
                target="4x" if name == "p99" else "",
                note=f"{len(two)} records, one every {EVERY_S * 1000:.0f} ms; each hop verified and synced to disk",
            )
        )
    return rows


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


async def _measured() -> tuple[list[float], list[float]]:
    async with opened(Path(mkdtemp(prefix="tieline-bench-")), "cn", "cn.sh", "cn.gd") as (hub, region, third):
        await linked(hub, region)
        await linked(hub, third)
        names = []
        for number in range(WARM + RECORDS):
            names.append(await region.publish(f"d{number}"))
            await asyncio.sleep(EVERY_S)
        for name in names:
            await until_seen(third, name, PATIENCE_S)
        kept = names[WARM:]
        return (
            [hub.seen[name] - region.seen[name] for name in kept],
            [third.seen[name] - region.seen[name] for name in kept],
        )
