"""Peers: ask, accept, grant, clear, remove; how branches stand; and what another exchange says before it is a peer."""

from __future__ import annotations

import secrets
import shlex
from typing import Annotated

import msgspec

from tieline.api.call import Call, named
from tieline.api.operation import Follow, operation
from tieline.api.peercaller import active_peer, not_believed
from tieline.api.platform import Platform
from tieline.api.stated import stated_caller
from tieline.drivers.peers.address import check_url
from tieline.drivers.peers.greeting import (
    ask_to_peer,
    checked_introduction,
    greet,
    introduction,
    said_greeting,
)
from tieline.exchange.commands import AskPeer, ChangePeer, ReadBranches, TakePeering
from tieline.exchange.permission import no_such
from tieline.model.error import TielineError
from tieline.model.party import Actor
from tieline.model.peer import PEERING, Peer, PeerState
from tieline.model.peering import (
    BranchPage,
    BranchView,
    GreetingView,
    PeerAddBody,
    PeerGrantBody,
    PeerRequestBody,
    PeerStanding,
)
from tieline.registry import fingerprint

ENVELOPE_EXAMPLE = '{"payload":"e30","protected":"e30","signature":"AA"}'
SILENT = ("exchange_unreachable", "timeout")
PEER_LINKS = tuple(
    Follow(operation=name, parameter="peer", pointer="/exchange")
    for name in ("accept_peer", "grant_peer", "clear_peer")
)


class NonceQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that was never asked before."""

    nonce: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{16,64}\Z", description="it is signed with the answer")]


@operation("GET", "/v1/greeting", tag="peers")
async def read_greeting(call: Call, query: NonceQuery) -> GreetingView:
    """Who this exchange is, signed by its key with your nonce in it."""
    return GreetingView(statement=said_greeting(call.platform.introduced(query.nonce), call.platform.keys))


@operation(
    "POST",
    "/v1/peers",
    tag="peers",
    status=201,
    is_change=True,
    errors=("conflict", "address_refused", "not_found", "exchange_unreachable", "timeout", "check_failed"),
    follows=PEER_LINKS,
    example={"url": "https://exchange.example", "role": "peer"},
)
async def add_peer(call: Call, body: PeerAddBody) -> BranchView:
    """Peer with another exchange: fetch its greeting, prove it by a nonce, pin its key, and ask it.

    It is active once the other side says yes too; at once, where it asked first.
    """
    platform = call.platform
    nonce = secrets.token_urlsafe(24)
    statement = await _greeted(platform, body.url, nonce)
    found = checked_introduction(statement, nonce, platform.clock.now_ms())
    if body.fingerprint and fingerprint(found.public) != body.fingerprint:
        raise TielineError(
            "check_failed", f"`{body.url}` has the key {fingerprint(found.public)}, not {body.fingerprint}"
        )
    if found.url.rstrip("/") != body.url.rstrip("/") and not body.is_elsewhere:
        raise TielineError(
            "conflict",
            f"`{body.url}` says that its address is `{found.url}`: nothing is sent to an address that nobody confirmed",
            where="url",
            hints=(f"tieline exchange peer add {found.url}", f"tieline exchange peer add {body.url} --elsewhere"),
        )
    peer: Peer = await platform.ask(
        call.command(
            AskPeer,
            greeting=msgspec.structs.replace(introduction(found), url=body.url.rstrip("/")),
            role=body.role,
            kinds=body.kinds,
            prefixes=body.prefixes,
            may_read=body.may_read,
            may_use=body.may_use,
            quota=body.quota,
        )
    )
    said = platform.introduced(secrets.token_urlsafe(24))
    standing = await ask_to_peer(platform.signer, peer, said, platform.keys)
    if standing.state is PeerState.ACTIVE and peer.state is PeerState.ASKED:
        await platform.ask(ChangePeer(actor=call.actor, peer=peer.id, what="confirm"))
    return await branch_of(platform, call.actor, peer.id)


async def _greeted(platform: Platform, url: str, nonce: str) -> str:
    """The greeting of whoever answers at ``url``. Nobody there is the caller's to mend: no failure of this exchange."""
    try:
        return await greet(platform.signer, url, nonce)
    except TielineError as error:
        if error.code not in SILENT:
            raise
        raise TielineError(
            "not_found",
            f"no exchange answers at `{url}`: {error.message}",
            where="url",
            hints=(f"curl -sS {shlex.quote(url.rstrip('/') + '/healthz')}  # from the machine of this exchange",),
        ) from None


