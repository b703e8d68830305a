"""Settling: whether the books of two exchanges say the same of what ran at one for a user of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tieline.exchange.settlement import verify_usage
from tieline.model.job import Usage

if TYPE_CHECKING:
    from tieline.sim.exchange import SimExchange
    from tieline.sim.world import World


def hold_bills(world: World) -> None:
    """Every bill between exchanges, from both sides. What was lost with a disk, or claimed by a cheat, is left out."""
    keys = {exchange.id: exchange.keys.key.public for exchange in world.exchanges.values()}
    bills = {exchange.id: exchange.usages for exchange in world.exchanges.values()}
    for exchange in world.exchanges.values():
        for usage in bills[exchange.id].values():
            _hold_line(world, exchange, usage, bills, keys)


def _hold_line(
    world: World, exchange: SimExchange, usage: Usage, bills: dict[str, dict[str, Usage]], keys: dict[str, str]
) -> None:
    hold = world.checks.hold
    if usage.via and not exchange.set_backs:
        found = [reason for reason in verify_usage(usage, keys) if reason.code != "answer_missing"]
        is_sound = not found or world.exchange_named(usage.via).is_cheat
        hold("a bill proves itself", is_sound, exchange.name, usage.run, found)
    if not usage.origin:
        return
    asker = world.exchange_named(usage.origin)
    if exchange.set_backs or asker.set_backs or exchange.is_cheat:
        return
    hold("a claim is answered", bool(usage.given_answer), exchange.name, usage.run)
    hold("a bill proves itself", not (wrong := verify_usage(usage, keys)), exchange.name, usage.run, wrong)
    origin = exchange.books.origins[usage.job]
    theirs = bills[asker.id].get(origin.run)
    paid = theirs.charge_micro_cny if theirs is not None else 0
    hold(
        "both sides of a bill agree",
        usage.charge_micro_cny == paid + usage.given_disputed_micro_cny,
        exchange.name,
        usage.run,
        usage.charge_micro_cny,
        "claimed,",
        paid,
        "paid by",
        asker.name,
        usage.given_disputed_micro_cny,
        "disputed",
    )
