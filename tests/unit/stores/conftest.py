from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from toycore import url_of

from tieline.drivers.stores.store import Store
from tieline.ports import FakeClock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(url_of(tmp_path / "data")).open()
    yield opened
    opened.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
