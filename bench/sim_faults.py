"""A thousand seeded stories of disasters over a simulated federation: faults, checks, violations.

``python -m bench.sim_faults`` prints the whole table of faults and invariants; ``--quick`` plays fifty seeds,
``--seeds A..B`` others. As a benchmark it gives one row.
"""

from __future__ import annotations

import argparse
import sys
from time import process_time

from bench.row import Row
from tieline.sim.search import Found, search
from tieline.sim.story import Size

SEEDS = range(1, 1_001)
QUICK = range(1, 51)
SIZE = Size()
MOST_SHOWN = 5


def run() -> list[Row]:
    """One row: violations over all seeds."""
    return [row_of(*played(SEEDS))]


def played(seeds: range) -> tuple[Found, float]:
    """What became of ``seeds``, and CPU seconds for each."""
    began = process_time()
    found = search(seeds, SIZE, most=MOST_SHOWN)
    return found, (process_time() - began) / max(1, found.seeds)


def row_of(found: Found, each_s: float) -> Row:
    """The claim with its figure."""
    told = "; ".join(f"seed {each.seed}: {each.invariant}" for each in found.violations)
    return Row(
        claim=f"sim_faults: violations in {found.seeds:,} seeded stories of disasters",
        figure=len(found.violations),
        unit="violations",
        target="0 in 1,000 seeds",
        note=f"{SIZE.exchanges} exchanges, {SIZE.sites} sites, {SIZE.steps} happenings each; {found.jobs:,} jobs, "
        f"{sum(found.faults.values()):,} faults of {len(found.faults)} kinds, "
        f"{sum(found.checks.values()):,} checks of {len(found.checks)} invariants; {each_s:.2f} s CPU a seed"
        + (f"; {told}" if told else ""),
    )


def show(found: Found) -> None:
    """Every fault and every invariant with its count."""
    for title, counts in (("injected", found.faults), ("checked", found.checks)):
        print(f"{title}:")
        for name, count in counts.items():
            print(f"  {count:>12,}  {name}")
    for each in found.violations:
        print(f"tieline sim run --seed {each.seed}  # {each.invariant}: {each.what[:300]}")


def main() -> int:
    """1 where something was violated."""
    parser = argparse.ArgumentParser(prog="python -m bench.sim_faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fifty seeds")
    parser.add_argument("--seeds", default="", metavar="A..B", help="these seeds")
    asked = parser.parse_args()
    seeds = QUICK if asked.quick else SEEDS
    if asked.seeds:
        first, _, last = asked.seeds.partition("..")
        seeds = range(int(first), int(last) + 1)
    found, each_s = played(seeds)
    show(found)
    row = row_of(found, each_s)
    print(f"{row.claim}: {row.figure:g} ({row.note})")
    return 1 if row.figure else 0


if __name__ == "__main__":
    sys.exit(main())
