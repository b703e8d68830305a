"""A door against everybody who has no business there: refused or dropped, counted, and nothing changed."""

import asyncio
import hashlib
import os
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from door_world import CLOCK, DOOR_SITE, EXCHANGE, HOLDER, HOLDER_SITE, KID, SITE, a_pass, open_door, visitor

from tieline.drivers.doors import door as door_module
from tieline.drivers.doors import guard as guard_module
from tieline.drivers.doors.chunks import Chunks
from tieline.drivers.doors.guard import Guard
from tieline.drivers.doors.pace import Pace
from tieline.drivers.doors.packet import LEAST_BYTES, Kind, packed, unpacked
from tieline.drivers.http import HttpClient
from tieline.drivers.probes import udp
from tieline.model.door import KNOCK_HEADER, PASS_HEADER, ChunkKept, Knock, Right
from tieline.model.error import TielineError
from tieline.ports import FakeClock
from tieline.registry import Key
from tieline.registry.passes import knocked, pass_said

STRANGER = Key(b"x" * 32)


async def refused(work):
    with pytest.raises(TielineError) as caught:
        await work
    return caught.value.code


async def until(holds, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what happens over there tells nobody
            await asyncio.sleep(0.01)


def test_only_the_holder_of_a_pass_of_the_pinned_exchange_comes_in_once_for_each_knock(tmp_path):
    async def story():
        now_ms = CLOCK.now_ms()
        async with open_door(tmp_path) as door:

            async def trial(text="", key=HOLDER, path="/v1/echo", method="POST", **headers):
                guest = visitor(door, text, key)
                try:
                    sent = {**guest.headers(method, path), **headers}
                    return await refused(guest.client.raw("POST", "/v1/echo", headers=sent, key=None))
                finally:
                    await guest.close()

            assert await trial(a_pass(STRANGER)) == "unauthenticated"  # of another exchange
            assert await trial(key=STRANGER) == "unauthenticated"  # a stolen pass
            assert await trial(a_pass(door="cn.demo.lab9/site/x")) == "forbidden"  # of another door
            assert await trial(a_pass(rights=(Right.READ,))) == "forbidden"
            over = a_pass(from_ms=now_ms - 9_000, until_ms=now_ms - 1_000)
            assert await trial(over) == "forbidden"
            early = a_pass(from_ms=now_ms + 300_000, until_ms=now_ms + 400_000)
            assert await trial(early) == "forbidden"
            assert await trial(path="/v1/rate") == "forbidden"  # a knock for something else
            assert await trial(method="GET") == "forbidden"
            assert await trial(**{PASS_HEADER: ""}) == "unauthenticated"
            assert await trial(**{KNOCK_HEADER: '{"payload":"e30"}'}) == "unauthenticated"
            assert door.sessions.open == {}

            guest = visitor(door)
            headers = guest.headers("POST", "/v1/echo", sealing=SITE.public)
            await guest.client.raw("POST", "/v1/echo", headers=headers, key=None)
            assert await refused(guest.client.raw("POST", "/v1/echo", headers=headers, key=None)) == "unauthenticated"
            assert len(door.sessions.open) == 1
            for _ in range(20):  # a holder's oldest session makes room for its newest
                await guest.echoes()
            assert len(door.sessions.open) == 8
            assert await refused(guest.client.raw("GET", "/v1/anything")) == "not_found"
            await guest.close()
            assert sum(door.guard.refused.values()) == 12

            other_guest = visitor(door)
            other = await other_guest.echoes()  # and the guest believes only the door's own key
            assert other.said.udp_port == door.port
            await other_guest.close()
            impostor = visitor(door)
            impostor.public = STRANGER.public
            assert await refused(impostor.echoes()) == "check_failed"
            await impostor.close()

    asyncio.run(story())


def test_packets_that_do_not_verify_are_dropped_and_no_answer_is_longer_than_its_ask(tmp_path):
    async def story():
        async with open_door(tmp_path) as door:
            guest = visitor(door)
            echoes = await guest.echoes()
            session, key = bytes.fromhex(echoes.said.session), echoes.key
            good = packed(key, Kind.ASK, session, 1, 7, size=300)
            hostile = [
                b"",
                os.urandom(2_000),
                good[: LEAST_BYTES - 1],
                packed(key, Kind.ASK, os.urandom(8), 1, 7),  # no such session
                packed(os.urandom(32), Kind.ASK, session, 1, 7),  # another key
                bytes([*good[:20], good[20] ^ 1, *good[21:]]),  # altered on the way
                packed(key, Kind.ANSWER, session, 9, 7),
                b"TL\2" + good[3:],
            ]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect(("127.0.0.1", door.port))
                for data in hostile:
                    sock.send(data)
                await until(lambda: sum(door.sessions.dropped.values()) == len(hostile))
                with pytest.raises(BlockingIOError):
                    sock.recv(9_999)
                loop = asyncio.get_running_loop()
                sizes = []
                for seq, kind, size in ((1, Kind.ASK, 300), (2, Kind.ASK_SHORT, 1_400), (3, Kind.ASK, 0)):
                    ask = packed(key, kind, session, seq, 7, size=size)
                    sock.send(ask)
                    answer = await asyncio.wait_for(loop.sock_recv(sock, 9_999), 30)
                    said = unpacked(key, answer)
                    assert (said.kind, said.seq, said.asked_ns) == (Kind.ANSWER, seq, 7)
                    assert said.heard_ns <= said.said_ns
                    sizes.append((len(ask), len(answer)))
                assert sizes == [(300, 300), (1_400, LEAST_BYTES), (LEAST_BYTES, LEAST_BYTES)]
                sock.send(good)  # its number was used
                await until(lambda: door.sessions.dropped["replayed"] == 2)
                assert door.sessions.answered == 3
                session_now = door.sessions.open[session]
                session_now.pace = Pace(100, burst_s=1.0)
                for seq in range(10, 40):
                    sock.send(packed(key, Kind.ASK, session, seq, 7))
                await until(lambda: door.sessions.dropped["rate"] + door.sessions.answered == 3 + 30)
                assert door.sessions.dropped["rate"] >= 25
                session_now.until_ms = 0
                sock.send(packed(key, Kind.ASK, session, 99, 7))
                await until(lambda: session not in door.sessions.open)
            await guest.close()

    asyncio.run(story())


def test_chunks_come_and_go_by_name_under_a_pass_that_names_them(tmp_path):
    content = bytes(range(250)) * 1_200
    name = hashlib.sha256(content).hexdigest()
    path = f"/v1/chunks/{name}"

    async def story():
        async with open_door(tmp_path) as door:
            guest = visitor(door, a_pass(chunks=(name,), most_bytes=1_000_000))

            async def put(body, to=path):
                return await guest.client.call(
                    "PUT", to, ChunkKept, body=body, headers=guest.headers("PUT", to), key=None
                )  # fmt: skip

            async def get(**headers):
                return await guest.client.raw("GET", path, headers={**guest.headers("GET", path), **headers})

            assert await refused(get()) == "not_found"
            assert await refused(put(content, f"/v1/chunks/{'0' * 64}")) == "forbidden"  # the pass does not name it
            assert await refused(put(content[:-1] + b"x")) == "check_failed"
            assert list((tmp_path / "chunks").iterdir()) == []
            assert (await put(content)).size_bytes == len(content)
            assert (await put(content)).size_bytes == len(content)  # again, without moving anything
            assert await get() == content
            assert await get(Range="bytes=299990-") == content[-10:]
            assert await refused(get(Range="bytes=300000-")) == "range_not_satisfiable"
            assert await refused(get()) == "forbidden"  # the pass is used up: 300,000 bytes three times and 10
            assert (tmp_path / "chunks" / name).read_bytes() == content
            others = visitor(door, a_pass(chunks=(name,), rights=(Right.READ,)))
            headers = others.headers("PUT", path)
            assert await refused(others.client.raw("PUT", path, body=content, headers=headers)) == "forbidden"
            for each in (guest, others):
                await each.close()
        async with open_door(tmp_path, chunk_bytes=350_000) as door:  # what was used longest ago makes room
            second = bytes(range(200)) * 500
            other = hashlib.sha256(second).hexdigest()
            guest = visitor(door, a_pass(chunks=(other,)))
            await put(second, f"/v1/chunks/{other}")
            assert [each.name for each in (tmp_path / "chunks").iterdir()] == [other]
            await guest.close()

    asyncio.run(story())


def test_what_is_on_its_way_counts_against_the_space_and_is_left_alone(tmp_path):
    """Many at once must not bring more than the owner allows."""
    first, second = (hashlib.sha256(each).hexdigest() for each in (b"a" * 60, b"b" * 60))

    async def story():
        chunks = Chunks(tmp_path, 100).open()
        going = asyncio.Event()

        async def slow():
            await going.wait()
            yield b"a" * 60

        async def fast():
            yield b"b" * 60

        keeping = asyncio.create_task(chunks.keep(first, slow(), 60))
        await until(lambda: list(tmp_path.iterdir()))
        assert await refused(chunks.keep(second, fast(), 60)) == "storage_full"
        assert await refused(chunks.keep(first, fast(), 60)) == "conflict"
        chunks.open()  # another door of the same site
        going.set()
        assert await keeping == 60
        assert await chunks.keep(second, fast(), 60) == 60  # now there is something that can go
        assert [each.name for each in tmp_path.iterdir()] == [second]

    asyncio.run(story())


def test_one_holder_cannot_make_a_door_forget_or_refuse_the_others(monkeypatch):
    monkeypatch.setattr(guard_module, "KNOCKS_EACH", 3)
    clock = FakeClock(at_ms=CLOCK.now_ms())
    guard = Guard(DOOR_SITE, EXCHANGE.public, clock)

    def knock(holder, key, nonce, at_ms):
        text = a_pass(holder=holder, public=key.public, until_ms=clock.at_ms + 600_000)
        said = Knock(id=pass_said(text).id, door=DOOR_SITE, method="GET", path="/x", nonce=nonce, at_ms=at_ms)
        headers = {PASS_HEADER.lower(): text, KNOCK_HEADER.lower(): knocked(said, key, KID)}
        guard.admit(headers, "GET", "/x", Right.READ)

    early_ms = clock.at_ms + 59_000  # by a clock that is ahead
    knock(HOLDER_SITE, HOLDER, "early-early-early", early_ms)
    for turn in range(2):
        knock(HOLDER_SITE, HOLDER, f"nonce-of-{turn}-times", clock.at_ms)
    with pytest.raises(TielineError, match="3 requests"):
        knock(HOLDER_SITE, HOLDER, "nonce-of-3-times", clock.at_ms)
    knock("cn.demo.lab9/site/x", STRANGER, "nonce-of-another", clock.at_ms)
    clock.at_ms = early_ms + 60_000  # the last moment in which it is believed
    with pytest.raises(TielineError, match="used before"):
        knock(HOLDER_SITE, HOLDER, "early-early-early", early_ms)
    clock.at_ms += 3_000
    for turn in range(3):
        knock(HOLDER_SITE, HOLDER, f"nonce-of-{turn}-later", clock.at_ms)


def test_whoever_says_nothing_keeps_nobody_out(tmp_path):
    async def story():
        async with open_door(tmp_path) as door:
            quiet = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(door_module.CONNECTIONS + 8)]
            guest = visitor(door)
            async with asyncio.timeout(door_module.FIRST_S):
                assert (await guest.echoes()).said.until_ms > CLOCK.now_ms()
                for reader, _ in quiet[: -door_module.SILENT_EACH]:  # the newest of an address may still speak
                    assert await reader.read() == b""
            assert door.guard.refused["overloaded"] >= len(quiet) - door_module.SILENT_EACH
            await guest.close()
            for _, writer in quiet:
                writer.close()

    asyncio.run(story())


