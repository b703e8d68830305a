"""What carries packets in a laboratory: bounded queues, and descriptors of any number."""

from __future__ import annotations

import os
import resource
import socket
import struct
import threading
import time

import pytest

from tieline.drivers.circuits.kernel import traffic
from tieline.drivers.lab import fibre
from tieline.drivers.lab.fibre import Direction, Held, carry


@pytest.fixture
def many_open():
    """A process that has more descriptors open than `select` can name."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2_000), before[1]))
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(1_100)]
    yield
    for each in opened:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_open")
def test_probes_and_rates_are_measured_where_many_descriptors_are_open(monkeypatch):
    def made(_end, kind):
        each = socket.socket(socket.AF_INET6, kind)
        each.bind(("::1", 0))
        assert each.fileno() > 1_024
        return each

    monkeypatch.setattr(traffic, "_socket", made)
    end = traffic.End(0, "::1")
    probed = traffic.probe(end, end, 1_400, 5)
    assert len(probed.rtts_us) == probed.sent == 5
    moved, rate = traffic.rate_bps(end, end, 0.1)
    assert moved > 0
    assert rate > 0


def test_what_waits_on_all_links_together_is_bounded(monkeypatch):
    monkeypatch.setattr(fibre, "MOST_WAITING_BYTES", 2_500)
    source, router = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far, target = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with source, router, far, target:
        source.setblocking(False)
        held = Held(500)  # of other links
        way = Direction(source.fileno(), target.fileno(), 0, held)
        for _ in range(4):
            router.send(bytes(1_000))
        way.take(1)
        assert (len(way.waiting), held.size_bytes) == (2, 2_500)
        way.give(1)
        assert (len(way.waiting), held.size_bytes) == (0, 500)
        router.send(bytes(1_000))
        way.take(1)
        way.lose()
        assert (len(way.waiting), held.size_bytes) == (0, 500)


def test_packets_come_no_sooner_than_the_delay_and_none_while_the_light_is_cut(monkeypatch):
    lit: list[int] = []
    monkeypatch.setattr(fibre, "shine", lambda _port, is_lit: lit.append(int(is_lit)))
    a, router_a = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    b, router_b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    control, keeper = socket.socketpair()
    for each in (a, b):
        each.setblocking(False)
    for each in (router_b, keeper):
        each.settimeout(30)
    links = {"a-b": (a.fileno(), b.fileno(), 20_000)}
    carrying = threading.Thread(target=carry, args=(links, control))
    carrying.start()
    try:
        begun = time.monotonic()
        router_a.send(b"one")
        assert router_b.recv(10) == b"one"
        assert time.monotonic() - begun >= 0.02
        keeper.send(b"cut a-b\n")
        assert keeper.recv(10) == b"done\n"
        router_a.send(b"two")
        keeper.send(b"light a-b\n")
        assert keeper.recv(10) == b"done\n"
        assert lit == [0, 0, 1, 1]
    finally:
        keeper.close()  # as when the keeper is killed
        carrying.join(30)
        assert not carrying.is_alive()
        for each in (a, b, router_a, router_b, control):
            each.close()


def test_the_light_of_a_tap_is_its_carrier_and_that_of_a_pair_its_other_end(monkeypatch):
    told = []
    flags = struct.pack("16sH14x", b"a0", 0x1003)  # up, and more that stays as it is

    def ioctl(port, what, given):
        told.append((port, what, bytes(given)))
        return flags

    monkeypatch.setattr(fibre.fcntl, "ioctl", ioctl)
    reading, writing = os.pipe()
    a, b = socket.socketpair()
    monkeypatch.setattr(fibre.socket.socket, "getsockname", lambda _self: ("a0", 3))
    fibre.shine(reading, is_lit=False)
    fibre.shine(a.fileno(), is_lit=False)
    assert told[0] == (reading, fibre.TUNSETCARRIER, struct.pack("i", 0))
    assert [each[:2] for each in told[1:]] == [(a.fileno(), fibre.SIOCGIFFLAGS), (a.fileno(), fibre.SIOCSIFFLAGS)]
    assert struct.unpack("16sH14x", told[-1][2]) == (b"a0".ljust(16, b"\0"), 0x1002)
    fibre.shine(a.fileno(), is_lit=True)
    assert struct.unpack("16sH14x", told[-1][2])[1] == 0x1003
    for each in (reading, writing):
        os.close(each)
    a.close()
    b.close()
