"""Peer caller: from a signed request to an actor, and what is counted of each peer that calls.

The signature is checked before the body is read; the body is hashed while it is read (`covered`), so that a handler
never sees the end of a body that was not signed.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec
from litestar.types import HTTPReceiveMessage, Receive

from tieline.api.call import Call
from tieline.drivers.peers.signing import Nonces, claimed_of, verify_request
from tieline.drivers.peers.tally import Tally
from tieline.exchange.commands import ChangePeer
from tieline.exchange.permission import no_such
from tieline.model.error import TielineError
from tieline.model.party import SYSTEM, Actor, Role
from tieline.model.peer import Peer, PeerState
from tieline.model.reason import Reason, sentence

if TYPE_CHECKING:
    from tieline.api.platform import Platform

SIGNED = b"tieline-from"
CALLS, LIMITED, UNPROVED = "calls", "limited", "unproved"
MOST_UNKEPT = 10_000
ORDINARY = ("not_found", "method_not_allowed", "overloaded", "internal")  # refusals that say nothing about the peer


class PeerCalls:
    """Counts by peer, and the nonces of their signatures. Bounded: only peers that are known here are counted."""

    def __init__(self, began_s: int) -> None:
        self.nonces = Nonces(began_s)
        self.counts: dict[str, dict[str, int]] = {}
        self.unkept: OrderedDict[tuple[str, str], Reason] = OrderedDict()  # peer and sha256 of bytes without room
        self.tallies: dict[str, Tally] = {}  # of the bodies of their calls and our answers, and what was refused

    def count(self, peer: str, what: str) -> None:
        """One more."""
        counts = self.counts.setdefault(peer, {CALLS: 0, LIMITED: 0, UNPROVED: 0})
        counts[what] += 1

    def of(self, peer: str) -> dict[str, int]:
        """The counts of one peer."""
        return dict(self.counts.get(peer, {}))

    def tally(self, peer: str) -> Tally:
        """What came with the calls of a peer that is known here, what went back, and what was refused of it."""
        return self.tallies.setdefault(peer, Tally())

    def leave_out(self, peer: str, sha256: str, why: Reason) -> None:
        """Remember why a peer's bytes were not kept: the offer that needs them is refused with that."""
        self.unkept[(peer, sha256)] = why
        self.unkept.move_to_end((peer, sha256))
        if len(self.unkept) > MOST_UNKEPT:
            self.unkept.popitem(last=False)

    def refused(self, peer: str, error: TielineError) -> None:
        """A call of the peer was refused, by the reason that is given, or the code."""
        if error.code not in ORDINARY:
            self.tally(peer).reject(error.reasons[0].code if error.reasons else error.code)


def peer_actor(platform: Platform, call: Call) -> Actor:
    """The peer whose pinned key signed this request. Raises TielineError `unauthenticated`, `rate_limited`."""
    scope = call.scope
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    url = f"http://{call.header(b'host')}{path}" + (f"?{query}" if query else "")
    claimed = claimed_of(scope["method"], url, headers)
    peer = platform.view.peers.get(claimed.exchange)
    if peer is None or peer.state is PeerState.REMOVED:
        raise not_believed("peer_unknown", exchange=claimed.exchange[:200])
    try:
        verify_request(
            claimed,
            platform.exchange.id,
            f"{peer.prefix}#exchange",
            peer.public,
            platform.peer_calls.nonces,
            platform.clock.now_ms() // 1000,
        )
    except TielineError as error:
        platform.peer_calls.count(peer.id, UNPROVED)
        platform.peer_calls.refused(peer.id, error)
        raise
    platform.peer_calls.count(peer.id, CALLS)
    call.tally = platform.peer_calls.tally(peer.id)
    if peer.state is PeerState.OFFERED:
        raise not_believed("peer_not_active", exchange=peer.id, state=peer.state.value)
    if platform.federation is not None:
        platform.federation.heard(peer.id)
    assert call.receive is not None
    call.receive = covered(call.receive, claimed.digest, call.tally)
    return Actor(name=peer.id, roles=(Role.PEER,), owner=peer.prefix, via=call.via, right=f"peer {peer.id}")


def covered(receive: Receive, digest: bytes | None, tally: Tally | None = None) -> Receive:
    """``receive`` that raises `unauthenticated` (peer_body) instead of giving the end of a body with another digest."""
    hasher = hashlib.sha256()

    async def checked() -> HTTPReceiveMessage:
        message: HTTPReceiveMessage = await receive()  # type: ignore[assignment]
        if message["type"] == "http.request":
            body = message.get("body", b"")
            hasher.update(body)
            if tally is not None:
                tally.take(len(body))
            is_last = not message.get("more_body", False)
            if (body and digest is None) or (is_last and digest is not None and hasher.digest() != digest):
                raise not_believed("peer_body")
        return message

    return checked


async def active_peer(call: Call, *, reads: bool = False, uses: bool = False) -> Peer:
    """The peer that calls, active: one that we asked and that calls us with its signature has said yes.

    Raises TielineError `forbidden` where it was not granted what it asks for.
    """
    platform = call.platform
    peer = platform.view.peers.get(call.actor.name)
    if peer is None or peer.state in (PeerState.REMOVED, PeerState.OFFERED):
        raise no_such("active peer", call.actor.name)
    if peer.state is PeerState.ASKED:
        actor = msgspec.structs.replace(SYSTEM, via=call.via, right=call.actor.right)  # its call is its yes
        peer = await platform.ask(ChangePeer(actor=actor, peer=peer.id, what="confirm"))
        assert peer is not None
    if (reads and not peer.may_read) or (uses and not peer.may_use):
        what = "read records" if reads else "use what is"
        raise TielineError(
            "forbidden",
            f"`{peer.id}` may not {what} here",
            hints=(f"tieline exchange peer grant {peer.id} --{'read' if reads else 'use'}  # by an admin here",),
        )
    return peer


def not_believed(code: str, **values: int | str) -> TielineError:
    """A signed request that does not make an actor."""
    reason = Reason(code=code, values=values)
    return TielineError("unauthenticated", f"the request is not believed: {sentence(reason)}", reasons=(reason,))
