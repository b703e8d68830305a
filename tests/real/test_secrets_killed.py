"""Secrets of a run elsewhere, over kills of both exchanges in the middle of it: the run has them, and then nobody."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from federation_world import LIMITS, Exchange, Site
from use_world import ended, job, log

from peer_world import until
from tieline.client import AsyncClient
from tieline.model.job import Job
from tieline.model.task import Resources, Task

pytestmark = pytest.mark.slow

VALUE = "correct-horse-battery-staple"
RUN = """\
printf %s "$API_KEY" | sha256sum | cut -c1-64
: > begun
for _ in {1..900}; do [ -e go ] && break; sleep 0.1; done
"""


@pytest.fixture
def world(tmp_path: Path):
    patient = {**LIMITS, "lease_ms": 60_000}
    a, b = (Exchange(tmp_path, prefix, limits=patient).start() for prefix in ("cn.a", "cn.b"))
    site = Site(b, tmp_path, "lab")
    a.add(b.url, "peer")
    b.accept(a)
    until(lambda: a.can_place(site.pool), 90, lambda: a.http.get("/v1/peers").text)
    yield a, b, site
    for each in (site, a, b):
        each.stop()


def kept(exchange: Exchange) -> int:
    """How many jobs have secrets in its database."""
    with closing(sqlite3.connect(f"file:{exchange.home / 'tieline.db'}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM secret").fetchone()[0])


def submitted(exchange: Exchange) -> Job:
    async def submit() -> tuple[Job, ...]:
        task = Task(name="far", run=RUN, secrets=("API_KEY",), is_trusted=True, resources=(Resources(core_count=1),))
        async with AsyncClient(exchange.url, exchange.token) as client:
            return await client.submit(task, secrets={"API_KEY": VALUE})

    return asyncio.run(submit())[0]


def test_they_are_gone_on_both_sides_when_the_run_is_over_whoever_was_killed_meanwhile(world, tmp_path: Path) -> None:
    a, b, site = world
    name = submitted(a).id
    begun = until(lambda: next(iter(site.folder.rglob("begun")), None), 60, lambda: str(job(a, name)))
    assert (kept(a), kept(b)) == (1, 1)
    b.kill()
    b.start()
    assert kept(b) == 1
    a.kill()  # and the run ends while it is away
    (begun.parent / "go").touch()
    until(lambda: kept(b) == 0, 60)
    assert kept(a) == 1
    a.start()
    view = ended(a, name)
    assert [run["state"] for run in view["runs"]] == ["succeeded"], view
    assert log(a, name).strip() == hashlib.sha256(VALUE.encode()).hexdigest()
    assert kept(a) == 0
    files = [path for home in (a.home, b.home) for path in home.rglob("*") if path.is_file()]
    logs = [path for path in tmp_path.glob("*.log") if path.is_file()]
    assert len(files) > 4
    assert [path for path in (*files, *logs) if VALUE.encode() in path.read_bytes()] == []
