import os
import subprocess
import sys
from pathlib import Path

import pytest

from peer_world import ADMIN, Exchange

sys.path.insert(0, str(Path(__file__).parents[2]))
from postgres import empty_sqlite


@pytest.fixture
def exchange(tmp_path):
    """Exchanges of a test's own, by prefix; all are stopped at the end."""
    made = []

    def make(prefix, **fields):
        made.append(Exchange(tmp_path / f"{len(made)}-{prefix}", prefix, **fields))
        empty_sqlite(made[-1].folder)
        return made[-1].start()

    yield make
    for each in reversed(made):
        each.stop()


@pytest.fixture
def tieline(tmp_path):
    """Run one verb as the admin of an exchange."""

    def call(here, *words, status=0):
        done = subprocess.run(
            [sys.executable, "-m", "tieline.cli", "-x", here.url, *words],
            capture_output=True,
            text=True,
            timeout=180,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TIELINE_TOKEN": ADMIN, "TIELINE_HOME": str(tmp_path), "TIELINE_LANG": "en"},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 and "--json" in words else done.stdout + done.stderr

    return call
