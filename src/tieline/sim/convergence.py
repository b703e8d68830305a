"""Convergence: whether every exchange that holds a log holds the same of it, once the faults are over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tieline.model.identifier import is_under
from tieline.model.peer import PeerState

if TYPE_CHECKING:
    from tieline.sim.exchange import SimExchange
    from tieline.sim.world import World

Held = dict[str, str]  # identifier -> sha256 of the payload


def difference(world: World) -> str:
    """The first place where two catalogues differ, in words; empty where all agree.

    Of what an owner signed twice as one revision all keep the same. What a thief signed is left out: who had it before
    the key was revoked keeps it, nobody else takes it.
    """
    by_prefix = {exchange.prefix: exchange for exchange in world.exchanges.values()}
    held = {name: held_by(exchange) for name, exchange in world.exchanges.items()}
    own = {
        name: {prefix: records for prefix, records in held[name].items() if home_of(by_prefix, prefix) is exchange}
        for name, exchange in world.exchanges.items()
    }
    for name, exchange in world.exchanges.items():
        roots = [exchange.prefix, *_pinned(exchange)]
        for home_name, home in world.exchanges.items():
            if home is exchange or not any(is_under(home.prefix, root) for root in roots):
                continue
            for prefix, records in own[home_name].items():
                here = held[name].get(prefix, {})
                if here == records:
                    continue
                for identifier in sorted({*records, *here}):
                    if records.get(identifier) != here.get(identifier):
                        return f"{identifier}: {home_name} has {records.get(identifier)}, {name} {here.get(identifier)}"
    return ""


def held_by(exchange: SimExchange) -> dict[str, Held]:
    """What an exchange holds, by prefix."""
    found: dict[str, Held] = {}
    for row in exchange.disk.state["record"].values():
        if row["envelope"].decode() not in exchange.world.truth.by_thieves:
            found.setdefault(row["prefix"], {})[row["id"]] = f"rev {row['rev']} {row['sha256'][:12]}"
    return found


def home_of(by_prefix: Mapping[str, SimExchange], prefix: str) -> SimExchange | None:
    """The exchange that delegates ``prefix`` or is it: the longest prefix that it is under."""
    while prefix:
        if prefix in by_prefix:
            return by_prefix[prefix]
        prefix = prefix.rpartition(".")[0]
    return None


def _pinned(exchange: SimExchange) -> list[str]:
    return [peer.prefix for peer in exchange.view.peers.values() if peer.state is PeerState.ACTIVE]
