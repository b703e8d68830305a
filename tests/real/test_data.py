"""A job's data end to end: an exchange, a site that is killed while bytes move, a web server and an S3 store (moto)."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bench.plain_world import PREFIX, PlainWorld

from tieline.client import AsyncClient
from tieline.drivers.siteprocess.home import Home
from tieline.model.booking_api import TariffBody
from tieline.model.job import Job, JobState
from tieline.model.record import Record
from tieline.model.tariff import Tariff
from tieline.model.task import DataUse, Resources, Task
from tieline.model.topology import Link, Node, Topology
from tieline.model.transfer import Transfer
from tieline.registry import Key, sign

pytest.importorskip("s3fs", reason="the extra `s3` is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
boto3 = pytest.importorskip("boto3", reason="the extra `s3` and moto are not installed")

FAR = random.Random(7).randbytes(2_000_000)
SMALL = b"alga\n" * 1_000
CHUNK = b"nori\n" * 1_000
RATE_BPS = 8_000_000  # of the one link, half of which one transfer gets: 4 s for what comes over it
WAIT_S = 90
RULES = {"gz1": "data: {inner: [127.0.0.0/8], buckets: [lake]}\n", "sz1": "door: {listen: 0}\n"}
HOLDER = f"{PREFIX}.lab8/site/sz1"


class Ranged(BaseHTTPRequestHandler):
    """Ranges of `FAR`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        part = FAR[int(first) : int(last) + 1]
        self.server.sent.append(len(part))  # type: ignore[attr-defined]
        self.send_response(206)
        self.send_header("ETag", '"far"')
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(FAR)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def web() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranged)
    server.daemon_threads = True
    server.sent = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(30)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3-compatible server with one object; its keys are in the environment of the site."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    stated = {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="lake")
    client.put_object(Bucket="lake", Key="small.txt", Body=SMALL)
    client.close()
    yield stated["AWS_ENDPOINT_URL"]
    server.stop()


class World(PlainWorld):
    """`gz1` runs; `sz1` is where the record says that the bytes are."""

    def start_site(self, name: str) -> None:
        path = self.folder / "sites" / name / "site.yaml"
        if RULES[name] not in path.read_text():
            path.write_text(path.read_text() + RULES[name])
        super().start_site(name)

    async def begin(self, client: AsyncClient) -> None:
        for owner, name in (("lab7", "gz1"), ("lab8", "sz1")):
            await self.add(client, owner, name, cores=2)
        await self.await_sites(client)
        nodes = (Node(name="g", site=f"{PREFIX}.lab7/site/gz1"), Node(name="s", site=HOLDER))
        link = Link(name="gs", a="g", b="s", capacity_bps=RATE_BPS, delay_us=1_000)
        await client.change_topology(Topology(name="pair", nodes=nodes, links=(link,)))
        await client.change_tariff(TariffBody(tariff=Tariff(best_effort_micro_cny_per_gb=1_000_000_000)))

    async def publish(self, client: AsyncClient, name: str, content: bytes, **place: str) -> DataUse:
        """A dataset of `lab8`, signed with its owner's key."""
        key, now_s = Key(Home(self.folder / "sites/sz1").seed("owner")), int(time.time())
        digest = hashlib.sha256(content).hexdigest()
        record = Record(
            id=f"{PREFIX}.lab8/dataset/{name}", kind="dataset", rev=1, nb=now_s - 60, exp=now_s + 3_600,
            spec={"size_bytes": len(content), "sha256": digest, "places": [place]},
        )  # fmt: skip
        await client.register(sign(record, key, f"{PREFIX}.lab8#join").decode())
        return DataUse(id=record.id, path=f"in/{name}")

    def chunks(self) -> int:
        """That are whole in the cache, as journals say."""
        return sum(path.read_bytes().count(b"\n") - 1 for path in self.folder.glob("sites/gz1/cache/.*.moves"))


async def until(holds: Callable[[], Awaitable[Any] | Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while True:
        found = holds()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


def test_data_is_brought_at_the_booked_rate_over_a_kill_and_charged_by_receipts(tmp_path: Path, web, store: str):
    world = World(tmp_path / "world", limits={"lease_ms": 60_000, "tick_ms": 100})

    async def ended(client: AsyncClient, name: str) -> Job | None:
        job = (await client.job(name)).job
        return job if job.state in (JobState.SUCCEEDED, JobState.FAILED) else None

    async def story() -> None:
        await asyncio.to_thread(world.open)
        async with world.client() as client:
            await world.begin(client)
            url = f"http://127.0.0.1:{web.server_address[1]}/far"
            far = await world.publish(client, "far", FAR, url=url, site=HOLDER)
            small = await world.publish(client, "small", SMALL, url="s3://lake/small.txt")
            digest = hashlib.sha256(CHUNK).hexdigest()
            (tmp_path / "world/sites/sz1/chunks" / digest).write_bytes(CHUNK)
            chunk = await world.publish(client, "chunk", CHUNK, url=f"door:{HOLDER}#{digest}")
            task = Task(
                name="t",
                run="sha256sum in/*; echo ${TIELINE_TRANSFERS:-none}",
                data=(far, small, chunk),
                is_trusted=True,
                owners=(f"{PREFIX}.lab7",),
                resources=(Resources(core_count=1, disk_bytes=10**9),),
            )
            (plan,) = await client.plan([task])
            assert [trip.is_laid for trip in plan.candidates[0].transfers] == [True]
            (job,) = await client.submit(task)
            await until(lambda: world.chunks() >= 2, "chunks")
            world.kill_site("gz1")
            world.start_site("gz1")
            done = await until(lambda: ended(client, job.id), "the job")
            log = (await client.log(job.id)).decode()
            assert done.state is JobState.SUCCEEDED, (done.reasons, log)
            for content, name in ((FAR, "far"), (SMALL, "small"), (CHUNK, "chunk")):
                assert f"{hashlib.sha256(content).hexdigest()}  in/{name}\n" in log
            assert log.endswith("none\n")
            assert sum(web.sent) < 2 * len(FAR), "what was there before the kill was not fetched again"
            (transfer,) = [each for each in (await client.transfers()).transfers if each.order.job == job.id]
            check_charged(transfer)
            lines = [line for line in (await client.usage()).lines if line.run == transfer.id]
            assert [line.charge_micro_cny for line in lines] == [transfer.charged_micro_cny]

    try:
        asyncio.run(story())
    finally:
        world.close(is_removed=False)


def check_charged(transfer: Transfer) -> None:
    assert (transfer.order.source, transfer.moved_bytes, transfer.state) == (HOLDER, len(FAR), "arrived")
    assert transfer.charged_micro_cny == transfer.price_micro_cny == len(FAR)
