"""Readings: takes what sites behind one peer measured, as they signed it, and checks it against their records.

::

    POST /v1/peer/readings  every `ROUND_S`: what came since the last serial; for a site that is led to only now, all
      signature by the key of the site's own record  --> TakeSaid (the rules of `exchange.said`)
      any other                                      --> counted against the peer

    POST /v1/peer/passes    when a site of ours is about to measure doors there (`passes`)

Bounded: pages of 1 MiB, `MOST_PAGES` in a round; the rest comes in the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.federation import Host
from tieline.exchange.said import Said, SaidTaken, TakeSaid
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.measuring import GivenPass, PassesBody, PassesView, PeerReadings, PeerReadingsBody
from tieline.model.peer import Peer
from tieline.model.reading import READINGS, ReadingBatch
from tieline.registry import open_statement, stated
from tieline.registry.passes import pass_said

if TYPE_CHECKING:
    from tieline.registry.follow import Standing

ROUND_S = 10.0
PASSES_S = 3.0  # a site waits for it
PASSLESS_S = 60.0
OLDER_S = 600.0  # a peer that knows no such question may be upgraded
ASK_S = 15.0
MOST_PAGES = 64  # in a round
SITES = 500  # in one question
AT_ONCE = 32  # batches in one decision


class ReadingsDuty:
    """The duty that takes the readings of sites behind one active peer."""

    def __init__(self, host: Host, peer: Peer, client: PeerClient) -> None:
        self.host, self.peer, self.client = host, peer, client
        self.session = ""
        self.after = 0
        self.known: dict[str, None] = {}  # sites of which everything was asked
        self._passless_until_s = 0.0  # a peer that does not give passes is not asked for a while

    def tell(self, peer: Peer) -> None:
        """Grants, filters or fault changed."""
        self.peer = peer

    def wake(self) -> None:
        """A round is never far off."""

    def standing(self) -> Standing | None:
        """It follows no records."""
        return None

    async def run(self) -> None:
        """Take them until cancelled. Raises TielineError when the peer does not answer as it must."""
        while True:
            wait_s = ROUND_S
            try:
                if self.peer.fault is None:
                    await self.look()
            except TielineError as error:
                if error.code in ("not_found", "method_not_allowed"):
                    wait_s = OLDER_S
                elif error.code != "forbidden" and not error.transient:
                    raise
            await asyncio.sleep(wait_s)

    async def passes(self, body: PassesBody) -> dict[str, str]:
        """Passes that the peer gives for a site of ours, by door. What it gives for something else is left out."""
        loop = asyncio.get_running_loop()
        if self.peer.fault is not None or loop.time() < self._passless_until_s:
            return {}
        try:
            page = await self.client.call("POST", "/v1/peer/passes", PassesView, body=body, key=None, total_s=PASSES_S)
        except TielineError:
            self._passless_until_s = loop.time() + PASSLESS_S
            return {}
        asked = {wish.door: None for wish in body.wishes}
        found: dict[str, str] = {}
        for given in page.passes:
            if given.door in asked and _is_for(given, body):
                found[given.door] = given.door_pass
            else:
                self.client.tally.reject("peer_garbled")
        return found

    async def look(self) -> None:
        """One round."""
        sites = checkable(self.host.view, self.peer.id)
        if not sites:
            return
        new = [site for site in sites if site not in self.known]
        is_first = not self.known
        self.known = {site: None for site in sites if site in self.known}
        if not is_first:
            for begin in range(0, len(new), SITES):
                await self._follow(0, new[begin : begin + SITES])
        self.after = await self._follow(self.after, ())
        self.known = dict.fromkeys(sites)

    async def _follow(self, after: int, sites: Sequence[str]) -> int:
        """Page by page; the serial up to which everything was taken."""
        for _ in range(MOST_PAGES):
            body = PeerReadingsBody(session=self.session, after=after, sites=tuple(sites))
            page = await self.client.call("POST", "/v1/peer/readings", PeerReadings, body=body, key=None, total_s=ASK_S)
            if page.is_more and page.session == self.session and page.after <= after:
                raise TielineError("check_failed", f"a page of readings after {after:,} ends with {page.after:,}")
            if page.session != self.session:
                self.session, self.after = page.session, 0
            after = page.after
            await self._take(page.statements)
            if not page.is_more:
                break
        return after

    async def _take(self, statements: Sequence[str]) -> None:
        for begin in range(0, len(statements), AT_ONCE):
            some = statements[begin : begin + AT_ONCE]
            said = await self.host.read(checked, self.host.view, some)
            for _ in range(len(some) - len(said)):
                self.client.tally.reject("reading_unsigned")
            taken: SaidTaken = await self.host.ask(TakeSaid(peer=self.peer.id, said=tuple(said)))
            for reason in taken.refused:
                self.client.tally.reject(reason.code)


def _is_for(given: GivenPass, body: PassesBody) -> bool:
    """Whether a pass is what was asked for; whether it is to be believed is the door's question."""
    try:
        said = pass_said(given.door_pass)
    except TielineError:
        return False
    return (said.door, said.holder, said.public) == (given.door, body.holder, body.public)


def checkable(view: View, peer: str) -> tuple[str, ...]:
    """Sites that a peer leads to and whose records name a key."""
    specs = view.supply.site_specs
    ways = view.ways.get(peer, {}).copy()
    return tuple(site for site in sorted(ways) if (spec := specs.get(site)) is not None and spec.public)


def checked(view: View, statements: Sequence[str]) -> list[Said]:
    """Those that the key of their site's record signed; where there is no record yet, unchecked, without a key."""
    found: list[Said] = []
    specs = view.supply.site_specs
    for statement in statements:
        with contextlib.suppress(TielineError):
            batch, _ = open_statement(statement.encode(), READINGS, ReadingBatch)
            spec = specs.get(batch.site)
            public = spec.public if spec is not None else ""
            if public:
                batch = stated(statement.encode(), public, READINGS, ReadingBatch)
            found.append(Said(statement, batch, public))
    return found
