"""What a site measures at a door on loopback, over real sockets."""

import asyncio
import socket
import sys
import time
from pathlib import Path

import pytest
from msgspec import structs

sys.path.insert(0, str(Path(__file__).parent))
from door_world import CLOCK, DOOR_SITE, EXCHANGE, HOLDER, HOLDER_SITE, KID, SITE, a_pass, open_door

from tieline.drivers.doors import door as door_module
from tieline.drivers.doors.packet import Kind, packed, unpacked
from tieline.drivers.probes import prober as prober_module
from tieline.drivers.probes.addresses import Addresses
from tieline.drivers.probes.prober import SESSION_BYTES, Prober, bounded
from tieline.drivers.probes.samples import Sample, reading_of
from tieline.drivers.siteprocess.home import Identity
from tieline.drivers.siteprocess.probing import Probing
from tieline.model.error import TielineError
from tieline.model.measuring import ReadingsTaken
from tieline.model.reading import READINGS, Method, OneWay, Probe, ProbePlan, ReadingBatch
from tieline.registry import stated

HERE = Addresses(is_local=True)


def a_probe(door, method, **fields):
    values = {"count": 8, "gap_ms": 2, "packet_bytes": 100, **fields}
    return Probe(
        target=DOOR_SITE, method=method, address=door.url, public=SITE.public, door_pass=a_pass(), **values
    )  # fmt: skip


