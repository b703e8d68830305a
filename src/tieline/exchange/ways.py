"""Ways: through which exchange something is reached, and how old what is known of it is."""

from __future__ import annotations

import msgspec

from tieline.exchange.view import View
from tieline.model.identifier import is_under
from tieline.model.peer import PeerState
from tieline.model.plan import Candidate, Plan

replace = msgspec.structs.replace


def heard_ms(view: View, via: str) -> int:
    """When what is free behind a peer was heard, by our clock; 0: it is ours, or was never heard."""
    branch = view.branches.get(via)
    return branch.heard_ms if branch is not None else 0


def is_ours(view: View, prefix: str) -> bool:
    """Whether whoever writes under a prefix talks to us, so that no peer's silence says anything about it."""
    if not is_under(prefix, view.prefix):
        return False
    return not any(
        is_under(prefix, peer.prefix) and is_under(peer.prefix, view.prefix)
        for peer in list(view.peers.values())
        if peer.state is PeerState.ACTIVE
    )


def is_admitted_by(site: str, exchange: str) -> bool:
    """Whether a site can have been admitted by an exchange: that exchange's key gave the prefix of the site's owner.

    An exchange admits sites of owners whose prefix it gave, one label below its own (`sites.join_site`), and only the
    prefix right above can give one away (`registry.delegation.check_below`). So the site's identifier says which
    exchange signed for it. A machine that several exchanges admit is a site with an identifier under each.
    """
    return _prefix(site).rpartition(".")[0] == _prefix(exchange) != ""


def is_above(exchange: str, site: str) -> bool:
    """Whether the prefix of an exchange contains that of a site: every delegation of the site's rests on its key."""
    return is_under(_prefix(site), _prefix(exchange))


def _prefix(identifier: str) -> str:
    return identifier.partition("/")[0]


def with_ways(view: View, plan: Plan) -> Plan:
    """``plan`` with the exchange that leads to each candidate, and how old what it rests on is."""
    if not view.remote_sites or not plan.candidates:
        return plan
    return replace(plan, candidates=tuple(_with_way(view, each) for each in plan.candidates))


def _with_way(view: View, candidate: Candidate) -> Candidate:
    via = view.way_to(candidate.site)
    return replace(candidate, via=via, as_of_ms=heard_ms(view, via)) if via else candidate
