"""Peers: the double opt-in, grants, faults, and how each branch stands.

::

    nothing --ask_peer (our admin)-----> asked ---take_peering, confirm (they said yes)--.
    nothing --take_peering (they ask)--> offered --accept, ask_peer (our admin)----------+--> active --remove--> removed

A key is pinned when an admin says yes, and stays: another key for the same identifier is refused until the peer is
removed. Who an exchange is to us decides what its prefix may be (`_check_place`).
"""

from __future__ import annotations

import re

import msgspec

from tieline.exchange.branches import apply_branch
from tieline.exchange.commands import (
    AskPeer,
    BlamePeer,
    ChangePeer,
    Decision,
    Greeting,
    ReadBranches,
    RenewSession,
    TakeBranch,
    TakePeering,
)
from tieline.exchange.permission import allow, no_such
from tieline.exchange.records import stored_of
from tieline.exchange.replication import guard_branch
from tieline.exchange.sites import RENEW_S, use_nonce
from tieline.exchange.view import Branch, View
from tieline.model.error import TielineError
from tieline.model.event import Events, PeerChanged, SessionRenewed
from tieline.model.identifier import Identifier, checked_prefix, is_under
from tieline.model.kinds import KINDS
from tieline.model.party import Role
from tieline.model.peer import Peer, PeerRole, PeerState
from tieline.model.peering import BranchView, SilenceView
from tieline.model.reason import CATALOGUE, Reason
from tieline.ports import Ids
from tieline.registry import fingerprint, opened
from tieline.registry.keys import check_strong, public_bytes

replace = msgspec.structs.replace
MOST_OFFERS = 64  # exchanges that asked and wait for an admin
MOST_PEERS = 2_000  # known ones, removed ones included
MOST_FILTERS = 256
SCOPES = ("", "national", "regional", "industry", "enterprise")
URL = re.compile(r"https?://[!-~]{1,400}")
LS = ("tieline exchange peer ls",)


def ask_peer(view: View, command: AskPeer, now_ms: int, ids: Ids) -> Decision:
    """Pin an exchange's key and remember that we asked it; where it asked first, both are active from now on."""
    allow(command.actor, Role.ADMIN, what="peer with other exchanges")
    greeting = checked_greeting(command.greeting)
    before = view.peers.get(greeting.id)
    if before is not None and before.state in (PeerState.ASKED, PeerState.ACTIVE):
        _check_key(before, greeting)
    _check_place(view, greeting, command.role)
    _check_room(view, before)
    state, why = PeerState.ASKED, "asked"
    if before is not None and before.public == greeting.public:
        if before.state is PeerState.OFFERED:
            state, why = PeerState.ACTIVE, "accepted"
        elif before.state is PeerState.ACTIVE:
            state, why = PeerState.ACTIVE, "asked again"
    peer = Peer(
        id=greeting.id,
        prefix=greeting.prefix,
        public=greeting.public,
        url=greeting.url,
        role=command.role,
        state=state,
        scope=greeting.scope,
        title=greeting.title,
        kinds=checked_kinds(command.kinds),
        prefixes=checked_prefixes(command.prefixes),
        may_read=command.may_read,
        may_use=command.may_use,
        quota=command.quota,
        reports_after=before.reports_after if before else 0,
        fault=before.fault if before else None,
        since_ms=before.since_ms if before else now_ms,
        changed_ms=now_ms,
        cleared_ms=before.cleared_ms if before else 0,
    )
    if before is not None and replace(peer, changed_ms=before.changed_ms) == before:
        return Decision((), before)
    return _changed(view, peer, f"{why} by {command.actor.name}", now_ms)


