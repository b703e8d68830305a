"""A process that follows knows what the log says, answers with how far, and asks the leader where it would refuse."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_world import ADMIN, World, seeded
from following_parts import SIBLINGS, WAIT_S

from postgres import store_url
from tieline.api.app import OPERATIONS, api_document, make_app
from tieline.api.following.available import PATH, Available, available_at
from tieline.api.following.forwarding import Forwarder
from tieline.api.following.front import Following, Front
from tieline.api.following.local import Routes
from tieline.api.following.platform import FollowingPlatform, as_store, as_writer
from tieline.api.following.trail import Trail
from tieline.cli.compose import Exchange, identity_of
from tieline.drivers.stores.blobs import Blobs
from tieline.drivers.stores.disk import Disk
from tieline.drivers.stores.following import Follower
from tieline.drivers.stores.leadership import Leader, Seen, Standing
from tieline.drivers.stores.logs import Logs
from tieline.exchange.commands import CreateToken
from tieline.exchange.projection import load
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.party import SYSTEM, Role
from tieline.model.protocol import PoolBeat

DOCUMENT = api_document()


@pytest.fixture
def leader(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """An exchange that writes to a PostgreSQL, as a single process does."""
    for address in store_url("postgresql", tmp_path, request):
        world = World(tmp_path, address=address).start()
        yield world
        world.stop()


class Followed:
    """What a process has that follows a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_leader_near = True
        self.ticks = itertools.count(10.0, 10.0)  # every question asks anew
        self.told: list[tuple[Standing, Seen]] = []
        self.follower = Follower(world.address).open()
        self.trail = Trail(self.follower, self.view, load, world.clock, lambda *said: self.told.append(said))

    def view(self) -> View:
        return View(self.world.keys, self.world.limits, fetch=self.follower.jobs_named)

    def await_(self, is_so: Callable[[], Any]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def followed(leader: World) -> Iterator[Followed]:
    made = Followed(leader)
    made.trail.start()
    yield made
    made.trail.close()


def made_token(world: World, name: str) -> str:
    """A new token past the API; its secret's sha256."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    world.do(CreateToken(actor=SYSTEM, sha256=sha256, name=name, roles=(Role.USER,)))
    return sha256


def test_the_view_follows_the_log(leader: World, followed: Followed) -> None:
    told: list[int] = []
    followed.trail.subscribe(lambda entries: told.extend(entry.seq for entry in entries))
    before = leader.writer.position[0]
    tokens = [made_token(leader, f"u{number}") for number in range(5)]
    leader.site()
    end = leader.writer.position
    followed.await_(lambda: followed.trail.position == end)
    assert told == list(range(before + 1, end[0] + 1))
    assert all(token in followed.trail.view.tokens for token in tokens)
    assert followed.trail.view.sites == leader.writer.view.sites
    assert followed.trail.refills == 0
    assert followed.trail.as_of_ms == leader.clock.now_ms()
    assert followed.trail.is_writable


def test_an_entry_that_cannot_be_applied_makes_the_view_be_filled_anew(leader: World, followed: Followed) -> None:
    told: list[int] = []
    followed.trail.subscribe(lambda entries: told.extend(entry.seq for entry in entries))
    before = leader.writer.position[0]
    followed.trail.view.apply = None  # type: ignore[method-assign,assignment]
    tokens = [made_token(leader, f"u{number}") for number in range(3)]
    end = leader.writer.position
    followed.await_(lambda: followed.trail.position == end)
    assert followed.trail.refills == 1
    assert all(token in followed.trail.view.tokens for token in tokens)
    assert told == list(range(before + 1, end[0] + 1))


def test_it_tells_when_nobody_leads(leader: World, followed: Followed) -> None:
    followed.await_(lambda: followed.told)
    assert followed.told[-1][0] is Standing.STARTING  # this world writes no row of a leader
    assert followed.told[-1][1].term == leader.store.term
    assert leader.writer.close()
    leader.store.close()
    followed.await_(lambda: followed.told[-1][0] is Standing.FREE)
    assert followed.trail.position[0] > 0


def test_it_decides_on_nothing(followed: Followed) -> None:
    for ask in (lambda: asyncio.run(followed.trail.ask(object())), lambda: followed.trail.ask_many([object()])):
        with pytest.raises(TielineError) as caught:
            ask()
        assert caught.value.code == "not_leader"


def test_a_database_of_another_exchange_is_not_followed(leader: World, tmp_path: Path) -> None:
    assert leader.writer.close()
    leader.store.close()
    folder = tmp_path / "other"
    with pytest.raises(TielineError, match="another key") as caught:
        Exchange(folder, identity_of(folder), leader.address)
    assert caught.value.code == "conflict"


# -- what callers see ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def following(followed: Followed, *, has_files: bool = True) -> Any:
    """A client of the following process, and its forwarder, which knows the leader."""
    world = followed.world
    disk = Disk(world.folder, 0)
    platform = FollowingPlatform(
        store=as_store(followed.follower),
        writer=as_writer(followed.trail),
        blobs=Blobs(world.folder / "blobs", world.clock, disk, 2**30),
        logs=Logs(world.folder / "logs", disk, 2**20, 2**30),
        clock=world.clock,
        limits=world.limits,
        keys=world.keys,
        sealing_key=seeded("sealing"),
        started_ms=world.clock.now_ms(),
        url=world.url,
    )
    forwarder = Forwarder(SIBLINGS, world.clock, followed.trail.look)
    forwarder.turn(Leader(term=1, url=world.url))
    await platform.start(DOCUMENT)

    async def ask(path: str) -> bytes:
        assert path == PATH
        if not followed.is_leader_near:
            raise ConnectionError
        return available_at(world.writer.view)

    front = Front()
    front.part = Following(
        make_app(platform),
        Routes(OPERATIONS),
        platform,
        followed.trail,
        forwarder,
        Available(ask, followed.trail, platform.indexing.heard, timer=lambda: next(followed.ticks)),
        has_files=has_files,
    )
    headers = {"Authorization": f"Bearer {ADMIN}"}
    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(front),  # type: ignore[arg-type]
            base_url="http://follower",
            headers=headers,
            timeout=WAIT_S,
        ) as client:
            yield client, forwarder
    finally:
        platform.close()
        await forwarder.close()


def is_local(answer: httpx.Response) -> bool:
    """Whether the process answered by itself: the world behind it does not say how far it knows the log."""
    return "tieline-as-of" in answer.headers


def test_questions_are_answered_here_and_all_else_by_the_leader(leader: World, followed: Followed) -> None:
    leader.site()

    async def story() -> None:
        async with following(followed) as (client, _):
            for path in ("/v1/jobs", "/v1/events?limit=3", "/v1/records", "/v1/me", "/v1/usage", "/v1/tokens"):
                answer = await client.get(path)
                assert (answer.status_code, is_local(answer)) == (200, True), path
            for path in ("/v1/status", "/v1/situation", "/v1/sites", "/v1/audit/head"):
                answer = await client.get(path)
                assert (answer.status_code, is_local(answer)) == (200, False), path
            found = await client.post("/v1/find", json={"query": "cores >= 1", "kind": "pool", "limit": 5})
            assert (found.status_code, is_local(found)) == (200, True)
            theirs = leader.admin.post("/v1/find", json={"query": "cores >= 1", "kind": "pool", "limit": 5})
            (ours,), (theirs,) = (each.json()["offers"] for each in (found, theirs))
            assert (ours["id"], ours["attributes"]["cores_free"]) == (theirs["id"], theirs["attributes"]["cores_free"])
            measured = await client.post("/v1/find", json={"query": "rtt(shanghai) < 1ms", "kind": "pool"})
            assert (measured.status_code, is_local(measured)) == (200, False), "readings are the leader's"
            task = {"name": "a", "run": "true", "resources": [{"core_count": 1}]}
            sent = {"json": {"tasks": [task]}, "headers": {"Idempotency-Key": "k1"}}
            made = await client.post("/v1/jobs", **sent)
            assert made.status_code == 201
            assert (await client.post("/v1/jobs", **sent)).json() == made.json()
            seen = await client.get(f"/v1/jobs/{made.json()['jobs'][0]['id'].rpartition('/')[2]}")
            assert (seen.status_code, is_local(seen)) == (200, True)

    asyncio.run(story())


def test_what_heartbeats_say_is_known_here_as_long_as_the_leader_is_near(leader: World, followed: Followed) -> None:
    site = leader.site()
    asked = {"query": "cores >= 1", "kind": "pool", "limit": 5}

    async def free(client: httpx.AsyncClient) -> int:
        (offer,) = (await client.post("/v1/find", json=asked)).json()["offers"]
        return int(offer["attributes"]["cores_free"])

    async def story() -> None:
        async with following(followed) as (client, _):
            assert await free(client) == 8
            for cores in (3, 5):
                beat = PoolBeat(pool=site.pool, cores=cores, memory_bytes=16 * 10**9)
                leader.writer.view.supply.limit(site.id, beat)
                assert await free(client) == cores
            followed.is_leader_near = False
            leader.writer.view.supply.limit(site.id, PoolBeat(pool=site.pool, cores=1, memory_bytes=16 * 10**9))
            assert await free(client) == 5

    asyncio.run(story())


def test_what_would_be_refused_here_is_asked_of_the_leader_first(leader: World, followed: Followed) -> None:
    async def story() -> None:
        async with following(followed) as (client, forwarder):
            followed.follower.log_rows = lambda *_, **__: []  # type: ignore[method-assign]  # the tail stands still
            made_token(leader, "newest")
            newest = {"Authorization": "Bearer newest"}
            answer = await client.get("/v1/me", headers=newest)
            assert (answer.status_code, answer.json()["name"], is_local(answer)) == (200, "newest", False)
            nothing = await client.get("/v1/jobs/j-nothing")
            assert (nothing.status_code, is_local(nothing)) == (404, False)
            forwarder.turn(None)
            answer = await client.get("/v1/me", headers=newest)
            assert (answer.status_code, is_local(answer)) == (401, True)

    asyncio.run(story())


def test_files_are_the_leaders_where_no_folder_is_shared(leader: World, followed: Followed) -> None:
    blob = leader.admin.post("/v1/blobs", content=b"bytes", headers={"Content-Type": "application/octet-stream"})
    path = f"/v1/blobs/{blob.json()['sha256']}"

    async def story() -> None:
        for has_files in (True, False):
            async with following(followed, has_files=has_files) as (client, _):
                answer = await client.get(path)
                assert (answer.content, is_local(answer)) == (b"bytes", has_files)

    asyncio.run(story())


def test_a_request_that_was_passed_on_is_not_passed_on_again(followed: Followed) -> None:
    async def story() -> None:
        async with following(followed) as (client, _):
            answer = await client.post("/v1/jobs", json={}, headers={"Tieline-Forwarded": "anything"})
            assert (answer.status_code, answer.headers["tieline-untaken"]) == (503, "1")

    asyncio.run(story())


def test_questions_are_answered_while_nobody_leads(leader: World, followed: Followed) -> None:
    made_token(leader, "somebody")

    async def story() -> None:
        async with following(followed) as (client, forwarder):
            forwarder.turn(None)
            assert await asyncio.to_thread(leader.writer.close)
            await asyncio.to_thread(leader.store.close)
            for path in ("/v1/events", "/readyz", "/healthz"):
                assert (await client.get(path)).status_code == 200

    asyncio.run(story())
