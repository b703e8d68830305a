"""Following jobs: their output on stdout as it comes, their fate on stderr."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tieline.cli import words
from tieline.cli.face import GREEN, RED, coloured, hint, note
from tieline.cli.gang import newest, progress, ranks
from tieline.cli.show import show_reasons, through
from tieline.cli.table import clean
from tieline.model.quantity import show_duration, show_money

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.api import JobView


async def follow_jobs(client: AsyncClient, names: Sequence[str], *, is_quiet: bool = False) -> list[JobView]:
    """Follow jobs one after the other until each has ended; their views. ``is_quiet``: only wait."""
    views = []
    for name in names:
        async with progress(client, name, is_quiet=is_quiet):
            if not is_quiet:
                await follow_output(client, name)
            view = await client.wait(name)
        if not is_quiet:
            conclude(view)
        views.append(view)
    return views


async def follow_output(client: AsyncClient, name: str, node: int | None = None) -> None:
    """Write what the job prints to stdout: of one node as it is, of several with the node's rank before each line."""
    view = await client.job(name)
    if node is not None or view.job.task.nodes == 1:
        async for chunk in client.follow(name, node or 0):
            write(chunk)
        return
    await asyncio.gather(*(_marked(client, name, rank) for rank in range(view.job.task.nodes)))


async def _marked(client: AsyncClient, name: str, rank: int) -> None:
    """One node's output, line by line, each with its rank."""
    rest = b""
    async for chunk in client.follow(name, rank):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            write(b"".join(b"[%d] %s\n" % (rank, line) for line in lines))
    if rest:
        write(b"[%d] %s\n" % (rank, rest))


def write(chunk: bytes) -> None:
    """Bytes to stdout at once; on a terminal without what it would obey, except colours and line control."""
    if sys.stdout.isatty():
        chunk = harmless(chunk)
    sys.stdout.flush()
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def harmless(chunk: bytes) -> bytes:
    """``chunk`` without escape sequences other than colours (``ESC [ ... m``)."""
    import re

    without = re.sub(rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b(?:\[[0-?]*[ -/]*[@-ln-~]|[@-Z\\^_])", b"", chunk)
    return without.translate(None, bytes(set(range(32)) - {8, 9, 10, 13, 27}))


def conclude(view: JobView) -> None:
    """Say on stderr how a job ended, what it cost, and what to do next."""
    job = view.job
    name = job.id.rpartition("/")[2]
    is_good = job.state == "succeeded"
    run = next(iter(newest(job, view.runs)), None)
    took = run.ended_ms - run.started_ms if run is not None and run.started_ms and run.ended_ms else 0
    said = words.say(
        "ended",
        job=name,
        state=words.word(job.state),
        time=show_duration(max(0, took) * 1000),
        pool=_where(view),
        charge=show_money(job.charged_micro_cny),
    )
    note(coloured(said, GREEN if is_good else RED, sys.stderr))
    if run is not None and run.via:
        note("  " + through(run.via, run.offered_ms - run.as_of_ms))
    _say_members(view)
    show_reasons(job.reasons, counted=False)
    if is_good and job.outputs:
        hint(f"tieline fetch {name}")
    elif not is_good:
        hint(f"tieline why {name}")


def _where(view: JobView) -> str:
    """The pool that it ran on; of a gang the first one and how many more."""
    runs = newest(view.job, view.runs)
    if not runs:
        return "-"
    return runs[0].pool if len(runs) == 1 else words.say("gang_members", run=runs[0].pool, more=len(runs) - 1)


def _say_members(view: JobView) -> None:
    """Where the nodes of a gang over several pools were, and how each part ended."""
    for run in newest(view.job, view.runs):
        if run.members:
            values = {"pool": clean(run.pool), "site": clean(run.site), "state": words.word(run.state)}
            note(words.say("gang_ended", ranks=ranks(run.rank, run.nodes), **values))
