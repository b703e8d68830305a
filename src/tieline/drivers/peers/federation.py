"""Federation: what this process does for each peer, as long as it is one: it asks, it follows, and what else is due.

::

    peer asked  ----> ask it again until it has said yes                      (back-off, at most `ASK_S`)
    peer active ----> every duty, each a task of its own, with one client     pull logs (puller.py), use what is there
    peer changed ---> its tasks are told, or begun anew where its address or key changed
    peer removed ---> its tasks end, its connections close

A duty that fails is begun again after a wait; no peer's trouble reaches another's tasks.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from tieline.drivers.http.backoff import Backoff
from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.greeting import ask_to_peer
from tieline.drivers.peers.signing import Signer
from tieline.drivers.peers.tally import Tally
from tieline.drivers.stores.blobs import Blobs
from tieline.drivers.stores.draft import Committed, Ordered
from tieline.drivers.stores.logs import Logs
from tieline.exchange.commands import ChangePeer, Command
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.view import View
from tieline.model import event as fact
from tieline.model.api import LogKept
from tieline.model.error import TielineError
from tieline.model.party import SYSTEM
from tieline.model.peer import Introduction, Peer, PeerRole, PeerState
from tieline.model.protocol import Offer
from tieline.model.reason import Reason
from tieline.ports import Archive, Clock

if TYPE_CHECKING:
    from tieline.registry.follow import Standing

log = logging.getLogger("tieline.peers")
T = TypeVar("T")
ASK_S = 30.0  # between two requests to an exchange that has not said yes
AGAIN_S = 30.0  # at most between two lives of a duty that failed
WELL_S = 20.0  # a duty that went on for so long since is well: longer than any one question of it takes
RENEW_S = 86_400.0


class Orders(Protocol):
    """The orders to one peer as they come."""

    async def take(self, timeout_s: float) -> tuple[Ordered, ...]:
        """Those that came, waiting so long for the first; whatever it raises means: begin anew."""


class Host(Protocol):
    """What the tasks need of the exchange in whose process they run (`api.platform.Platform` is one)."""

    clock: Clock
    keys: ExchangeKeys
    blobs: Blobs
    logs: Logs

    @property
    def view(self) -> View:
        """For look-ups of single names."""

    @property
    def signer(self) -> Signer:
        """Signs what is said to peers."""

    @property
    def archive(self) -> Archive:
        """Our own logs."""

    def introduced(self, nonce: str) -> Introduction:
        """What this exchange says of itself."""

    async def ask(self, command: Command) -> Any:
        """The reply to a command, once what follows from it is kept."""

    async def read(self, question: Callable[..., T], *args: Any) -> T:
        """Ask the store in a thread."""

    def open_orders(self, station: str) -> Orders:
        """What the log orders of ``station`` from now on."""

    def close_orders(self, station: str, orders: Any) -> None:
        """No more of what `open_orders` gave."""

    async def sealed_for(self, offer: Offer) -> str:
        """What the run of an offer to a peer is given, sealed to its site; empty when there is nothing."""

    async def keep_log(self, run: str, node: int, offset: int, content: bytes) -> LogKept:
        """Keep what a run printed, and wake who reads it."""


class Duty(Protocol):
    """What is done for one active peer. Made with (host, peer, client); the client is closed by the federation."""

    async def run(self) -> None:
        """Do it until cancelled."""

    def tell(self, peer: Peer) -> None:
        """The peer's grants, filters or fault changed, or whom we believe."""

    def wake(self) -> None:
        """The peer called us, so it can be reached: do not wait any longer."""

    def standing(self) -> Standing | None:
        """How it stands, for the duty that follows logs; None for the others."""


@runtime_checkable
class Refreshing(Protocol):
    """A duty that can be asked for what is newest."""

    def refreshing(self) -> asyncio.Task[bool] | None:
        """The question that is under way, or a new one; None where it was asked only just now."""


DutyMaker = Callable[[Host, Peer, PeerClient], Duty]