def test_round_trips_rate_and_mtu_are_measured_at_a_door_and_cost_what_the_reading_says(tmp_path):
    async def story():
        prober = Prober(HOLDER_SITE, HOLDER, KID, CLOCK, HERE)
        async with open_door(tmp_path) as door:
            udp = await prober.measure(a_probe(door, Method.UDP))
            tcp = await prober.measure(a_probe(door, Method.TCP))
            rate = await prober.measure(a_probe(door, Method.RATE, most_bytes=400_000))
            mtu = await prober.measure(a_probe(door, Method.MTU))
            few = await prober.measure(a_probe(door, Method.UDP, most_bytes=4_096 + 500))
            slow = await prober.measure(a_probe(door, Method.RATE, most_bytes=100_000, rate_bps=4_000_000))
            point = f"127.0.0.1:{door.port}"
            hand = await prober.measure(Probe(target="shanghai", method=Method.TCP, address=point, count=3, gap_ms=1))
            assert door.moved["rate"] == 500_000 - 2 * SESSION_BYTES
            return udp, tcp, rate, mtu, few, slow, hand

    udp, tcp, rate, mtu, few, slow, hand = asyncio.run(story())
    for reading, count in ((udp, 8), (tcp, 8), (hand, 3)):
        assert (reading.source, reading.sent) == (HOLDER_SITE, count), reading
        assert 0 < reading.count <= count, reading
        assert 0 < reading.min_us <= reading.p50_us <= reading.p99_us, reading
        assert (reading.one_way, reading.one_way_us) == (OneWay.HALF, reading.min_us // 2), reading
        assert reading.begun_ms <= reading.ended_ms, reading
    assert udp.moved_bytes == 100 * (udp.sent + udp.count)
    assert few.sent == 2, few  # a third echo of 200 bytes would move more than the probe allows
    assert (rate.count, rate.moved_bytes) == (1, 400_000 - SESSION_BYTES)
    assert rate.rate_bps > 4_000_000
    assert slow.rate_bps < 3 * 4_000_000, slow
    assert mtu.path_mtu_bytes >= 1_280, mtu  # of the loopback interface; at most what is looked for
    assert mtu.path_mtu_bytes <= 9_216, mtu


def test_a_door_that_lies_about_when_it_was_asked_is_not_heard_and_how_long_it_held_a_packet_is_little_of_the_time(
    tmp_path,
):
    held_ns = 10**9

    async def measured(door, lie):
        honest = door.sessions.answer

        def answer(data, heard_ns):
            said = honest(data, heard_ns)
            session = door.sessions.open[data[4:12]]
            time.sleep(0.02)
            return lie(session.key, unpacked(session.key, said)) if said is not None else None

        door.sessions.answer = answer
        prober = Prober(HOLDER_SITE, HOLDER, KID, CLOCK, HERE)
        try:
            return [await prober.measure(a_probe(door, method, count=2)) for method in (Method.UDP, Method.TCP)]
        finally:
            door.sessions.answer = honest

    def later(key, said):  # so that the way looks short
        fields = said.asked_ns + 15_000_000, said.heard_ns, said.said_ns
        return packed(key, Kind.ANSWER, said.session, said.seq, *fields, said.size_bytes)

    def held(key, said):
        return packed(
            key,
            Kind.ANSWER,
            said.session,
            said.seq,
            said.asked_ns,
            said.heard_ns,
            said.heard_ns + held_ns,
            said.size_bytes,
        )

    def mirrored(key, said):
        return packed(key, Kind.ASK, said.session, said.seq, said.asked_ns, size=said.size_bytes)

    async def story():
        async with open_door(tmp_path) as door:
            return [await measured(door, lie) for lie in (later, mirrored, held)]

    late, mirror, slow = asyncio.run(story())
    for reading in (*late, *mirror):
        assert (reading.sent > 0, reading.count) == (True, 0), reading
    for reading in slow:
        assert reading.count > 0, reading
        assert reading.min_us >= 15_000, reading  # three quarters of what the door really took


def test_what_does_not_answer_is_a_reading_without_samples(tmp_path):
    async def story():
        prober = Prober(HOLDER_SITE, HOLDER, KID, CLOCK, HERE)
        async with open_door(tmp_path) as door:
            probe = a_probe(door, Method.UDP, count=2)
        gone = await prober.measure(probe)
        point = await prober.measure(Probe(target="x", method=Method.TCP, address="127.0.0.1:1", count=2, gap_ms=1))
        odd = await prober.measure(Probe(target="x", method=Method.TCP, address="nonsense", count=2, gap_ms=1))
        return gone, point, odd

    for reading in asyncio.run(story()):
        assert (reading.count, reading.sent, reading.loss_ppm) == (0, 2, 1_000_000), reading
        assert (reading.min_us, reading.one_way) == (0, OneWay.UNKNOWN), reading


def test_nobody_s_plan_leads_a_site_into_the_owner_s_network_but_where_the_owner_lists_it(tmp_path):
    async def trial(addresses, address, **more):
        probe = Probe(target="x", method=Method.TCP, address=address, count=1, **more)
        try:
            return (await Prober(HOLDER_SITE, HOLDER, KID, CLOCK, addresses).measure(probe)).count
        except TielineError as error:
            return error.reasons[0].code

    async def story():
        async with open_door(tmp_path) as door:
            here = f"127.0.0.1:{door.port}"
            assert await trial(Addresses(), here) == "probe_inner", "its exchange is elsewhere"
            assert await trial(HERE, here) == await trial(Addresses(["127.0.0.0/8"]), here) == 1
            assert await trial(Addresses(["10.0.0.0/8"]), here) == "probe_inner"
            assert await trial(HERE, f"[::ffff:127.0.0.1]:{door.port}") == 1
            for host in ("10.1.2.3", "192.168.1.1", "100.64.0.1", "[fd00::1]", "[::ffff:10.0.0.1]", "[fe80::1]"):
                assert await trial(HERE, f"{host}:80") == "probe_inner", host
            listed = Addresses(["0.0.0.0/0", "::/0"])
            for address in ("169.254.169.254:80", "[fd00:ec2::254]:80"):  # a metadata service is nobody's door
                assert await trial(listed, address) == "peer_address", address
            assert await trial(listed, "0.0.0.0:80") == await trial(listed, "224.0.0.1:80") == "peer_address"
            probe = a_probe(door, Method.UDP, count=1)
            with pytest.raises(TielineError):
                await Prober(HOLDER_SITE, HOLDER, KID, CLOCK).measure(probe)
            named = structs.replace(probe, address=probe.address.replace("http://127.0.0.1", "https://localhost"))
            with pytest.raises(TielineError) as caught:
                await Prober(HOLDER_SITE, HOLDER, KID, CLOCK).measure(named)
            assert caught.value.reasons[0].code == "probe_inner"
            assert door.sessions.open == {}

    asyncio.run(story())


def test_a_name_that_leads_elsewhere_at_the_second_look_is_not_followed(monkeypatch):
    """TLS proves the name; where it leads to is looked at for each connection."""
    looks = []
    addresses = Addresses(["192.0.2.0/24"])

    async def resolved(loop, host, port, **_):
        looks.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1" if len(looks) == 1 else "10.0.0.1", port or 0))
        ]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolved)

    async def story():
        probe = Probe(
            target=DOOR_SITE, method=Method.TCP, address="https://door.example", public=SITE.public, door_pass=a_pass()
        )
        with pytest.raises(TielineError) as caught:
            await Prober(HOLDER_SITE, HOLDER, KID, CLOCK, addresses).measure(probe)
        return caught.value

    assert "10.0.0.1" in str(asyncio.run(story()))
    assert len(looks) == 2


