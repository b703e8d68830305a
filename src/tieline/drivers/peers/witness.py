"""Witness: keeps the signed heads of a peer's log, and notices when a newer one does not go on from the last.

Each round asks for the peer's newest head and for the proof that it extends the one that is kept here. What it signed
once cannot be taken back: a log that was cut, rewritten, or shown to others in another form is found by the next head.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.federation import Duty, DutyMaker, Host
from tieline.exchange.commands import BlamePeer
from tieline.model.audit import GrowthView, HeadView, LogHead
from tieline.model.peer import Peer
from tieline.registry.follow import Standing
from tieline.registry.heads import check_growth, checked_head

ROUND_S = 30.0
ASK_S = 15.0


class Keeper(Host, Protocol):
    """What a witness needs beside what every duty does."""

    async def witnessed(self, exchange: str, after_ms: int) -> HeadView | None:
        """The head of another exchange's log that was kept last; None where none was after ``after_ms``."""

    async def keep_head(self, head: LogHead, statement: bytes) -> None:
        """Keep a head that was checked."""


def witness_of(keeper: Keeper) -> DutyMaker:
    """Makes the duty for each peer."""

    def made(_host: Host, peer: Peer, client: PeerClient) -> Duty:
        return Witness(keeper, peer, client)

    return made


class Witness:
    """The duty that witnesses the log of one active peer."""

    def __init__(self, host: Keeper, peer: Peer, client: PeerClient) -> None:
        self.host, self.peer, self.client = host, peer, client

    def tell(self, peer: Peer) -> None:
        """Grants, filters or fault changed."""
        self.peer = peer

    def wake(self) -> None:
        """A round is never far off."""

    def standing(self) -> Standing | None:
        """It follows no records."""
        return None

    async def run(self) -> None:
        """Witness until cancelled. Raises TielineError when the peer does not answer as it must."""
        while True:
            await self.look()
            await asyncio.sleep(ROUND_S)

    async def look(self) -> None:
        """One round: nothing is asked of a peer that is at fault until an admin has cleared it.

        What was kept before that is held against it no more: its log is taken as it is then.
        """
        if self.peer.fault is not None:
            return
        said = await self.client.call("GET", "/v1/audit/head", HeadView, total_s=ASK_S)
        statement = said.statement.encode()
        new = checked_head(statement, self.peer.public, self.peer.id)
        kept = await self.host.witnessed(self.peer.id, self.peer.cleared_ms)
        if kept is not None:
            old = checked_head(kept.statement.encode(), self.peer.public, self.peer.id)
            fault = check_growth(old, new, await self._proof(old, new))
            if fault is not None:
                await self.host.ask(BlamePeer(peer=self.peer.id, code=fault.code, values=fault.values))
                return
            if new.size == old.size:
                return
        await self.host.keep_head(new, statement)

    async def _proof(self, old: LogHead, new: LogHead) -> tuple[str, ...]:
        if not 0 < old.size < new.size:
            return ()
        asked = {"from": old.size, "to": new.size}
        found = await self.client.call("GET", "/v1/audit/proof", GrowthView, params=asked, total_s=ASK_S)
        return found.proof
