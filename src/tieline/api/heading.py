"""Heading: signs the newest position of the log, and keeps what it signed: a promise that can be held against us."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tieline.drivers.stores.heads import kept, newest_heads
from tieline.drivers.stores.log import GENESIS
from tieline.drivers.stores.tiles import Proofs, Tree
from tieline.model.audit import HeadView, LogHead
from tieline.model.error import TielineError
from tieline.registry.heads import head_view, sign_head

if TYPE_CHECKING:
    from tieline.api.platform import Platform

log = logging.getLogger("tieline.audit")


class Heading:
    """The newest signed head of one exchange's own log."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._newest: tuple[LogHead, bytes] | None = None
        self._kept_size = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sign and keep from now on, every `audit_head_s` while the log moves."""
        self._task = asyncio.create_task(self._run())

    def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    async def newest(self) -> HeadView:
        """The head of the log as it is now; signed once for each length."""
        return head_view((await self._signed())[1])

    async def _signed(self) -> tuple[LogHead, bytes]:
        platform = self._platform
        tree = platform.store.tree
        if self._newest is not None and self._newest[0].size == tree.size:
            return self._newest
        end = await platform.read(hash_of, platform, tree)
        head = LogHead(
            exchange=platform.exchange.id,
            size=tree.size,
            root=tree.root().hex(),
            head=end.hex(),
            at_ms=platform.clock.now_ms(),
        )
        found = head, sign_head(head, platform.keys.key, platform.keys.kid)
        if self._newest is None or self._newest[0].size < head.size:
            self._newest = found
        return found

    async def keep(self) -> None:
        """Keep the newest head where the log has moved since the last one. Raises TielineError."""
        head, statement = await self._signed()
        if head.size > self._kept_size:
            await asyncio.wrap_future(self._platform.writer.keep([kept(head, statement, head.at_ms)]))
            self._kept_size = head.size

    async def _run(self) -> None:
        platform = self._platform
        try:
            await platform.read(check_kept, platform)
        except TielineError:
            log.critical("the log does not go on from what this exchange has signed of it", exc_info=True)
        while True:
            try:
                await self.keep()
            except TielineError as error:
                log.warning("the head of the log was not kept: %s", error)
            except Exception:
                log.exception("defect in signing the head of the log")
            await asyncio.sleep(platform.limits.audit_head_s)


def hash_of(platform: Platform, tree: Tree) -> bytes:
    """The hash of the newest entry of ``tree``. Reads the store: call it by `Platform.read`."""
    if not tree.size:
        return GENESIS
    return platform.store.log_rows(tree.size - 1, 1)[0].hash


def check_kept(platform: Platform) -> None:
    """Raise `check_failed` where the log is not the one that this exchange has signed last. Reads the store."""
    tree = platform.store.tree
    for head in newest_heads(platform.store.engine, platform.exchange.id):
        if head.size > tree.size:
            raise TielineError(
                "check_failed", f"the log ends at entry {tree.size:,}, but its head at {head.size:,} was signed"
            )
        if Proofs(platform.store.engine, tree).root(head.size).hex() != head.root:
            raise TielineError("check_failed", f"the first {head.size:,} entries are not those that were signed")