def test_what_a_site_does_not_probe_is_told_and_shown_and_is_no_lost_packet(tmp_path):
    posted = []

    class Client:
        base_url = "https://exchange.example"

        async def call(self, method, path, shape, **fields):
            if method == "GET":
                probe = Probe(target="x", method=Method.TCP, address="10.0.0.1:80")
                return ProbePlan(at_ms=CLOCK.now_ms(), again_ms=1_000, probes=(probe, probe))
            posted.append(stated(fields["body"].statement.encode(), HOLDER.public, READINGS, ReadingBatch))
            return ReadingsTaken(kept=0, unchanged=0, refuted=())

    async def story():
        is_open = asyncio.Event()
        identity = Identity(
            site=HOLDER_SITE, owner="cn.demo.lab8", exchange="", url="", public=EXCHANGE.public, kid=KID
        )
        probing = Probing(Client(), identity, HOLDER, CLOCK, is_open, ["192.168.0.0/16"])
        await probing._turn()
        await probing._turn()
        await probing._turn()
        return probing

    probing = asyncio.run(story())
    assert [(batch.readings, [(each.code, each.count) for each in batch.undone]) for batch in posted] == [
        ((), [("probe_inner", 2)]),
        ((), [("probe_inner", 4)]),
        ((), [("probe_inner", 6)]),
    ]
    assert not probing.newest


def test_an_exchange_cannot_aim_sites_and_a_door_cannot_hold_them_up(tmp_path, monkeypatch):
    for method, most in ((Method.UDP, 65_536), (Method.RATE, 4_000_000), (Method.MTU, 500_000)):
        greedy = Probe(target="x", method=method, address="http://x", count=1_000, most_bytes=2**40)
        assert (bounded(greedy).count, bounded(greedy).most_bytes) == (64, most)
    monkeypatch.setattr(prober_module, "DEADLINE_S", 0.5)
    monkeypatch.setattr(prober_module, "clock_error_us", lambda: None)
    seen = []

    async def victim(reader, writer):  # no door of ours, whatever a record says
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        seen.append(head + await reader.read())
        writer.close()

    async def story():
        prober = Prober(HOLDER_SITE, HOLDER, KID, CLOCK, HERE)
        server = await asyncio.start_server(victim, "127.0.0.1", 0)
        async with server, open_door(tmp_path) as door:
            where = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            sent = await prober.measure(structs.replace(a_probe(door, Method.RATE), address=where))
            monkeypatch.setattr(door_module, "MOST_BYTES", 0)  # as a door may state of its packets
            unbounded = await prober.measure(a_probe(door, Method.TCP))
            door.sessions.bytes_per_s = 0  # and of its rate: a second for each byte
            slow = await prober.measure(a_probe(door, Method.UDP))
            return sent, unbounded, slow

    sent, unbounded, slow = asyncio.run(story())
    assert (sent.count, slow.count, unbounded.count > 0) == (0, 0, True)
    assert len(seen) == 1
    assert seen[0].startswith(b"POST /v1/echo")
    assert len(seen[0]) < 4_096


def test_a_one_way_time_is_by_clocks_only_where_it_is_longer_than_their_error():
    probe = Probe(target="x", method=Method.UDP, address="http://x")
    samples = [Sample(2_000_000, 1_400_000), Sample(4_000_000, 1_900_000), Sample(3_000_000, 1_500_000)]

    def said(error_us):
        return reading_of(
            "s", probe, samples, sent=4, begun_ms=1, ended_ms=2, moved_bytes=0, clock_error_us=error_us
        )  # fmt: skip

    by_clocks, too_rough, unknown = said(200), said(1_400), said(None)
    assert (by_clocks.one_way, by_clocks.one_way_us, by_clocks.clock_error_us) == (OneWay.CLOCKS, 1_400, 200)
    for half in (too_rough, unknown):
        assert (half.one_way, half.one_way_us, half.clock_error_us) == (OneWay.HALF, 1_000, 0)
    assert (unknown.min_us, unknown.p50_us, unknown.p99_us, unknown.jitter_us) == (2_000, 3_000, 4_000, 1_500)
    assert unknown.loss_ppm == 250_000
