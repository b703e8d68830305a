"""The example of the network has one command, which runs it. The whole takes minutes: `make network`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/network_lab"


def test_the_one_command_of_the_example_runs_it():
    command = next(line[2:] for line in (EXAMPLE / "README.md").read_text().splitlines() if line.startswith("$ "))
    assert command == "make network"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "ARGS"}
    planned = subprocess.run(
        ["make", "-n", "network"], cwd=ROOT, env=plain, capture_output=True, text=True, check=True
    ).stdout
    assert planned.splitlines()[-1].split() == [".venv/bin/python", "examples/network_lab/run.py"]
    told = subprocess.run(
        [sys.executable, str(EXAMPLE / "run.py"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--json" in told
