"""What a build machine runs judges skips as it says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "run"
EXPECTED = "SKIPPED [2] tests/unit/stores/test_store_disk.py:30: needs the right to mount: permission denied"
MISSING = "SKIPPED [1] tests/real/test_container_engine.py:33: no podman works here: podman is not installed"


def judged(tmp_path: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    log = tmp_path / "log"
    log.write_text("\n".join(("....ss.", *lines, "5 passed, 2 skipped in 1.00s")) + "\n")
    return subprocess.run([str(SCRIPT), "--skips", str(log)], capture_output=True, text=True, timeout=20, check=False)


def test_the_script_is_a_script_that_bash_can_read():
    assert os.access(SCRIPT, os.X_OK)
    assert SCRIPT.read_text().splitlines()[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in SCRIPT.read_text()
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True, timeout=20)


def test_no_skip_at_all_is_well(tmp_path):
    assert judged(tmp_path).returncode == 0


def test_expected_skips_are_shown_and_pass(tmp_path):
    done = judged(tmp_path, EXPECTED)
    assert (done.returncode, EXPECTED in done.stdout) == (0, True)


@pytest.mark.parametrize("others", [(), (EXPECTED,)])
def test_a_skip_that_nobody_expects_fails_and_is_named_alone(tmp_path, others):
    done = judged(tmp_path, *others, MISSING)
    assert done.returncode == 1
    assert MISSING in done.stderr
    assert EXPECTED not in done.stderr
