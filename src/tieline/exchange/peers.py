"""Peers: the double opt-in, grants, faults, and how each branch stands."""

from __future__ import annotations

from tieline.exchange.commands import (
    AskPeer,
    BlamePeer,
    ChangePeer,
    Decision,
    ReadBranches,
    RenewSession,
    TakeBranch,
    TakePeering,
)
from tieline.exchange.permission import allow
from tieline.exchange.view import View
from tieline.model.event import SessionRenewed
from tieline.model.party import Role
from tieline.ports import Ids


def ask_peer(view: View, command: AskPeer, now_ms: int, ids: Ids) -> Decision:
    """Pin an exchange's key and remember that we asked it; where it asked first, both are active from now on."""
    raise NotImplementedError


def take_peering(view: View, command: TakePeering, now_ms: int, ids: Ids) -> Decision:
    """Remember that an exchange asked us; where we asked first, both are active from now on."""
    raise NotImplementedError


def change_peer(view: View, command: ChangePeer, now_ms: int, ids: Ids) -> Decision:
    """Accept, grant, confirm, clear or remove."""
    raise NotImplementedError


def blame_peer(view: View, command: BlamePeer, now_ms: int, ids: Ids) -> Decision:
    """Note proof against a peer; nothing of it is taken until an admin clears it."""
    raise NotImplementedError


def take_branch(view: View, command: TakeBranch, now_ms: int, ids: Ids) -> Decision:
    """Keep a peer's fast state, and let placing know what is free behind it."""
    raise NotImplementedError


def read_branches(view: View, command: ReadBranches, now_ms: int, ids: Ids) -> Decision:
    """How every branch stands."""
    raise NotImplementedError


def renew_session(view: View, command: RenewSession, now_ms: int, ids: Ids) -> Decision:
    """Begin the logs of records anew."""
    allow(command.actor, Role.ADMIN, what="begin the logs anew")
    return Decision((SessionRenewed(session=command.session, why=command.why),), command.session)
