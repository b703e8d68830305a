"""What tests of the writer share: a store that fails when told, seconds that pass when told."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from tieline.drivers.stores.store import Batch, Store, StoreError
from tieline.exchange.commands import PlanTasks
from tieline.model.error import TielineError
from tieline.model.job import Job

WAIT_S = 30
LOOK = PlanTasks(tasks=())


class Gate:
    """A store whose transactions wait, fail or break when told."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.failures: list[BaseException] = []
        self.batches: list[Batch] = []
        self._append = store.append
        self._probe = store.probe
        store.append = self.append  # type: ignore[method-assign]
        store.probe = self.probe  # type: ignore[method-assign]

    def append(self, batch: Batch) -> None:
        self.reached.set()
        assert self.open.wait(WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        self._append(batch)
        self.batches.append(batch)

    def probe(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self._probe()


class Timer:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def done(future: Future[Any]) -> Any:
    return future.result(WAIT_S)


def refused(future: Future[Any]) -> TielineError:
    error = future.exception(WAIT_S)
    assert isinstance(error, TielineError)
    return error


def ids(jobs: Sequence[Job]) -> list[str]:
    return [job.id for job in jobs]


def full() -> StoreError:
    return StoreError("storage_full", "database or disk is full")
