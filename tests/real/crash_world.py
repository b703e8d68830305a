"""Load, kills and books for the crash test: what users were told, what really ran, and what the log says of both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.plain_world import PREFIX, PlainWorld
from sqlalchemy import select

from tieline.cli.processes import is_alive
from tieline.drivers.stores.log import LogRow, verify
from tieline.drivers.stores.store import Store
from tieline.drivers.stores.tables import usage
from tieline.model import event as fact
from tieline.model.error import TielineError
from tieline.model.job import JobState, RunState
from tieline.model.task import Resources, Task

sys.path.append(str(Path(__file__).parents[1] / "unit" / "exchange"))
from exchange_ledger import Ledger

SITES = (("lab7", "gz1"), ("lab8", "sh1"), ("lab9", "bj1"))
CORES = 6
MEMORY_BYTES = 8 * 10**9
LIMITS = {"lease_ms": 1_500, "beat_ms": 300, "tick_ms": 100, "offer_ttl_ms": 1_500}
SUBMITTERS = 4
SETTLE_S = 90
SLACK_MS = 2  # the shell's clock is read in milliseconds, rounded down


@dataclass
class Books:
    """What was seen from outside: answers to users, and lines that the jobs themselves wrote."""

    acknowledged: dict[str, str] = field(default_factory=dict)  # job -> name of its task
    asked: set[str] = field(default_factory=set)
    started: dict[str, list[int]] = field(default_factory=dict)  # run -> milliseconds
    ended: dict[str, list[int]] = field(default_factory=dict)


class CrashWorld:
    """One exchange and three sites under load, killed at random points of a seeded story."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        exchange: tuple[str, ...] = (),
        site: tuple[str, ...] = (),
        exchange_share: float = 0.4,
        long_share: float = 0.2,
    ) -> None:
        self.pick = random.Random(seed)
        self.exchange_share, self.long_share = exchange_share, long_share  # of the kills; of the jobs
        self.lines = folder / "lines"
        self.world = PlainWorld(
            folder,
            limits=LIMITS,
            exchange_command=exchange or ("tieline.cli",),
            site_command=site or ("tieline.cli", "site-process"),
            is_plain=bool(site),
        )
        self.books = Books()
        self.faults: Counter[str] = Counter()
        pools = {f"{PREFIX}.{owner}/pool/{name}": (0, CORES, MEMORY_BYTES) for owner, name in SITES}
        self.ledger = Ledger(pools)
        self.is_over = False
        self.down: set[asyncio.Task[None]] = set()

    # -- the story ----------------------------------------------------------------------------------------------------

    async def play(self, kills: int, freezes: int = 0) -> None:
        """Load, kills and at least so many freezes together, then wait until all that was acknowledged has ended."""
        await asyncio.to_thread(self.world.open)
        async with self.world.client() as client:
            for owner, name in SITES:
                await self.world.add(client, owner, name, cores=CORES, memory_bytes=MEMORY_BYTES)
            await self.world.await_sites(client)
        load = [asyncio.create_task(self.submit(number)) for number in range(SUBMITTERS)]
        load.append(asyncio.create_task(self.freeze()))
        try:
            for _ in range(kills):
                await asyncio.sleep(self.pick.uniform(0.05, 0.5))
                await self.kill()
            for _ in range(SETTLE_S):
                if self.faults["site frozen"] < freezes:
                    await asyncio.sleep(1)
        finally:
            self.is_over = True
            await asyncio.gather(*load, *self.down)
        await self.settle()

    async def kill(self) -> None:
        """One SIGKILL. The exchange comes back at once, a site at its time: half of them after their lease."""
        if self.pick.random() < self.exchange_share:
            self.faults["exchange killed"] += 1
            self.world.kill_exchange()
            await asyncio.to_thread(self.world.open)
            return None
        name = self.pick.choice(SITES)[1]
        if name in {task.get_name() for task in self.down}:
            return await self.kill()
        is_long = self.pick.random() < 0.5
        self.faults["site killed, lost" if is_long else "site killed, back at once"] += 1
        self.world.kill_site(name)
        seconds = self.pick.uniform(2.0, 3.0) if is_long else self.pick.uniform(0.0, 0.3)
        task = asyncio.create_task(self.bring_back(name, seconds), name=name)
        self.down.add(task)
        task.add_done_callback(self.down.discard)
        if len(self.down) == len(SITES):
            await task
        return None

    async def freeze(self) -> None:
        """Now and then a site stands still for longer than its lease, and then goes on as if nothing had happened."""
        pick = random.Random(self.pick.random())
        while not self.is_over:
            await asyncio.sleep(pick.uniform(0.5, 2.0))
            started = self.world.sites[pick.choice(SITES)[1]]
            if is_alive(started):
                self.faults["site frozen"] += 1
                os.kill(started.pid, signal.SIGSTOP)
                await asyncio.sleep(pick.uniform(1.8, 2.6))
                if is_alive(started):
                    os.kill(started.pid, signal.SIGCONT)

    async def bring_back(self, name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.world.start_site(name)

    async def submit(self, number: int) -> None:
        """A user who submits whenever somebody answers."""
        pick = random.Random(self.pick.random())
        count = 0
        async with self.world.client() as client:
            client.http.total_s = 10
            while not self.is_over:
                count += 1
                name = f"t{number}-{count}"
                seconds = pick.uniform(1.5, 3.0) if pick.random() < self.long_share else pick.uniform(0.05, 0.8)
                script = (
                    f'echo "$TIELINE_RUN_ID start $(date +%s%3N)" >>{self.lines}; sleep {seconds:.2f}; '
                    f'echo "$TIELINE_RUN_ID end $(date +%s%3N)" >>{self.lines}'
                )
                resources = (Resources(core_count=pick.randint(1, 2)),)
                self.books.asked.add(name)
                with contextlib.suppress(TielineError):
                    (job,) = await client.submit(Task(name=name, run=script, is_trusted=True, resources=resources))
                    self.books.acknowledged[job.id] = name
                await asyncio.sleep(pick.uniform(0.1, 0.4))

    async def settle(self) -> None:
        """Until every acknowledged job has ended; one that never does is found by the books."""
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        async with self.world.client() as client:
            for job in self.books.acknowledged:
                left = deadline - asyncio.get_running_loop().time()
                with contextlib.suppress(TielineError):
                    await client.wait(job, max(1, left))

    # -- the books ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Stop everything, replay the log, and hold it against what was seen from outside. Raises AssertionError."""
        self.world.close(is_removed=False)
        self.read_lines()
        accepted: dict[str, int] = {}
        names: Counter[str] = Counter()
        ends: dict[str, fact.RunEnded] = {}
        with contextlib.closing(Store(f"sqlite:///{self.world.home / 'tieline.db'}").open()) as store:
            rows = all_rows(store)
            with store.engine.connect() as connection:
                charged = set(connection.execute(select(usage.c.run)).scalars())
        verdict = verify(rows)
        self.ledger.hold_true("the chain verifies", verdict.is_verified, verdict.why)
        for row in rows:
            event = row.entry().event
            self.ledger.take(event)
            if isinstance(event, fact.JobSubmitted):
                names[event.job.task.name] += 1
            elif isinstance(event, fact.RunAccepted):
                accepted[event.run] = event.at_ms
            elif isinstance(event, fact.RunEnded):
                ends[event.run] = event
        hold = self.ledger.hold_true
        for job in self.books.acknowledged:
            hold("no acknowledged job is lost", job in self.ledger.jobs, job)
            state = self.ledger.ended.get(job)
            hold("every acknowledged job ends well", state is JobState.SUCCEEDED, f"{job}: {state}")
        for name, count in names.items():
            hold("a request that was sent again is one job", count == 1 and name in self.books.asked, name)
        for run, times in self.books.started.items():
            hold("a run begins once", len(times) == 1, run)
            began = accepted.get(run)
            hold("nothing starts before it is confirmed", began is not None and began <= times[0] + SLACK_MS, run)
        for run, event in ends.items():
            if event.usage is not None and event.state is RunState.SUCCEEDED:
                ended = self.books.ended.get(run, [2**62])
                hold("nothing is billed before it has ended", ended[0] <= event.at_ms + SLACK_MS, run)
        hold("usage lines are those of the log", charged == set(self.ledger.usages))

    def read_lines(self) -> None:
        """What the jobs wrote."""
        for line in self.lines.read_text().splitlines() if self.lines.exists() else []:
            run, what, ms = line.split()
            (self.books.started if what == "start" else self.books.ended).setdefault(run, []).append(int(ms))

    def summary(self) -> str:
        """How often each fault was injected and each invariant checked."""
        return (
            f"crash: {len(self.books.acknowledged)} jobs acknowledged, {len(self.books.started)} runs began, "
            f"{sum(state is RunState.LOST for state in self.ledger.over.values())} lost, "
            f"{len(self.ledger.usages)} billed\n"
            f"crash: injected {dict(self.faults)}\ncrash: checked {dict(self.ledger.checked)}"
        )


def all_rows(store: Store) -> list[LogRow]:
    """The whole log, oldest first."""
    rows: list[LogRow] = []
    while page := store.log_rows(after=rows[-1].seq if rows else 0, limit=1_000):
        rows.extend(page)
    return rows