def take_peering(view: View, command: TakePeering, now_ms: int, ids: Ids) -> Decision:
    """Remember that an exchange asked us; where we asked first, both are active from now on.

    Its address is its own claim: nothing is called there before an admin has accepted it.
    """
    greeting = checked_greeting(command.greeting)
    use_nonce(view, command.nonce, command.at_ms, now_ms)
    before = view.peers.get(greeting.id)
    if before is not None and before.state is not PeerState.REMOVED:
        _check_key(before, greeting)
    if before is not None and before.state is PeerState.ACTIVE:
        return Decision((), before)
    if before is not None and before.state is PeerState.ASKED:
        return _activated(view, before, f"{greeting.id} asked too", now_ms)
    _check_place(view, greeting, command.role)
    _check_room(view, before)
    waiting = sum(1 for peer in view.peers.values() if peer.state is PeerState.OFFERED and peer.id != greeting.id)
    if waiting >= MOST_OFFERS:
        raise TielineError(
            "overloaded", f"{waiting} exchanges wait for an admin here, at most {MOST_OFFERS} may: ask again later"
        )
    peer = Peer(
        id=greeting.id,
        prefix=greeting.prefix,
        public=greeting.public,
        url=greeting.url,
        role=command.role,
        state=PeerState.OFFERED,
        scope=greeting.scope,
        title=greeting.title,
        reports_after=before.reports_after if before else 0,
        since_ms=now_ms,
        changed_ms=now_ms,
        cleared_ms=before.cleared_ms if before else 0,
    )
    if before is not None and replace(peer, since_ms=before.since_ms, changed_ms=before.changed_ms) == before:
        return Decision((), before)
    return Decision((PeerChanged(peer=peer, why="asked to peer"),), peer)


def change_peer(view: View, command: ChangePeer, now_ms: int, ids: Ids) -> Decision:
    """Accept, grant, confirm (it said yes to us), clear (a fault), renew (the delegation of a child) or remove."""
    allow(command.actor, Role.ADMIN, what="change peers")
    peer = view.peers.get(command.peer)
    if peer is None or (peer.state is PeerState.REMOVED and command.what != "remove"):
        raise no_such("peer", command.peer)
    peer = _granted(peer, command)
    who = f"{command.what} by {command.actor.name}"
    if command.what == "accept":
        if peer.state is PeerState.ASKED:
            raise TielineError("conflict", f"`{peer.id}` was asked, and has not said yes", hints=LS)
        return _activated(view, peer, who, now_ms)
    if command.what == "confirm":
        if peer.state is PeerState.OFFERED:
            raise TielineError("conflict", f"`{peer.id}` waits for an admin here", hints=LS)
        return _activated(view, peer, who, now_ms)
    if command.what == "grant":
        return _changed(view, peer, who, now_ms)
    if command.what == "clear":
        return _changed(
            view, replace(peer, fault=None, cleared_ms=now_ms if peer.fault else peer.cleared_ms), who, now_ms
        )
    if command.what == "renew":
        return Decision(tuple(_delegated(view, peer, now_ms)), peer)
    if command.what == "remove":
        removed = replace(peer, state=PeerState.REMOVED, may_use=False, fault=None, cleared_ms=now_ms)
        return _changed(view, peer if peer.state is PeerState.REMOVED else removed, who, now_ms)
    raise TielineError(
        "invalid_request", f"`{command.what}` is not accept, grant, confirm, clear, renew or remove", where="what"
    )


def blame_peer(view: View, command: BlamePeer, now_ms: int, ids: Ids) -> Decision:
    """Note proof against a peer; nothing of it is taken until an admin clears it."""
    allow(command.actor, Role.ADMIN, what="blame peers")
    peer = view.peers.get(command.peer)
    if peer is None or peer.state is PeerState.REMOVED:
        raise no_such("peer", command.peer)
    if command.code not in CATALOGUE:
        raise TielineError("invalid_request", f"`{command.code[:64]}` is no reason that can be said", where="code")
    if peer.fault is not None:
        return Decision((), peer)  # the first proof stays until it is cleared
    fault = Reason(code=command.code, values=command.values)
    return _changed(view, replace(peer, fault=fault), f"found at fault: {command.code}", now_ms)


def take_branch(view: View, command: TakeBranch, now_ms: int, ids: Ids) -> Decision:
    """Keep a peer's fast state, and let placing know what is free behind it."""
    peer = view.peers.get(command.peer)
    if peer is None or peer.state is not PeerState.ACTIVE:
        raise no_such("active peer", command.peer)
    before = view.branches.get(peer.id) or Branch()
    state = command.state
    if state is None:
        view.branches[peer.id] = replace(before, error=command.error[:400] or "no answer")
        guard_branch(view, peer.id, before.heard_ms or now_ms, now_ms, is_silent=True)
        return Decision()
    if state.exchange != peer.id:
        raise TielineError("forbidden", f"this is the state of `{state.exchange}`, the peer is `{peer.id}`")
    view.branches[peer.id] = Branch(state=state, heard_ms=now_ms, error="")
    apply_branch(view, peer.id, state, now_ms)
    guard_branch(view, peer.id, now_ms, now_ms, is_silent=False)
    return Decision()