@operation(
    "POST",
    "/v1/peers/requests",
    tag="peers",
    errors=("unauthenticated", "conflict", "forbidden", "overloaded"),
    example={"statement": ENVELOPE_EXAMPLE},
)
async def request_peering(call: Call, body: PeerRequestBody) -> PeerStanding:
    """Another exchange asks to peer, proved by its own key. It waits until an admin accepts it.

    Nothing is called at the address that it states before that.
    """
    platform = call.platform
    said = checked_introduction(body.statement, "", platform.clock.now_ms(), typ=PEERING)
    if said.to != platform.exchange.id:
        raise not_believed("peer_misdirected", to=said.to[:200], here=platform.exchange.id)
    greeting = introduction(said)
    actor = stated_caller(call, greeting.id, f"key {fingerprint(greeting.public)}")
    peer: Peer = await platform.ask(
        TakePeering(actor=actor, greeting=greeting, role=said.role, nonce=said.nonce, at_ms=said.at_ms)
    )
    return standing_of(platform, peer)


@operation("GET", "/v1/standing", tag="peers")
async def read_standing(call: Call) -> PeerStanding:
    """How the peer that asks stands here, and what it may do."""
    return standing_of(call.platform, await active_peer(call))


@operation("GET", "/v1/peers", tag="peers")
async def list_peers(call: Call) -> BranchPage:
    """Every exchange that this one knows, and how its branch stands."""
    platform = call.platform
    return BranchPage(
        exchange=platform.exchange.id,
        now_ms=platform.clock.now_ms(),
        branches=await branches_of(platform, call.actor),
    )


@operation(
    "POST", "/v1/peers/{peer}/accept", tag="peers", is_change=True, errors=("conflict", "address_refused"), example={}
)
async def accept_peer(call: Call, peer: str, body: PeerGrantBody) -> BranchView:
    """Say yes to an exchange that asked; grants may be stated at once. Its address counts from now on."""
    known = call.platform.view.peers.get(named(peer))
    if known is None:
        raise no_such("peer", named(peer))
    check_url(known.url)
    return await _changed(call, "accept", peer, body)


@operation(
    "POST", "/v1/peers/{peer}/grant", tag="peers", is_change=True, errors=("conflict",), example={"may_use": False}
)
async def grant_peer(call: Call, peer: str, body: PeerGrantBody) -> BranchView:
    """Change what a peer may do here, and what is pulled from it."""
    return await _changed(call, "grant", peer, body)


@operation("POST", "/v1/peers/{peer}/clear", tag="peers", is_change=True, errors=("conflict",))
async def clear_peer(call: Call, peer: str) -> BranchView:
    """Forget the proof against a peer: from now on it is asked again."""
    return await _changed(call, "clear", peer, PeerGrantBody())


@operation("DELETE", "/v1/peers/{peer}", tag="peers", is_change=True)
async def remove_peer(call: Call, peer: str) -> BranchView:
    """End peering: its key speaks for nothing any more, and its records do not count unless somebody else vouches."""
    return await _changed(call, "remove", peer, PeerGrantBody())


async def _changed(call: Call, what: str, peer: str, body: PeerGrantBody) -> BranchView:
    name = named(peer)
    await call.platform.ask(
        call.command(
            ChangePeer,
            peer=name,
            what=what,
            kinds=body.kinds,
            prefixes=body.prefixes,
            may_read=body.may_read,
            may_use=body.may_use,
            quota=body.quota,
        )
    )
    return await branch_of(call.platform, call.actor, name)


def standing_of(platform: Platform, peer: Peer) -> PeerStanding:
    """What a peer may know of how it stands."""
    return PeerStanding(
        exchange=peer.id,
        state=peer.state,
        role=peer.role,
        may_read=peer.may_read,
        may_use=peer.may_use,
        quota=peer.quota,
        is_at_fault=peer.fault is not None,
        session=platform.exchange.session,
    )


async def branches_of(platform: Platform, actor: Actor) -> tuple[BranchView, ...]:
    """What the view knows of each branch, with what its puller and the gate know."""
    found: tuple[BranchView, ...] = await platform.ask(ReadBranches(actor=actor))
    return tuple(platform.with_standing(branch) for branch in found)


async def branch_of(platform: Platform, actor: Actor, peer: str) -> BranchView:
    """One of them."""
    for branch in await branches_of(platform, actor):
        if branch.exchange == peer:
            return branch
    raise no_such("peer", peer)
