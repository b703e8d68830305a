"""Garbage of cycles: a process that keeps many live objects must not walk through all of them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG = 50_000  # net allocations between collections of the youngest generation; Python's own value is 700
MIDDLE = 50
OLD = 100


@contextmanager
def uncollected() -> Iterator[None]:
    """Do not look for cycles while millions of objects are made that have none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def collect_rarely() -> None:
    """Call it once everything is loaded: what lives now is not looked at again, and new objects seldom.

    Events, jobs and runs are structs without cycles, freed as soon as nobody holds them; with 100,000 of them alive the
    collector took a quarter of the writer's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