class Branch:
    """The tasks of one peer."""

    def __init__(self, host: Host, peer: Peer, makers: Sequence[DutyMaker], tally: Tally) -> None:
        self.host = host
        self.peer = peer
        self.tally = tally
        self.duties: list[Duty] = []
        self.error: Reason | None = None  # while it is asked
        self.failed: dict[int, Reason] = {}  # why a duty had to begin again, until it is well
        self.task = asyncio.create_task(self._ask() if peer.state is PeerState.ASKED else self._serve(makers))

    def tell(self, peer: Peer) -> bool:
        """Let the tasks know; False when they have to be begun anew."""
        before, self.peer = self.peer, peer
        if (before.state, before.url, before.public) != (peer.state, peer.url, peer.public):
            return False
        for duty in self.duties:
            duty.tell(peer)
        return True

    async def _ask(self) -> None:
        """Say again that we want to peer until the other side has said yes, or has called us."""
        waits = Backoff(first_s=1.0, most_s=ASK_S)
        while True:
            host, peer = self.host, self.peer
            try:
                said = host.introduced(secrets.token_urlsafe(24))
                standing = await ask_to_peer(host.signer, peer, said, host.keys)
                self.error = None
                if standing.state is PeerState.ACTIVE:
                    await host.ask(ChangePeer(actor=SYSTEM, peer=peer.id, what="confirm"))
                    return
            except TielineError as error:
                self.error = said_reason(error)
            await asyncio.sleep(0.2 + waits.next_s())

    async def _serve(self, makers: Sequence[DutyMaker]) -> None:
        try:
            async with PeerClient(self.peer.url, self.peer.id, self.host.signer, tally=self.tally) as client:
                self.duties = [make(self.host, self.peer, client) for make in makers]
                await asyncio.gather(*(self._live(number, duty) for number, duty in enumerate(self.duties)))
        except TielineError as error:  # an address that is never called
            self.error = said_reason(error)

    async def _live(self, number: int, duty: Duty) -> None:
        waits = Backoff(first_s=1.0, most_s=AGAIN_S)
        while True:
            well = asyncio.get_running_loop().call_later(WELL_S, self._well, number, waits)
            try:
                await duty.run()
            except TielineError as error:
                self.failed[number] = said_reason(error)
            except Exception:
                log.exception("defect in what is done for %s", self.peer.id)
            finally:
                well.cancel()
            await asyncio.sleep(0.2 + waits.next_s())

    def _well(self, number: int, waits: Backoff) -> None:
        self.failed.pop(number, None)
        waits.reset()


class Federation:
    """All branches of this process. `start` and `close` are called on the loop that serves."""

    def __init__(self, host: Host, makers: Sequence[DutyMaker]) -> None:
        self.host = host
        self.makers = tuple(makers)
        self.branches: dict[str, Branch] = {}
        self.tallies: dict[str, Tally] = {}
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with every peer that is known."""
        for peer in list(self.host.view.peers.values()):
            self._put(peer)
        self._renewing = asyncio.create_task(self._renew())

    def close(self) -> None:
        """End every task."""
        for branch in self.branches.values():
            branch.task.cancel()
        self.branches.clear()
        if self._renewing is not None:
            self._renewing.cancel()

    def note(self, entries: Sequence[Committed]) -> None:
        """What was committed: called on the loop, in order."""
        if self._renewing is None:
            return
        for entry in entries:
            if isinstance(entry.event, fact.PeerChanged):
                self._put(entry.event.peer)
            elif isinstance(entry.event, fact.RootChanged):
                for branch in self.branches.values():
                    branch.tell(branch.peer)

    def heard(self, peer: str) -> None:
        """The peer called us."""
        branch = self.branches.get(peer)
        if branch is not None:
            for duty in branch.duties:
                duty.wake()

    def standing(self, peer: str) -> Standing | None:
        """How the replication from one peer stands; None where none is followed."""
        branch = self.branches.get(peer)
        if branch is None:
            return None
        found = [standing for duty in branch.duties if (standing := duty.standing()) is not None]
        return found[0] if found else None

    def tally(self, peer: str) -> Tally:
        """What was moved between us and one peer at our request, and what of that was refused."""
        return self.tallies.setdefault(peer, Tally())

    def error(self, peer: str) -> Reason | None:
        """Why the tasks of one peer do not get on."""
        branch = self.branches.get(peer)
        return None if branch is None else branch.error or next(iter(branch.failed.values()), None)

    async def refresh(self, budget_ms: int) -> None:
        """Ask every active peer what is free there now; whoever takes longer is not waited for, and asked no less."""
        asked = [
            task
            for branch in self.branches.values()
            for duty in branch.duties
            if isinstance(duty, Refreshing) and (task := duty.refreshing()) is not None
        ]
        if asked:
            await asyncio.wait(asked, timeout=budget_ms / 1000)

    def _put(self, peer: Peer) -> None:
        branch = self.branches.get(peer.id)
        if branch is not None and branch.tell(peer):
            return
        if branch is not None:
            branch.task.cancel()
            del self.branches[peer.id]
        if peer.state in (PeerState.ASKED, PeerState.ACTIVE):
            self.branches[peer.id] = Branch(self.host, peer, self.makers, self.tally(peer.id))

    async def _renew(self) -> None:
        """Sign the delegations of our children anew before their leases end."""
        while True:
            for peer in list(self.host.view.peers.values()):
                if peer.role is PeerRole.CHILD and peer.state is PeerState.ACTIVE:
                    try:
                        await self.host.ask(ChangePeer(actor=SYSTEM, peer=peer.id, what="renew"))
                    except TielineError as error:
                        log.warning("the delegation of %s could not be renewed: %s", peer.id, error)
            await asyncio.sleep(RENEW_S)


CODES = {
    "exchange_unreachable": "peer_unreachable",
    "timeout": "peer_stalled",
    "too_large": "peer_too_large",
    "check_failed": "peer_garbled",
}


def said_reason(error: TielineError) -> Reason:
    """The reason that an error carries, or the one that its code stands for."""
    if error.reasons:
        return error.reasons[0]
    return Reason(code=CODES.get(error.code, "peer_refused"), values={"why": error.message[:400]})
