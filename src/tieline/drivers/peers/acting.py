"""Acting: in whose name the log says that something was taken which a peer told us when we asked it."""

from __future__ import annotations

from urllib.parse import urlsplit

from tieline.model.party import SYSTEM, Actor
from tieline.model.peer import Peer


def told_by(peer: Peer) -> Actor:
    """The peer as the audit names it: what it answers is taken by our own right, from the address that we call."""
    via = urlsplit(peer.url).hostname or ""
    return Actor(name=peer.id, roles=SYSTEM.roles, via=via[:100], right=f"peer {peer.id}")