def test_connections_from_everywhere_that_say_nothing_make_room_and_holders_are_bounded(tmp_path, monkeypatch):
    addresses = iter(range(1_000))
    monkeypatch.setattr(door_module, "_address_of", lambda _: f"10.0.0.{next(addresses)}")
    monkeypatch.setattr(door_module, "CONNECTIONS", 6)
    monkeypatch.setattr(door_module, "HOLDER_EACH", 3)

    async def story():
        async with open_door(tmp_path) as door:
            quiet = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(6)]
            guests = [visitor(door) for _ in range(4)]
            async with asyncio.timeout(door_module.FIRST_S):
                for guest in guests[:3]:
                    await guest.echoes()
                assert await refused(guests[3].echoes()) == "overloaded"
            others = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(20)]
            assert await asyncio.wait_for(others[0][0].read(), 30) == b""
            await guests[0].echoes()  # those who came in are not put out for them
            for _, writer in (*quiet, *others):
                writer.close()
            for guest in guests:
                await guest.close()

    asyncio.run(story())


def test_a_door_does_not_wait_for_who_says_nothing_and_keeps_no_connection_of_who_shows_no_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(door_module, "FIRST_S", 0.2)

    async def story():
        async with open_door(tmp_path) as door:
            for said in (b"", b"GET / HT", b"GET /v1/anything HTTP/1.1\r\nHost: x\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
                writer.write(said)
                answer = await asyncio.wait_for(reader.read(), 30)
                assert (b"404" in answer) is said.endswith(b"\n")
                writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            writer.write(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
            assert b"400" in await asyncio.wait_for(reader.read(), 30)
            writer.close()
            port = door.port
        async with HttpClient(f"http://127.0.0.1:{port}", attempts=1) as client:  # a closed door does not listen
            assert await refused(client.raw("GET", "/")) == "exchange_unreachable"

    asyncio.run(story())


class Late(asyncio.Transport):
    """A connection that the loop accepted while the door was closed, and shows it afterwards."""

    is_closed = False

    def close(self):
        self.is_closed = True


def test_a_connection_that_comes_to_a_closed_door_is_ended(tmp_path):
    async def story():
        async with open_door(tmp_path) as door:
            await door.close()
            late = Late()
            door.connection().connection_made(late)
            assert late.is_closed

    asyncio.run(story())


def test_a_session_is_asked_through_a_socket_that_forgets_what_is_not_its_own(tmp_path):
    async def story():
        async with open_door(tmp_path) as door:
            guest = visitor(door)
            echoes = await guest.echoes()
            async with udp.caller("127.0.0.1", echoes) as caller:
                assert await caller.ask(100) is not None
                await door.close()
                assert await caller.ask(100, wait_s=0.2) is None
            await guest.close()

    asyncio.run(story())


def test_passes_are_signed_for_one_door_and_a_short_time():
    with pytest.raises(TielineError):
        a_pass(EXCHANGE, until_ms=CLOCK.now_ms() + 10_000_000)
    assert DOOR_SITE in a_pass_said(a_pass())
    assert HOLDER_SITE in a_pass_said(a_pass())


def a_pass_said(text):
    from tieline.registry.passes import pass_said

    given = pass_said(text)
    return (given.door, given.holder)
