"""The relay over real WebSockets: two ends, each with its own bearer; slow, greedy, absent and strange ones."""

import asyncio
import contextlib
import socket

import aiohttp
import pytest
from api_world import World

from tieline.api import relaying
from tieline.drivers.http import hangup
from tieline.model.limits import Limits
from tieline.model.party import Actor, Role
from tieline.model.relay import MESSAGE_BYTES

WAIT_S = 60


@pytest.fixture
def world(tmp_path):
    limits = Limits(requests_per_s=100_000, requests_burst=100_000, relay_streams=4, relay_day_bytes=40_000_000)
    running = World(tmp_path, limits=limits).start()
    yield running
    running.stop()


def on_loop(world, work, *args):
    """Something of the relay, on the loop that it lives on."""

    async def do():
        return work(*args)

    return asyncio.run_coroutine_threadsafe(do(), world.platform.hub.loop).result(WAIT_S)


async def until(holds):
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.01)


class Ends:
    """A stream between a site and alice, and how to open its ends."""

    def __init__(self, world):
        self.world = world
        self.site = world.site("lab7", "gz1")
        self.alice = world.token("alice", Role.USER)
        self.relay = world.platform.relay

    def stream(self):
        return on_loop(self.world, self.relay.open, "j-1.1", self.site.id, self.site.prefix, "alice")

    def end(self, client, stream, bearer):
        return client.ws_connect(
            f"{self.world.url}/v1/relay/{stream.name}",
            headers={"Authorization": f"Bearer {bearer}"},
            max_msg_size=2**22,
        )  # fmt: skip

    def both(self, client, stream):
        return self.end(client, stream, self.site.welcome.bearer), self.end(client, stream, self.alice)


async def refused(connecting):
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with connecting:
            pass
    return caught.value.status


async def end_of(socket_):
    """Read until it is closed."""
    async with asyncio.timeout(WAIT_S):
        async for _ in socket_:
            pass
    return socket_.close_code


