"""Witness: keeps the signed heads of a peer's log, and notices when a newer one does not go on from the last.

Each round asks for the peer's newest head and for the proof that it extends the one that is kept here. What it signed
once cannot be taken back: a log that was cut or rewritten is found by the next head.

Who shows each of its peers a log of their own is found by hearsay: each peer is also asked which heads of others it was
shown, and those of a common peer are compared with what that one shows here. A head proves itself by its signature, so
that nobody has to be believed; both statements go into the fault, where anybody can check them.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.federation import Duty, DutyMaker, Host
from tieline.exchange.commands import BlamePeer
from tieline.model.audit import GrowthView, HeadPage, HeadView, LogHead
from tieline.model.error import TielineError
from tieline.model.peer import Peer
from tieline.model.reason import Value
from tieline.registry.follow import Standing
from tieline.registry.heads import check_growth, checked_head

ROUND_S = 30.0
ASK_S = 15.0
MOST_TOLD = 64  # exchanges that told of one log and were not compared yet


class Keeper(Host, Protocol):
    """What a witness needs beside what every duty does."""

    async def witnessed(self, exchange: str, after_ms: int) -> HeadView | None:
        """The head of another exchange's log that was kept last; None where none was after ``after_ms``."""

    async def keep_head(self, head: LogHead, statement: bytes) -> None:
        """Keep a head that was checked."""


class Hearsay:
    """Which head of each log the peers say that they were shown last, until it was compared."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, str]] = {}  # by exchange, then by who told: the statement

    def tell(self, head: HeadView, by: str) -> None:
        """``by`` was shown this; what it told of the same log before is forgotten."""
        told = self._told.setdefault(head.exchange, {})
        if by in told or len(told) < MOST_TOLD:
            told[by] = head.statement

    def take(self, exchange: str) -> dict[str, str]:
        """What was told of a log, by teller; each is taken once."""
        return self._told.pop(exchange, {})


def witness_of(keeper: Keeper) -> DutyMaker:
    """Makes the duty for each peer."""
    hearsay = Hearsay()

    def made(_host: Host, peer: Peer, client: PeerClient) -> Duty:
        return Witness(keeper, peer, client, hearsay)

    return made


class Witness:
    """The duty that witnesses the log of one active peer."""

    def __init__(self, host: Keeper, peer: Peer, client: PeerClient, hearsay: Hearsay) -> None:
        self.host, self.peer, self.client, self.hearsay = host, peer, client, hearsay

    def tell(self, peer: Peer) -> None:
        """Grants, filters or fault changed."""
        self.peer = peer

    def wake(self) -> None:
        """A round is never far off."""

    def standing(self) -> Standing | None:
        """It follows no records."""
        return None

    async def run(self) -> None:
        """Witness until cancelled. Raises TielineError when the peer does not answer as it must.

        One that cannot be reached is asked again in the next round: that it is silent is not ours to say.
        """
        while True:
            try:
                await self.look()
            except TielineError as error:
                if not error.transient:
                    raise
            await asyncio.sleep(ROUND_S)

    async def look(self) -> None:
        """One round: nothing is asked of a peer that is at fault until an admin has cleared it.

        What was seen of its log before that is not held against it once more.
        """
        if self.peer.fault is not None:
            return
        told = self.hearsay.take(self.peer.id)  # before the peer is asked: what it shows now cannot be shorter
        said = await self.client.call("GET", "/v1/audit/head", HeadView, total_s=ASK_S)
        statement = said.statement.encode()
        new = checked_head(statement, self.peer.public, self.peer.id)
        if await self._goes_on(new, statement) and await self._is_shown_to_all(new, statement, told):
            await self._listen()

    async def _goes_on(self, new: LogHead, statement: bytes) -> bool:
        """Keep the head where it goes on from the one that is kept; else it is proof."""
        kept = await self.host.witnessed(self.peer.id, self.peer.cleared_ms)
        if kept is not None:
            old = checked_head(kept.statement.encode(), self.peer.public, self.peer.id)
            fault = check_growth(old, new, await self._proof(old, new))
            if fault is not None:
                await self.host.ask(BlamePeer(peer=self.peer.id, code=fault.code, values=fault.values))
                return False
            if new.size == old.size:
                return True
        await self.host.keep_head(new, statement)
        return True

    async def _is_shown_to_all(self, new: LogHead, statement: bytes, told: dict[str, str]) -> bool:
        """Whether what others were shown of this log is of one history with what is shown here."""
        for by, other in told.items():
            try:
                seen = checked_head(other.encode(), self.peer.public, self.peer.id)
            except TielineError:  # whoever told it made it up, or it is of another key
                continue
            if seen.at_ms <= self.peer.cleared_ms or (seen.size, seen.root, seen.head) == (
                new.size,
                new.root,
                new.head,
            ):
                continue
            if check_growth(seen, new, await self._proof(seen, new)) is not None:
                values: dict[str, Value] = {"by": by, "known": seen.size, "seen": new.size}
                proof: dict[str, Value] = {"there": other, "here": statement.decode()}
                await self.host.ask(BlamePeer(peer=self.peer.id, code="log_shown_otherwise", values=values | proof))
                return False
        return True

    async def _listen(self) -> None:
        """Ask which heads of others this peer was shown; those of peers of ours are compared in their next round."""
        page = await self.client.call("GET", "/v1/audit/heads", HeadPage, total_s=ASK_S)
        peers = self.host.view.peers
        for head in page.heads:
            if head.exchange != self.peer.id and head.exchange in peers:
                self.hearsay.tell(head, self.peer.id)

    async def _proof(self, old: LogHead, new: LogHead) -> tuple[str, ...]:
        if not 0 < old.size < new.size:
            return ()
        asked = {"from": old.size, "to": new.size}
        found = await self.client.call("GET", "/v1/audit/proof", GrowthView, params=asked, total_s=ASK_S)
        return found.proof
