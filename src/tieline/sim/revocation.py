"""Revocation: an exchange takes an owner's first key its word and gives the owner's prefix to a second one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from tieline.exchange import commands as ask
from tieline.model.error import TielineError
from tieline.model.record import DelegatedKey, Delegation
from tieline.registry import Key, opened, sign
from tieline.sim.exchange import ADMIN
from tieline.sim.owner import SimOwner, sha256_of

if TYPE_CHECKING:
    from tieline.sim.world import World

LEASE_S = 300 * 86_400


def revoke(world: World, owner: SimOwner) -> None:
    """Revoke the first key of ``owner`` where its exchange still takes its word."""
    exchange = world.exchanges[owner.exchange]
    given = exchange.view.catalogue.delegation(owner.prefix) if exchange.is_up else None
    if given is None:
        return
    before = opened(given).record
    delegation = msgspec.convert(before.spec, Delegation)
    key, kid = Key(hashlib.sha256(f"second {owner.name}".encode()).digest()), f"{owner.prefix}#k2"
    owner.is_to_renew = True
    if len(delegation.keys) > 1:
        owner.renew_key(key, kid)
        return
    now_s = exchange.clock.now_s()
    world.truth.keys[kid] = key.public_bytes
    old = msgspec.structs.replace(delegation.keys[0], revoked_from=now_s)
    new = DelegatedKey(kid=kid, public=key.public, nb=now_s - 600, exp=old.exp)
    record = msgspec.structs.replace(
        before,
        rev=before.rev + 1,
        prev=sha256_of(before),
        nb=now_s - 300,
        exp=now_s + LEASE_S,
        spec=msgspec.to_builtins(msgspec.structs.replace(delegation, keys=(old, new))),
    )

    def done(_: Any, error: TielineError | None) -> None:
        if error is None:
            world.faults["key revoked"] += 1
            owner.renew_key(key, kid)

    exchange.command(ask.StoreRecord(actor=ADMIN, envelope=sign(record, exchange.keys.key, exchange.keys.kid)), done)