def read_branches(view: View, command: ReadBranches, now_ms: int, ids: Ids) -> Decision:
    """How every branch stands."""
    allow(command.actor, Role.ADMIN, Role.AUDITOR, what="see peers")
    taken: dict[str, tuple[int, int, int]] = {}
    for cursor in view.cursors.values():
        logs, serial, at_ms = taken.get(cursor.peer, (0, 0, 0))
        taken[cursor.peer] = (logs + 1, serial + cursor.serial, max(at_ms, cursor.taken_ms))
    peers = (view.peers[name] for name in sorted(view.peers))
    return Decision((), tuple(branch_view(view, peer, taken.get(peer.id, (0, 0, 0)), now_ms) for peer in peers))


def branch_view(view: View, peer: Peer, taken: tuple[int, int, int], now_ms: int) -> BranchView:
    """One branch as far as the view knows it; what only its puller knows is added by whoever runs one."""
    branch = view.branches.get(peer.id) or Branch()
    return BranchView(
        exchange=peer.id,
        prefix=peer.prefix,
        fingerprint=fingerprint(peer.public),
        url=peer.url,
        role=peer.role,
        state=peer.state,
        scope=peer.scope,
        title=peer.title,
        kinds=peer.kinds,
        prefixes=peer.prefixes,
        may_read=peer.may_read,
        may_use=peer.may_use,
        quota=peer.quota,
        since_ms=peer.since_ms,
        logs=taken[0],
        serial=taken[1],
        heard_ms=max(branch.heard_ms, taken[2]),
        use_error=branch.error,
        fault=peer.fault,
        lag=0,
        lag_ms=0,
        silence=silence_of(view, peer.id, now_ms),
        is_listening=False,
        stale_ms=0,
        freshness="",
        stored=0,
        parked=0,
        equivocations=0,
        refused={},
        rejected={},
        in_bytes=0,
        out_bytes=0,
        calls={},
        paused=(),
        error=None,
    )


def silence_of(view: View, peer: str, now_ms: int) -> SilenceView | None:
    """What of a branch that is not heard goes stale; None for one that is heard."""
    silence = view.silences.get(peer)
    if silence is None:
        return None
    staleness = silence.staleness(now_ms // 1000)
    return SilenceView(
        since_ms=silence.since_s * 1000,
        alive=staleness.alive,
        stale=staleness.stale,
        is_frozen=staleness.is_frozen,
        until_ms=staleness.until_s * 1000,
    )


def renew_session(view: View, command: RenewSession, now_ms: int, ids: Ids) -> Decision:
    """Begin the logs of records anew."""
    allow(command.actor, Role.ADMIN, what="begin the logs anew")
    return Decision((SessionRenewed(session=command.session, why=command.why),), command.session)


# -- what an exchange may say of itself -------------------------------------------------------------------------------


def checked_greeting(greeting: Greeting) -> Greeting:
    """Give ``greeting`` back when its parts fit together; raises TielineError otherwise."""
    identifier = Identifier.parse(greeting.id)
    if identifier.kind != "exchange" or identifier.prefix != greeting.prefix:
        raise TielineError(
            "invalid_request",
            f"`{greeting.id}` is no exchange under its own prefix `{greeting.prefix[:200]}`",
            where="id",
        )
    if not URL.fullmatch(greeting.url):
        raise TielineError("invalid_request", f"`{greeting.url[:200]}` is no address of an exchange", where="url")
    if greeting.scope not in SCOPES or len(greeting.title) > 400 or not greeting.title.isprintable():
        raise TielineError("invalid_request", "the scope or the title is not one that can be kept", where="scope")
    check_strong(public_bytes(greeting.public), "public", greeting.id)
    return greeting


def checked_kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Kinds of records, each known and once."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise TielineError(
            "invalid_request",
            f"`{unknown[0][:64]}` is no kind of record; the kinds are {', '.join(KINDS)}",
            where="kinds",
        )
    return tuple(dict.fromkeys(kinds))


