"""Platform of a process that follows: the handlers of reading operations find here what they find in a leader."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tieline.api.hub import HEAD
from tieline.api.metrics import watch_writer
from tieline.api.platform import SHOW_S, Platform
from tieline.model.task import Task

if TYPE_CHECKING:
    from tieline.api.following.trail import Trail
    from tieline.drivers.stores.store import Store
    from tieline.drivers.stores.writer import Writer
    from tieline.exchange.view import View

LOOK_S = 0.5  # how often a log that somebody follows is looked at: the leader appends to it, and tells nobody here
LOG = "log "  # how the names of logs begin at the hub (`hub.log_name`)


class FollowingPlatform(Platform):
    """`store` is a `Follower` and `writer` a `Trail`. No peers are called, no head is signed, nothing is kept."""

    async def start(self, document: Mapping[str, Any]) -> None:
        """Begin to listen to the trail, on the loop that serves."""
        self.document = msgspec.json.encode(document)
        self.task_schema = msgspec.json.schema(Task)
        self.hub.listeners[:] = [self.facts.note, self.indexing.note]
        self.writer.subscribe(self.hub.take_entries)
        self.hub.start(lambda: self.writer.position[0])
        await self.indexing.start()
        watch_writer(self)
        self._looking = asyncio.create_task(self._look_at_logs())

    def closing(self) -> None:
        """End streams and waits."""
        self.indexing.is_given_up = True
        self._looking.cancel()
        self.hub.close()
        self.tail.close()

    async def shown(self) -> None:
        """Wait until everything that is in the store by now is in the index and in what streams see."""
        wanted, _ = await self.read(self.store.position)
        await self.reached(wanted)

    async def reached(self, wanted: int, timeout_s: float = SHOW_S) -> None:
        """Wait until the tail was taken in up to ``wanted``, for a bounded time."""
        until_s = asyncio.get_running_loop().time() + timeout_s
        while self.hub.head < wanted and not self.hub.is_closed:
            left_s = until_s - asyncio.get_running_loop().time()
            with self.hub.waiting(HEAD) as more:
                if left_s <= 0 or not await self.within(more, left_s):
                    return

    async def _look_at_logs(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for name in [name for name in self.hub.waiters if name.startswith(LOG)]:
                self.hub.tell(name)


def as_store(follower: object) -> Store:
    """A follower, for the questions that it shares with a store."""
    return cast("Store", follower)


def as_writer(trail: Trail) -> Writer[View]:
    """A trail, for what it shares with a writer."""
    return cast("Writer[View]", trail)
