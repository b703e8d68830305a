"""From the SIGKILL of the writer to the next acknowledged change, as a user behind one address sees it.

Three processes on a PostgreSQL that syncs, with jobs in the store; one user that changes something all the time with
an idempotency key and says it again, with that key, until it is acknowledged. In between one process is frozen.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from time import perf_counter

from bench.failover_world import FailoverWorld
from bench.row import Row
from tieline.drivers.http.client import HttpClient
from tieline.drivers.stores.following import Follower
from tieline.drivers.stores.leadership import FROZEN_S
from tieline.model.api import JobPage, JobsBody, TokenBody, TokenMade
from tieline.model.error import TielineError
from tieline.model.party import Role, Token
from tieline.model.task import Resources, Task

KILLS = 20
WAITING = 1_000  # jobs in the queue, which the next writer takes in
PAGE = 8  # submitted at once
STEADY_S = 0.3  # of changes between two kills
GIVE_UP_S = 60.0


class User:
    """Makes a change, and says it again until it is acknowledged."""

    def __init__(self) -> None:
        self.count = self.tries = 0

    async def change(self, client: HttpClient) -> float:
        """One change; when it was acknowledged."""
        self.count += 1
        body = TokenBody(name=f"u{self.count}", roles=(Role.USER,), ttl_s=3_600)
        deadline = perf_counter() + GIVE_UP_S
        while True:
            self.tries += 1
            try:
                await client.call("POST", "/v1/tokens", TokenMade, body=body, key=f"k{self.count}", attempts=1)
            except TielineError:
                if perf_counter() > deadline:
                    raise
                await asyncio.sleep(0.01)
            else:
                return perf_counter()

    async def steadily(self, client: HttpClient, seconds: float) -> list[float]:
        """Changes one after the other for so long; how long each took."""
        took = []
        until = perf_counter() + seconds
        while (begun := perf_counter()) < until:
            took.append(await self.change(client) - begun)
        return took


async def _measured(world: FailoverWorld) -> tuple[list[float], list[float], float, User]:
    async with world.client() as client:
        await world.add(client, "lab7", "gz1", cores=1, memory_bytes=10**9)
        await world.await_sites(client)
    user = User()
    waits: list[float] = []
    steady: list[float] = []
    async with HttpClient(world.url, bearer=world.admin, total_s=15) as client:
        await _fill(client)
        for _ in range(KILLS):
            steady += await user.steadily(client, STEADY_S)
            number, _ = await asyncio.to_thread(world.leader)
            begun = perf_counter()
            world.kill(number)
            waits.append(await user.change(client) - begun)
            await asyncio.to_thread(world.start, number)
        steady += await user.steadily(client, STEADY_S)
        number, _ = await asyncio.to_thread(world.leader)
        begun = perf_counter()
        world.signal(number, signal.SIGSTOP)
        frozen = await user.change(client) - begun
        world.signal(number, signal.SIGCONT)
    return waits, steady, frozen, user


async def _fill(client: HttpClient) -> None:
    """Jobs that wait behind one that runs: the state that every next writer takes in."""
    task = Task(name="waits", run="sleep 3600", resources=(Resources(core_count=1),), is_trusted=True)
    body = JobsBody(tasks=(task,))
    for at in range(0, WAITING, PAGE):
        await asyncio.gather(
            *(client.call("POST", "/v1/jobs", JobPage, body=body, key=f"j{at + n}") for n in range(PAGE))
        )


def _tokens(follower: Follower) -> Iterator[Token]:
    after = ""
    while page := follower.tokens(after=after):
        yield from page
        after = page[-1].id


def run() -> list[Row]:
    """Median and p95 over the kills, and how long one that is frozen holds everybody up."""
    world = FailoverWorld(Path(mkdtemp(prefix="tieline-bench-")))
    try:
        world.open()
        waits, steady, frozen, user = asyncio.run(_measured(world))
        made = [token.name for token in _tokens(world.follower) if token.name.startswith("u")]
        lost = user.count - len(set(made))
        if lost or len(made) != len(set(made)):
            raise AssertionError(f"{lost} acknowledged changes are lost, {len(made) - len(set(made))} were made twice")
        if not world.follower.verify_chain().is_verified:
            raise AssertionError("the chain of the log is broken")
    finally:
        world.close()
    waits.sort()
    usual_ms = statistics.median(steady) * 1_000
    note = f"{len(waits)} kills, {waits[0]:.2f} to {waits[-1]:.2f} s, {WAITING:,} jobs in the queue; 3 processes, "
    note += f"fsync on; {user.count:,} changes, 0 lost, 0 twice; a change between kills {usual_ms:.1f} ms"
    return [
        Row(
            claim="failover: SIGKILL of the writer to the next acknowledged change, median",
            figure=statistics.median(waits),
            unit="s",
        ),
        Row(
            claim="failover: SIGKILL of the writer to the next acknowledged change, p95",
            figure=waits[min(len(waits) - 1, int(len(waits) * 0.95))],
            unit="s",
            target="5 s",
            note=note,
        ),
        Row(
            claim="failover: SIGSTOP of the writer to the next acknowledged change",
            figure=frozen,
            unit="s",
            note=f"one; a writer that stands still is ended after {FROZEN_S:.0f} s",
        ),
    ]
