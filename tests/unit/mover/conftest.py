"""What the tests of the mover share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def quick_waits(monkeypatch):
    """Waits between tries are no part of what is tested."""
    monkeypatch.setattr("tieline.drivers.http.backoff.Backoff.next_s", lambda self: 0.001)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to move into."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder
