"""Roots: prefixes that an admin believes without peering, so that records of far branches prove themselves here.

An exchange below a region is told by the region what the hub gave away, and who signed it is known once the hub's key
is pinned. Who relays a record is never asked: trust roots are chosen by the verifier, never by the record.
"""

from __future__ import annotations

from tieline.exchange.commands import ChangeRoot, Decision
from tieline.exchange.permission import allow, no_such
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import RootChanged
from tieline.model.identifier import checked_prefix, is_under
from tieline.model.party import Role
from tieline.model.peer import Peer, PeerState, PinnedRoot
from tieline.ports import Ids
from tieline.registry import fingerprint
from tieline.registry.keys import check_strong, public_bytes

MOST_ROOTS = 256
LS = ("tieline exchange root ls",)


def change_root(view: View, command: ChangeRoot, now_ms: int, ids: Ids) -> Decision:
    """Pin the key of a prefix, or believe it no longer. A pinned key stays until it is removed."""
    allow(command.actor, Role.ADMIN, what="choose whom this exchange believes")
    prefix = checked_prefix(command.prefix) if command.public else command.prefix[:200]
    before = next((root for root in view.roots if root.prefix == prefix), None)
    if not command.public:
        if before is None:
            raise no_such("root", prefix)
        return Decision((RootChanged(root=before, is_pinned=False),), before)
    check_strong(public_bytes(command.public), "public", prefix)
    if before is not None and before.public == command.public:
        return Decision((), before)
    _check_free(view, prefix, before)
    root = PinnedRoot(prefix=prefix, public=command.public, since_ms=now_ms)
    return Decision((RootChanged(root=root, is_pinned=True),), root)


def _check_free(view: View, prefix: str, before: PinnedRoot | None) -> None:
    if is_under(prefix, view.prefix):
        raise TielineError("conflict", f"`{prefix}` is ours to give: our own key speaks for it", where="prefix")
    peer = pinning(view, prefix)
    if peer is not None:
        raise TielineError(
            "conflict", f"`{prefix}` is the prefix of our peer `{peer.id}`: peering pinned its key", hints=LS
        )
    if before is not None:
        raise TielineError(
            "conflict",
            f"`{prefix}` is pinned to the key {fingerprint(before.public)} already",
            hints=(f"tieline exchange root rm {prefix}  # if its key was really replaced",),
        )
    if len(view.roots) >= MOST_ROOTS:
        raise TielineError("overloaded", f"{len(view.roots)} roots are pinned here, no more are taken in")


def pinning(view: View, prefix: str) -> Peer | None:
    """The peer that is asked or active under that very prefix."""
    states = (PeerState.ASKED, PeerState.ACTIVE)
    return next((peer for peer in view.peers.values() if peer.prefix == prefix and peer.state in states), None)