def checked_prefixes(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Prefixes, each once."""
    if len(prefixes) > MOST_FILTERS:
        raise TielineError("invalid_request", f"{len(prefixes)} prefixes are over the limit of {MOST_FILTERS}")
    return tuple(dict.fromkeys(checked_prefix(prefix) for prefix in prefixes))


# -- inside -----------------------------------------------------------------------------------------------------------


def _check_key(known: Peer, greeting: Greeting) -> None:
    """A pinned key stays pinned."""
    if known.public != greeting.public:
        raise TielineError(
            "unauthenticated",
            f"`{known.id}` is known here under the key {fingerprint(known.public)}, "
            f"and this is {fingerprint(greeting.public)}",
            hints=(f"tieline exchange peer rm {known.id}  # if its key was really replaced",),
        )


def _check_place(view: View, greeting: Greeting, role: PeerRole) -> None:
    """What the prefix of an exchange may be, by what it is to us. Raises TielineError `conflict`."""
    exchange = view.exchange
    assert exchange is not None
    prefix, ours = greeting.prefix, exchange.prefix
    if greeting.id == exchange.id or prefix == ours:
        raise TielineError("conflict", f"`{greeting.id}` collides with this exchange, `{exchange.id}`")
    if is_under(ours, prefix) and role is not PeerRole.PARENT:
        raise TielineError(
            "conflict",
            f"`{prefix}` contains our own `{ours}`: only a parent may hold it",
            hints=("tieline exchange peer add URL --role parent",),
        )
    for other in view.peers.values():
        if other.prefix == prefix and other.id != greeting.id and other.state is not PeerState.REMOVED:
            raise TielineError("conflict", f"`{prefix}` is the prefix of `{other.id}` already", hints=LS)
    pinned = next((root for root in view.roots if root.prefix == prefix), None)
    if pinned is not None and pinned.public != greeting.public:
        raise TielineError(
            "conflict",
            f"`{prefix}` is pinned to the key {fingerprint(pinned.public)}, and this is {fingerprint(greeting.public)}",
            hints=(f"tieline exchange root rm {prefix}  # if its key was really replaced",),
        )
    if not is_under(prefix, ours):
        return
    label = prefix.removeprefix(ours + ".")
    if role is not PeerRole.CHILD or "." in label:
        raise TielineError(
            "conflict", f"`{prefix}` is ours to give: its exchange can only be a child, and directly below `{ours}`"
        )
    given = view.catalogue.delegation(prefix)
    if f"{ours}/exchange/{label}" == exchange.id or (
        given is not None and opened(given).record.id != f"{ours}/exchange/{label}"
    ):
        raise TielineError("conflict", f"`{prefix}` was given to another owner already")


def _check_room(view: View, before: Peer | None) -> None:
    if before is None and len(view.peers) >= MOST_PEERS:
        raise TielineError("overloaded", f"{len(view.peers):,} exchanges are known here, no more are taken in")


def _granted(peer: Peer, command: ChangePeer) -> Peer:
    """``peer`` with the grants that the command states."""
    return replace(
        peer,
        kinds=peer.kinds if command.kinds is None else checked_kinds(command.kinds),
        prefixes=peer.prefixes if command.prefixes is None else checked_prefixes(command.prefixes),
        may_read=peer.may_read if command.may_read is None else command.may_read,
        may_use=peer.may_use if command.may_use is None else command.may_use,
        quota=peer.quota if command.quota is None else command.quota,
    )


def _activated(view: View, peer: Peer, why: str, now_ms: int) -> Decision:
    greeting = Greeting(id=peer.id, prefix=peer.prefix, public=peer.public, url=peer.url)
    _check_place(view, greeting, peer.role)
    return _changed(view, replace(peer, state=PeerState.ACTIVE), why, now_ms)


def _changed(view: View, peer: Peer, why: str, now_ms: int) -> Decision:
    """The change, where it is one, and with it the delegation of a child that is active now."""
    events: list[Events] = []
    if peer != view.peers.get(peer.id):
        peer = replace(peer, changed_ms=now_ms)
        events.append(PeerChanged(peer=peer, why=why))
    events += _delegated(view, peer, now_ms)
    return Decision(tuple(events), peer)


def _delegated(view: View, peer: Peer, now_ms: int) -> list[Events]:
    """What gives an active child its prefix: a new record, one with a new lease, or nothing."""
    is_given = peer.role is PeerRole.CHILD and peer.prefix.rpartition(".")[0] == view.prefix
    if peer.state is not PeerState.ACTIVE or not is_given:
        return []
    now_s = now_ms // 1000
    before = view.catalogue.delegation(peer.prefix)
    if before is not None and opened(before).record.exp - now_s > RENEW_S:
        return []
    envelope = view.keys.delegate_exchange(peer, now_s, before)
    return [stored_of(view.catalogue.judge(envelope, now_s))]
