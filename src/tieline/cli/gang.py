"""Showing gangs over several pools: the plan of one, what it waits for, and where it ran."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tieline.cli import words
from tieline.cli.face import note
from tieline.cli.show import said
from tieline.cli.table import clean, show
from tieline.model.error import TielineError
from tieline.model.job import JOB_ENDED, JobState
from tieline.model.quantity import show_duration, show_money, show_rate

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.job import Job, Run
    from tieline.model.plan import PlannedGang, PlannedMember, PlannedWay

LOOK_S = 1.0
MEMBERS = ("ranks", "pool", "site", "owner", "gang_nodes", "accelerators", "price", "cost_hour", "sandbox", "evidence")
WAYS = ("end_a", "end_b", "meets", "path", "rate", "rtt", "cost_hour")


def show_gang(gang: PlannedGang) -> None:
    """Who would take which nodes, how the sites would be joined, and what all of it costs."""
    cards = sum(each.candidate.cost_micro_cny_per_hour for each in gang.members)
    ways = sum(each.price_micro_cny_per_hour for each in gang.ways)
    sites = len({each.candidate.site for each in gang.members})
    note("  " + words.say("gang_head", members=len(gang.members), sites=sites))
    show(MEMBERS, [_member_row(each) for each in gang.members], right=(4, 6, 7), err=True)
    if gang.ways:
        show(WAYS, [_way_row(each) for each in gang.ways], right=(4, 5, 6), err=True)
    note(
        "  "
        + words.say(
            "gang_sum",
            cost=show_money(gang.cost_micro_cny_per_hour),
            cards=show_money(cards),
            ways=show_money(ways),
            bound=show_money(gang.bound_micro_cny_per_hour),
            gap=_gap(gang),
        )
    )


def _gap(gang: PlannedGang) -> str:
    """How much more than the bound it costs, in percent of the bound."""
    if gang.bound_micro_cny_per_hour <= 0:
        return "-"
    over = gang.cost_micro_cny_per_hour - gang.bound_micro_cny_per_hour
    return f"{max(0, over) / gang.bound_micro_cny_per_hour:.1%}"


def _member_row(each: PlannedMember) -> tuple[str, ...]:
    one = each.candidate
    return (
        ranks(each.rank, each.nodes),
        one.pool,
        one.site,
        one.owner,
        f"{each.nodes:,}",
        f"{one.accelerator or words.say('unit_core')} x{one.unit_count}",
        show_money(one.price_micro_cny_per_unit_hour),
        show_money(one.cost_micro_cny_per_hour),
        one.sandbox or words.say("none"),
        words.term("evidence", one.evidence),
    )


def _way_row(each: PlannedWay) -> tuple[str, ...]:
    return (
        each.a,
        each.b,
        words.term("meets", each.meets),
        " > ".join(each.links) or "-",
        show_rate(each.rate_bps) if each.rate_bps else "-",
        words.term("evidence", "unknown") if each.rtt_us is None else show_duration(each.rtt_us),
        show_money(each.price_micro_cny_per_hour),
    )


def ranks(first: int, nodes: int) -> str:
    """``4`` or ``4-7``."""
    return f"{first}" if nodes <= 1 else f"{first}-{first + nodes - 1}"


def newest(job: Job, runs: Sequence[Run]) -> list[Run]:
    """The runs of the newest epoch, by the ranks of their nodes."""
    return sorted((run for run in runs if run.epoch == job.epoch), key=lambda run: run.rank)


@asynccontextmanager
async def progress(client: AsyncClient, name: str, *, is_quiet: bool = False) -> AsyncIterator[None]:
    """Say on stderr whom a job waits for until it runs, where its nodes may stand at several sites."""
    if is_quiet or (await client.job(name)).job.task.span is None:
        yield
        return
    watching = asyncio.create_task(_watch(client, name))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(client: AsyncClient, name: str) -> None:
    """One line for each change, until it has ended: a gang may wait again."""
    last = ""
    while True:
        try:
            found = await client.why(name)
        except TielineError:  # such as an exchange that is started again: whoever follows the output says so
            found = None
        if found is not None and found.state in JOB_ENDED:
            return
        line = said(found.reasons[0]) if found is not None and found.reasons else last
        if line != last and found is not None:
            note(f"  {words.word(found.state)}: {clean(line)}")
            last = line
        await asyncio.sleep(LOOK_S if found is None or found.state != JobState.RUNNING else 2 * LOOK_S)
