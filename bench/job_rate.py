"""Process jobs a second: `/bin/true` through HTTP submit, plan, two-phase booking, start, end, usage and a synced log.

The exchange and one site are processes of their own; users are one client over loopback. The anchor is PSI/J's
local executor on the same machine in the same run: it starts the same processes with no booking, no log and no sandbox.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from time import perf_counter

from bench.plain_world import PlainWorld
from bench.row import Row
from tieline.client import AsyncClient
from tieline.drivers.engines.process import ProcessEngine
from tieline.model.api import EventView
from tieline.model.job import JobState
from tieline.model.task import Task

SINGLE = 60
SUSTAINED = 600
TURNS = 5
SUBMITTERS = 8
TICKS = os.sysconf("SC_CLK_TCK")
CORES = 512  # as declared: every job of a turn may run at once


class Rates:
    """What one kind of site reached."""

    def __init__(self) -> None:
        self.single_ms: list[float] = []
        self.per_s: list[float] = []
        self.exchange_ms: list[float] = []  # CPU of one job
        self.site_ms: list[float] = []


def run() -> list[Row]:
    """Two rows for each kind of isolation that works here: p50 of single jobs, and sustained jobs a second."""
    anchor_ms, anchor_per_s = psij_rates()
    boxes = ["none", *(["bubblewrap"] if ProcessEngine().offers()["sandbox"] else [])]
    rows = []
    for box in boxes:
        rates = asyncio.run(_measured(box))
        how = "no sandbox" if box == "none" else box
        p50 = median(rates.single_ms)
        rows.append(
            Row(
                claim=f"job_rate: one /bin/true, submit to end, p50, {how}",
                figure=p50,
                unit="ms",
                anchor=anchor_ms,
                anchor_name="PSI/J local executor, submit to end",
                ratio=anchor_ms / p50,
                target="25 ms",
                note=f"p95 {sorted(rates.single_ms)[int(len(rates.single_ms) * 0.95)]:.0f} ms of {SINGLE} jobs",
            )
        )
        rows.append(
            Row(
                claim=f"job_rate: /bin/true sustained, {how}",
                figure=median(rates.per_s),
                unit="jobs/s",
                anchor=anchor_per_s,
                anchor_name="PSI/J local executor (no booking, no log)",
                ratio=median(rates.per_s) / anchor_per_s,
                target="100",
                note=f"{SUSTAINED} jobs x {TURNS} turns, {min(rates.per_s):.0f} to {max(rates.per_s):.0f}; CPU of one "
                f"job: exchange {median(rates.exchange_ms):.1f} ms, site {median(rates.site_ms):.1f} ms",
            )
        )
    return rows


async def _measured(box: str) -> Rates:
    world = PlainWorld(Path(mkdtemp(prefix="tieline-bench-")))
    task = Task(name="true", run="/bin/true", is_trusted=box == "none")
    rates = Rates()
    try:
        await asyncio.to_thread(world.open)
        async with world.client() as client:
            await world.add(client, "lab7", "gz1", cores=CORES, sandbox="" if box == "none" else box)
            await world.await_sites(client)
            for number in range(SINGLE + 5):
                began = perf_counter()
                (job,) = await client.submit(task)
                view = await client.wait(job.id, 30)
                if view.job.state is not JobState.SUCCEEDED or view.runs[-1].sandbox != box:
                    raise AssertionError(f"{job.id}: {view.job.state} {view.runs[-1].sandbox} {view.job.reasons}")
                if number >= 5:
                    rates.single_ms.append((perf_counter() - began) * 1000)
            for _ in range(TURNS):
                assert world.exchange is not None
                exchange, site = world.exchange.pid, world.sites["gz1"].pid
                began, exchange_s, site_s = perf_counter(), cpu_s(exchange), cpu_s(site)
                await _sustained(client, task, SUSTAINED)
                rates.per_s.append(SUSTAINED / (perf_counter() - began))
                rates.exchange_ms.append((cpu_s(exchange) - exchange_s) / SUSTAINED * 1000)
                rates.site_ms.append((cpu_s(site) - site_s) / SUSTAINED * 1000)
            usage = await client.usage()
            if not usage.lines:
                raise AssertionError("nothing was billed")
    finally:
        world.close()
    return rates


async def _sustained(client: AsyncClient, task: Task, count: int) -> None:
    """Submit ``count`` jobs and follow the event log until each has ended."""
    position = (await client.status()).events
    mine: set[str] = set()
    ended: set[str] = set()
    left = iter(range(count))

    async def submit() -> None:
        for _ in left:
            (job,) = await client.submit(task)
            mine.add(job.id)

    async def follow() -> None:
        import msgspec

        async for event in client.stream(after=position):
            entry = msgspec.json.decode(event.data, type=EventView)
            if entry.kind == "job_ended":
                ended.add(entry.subject)
            if len(mine) == count and mine <= ended:
                return

    await asyncio.gather(asyncio.wait_for(follow(), 120), *(submit() for _ in range(SUBMITTERS)))


def cpu_s(pid: int) -> float:
    """CPU seconds that a process took until now, its own ended children included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS


def psij_rates() -> tuple[float, float]:
    """(p50 of single jobs in ms, jobs a second) of PSI/J's local executor."""
    from psij import Job, JobExecutor, JobSpec

    executor = JobExecutor.get_instance("local")

    def submitted() -> Job:
        job = Job(JobSpec(executable="/bin/true"))
        executor.submit(job)
        return job

    single = []
    for _ in range(SINGLE):
        began = perf_counter()
        submitted().wait()
        single.append((perf_counter() - began) * 1000)
    rates = []
    for _ in range(TURNS):
        began = perf_counter()
        for job in [submitted() for _ in range(SUSTAINED // 4)]:
            job.wait()
        rates.append(SUSTAINED // 4 / (perf_counter() - began))
    return median(single), median(rates)
