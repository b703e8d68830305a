"""A newcomer's first minute, offline: `tieline up` in a fresh folder to the end of the first job, and what stays idle.

Everything is the command line as a user types it, in a home folder of its own. Memory is the proportional set size of
all processes that stay (what is shared is divided), from the kernel, some seconds after the job.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from time import perf_counter, sleep

from bench.row import Row

TURNS = 5
IDLE_S = 12  # the site probes itself once, some seconds after its start; idle is after that
COMMAND_S = 90


def run() -> list[Row]:
    """Two rows: seconds to the first finished job, and idle memory."""
    turns = [_turn() for _ in range(TURNS)]
    seconds = median(whole_s for whole_s, _, _ in turns)
    up_s = median(up for _, up, _ in turns)
    memory = median(sum(parts.values()) for _, _, parts in turns)
    parts = ", ".join(f"{name} {size:.0f} MB" for name, size in turns[-1][2].items())
    return [
        Row(
            claim="first_job: `tieline up` in a fresh folder to the first finished job",
            figure=seconds,
            unit="s",
            anchor=21,
            anchor_name="dstack server (published, other hardware)",
            ratio=21 / seconds,
            target="3 s",
            note=f"sky 33 s published; `up` alone {up_s:.2f} s; median of {TURNS}, "
            f"{min(turn[0] for turn in turns):.2f} to {max(turn[0] for turn in turns):.2f} s",
        ),
        Row(
            claim="first_job: memory of all its processes, idle after it (PSS)",
            figure=memory,
            unit="MB",
            anchor=249,
            anchor_name="dstack server (published, other hardware)",
            ratio=249 / memory,
            target="150 MB",
            note=f"sky 542 MB published; {parts}",
        ),
    ]


def _turn() -> tuple[float, float, dict[str, float]]:
    """Seconds in all, seconds of `up`, and megabytes by process."""
    home = Path(mkdtemp(prefix="tieline-bench-"))
    folder = home / "up"
    try:
        began = perf_counter()
        _tieline(home, "up", str(folder))
        up_s = perf_counter() - began
        _tieline(home, "run", "-y", "--", "echo", "first")
        whole_s = perf_counter() - began
        sleep(IDLE_S)
        kept = json.loads((folder / "up.json").read_bytes())
        parts = {name: sum(map(_pss_mb, _tree(process["pid"]))) for name, process in kept.items()}
        return whole_s, up_s, parts
    finally:
        _tieline(home, "down", str(folder), is_checked=False)
        shutil.rmtree(home, ignore_errors=True)


def _tieline(home: Path, *arguments: str, is_checked: bool = True) -> None:
    env = {**os.environ, "HOME": str(home), "TIELINE_HOME": str(home / ".tieline"), "XDG_CONFIG_HOME": str(home)}
    command = [str(Path(sys.executable).with_name("tieline")), *arguments]
    done = subprocess.run(
        command, env=env, capture_output=True, timeout=COMMAND_S, check=False, stdin=subprocess.DEVNULL
    )
    if is_checked and done.returncode:
        raise AssertionError(f"tieline {arguments[0]}: {done.returncode}: {done.stderr.decode()[-300:]}")


def _tree(pid: int) -> list[int]:
    """The process and everything below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000 * 1.024
    return 0.0
