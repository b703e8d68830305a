"""From the SIGKILL of a site to the first output of the next run, as its user sees it, with the default lease.

Every victim is a process of its own with one running job; a dearer site has room for all of them. The user follows the
job's output through the exchange. Afterwards the victims come back, and nothing may be lost or billed twice.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter

from bench.plain_world import PlainWorld
from bench.row import Row
from tieline.client import AsyncClient
from tieline.model.job import JobState
from tieline.model.limits import Limits
from tieline.model.task import Task

VICTIMS = 12
KILLS_S = 8.0  # within which all of them are killed, at random moments of their heartbeats
RUN_S = 18
SEED = 3


def run() -> list[Row]:
    """One row: p95 over the victims."""
    waits, lost, twice = asyncio.run(_measured())
    p95 = sorted(waits)[min(len(waits) - 1, int(len(waits) * 0.95))]
    return [
        Row(
            claim="site_loss: SIGKILL of a site to the next run's first output, p95",
            figure=p95,
            unit="s",
            target="20 s; 0 lost, 0 billed twice",
            note=f"{len(waits)} kills, {min(waits):.1f} to {max(waits):.1f} s, lease {Limits().lease_ms / 1000:g} s; "
            f"{lost} lost, {twice} billed twice; SkyPilot: minutes (published)",
        )
    ]


async def _measured() -> tuple[list[float], int, int]:
    world = PlainWorld(Path(mkdtemp(prefix="tieline-bench-")))
    pick = random.Random(SEED)
    try:
        await asyncio.to_thread(world.open)
        async with world.client() as client:
            await world.add(client, "safe", "safe", cores=64, price_micro_cny=9_000_000, is_log_sent=True)
            for number in range(VICTIMS):
                await world.add(client, f"lab{number}", f"v{number}", cores=1, is_log_sent=True)
            await world.await_sites(client)
            task = Task(name="steady", run=f'echo "$TIELINE_RUN_ID"; sleep {RUN_S}', is_trusted=True)
            jobs = [(await client.submit(task))[0].id for _ in range(VICTIMS)]
            first = await asyncio.gather(*(_until(client, job, 1) for job in jobs))
            sites = [(await client.job(job)).runs[-1].site.rpartition("/")[2] for job in jobs]
            if "safe" in sites or len(set(sites)) != VICTIMS or len(first) != VICTIMS:
                raise AssertionError(f"the jobs are not on the victims: {sites}")
            waits = await asyncio.gather(
                *(
                    _wait_after(world, client, site, job, pick.uniform(0, KILLS_S))
                    for site, job in zip(sites, jobs, strict=True)
                )
            )
            for site in sites:  # what they remember is fenced, and must not count
                world.start_site(site)
            views = [await client.wait(job, 120) for job in jobs]
            await asyncio.sleep(3)
            lines = (await client.usage()).lines
            lost = sum(view.job.state is not JobState.SUCCEEDED for view in views)
            return list(waits), lost, len(lines) - len({line.job for line in lines})
    finally:
        world.close()


async def _until(client: AsyncClient, job: str, epoch: int) -> float:
    """When the output of this or a later run of the job comes."""
    said = b""
    name = job.rpartition("/")[2]
    async for chunk in client.follow(job):
        said += chunk
        if any(f"{name}.{later}".encode() in said for later in range(epoch, epoch + 5)):
            break
    return perf_counter()


async def _wait_after(world: PlainWorld, client: AsyncClient, site: str, job: str, delay_s: float) -> float:
    await asyncio.sleep(delay_s)
    world.kill_site(site)
    began = perf_counter()
    return await _until(client, job, 2) - began
