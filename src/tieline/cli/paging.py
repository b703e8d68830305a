"""Paging: rows that an exchange gives a page at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

Row = TypeVar("Row")
PAGE_ROWS: Final = 1_000


async def collected(ask: Callable[[str, int], Awaitable[tuple[Sequence[Row], str]]], limit: int) -> list[Row]:
    """At most ``limit`` rows. ``ask(cursor, count)`` answers with rows and the next cursor; an empty one ends it."""
    found: list[Row] = []
    cursor = ""
    while len(found) < limit:
        rows, cursor = await ask(cursor, min(PAGE_ROWS, limit - len(found)))
        found += rows
        if not cursor:
            break
    return found
