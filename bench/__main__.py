"""`python -m bench [NAMES]`: run the benchmarks, each in a process of its own, and print one table.

Each row: what is claimed, the figure seen, the anchor (measured in the same run, or published: the note says so), their
ratio, the target and a note. A benchmark that fails is a row that says so, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import unicodedata
from pathlib import Path

import msgspec

from bench.row import Row

NAMES = (
    "cli_start",
    "first_job",
    "job_rate",
    "find_million",
    "place_rate",
    "resolve",
    "verify_records",
    "site_loss",
    "replicate",
    "propagate",
    "partition_heal",
    "sim_faults",
    "exchange_scale",
    "audit_append",
    "failover",
    "te_optimality",
    "te_speed",
    "replan",
    "network_gain",
    "gang_10k",
    "calendar_admission",
    "calendar_cut",
    "coordinates",
    "circle_accuracy",
    "provision",
    "reroute",
    "isolation",
    "mover",
)  # fmt: skip
HEADS = ("claim", "figure", "anchor", "ratio", "target", "note")
BENCH_S = 1_800  # one benchmark is given up after this long
SAID = 300  # characters of an error that a row shows


def main() -> int:
    """Run what was named, or everything; 1 when any of it failed, 2 for a name that there is not."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=_Raw)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}")
    parser.add_argument("--json", action="store_true", help="the rows as JSON")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        return _one(asked.one)
    unknown = [name for name in asked.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    rows: list[Row] = []
    is_good = True
    for name in asked.names or _present():
        print(f"{name} ...", file=sys.stderr, flush=True)
        found, why = _in_process(name)
        if why:
            is_good = False
            found.append(Row(claim=f"{name}: failed", figure=0, unit="", note=why))
        rows.extend(found)
    print(msgspec.json.format(msgspec.json.encode(rows)).decode() if asked.json else drawn(rows))
    return 0 if is_good else 1


class _Raw(argparse.RawDescriptionHelpFormatter):
    """The description keeps its lines."""


def _present() -> list[str]:
    """The benchmarks that this tree has; a missing one is named, so that nobody takes its absence for success."""
    here = Path(__file__).parent
    for name in NAMES:
        if not (here / f"{name}.py").exists():
            print(f"{name}: not in this tree", file=sys.stderr)
    return [name for name in NAMES if (here / f"{name}.py").exists()]


def _one(name: str) -> int:
    """In the process of one benchmark: its rows on stdout, as JSON."""
    rows: list[Row] = importlib.import_module(f"bench.{name}").run()
    sys.stdout.buffer.write(msgspec.json.encode(rows))
    return 0


def _in_process(name: str) -> tuple[list[Row], str]:
    """The rows of one benchmark, and why it failed, if it did."""
    command = [sys.executable, "-m", "bench", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=BENCH_S, check=False, cwd=Path(__file__).parents[1])
    except subprocess.TimeoutExpired:
        return [], f"not done after {BENCH_S} s"
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        return [], f"exit code {done.returncode}: {last[0]}"[:SAID]
    try:
        return msgspec.json.decode(done.stdout, type=list[Row]), ""
    except msgspec.DecodeError as error:
        return [], f"its rows cannot be read: {error}"


def drawn(rows: list[Row]) -> str:
    """The aligned table."""
    table = [HEADS, *(_cells(row) for row in rows)]
    widths = [max(_width(line[at]) for line in table) for at in range(len(HEADS))]
    lines = [
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    anchor = "" if row.anchor is None else number(row.anchor)
    return (
        row.claim,
        f"{number(row.figure)} {row.unit}".strip() if row.unit else "-",
        f"{anchor} {row.anchor_name}".strip(),
        "" if row.ratio is None else f"{number(row.ratio)}x",
        row.target,
        row.note,
    )


def number(value: float) -> str:
    """Three digits that mean something, thousands apart."""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def _width(text: str) -> int:
    """Columns of a terminal: wide letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


if __name__ == "__main__":
    sys.exit(main())