async def flooded(socket_):
    """Send until the other side hangs up."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(WAIT_S):
            while True:
                await socket_.send_bytes(b"x" * MESSAGE_BYTES)
                await asyncio.sleep(0)


def test_bytes_and_notices_go_both_ways_are_counted_and_the_stream_ends_with_either_end(world):
    ends = Ends(world)

    async def story():
        async with aiohttp.ClientSession() as client:
            stream = ends.stream()
            one, other = ends.both(client, stream)
            async with one as site, other as alice:
                await alice.send_bytes(b"\0" + b"x" * MESSAGE_BYTES)
                assert (await site.receive(WAIT_S)).data == b"\0" + b"x" * MESSAGE_BYTES
                await site.send_str('{"exit_code":0}')
                assert (await alice.receive(WAIT_S)).data == '{"exit_code":0}'
                again = ends.end(client, stream, ends.alice)
                assert await refused(again) == 409  # an end comes once
                await alice.close()
                await end_of(site)
            await until(lambda: not ends.relay.streams)
            assert await refused(ends.end(client, stream, ends.alice)) == 404
            assert ends.relay.moved == {"cn.demo.lab7": 65_552, "alice": 65_552}

    asyncio.run(story())
    page = world.bearer(ends.alice).get("/v1/relay").json()
    assert page["parties"] == [{"party": "alice", "streams": 0, "bytes": 65_552, "today_bytes": 65_552}]
    assert len(world.admin.get("/v1/relay").json()["parties"]) == 2
    assert "tieline_relay_bytes_total 65552" in world.admin.get("/metrics").text


def test_nobody_else_comes_in_and_what_is_no_websocket_is_refused(world):
    ends = Ends(world)
    bob = world.token("bob", Role.USER)
    other_site = world.site("lab8", "sh1")

    async def story():
        async with aiohttp.ClientSession() as client:
            stream = ends.stream()
            assert await refused(ends.end(client, stream, bob)) == 404
            assert await refused(ends.end(client, stream, other_site.welcome.bearer)) == 404
            assert await refused(ends.end(client, stream, "tl-nonsense")) == 401
            async with client.get(f"{world.url}/v1/relay/{stream.name}") as answer:
                assert answer.status == 404  # without an upgrade there is no such operation
            async with client.ws_connect(f"{world.url}/v1/relay/{stream.name}", headers={}) as _:
                raise AssertionError("it came in without a bearer")

    with pytest.raises(aiohttp.WSServerHandshakeError):
        asyncio.run(story())
    host, port = world.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), WAIT_S) as raw:
        upgrade = "GET /v1/relay/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        raw.sendall(upgrade.encode() + b"\xff" * 4_000)
        assert raw.recv(4_096).startswith(b"HTTP/1.1 401")
    with socket.create_connection((host, int(port)), WAIT_S) as raw:  # an upgrade anywhere else is a plain request
        raw.sendall(upgrade.replace("/v1/relay/x", "/v1/exchange").encode())
        assert raw.recv(4_096).startswith(b"HTTP/1.1 200")
    assert ends.relay.moved == {}


def test_an_end_that_takes_nothing_one_that_does_not_come_and_a_message_too_large_end_the_stream(world, monkeypatch):
    monkeypatch.setattr(relaying, "STALL_S", 0.5)
    monkeypatch.setattr(relaying, "WAIT_MS", 400)
    monkeypatch.setattr(hangup, "GONE_S", 0.5)
    ends = Ends(world)

    async def story():
        async with aiohttp.ClientSession() as client:
            stream = ends.stream()
            async with ends.end(client, stream, ends.alice) as alice:
                await end_of(alice)
            assert stream.why == "the site did not come in 0 s"

            stream = ends.stream()
            one, other = ends.both(client, stream)
            async with one as site, other as alice:
                await alice.send_bytes(b"x" * (MESSAGE_BYTES + 2))
                await end_of(alice)
                await end_of(site)
            assert "is over 65,536" in stream.why

            stream = ends.stream()
            one, other = ends.both(client, stream)
            async with one as site, other as alice:
                site._response.connection.transport.pause_reading()  # a site that hangs
                await flooded(alice)
                await until(lambda: stream.why)
                assert "took nothing" in stream.why
                assert stream.moved_bytes < 30_000_000  # what the sockets hold; the relay itself holds one message
                await until(lambda: not ends.relay._server.connections)  # and keeps no place for who hangs
                site._response.connection.transport.abort()
            await until(lambda: not ends.relay.streams)

    asyncio.run(story())


def test_streams_and_the_owner_s_day_are_bounded(world):
    ends = Ends(world)
    relay = ends.relay

    async def greedy():
        async with aiohttp.ClientSession() as client:
            stream = ends.stream()
            one, other = ends.both(client, stream)
            async with one as site, other as alice:
                reading = asyncio.create_task(end_of(site))
                await flooded(alice)
                await reading
            return stream

    stream = asyncio.run(greedy())
    assert "used up" in stream.why
    assert stream.moved_bytes <= 40_000_000
    with pytest.raises(relaying.ThrottledError):
        on_loop(world, relay.check, ends.site.prefix, "bob")
    on_loop(world, relay.check, "cn.demo.lab9", "bob")  # another owner has a day of its own
    world.clock.at_ms += 86_400_000
    on_loop(world, relay.check, ends.site.prefix, "bob")
    opened = [ends.stream() for _ in range(4)]
    with pytest.raises(relaying.ThrottledError):
        on_loop(world, relay.check, ends.site.prefix, "bob")
    for each in opened:
        on_loop(world, relay.drop, each, "over")
    assert relay.streams == {}


def test_one_site_leaves_something_of_the_day_to_the_owner_s_others(tmp_path):
    world = World(tmp_path, limits=Limits(relay_site_day_bytes=1_000_000)).start()
    try:
        ends, other = Ends(world), world.site("lab7", "gz2")
        relay = ends.relay

        async def greedy():
            async with aiohttp.ClientSession() as client:
                stream = ends.stream()
                one, two = ends.both(client, stream)
                async with one as site, two as alice:
                    reading = asyncio.create_task(end_of(site))
                    await flooded(alice)
                    await reading
                return stream

        stream = asyncio.run(greedy())
        assert f"of `{ends.site.id}` for today are used up" in stream.why
        assert stream.moved_bytes <= 1_000_000
        with pytest.raises(relaying.ThrottledError, match=ends.site.id):
            on_loop(world, relay.check, ends.site.prefix, "bob", ends.site.id)
        on_loop(world, relay.check, other.prefix, "bob", other.id)
        world.clock.at_ms += 86_400_000
        on_loop(world, relay.check, ends.site.prefix, "bob", ends.site.id)
    finally:
        world.stop()


def test_one_caller_cannot_take_all_streams_and_a_revoked_token_carries_nothing_more(tmp_path):
    world = World(tmp_path, limits=Limits(relay_streams=80)).start()
    try:
        ends = Ends(world)
        for _ in range(10):
            first = ends.stream()
        with pytest.raises(relaying.ThrottledError, match="alice"):
            on_loop(world, ends.relay.check, "", "alice")
        on_loop(world, ends.relay.check, "", "bob")
        narrow = {"name": "alice", "roles": (Role.USER,)}
        assert first.end_of(Actor(**narrow)) == "caller"
        for bound in ({"scopes": ("read:job",)}, {"job": "cn.demo/job/j-1"}, {"project": "vision"}):
            assert first.end_of(Actor(**narrow, **bound)) == "", bound

        async def story():
            async with aiohttp.ClientSession() as client:
                one, other = ends.both(client, first)
                async with one as site, other as alice:
                    await alice.send_bytes(b"\0before")
                    assert (await site.receive(WAIT_S)).data == b"\0before"
                    await asyncio.to_thread(revoked, world, first.token)
                    await site.send_bytes(b"\1after")
                    async with asyncio.timeout(WAIT_S):
                        assert [message.data async for message in alice] == []
                    await until(lambda: first.name not in ends.relay.streams)

        asyncio.run(story())
        assert "revoked" in first.why
        assert first.moved_bytes == 7
    finally:
        world.stop()


def revoked(world, token):
    assert token
    assert world.admin.delete(f"/v1/tokens/{token}").status_code == 200
