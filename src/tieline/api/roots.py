"""Roots: whom this exchange believes: by its admin's choice, or because it peers with them."""

from __future__ import annotations

from tieline.api.call import Call, named
from tieline.api.operation import Follow, operation
from tieline.exchange.commands import ChangeRoot
from tieline.exchange.view import View
from tieline.model.identifier import is_under
from tieline.model.peer import PeerState, PinnedRoot
from tieline.model.peering import RootBody, RootPage, RootView
from tieline.registry import fingerprint


@operation(
    "POST",
    "/v1/roots",
    tag="peers",
    status=201,
    is_change=True,
    errors=("conflict", "overloaded", "record_refused"),
    follows=(Follow(operation="remove_root", parameter="prefix", pointer="/prefix"),),
    example={"prefix": "org.far", "public": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
)
async def add_root(call: Call, body: RootBody) -> RootView:
    """Believe what a key signs for a prefix, and what it gave away below, whoever relays it.

    Nothing is asked of that exchange, and it may do nothing here. The key stays until the root is removed.
    """
    root: PinnedRoot = await call.platform.ask(call.command(ChangeRoot, prefix=body.prefix, public=body.public))
    return _shown(root)


@operation("GET", "/v1/roots", tag="peers")
async def list_roots(call: Call) -> RootPage:
    """Every prefix that is believed here: the admin's own choice, and those of active peers."""
    return RootPage(roots=roots_of(call.platform.view))


@operation("DELETE", "/v1/roots/{prefix}", tag="peers", is_change=True)
async def remove_root(call: Call, prefix: str) -> RootView:
    """Believe a prefix no longer: records that rest on it alone do not count any more."""
    return _shown(await call.platform.ask(call.command(ChangeRoot, prefix=named(prefix))))


def roots_of(view: View) -> tuple[RootView, ...]:
    """Roots by prefix; one that peering pins too is shown as the peer's."""
    found = {root.prefix: _shown(root) for root in view.roots}
    for peer in list(view.peers.values()):
        if peer.state is PeerState.ACTIVE and not is_under(peer.prefix, view.prefix):
            found[peer.prefix] = RootView(
                prefix=peer.prefix,
                public=peer.public,
                fingerprint=fingerprint(peer.public),
                peer=peer.id,
                since_ms=peer.since_ms,
            )
    return tuple(found[prefix] for prefix in sorted(found))


def _shown(root: PinnedRoot) -> RootView:
    return RootView(
        prefix=root.prefix,
        public=root.public,
        fingerprint=fingerprint(root.public),
        peer="",
        since_ms=root.since_ms,
    )
