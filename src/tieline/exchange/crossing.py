"""Crossing: sites of one exchange measure doors of another's, each under a pass of the exchange that the door believes.

::

    a site asks what to measure --> doors of ours, and of peers that admit them themselves  (far_doors)
    its exchange asks that peer --> which of these doors may be measured now                (allow_probes)
    the peer's exchange         --> a pass for each, charged to its own links before it is given

Both exchanges keep their links below the share that is for measuring, whatever the other one asks.
"""

from __future__ import annotations

from tieline.exchange.commands import Command, Decision
from tieline.exchange.hosting import active_peer
from tieline.exchange.measuring import declared
from tieline.exchange.showing import OURS, may_see, way_of
from tieline.exchange.view import View
from tieline.exchange.ways import is_admitted_by
from tieline.model.door import door_url
from tieline.model.error import TielineError
from tieline.model.measuring import PassesBody, Wish
from tieline.model.peer import Peer
from tieline.network.probing import CORE, ECHO_BYTES, MTU_BYTES, PEERS, RATE_BYTES
from tieline.ports import Ids


class AllowProbes(Command, frozen=True, kw_only=True):
    """No events. Which doors a site of a peer may measure now. Reply: tuple[Wish, ...], those that are granted."""

    peer: str
    body: PassesBody


def allow_probes(view: View, command: AllowProbes, now_ms: int, ids: Ids) -> Decision:
    """Charged to the span. Raises `forbidden` for a holder that is no site of the peer, or whose key is another."""
    peer, body, readings = active_peer(view, command.peer), command.body, view.readings
    _check_holder(view, peer, body)
    readings.turn(now_ms)
    readings.ledger.turn(now_ms)
    links = declared(view).links
    granted: dict[str, Wish] = {}
    for wish in body.wishes:
        most_bytes = 2 * ECHO_BYTES + MTU_BYTES + (RATE_BYTES if wish.is_rated else 0)
        if wish.door in granted or wish.most_bytes > most_bytes or not _is_open(view, peer, wish.door):
            continue
        if readings.ledger.take(links, (CORE, PEERS, PEERS + peer.id, wish.door), wish.most_bytes):
            granted[wish.door] = wish
    return Decision((), tuple(granted.values()))


def _check_holder(view: View, peer: Peer, body: PassesBody) -> None:
    if not is_admitted_by(body.holder, peer.id):
        raise TielineError("forbidden", f"`{body.holder}` is no site that `{peer.id}` admits", where="holder")
    spec = view.supply.site_specs.get(body.holder)
    if spec is not None and spec.public != body.public:
        raise TielineError("forbidden", f"the record of `{body.holder}` names another key", where="public")


def _is_open(view: View, peer: Peer, site: str) -> bool:
    """Whether a site is ours, there, has a door and something that the peer is shown."""
    spec = view.supply.site_specs.get(site)
    ours = view.sites.get(site)
    if spec is None or not door_url(spec.door) or ours is None or ours.is_silent or way_of(view, site) != OURS:
        return False
    return any(may_see(row, peer) for row in view.supply.pools.site_pools(site))
