"""What a site measures at a door on loopback, over real sockets."""

import asyncio
import sys
from pathlib import Path

from msgspec import structs

sys.path.insert(0, str(Path(__file__).parent))
from door_world import CLOCK, DOOR_SITE, HOLDER, HOLDER_SITE, KID, SITE, a_pass, open_door

from tieline.drivers.doors import door as door_module
from tieline.drivers.probes import prober as prober_module
from tieline.drivers.probes.prober import SESSION_BYTES, Prober, bounded
from tieline.drivers.probes.samples import Sample, reading_of
from tieline.model.reading import Method, OneWay, Probe


def a_probe(door, method, **fields):
    values = {"count": 8, "gap_ms": 2, "packet_bytes": 100, **fields}
    return Probe(
        target=DOOR_SITE, method=method, address=door.url, public=SITE.public, door_pass=a_pass(), **values
    )  # fmt: skip


def test_round_trips_rate_and_mtu_are_measured_at_a_door_and_cost_what_the_reading_says(tmp_path):
    async def story():
        prober = Prober(HOLDER_SITE, HOLDER, KID, CLOCK, is_local=True)
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


def test_what_does_not_answer_is_a_reading_without_samples(tmp_path):
    async def story():
        prober = Prober(HOLDER_SITE, HOLDER, KID, CLOCK, is_local=True)
        async with open_door(tmp_path) as door:
            probe = a_probe(door, Method.UDP, count=2)
        gone = await prober.measure(probe)
        point = await prober.measure(Probe(target="x", method=Method.TCP, address="127.0.0.1:1", count=2, gap_ms=1))
        odd = await prober.measure(Probe(target="x", method=Method.TCP, address="nonsense", count=2, gap_ms=1))
        return gone, point, odd

    for reading in asyncio.run(story()):
        assert (reading.count, reading.sent, reading.loss_ppm) == (0, 2, 1_000_000), reading
        assert (reading.min_us, reading.one_way) == (0, OneWay.UNKNOWN), reading


def test_nobody_s_record_leads_a_site_to_addresses_that_are_not_for_others(tmp_path):
    async def story():
        async with open_door(tmp_path) as door:
            far = Prober(HOLDER_SITE, HOLDER, KID, CLOCK)  # its exchange is elsewhere
            near = Prober(HOLDER_SITE, HOLDER, KID, CLOCK, is_local=True)
            readings = [await far.measure(a_probe(door, Method.UDP, count=1))]
            for prober, address in (
                (far, f"127.0.0.1:{door.port}"),
                (near, "169.254.169.254:80"),
                (near, "0.0.0.0:80"),
            ):
                probe = Probe(target="x", method=Method.TCP, address=address, count=1)
                readings.append(await prober.measure(probe))
            assert door.sessions.open == {}
            return readings

    assert [reading.count for reading in asyncio.run(story())] == [0, 0, 0, 0]


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
        prober = Prober(HOLDER_SITE, HOLDER, KID, CLOCK, is_local=True)
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
