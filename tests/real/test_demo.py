"""The main job, as a new user runs it: one exchange, four owners, a lost site, one bill per owner."""

import json
import subprocess
import sys

import pytest

DEMO = [sys.executable, "-m", "tieline.cli"]


def told(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [*DEMO, *arguments], capture_output=True, text=True, timeout=180, env={**os.environ, **environment}, check=False
    )


@pytest.mark.slow
def test_the_demo_ends_well_and_its_summary_says_what_happened(tmp_path) -> None:
    ended = told("demo", "--json", TIELINE_HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr[-2000:] + ended.stdout[-2000:]
    summary = json.loads(ended.stdout)
    assert summary["failed"] == []
    assert len(summary["sites"]) == 4
    assert len({site["owner"] for site in summary["sites"]}) == 4
    assert len(summary["records"]) == 3
    assert summary["chain_verified"] is True
    assert summary["accuracy"] > 0.95
    assert {job["state"] for job in summary["jobs"].values()} == {"succeeded"}
    runs = summary["jobs"]["long"]["runs"]
    assert [run["state"] for run in runs] == ["lost", "succeeded"]
    assert runs[0]["site"] != runs[1]["site"]
    assert sum(summary["bills"]["owners"].values()) == summary["bills"]["ada"] > 0


@pytest.mark.slow
def test_the_demo_speaks_chinese_and_fits_on_a_terminal(tmp_path) -> None:
    ended = told("--lang", "zh", "demo", TIELINE_HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr[-2000:] + ended.stdout[-2000:]
    lines = ended.stdout.splitlines()
    assert len(lines) <= 60
    assert any("检查点" in line for line in lines)
