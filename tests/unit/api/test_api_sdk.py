"""The SDK and the API mean the same: one story through every part of the client against a real exchange."""

import asyncio
import io

import pytest
from test_api_jobs import HELLO

from tieline.client.asynchronous import AsyncClient
from tieline.model.error import TielineError
from tieline.model.job import JobState
from tieline.model.party import Role
from tieline.model.task import Mount, Resources, Task


def test_a_whole_job_through_the_client(fresh, tmp_path):
    world = fresh()
    site = world.site("lab7", "gz1")
    secret = world.token("alice", Role.USER)

    async def story():
        async with AsyncClient(world.url, secret) as client, AsyncClient(world.url, "tl-admin-secret") as admin:
            assert (await client.exchange()).prefix == "cn.demo"
            assert (await client.me()).name == "alice"
            assert (await client.status()).pools == 1
            assert (await client.situation()).supply["cores"]["pools"] == 1
            found = await client.find("cores >= 4", kind="pool")
            assert [offer.id for offer in found.offers] == [site.pool]
            blob = await client.upload(io.BytesIO(b"input"))
            task = Task(
                name="t",
                run="cat in",
                resources=(Resources(core_count=1),),
                secrets=("KEY",),
                mounts=(Mount(path="in", sha256=blob.sha256, size_bytes=5),),
            )
            (plan,) = await client.plan([task])
            assert plan.chosen == site.pool
            (job,) = await client.submit(task, secrets={"KEY": "value"})
            waiting = asyncio.create_task(client.wait(job.id, timeout_s=20))
            view = await client.job(job.id)
            run = view.runs[-1]
            (outcome,) = await asyncio.to_thread(site.report, {"report": "accepted", "run": run.id, "epoch": run.epoch})
            assert outcome["sealed"]
            log = asyncio.create_task(_collect(client.follow(job.id)))
            await asyncio.to_thread(
                site.http.post,
                f"/v1/site/runs/{run.id}/log",
                content=b"hello\n",
                headers={"Content-Type": "application/octet-stream"},
            )
            made = await asyncio.to_thread(
                site.http.post, "/v1/blobs", content=b"output", headers={"Content-Type": "application/octet-stream"}
            )
            output = {"path": "out/result.txt", "sha256": made.json()["sha256"], "size_bytes": 6}
            ended = {"report": "ended", "run": run.id, "epoch": run.epoch, "state": "succeeded", "exit_codes": [0]}
            await asyncio.to_thread(site.report, {**ended, "outputs": [output]})
            assert (await waiting).job.state is JobState.SUCCEEDED
            assert await asyncio.wait_for(log, 20) == b"hello\n"
            assert await client.log(job.id) == b"hello\n"
            (written,) = await client.fetch(job.id, tmp_path / "out")
            assert written.read_bytes() == b"output"
            assert [line.run for line in (await client.usage()).lines] == [run.id]
            assert [bill.party for bill in await client.bills("user")] == ["alice"]
            assert (await client.history(job.id))[-1].kind == "job_ended"
            assert (await client.why(job.id)).state == "succeeded"
            assert (await client.stop(job.id)).state is JobState.SUCCEEDED
            assert (await client.jobs()).jobs[0].id == job.id
            assert (await client.events(limit=5)).events
            assert (await admin.verify_log()).is_verified
            assert (await admin.tokens())[0].id
            assert [each.id for each in await client.sites()] == [site.id]
            assert (await admin.change_site(site.id, "drain")).is_draining
            with pytest.raises(TielineError, match="needs one of the roles"):
                await client.change_site(site.id, "accept")
            async for event in admin.stream():
                assert event.id == "1"
                break

    asyncio.run(story())


def test_a_quote_through_the_client(fresh):
    world = fresh()
    site = world.site("lab7", "gz1")
    secret = world.token("alice", Role.USER)

    async def story():
        async with AsyncClient(world.url, secret) as client:
            task = Task(**{**HELLO["tasks"][0], "resources": (Resources(core_count=1),)})
            asking = asyncio.create_task(client.ask(task, duration_s=60))
            for _ in range(1_000):
                if world.writer.view.quotes:
                    break
                await asyncio.sleep(0.01)
            (name,) = world.writer.view.quotes
            answer = {"report": "quoted", "quote": name, "price_micro_cny_per_unit_hour": 800_000, "ttl_s": 30}
            await asyncio.to_thread(site.report, answer)
            quote = await asking
            assert (quote.state, quote.price_micro_cny_per_unit_hour) == ("open", 800_000)
            assert (await client.accept(quote.id)).quote == quote.id

    asyncio.run(story())


async def _collect(pieces):
    return b"".join([piece async for piece in pieces])
