"""Placements a second over 30,000 pools: submitted, decided, booked and kept, through the real writer and store.

Each placement is one `SubmitJobs` command with a single task; the placing pass books it, and both events
(`job_submitted`, `run_offered`) with their projections are in synced transactions before the turn ends. What
is not included: HTTP, and the owner's acceptance. Pools are put straight into the view (verifying their records is
`verify_records`), and offers and leases last, so that no time-out is measured.
"""

from __future__ import annotations

import random
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

from bench.row import Row
from tieline.drivers.clock import SystemClock, SystemIds
from tieline.drivers.garbage import collect_rarely
from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import CreateExchange, SubmitJobs
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.orders import order_of
from tieline.exchange.placing import schedule
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View
from tieline.model.limits import Limits
from tieline.model.party import Actor, Role, Site
from tieline.model.spec import PoolSpec, SiteSpec
from tieline.model.task import Resources, Task
from tieline.place import pool_row
from tieline.registry import Key

POOLS = 30_000
SITES = 3_500
PLACEMENTS = 20_000
TURNS = 5
WAITING = 512  # commands in flight: two batches of the writer
PASSES = 2_000  # after the last acknowledgement, until everything is booked
SEED = 11
GB = 10**9
KINDS = (
    "a100", "h20", "h100", "l40s", "ascend-910b", "ascend-310p", "mlu370", "dcu-k100", "mtt-s4000", "metax-c500",
    "kunlun-p800", "",
)  # fmt: skip
LIMITS = Limits(live_jobs=10_000_000, offer_ttl_ms=3_600_000, lease_ms=86_400_000)
USER = Actor(name="alice", roles=(Role.USER,))


def world(view: View, pools: int = POOLS, seed: int = SEED) -> None:
    """Fill a view with sites of many owners and pools of 12 kinds in random sizes and prices."""
    pick = random.Random(seed)
    regions = ("shanghai", "guangdong", "guizhou", "gansu", "beijing", "ningxia")
    sites = []
    for number in range(SITES):
        owner = f"cn.demo.o{number % 700}"
        site = Site(id=f"{owner}/site/s{number}", owner=owner, public="", is_admitted=True, is_silent=False)
        view.put_site(site)
        sites.append((site, SiteSpec(tier=pick.choice(("hub", "region", "edge")), region=pick.choice(regions))))
    for number in range(pools):
        site, spec = sites[number % SITES]
        kind = KINDS[number % len(KINDS)]
        pool = PoolSpec(
            site=site.id,
            accelerator=kind,
            accelerator_count=pick.choice((8, 16, 64, 512)) if kind else 0,
            accelerator_memory_bytes=pick.choice((24, 40, 64, 80, 96)) * GB if kind else 0,
            core_count=pick.choice((128, 512, 4_096)),
            memory_bytes=pick.choice((512, 2_048, 8_192)) * GB,
            architecture=pick.choice(("x86_64", "aarch64")),
            sandbox="bubblewrap",
            networks=("none", "host"),
            price_micro_cny_per_accelerator_hour=pick.randrange(1_000_000, 40_000_000) if kind else 90_000,
        )
        view.supply.pools.put(pool_row(f"{site.owner}/pool/p{number}", site.owner, pool, spec))
    view.touched.clear()


def tasks(count: int, seed: int) -> list[Task]:
    """Single tasks of every kind, some with a bound on memory, price or architecture."""
    pick = random.Random(seed)
    made = []
    for number in range(count):
        kind = pick.choice(KINDS)
        resources = Resources(
            accelerator=kind,
            accelerator_count=pick.choice((1, 1, 1, 2, 4, 8)) if kind else 0,
            core_count=pick.choice((1, 2, 4, 8)),
            memory_bytes=pick.choice((0, 4, 16)) * GB,
            accelerator_memory_bytes=pick.choice((0, 0, 40 * GB)) if kind else 0,
            architecture=pick.choice(("", "", "x86_64", "aarch64")),
            max_price_micro_cny=pick.choice((None, None, 30_000_000)),
        )
        made.append(Task(name=f"t{number}", run="true", resources=(resources,)))
    return made


def opened(folder: Path) -> tuple[Store, Writer[View]]:
    """The exchange's own store and writer, as `cli.compose` puts them together, over the bench's pools."""
    keys = ExchangeKeys(Key(bytes(range(32))), "cn.demo")
    clock = SystemClock()
    store = Store(f"sqlite:///{folder / 'tieline.db'}").open()

    def filled(view: View, tables: Any, now_ms: int) -> None:
        load(view, tables, now_ms)
        world(view)

    writer: Writer[View] = Writer(
        store,
        lambda: View(keys, LIMITS),
        decide,
        schedule,
        rows,
        filled,
        clock,
        SystemIds(clock),
        order_of=order_of,
        batch=LIMITS.batch,
        queue=LIMITS.queue,
        tick_ms=LIMITS.tick_ms,
    ).start()
    writer.submit(
        CreateExchange(
            id="cn.demo/exchange/main", prefix="cn.demo", public=keys.key.public, admin_token_sha256="0" * 64
        )
    ).result(30)
    collect_rarely()  # as the process of an exchange does
    return store, writer


def turn(writer: Writer[View], work: list[Task]) -> tuple[float, float]:
    """Wall and CPU seconds until every task of ``work`` is acknowledged and booked."""
    booked = len(writer.view.runs)
    waiting: deque[Future[Any]] = deque()
    began, cpu = perf_counter(), process_time()
    for task in work:
        if len(waiting) >= WAITING:
            waiting.popleft().result(60)
        waiting.append(writer.submit(SubmitJobs(actor=USER, tasks=(task,))))
    while waiting:
        waiting.popleft().result(60)
    for _ in range(PASSES):  # a pass that would keep commands waiting is cut, and goes on in the next
        if len(writer.view.runs) - booked >= len(work):
            break
        writer.keep(()).result(60)
    wall_s, cpu_s = perf_counter() - began, process_time() - cpu
    if len(writer.view.runs) - booked != len(work):
        raise AssertionError(f"{len(writer.view.runs) - booked} of {len(work)} tasks were booked")
    return wall_s, cpu_s


def run() -> list[Row]:
    """One row: the median of the turns, each of 20,000 placements."""
    with TemporaryDirectory(prefix="tieline-bench-") as name:
        store, writer = opened(Path(name))
        try:
            turn(writer, tasks(2_000, SEED))
            before = writer.position[0]
            times = [turn(writer, tasks(PLACEMENTS, SEED + number)) for number in range(1, TURNS + 1)]
            events = writer.position[0] - before
        finally:
            writer.close()
            store.close()
    if events != 2 * PLACEMENTS * TURNS:
        raise AssertionError(f"{events} events for {PLACEMENTS * TURNS} placements")
    rates = [PLACEMENTS / wall_s for wall_s, _ in times]
    cpu_us = median(cpu_s for _, cpu_s in times) / PLACEMENTS * 1e6
    figure = median(rates)
    return [
        Row(
            claim=f"place_rate: placements over {POOLS:,} pools, decided, booked, 2 events kept",
            figure=figure,
            unit="placements/s",
            anchor=810,
            anchor_name="kube-scheduler CI floor (published, other hardware)",
            ratio=figure / 810,
            target="5,000",
            note=f"Kueue 43 published; {cpu_us:,.0f} us CPU each; {PLACEMENTS:,} x {TURNS} turns, "
            f"{min(rates):,.0f} to {max(rates):,.0f}/s",
        )
    ]
