"""Patience: calls that are repeated until the exchange answers, however long it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tieline.drivers.http.backoff import Backoff
from tieline.model.error import TielineError

log = logging.getLogger("tieline.site")
T = TypeVar("T")
SESSION = ("unauthenticated", "forbidden")  # the bearer was another session's: the next one may do it
FULL_TRIES = 20  # of a store that is full: about three minutes
SESSION_TRIES = 8


async def waited(event: asyncio.Event, seconds: float) -> bool:
    """Wait until ``event`` is set, at most so long; whether it is. `asyncio.wait_for` can lose a cancellation here."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def patiently(call: Callable[[], Awaitable[T]], is_open: asyncio.Event, what: str) -> T:
    """The result of ``call`` once it succeeds. Raises TielineError for what trying again does not mend."""
    backoff = Backoff(first_s=0.2, most_s=15.0)
    while True:
        await is_open.wait()
        try:
            return await call()
        except TielineError as error:
            is_worth = error.transient or (error.code in SESSION and backoff.tries < SESSION_TRIES)
            if not is_worth or (error.code == "storage_full" and backoff.tries >= FULL_TRIES):
                raise
            log.warning("%s waits", what, extra={"code": error.code, "why": error.message})
        await asyncio.sleep(backoff.next_s())
