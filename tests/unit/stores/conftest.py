from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toycore import ToyView, toy_writer, url_of
from writerparts import WAIT_S, Gate, Timer

from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.ports import FakeClock

sys.path.insert(0, str(Path(__file__).parents[2]))
from postgres import KINDS, postgres, store_url

__all__ = ["postgres", "store_url"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every test that asks for a store runs on each kind of database."""
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a store is to be made: nothing is there yet."""
    yield from store_url(kind, tmp_path / "data", request, is_made=False)


@pytest.fixture
def address(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the test's `store` is."""
    yield from store_url(kind, tmp_path / "data", request)


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    """An empty store that is open."""
    opened = Store(address).open()
    yield opened
    opened.close()


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[Store]:
    """An empty store of SQLite, for what holds of files alone."""
    opened = Store(url_of(tmp_path / "data")).open()
    yield opened
    opened.close()


@pytest.fixture
def server_url(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where an empty store of PostgreSQL is, for what holds of servers alone."""
    yield from store_url("postgresql", tmp_path / "data", request)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gate(store: Store) -> Gate:
    return Gate(store)


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def writer(store: Store, gate: Gate, clock: FakeClock, timer: Timer) -> Iterator[Writer[ToyView]]:
    made = toy_writer(store, clock, timer=timer, batch=8, queue=40).start()
    yield made
    gate.open.set()
    assert made.close(WAIT_S)
