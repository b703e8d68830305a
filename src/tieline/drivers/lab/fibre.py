"""Fibre: links with a delay, in user space, for kernels that have no `netem`.

A port is a TAP: what a router sends out of it is read here, waits for its delay, and is written into the port at the
other end. Who may not open `/dev/net/tun` has pairs of ports instead (`paired`): one in the router's network, the other
in a network of the fibre's own, read and written by a packet socket. One process carries all links of a laboratory,
with one thread, a queue for each direction and `select`: its time-out is exact to the microsecond (that of `epoll` is
not). A link that is cut has no light: both ports lose their carrier and what was under way is lost.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tieline.drivers.circuits.kernel.namespaces import here, inside
from tieline.drivers.circuits.kernel.router import Router
from tieline.model.error import TielineError

TUN: Final = "/dev/net/tun"
TUNSETIFF: Final = 0x4004_54CA
TUNSETCARRIER: Final = 0x4004_54E2
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
SIOCETHTOOL: Final = 0x8946
OFFLOADS: Final = (0x24, 0x1F, 0x17, 0x19)  # of ETHTOOL_S...: GSO, TSO, TXCSUM, SG; each off: packets are whole
IFF_UP: Final = 1
EVERY_PROTOCOL: Final = 0x0003
SO_RCVBUFFORCE: Final = 33
WAITING_BYTES: Final = 4 * 2**20  # of one port, before they are read here
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
MOST_WAITING: Final = 16_384  # packets of one direction; more are lost
MOST_WAITING_BYTES: Final = 2**28  # of all directions together
LOSSES: Final = (errno.EAGAIN, errno.EIO, errno.EINVAL, errno.ENOBUFS, errno.ENETDOWN, errno.ENXIO, errno.EMSGSIZE)
BATCH: Final = 64  # packets read of one port before the others have their turn


def tap(network: int, name: str) -> int:
    """A new port in a network: the descriptor of its far side."""
    with inside(network):
        port = -1
        try:
            port = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        except OSError as error:
            if port >= 0:
                os.close(port)
            raise TielineError(
                "lab_refused",
                f"`{TUN}` gives no port: {error.strerror}",
                hints=("sudo modprobe tun", "sudo chmod 666 /dev/net/tun"),
            ) from None
    return port


def has_taps() -> bool:
    """Whether this process may make them. Must be asked inside of the laboratory's networks."""
    try:
        port = tap(here(), "tried")
    except TielineError:
        return False
    os.close(port)
    return True


def paired(router: Router, fibre: Router, name: str, far_name: str, mtu_bytes: int) -> int:
    """A new port of a router whose other end stands in the fibre's network: the descriptor of that end.

    When all who have such descriptors have ended, that network goes, and all these ports with it.
    """
    router.join(name, fibre, far_name, mtu_bytes)
    with inside(router.network):
        _whole_packets(name)
    with inside(fibre.network):
        _whole_packets(far_name)
        cable = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, EVERY_PROTOCOL)
        with suppress(OSError):
            cable.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, WAITING_BYTES)
        cable.bind((far_name, EVERY_PROTOCOL))
    return cable.detach()


def _whole_packets(name: str) -> None:
    """Let a port give packets as they go over a wire: no longer than it may carry, with their sums."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for which in OFFLOADS:
            value = array.array("I", [which, 0])
            fcntl.ioctl(asked, SIOCETHTOOL, struct.pack("16sP8x", name.encode(), value.buffer_info()[0]))


def shine(port: int, is_lit: bool) -> None:
    """Give the router's port at the other side its light, or take it."""
    if not stat.S_ISSOCK(os.fstat(port).st_mode):
        fcntl.ioctl(port, TUNSETCARRIER, struct.pack("i", int(is_lit)))
        return
    with socket.socket(fileno=os.dup(port)) as cable:
        name = cable.getsockname()[0].encode()
    (flags,) = struct.unpack("16xH14x", fcntl.ioctl(port, SIOCGIFFLAGS, struct.pack("16sH14x", name, 0)))
    flags = flags | IFF_UP if is_lit else flags & ~IFF_UP
    fcntl.ioctl(port, SIOCSIFFLAGS, struct.pack("16sH14x", name, flags))


@dataclass
class Held:
    """What waits on all links together."""

    size_bytes: int = 0


@dataclass
class Direction:
    """One way of a link."""

    source: int
    target: int
    delay_ns: int
    held: Held
    is_lit: bool = True
    waiting: deque[tuple[int, bytes]] = field(default_factory=deque)  # due time in ns, packet

    def take(self, now_ns: int) -> None:
        """Read what the router sent."""
        for _ in range(BATCH):
            try:
                packet = os.read(self.source, 65_536)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EIO, errno.ENETDOWN):
                    return
                raise
            has_room = len(self.waiting) < MOST_WAITING and self.held.size_bytes + len(packet) <= MOST_WAITING_BYTES
            if self.is_lit and has_room:
                self.held.size_bytes += len(packet)
                self.waiting.append((now_ns + self.delay_ns, packet))

    def give(self, now_ns: int) -> None:
        """Write what has arrived."""
        waiting = self.waiting
        while waiting and waiting[0][0] <= now_ns:
            packet = waiting.popleft()[1]
            self.held.size_bytes -= len(packet)
            try:
                os.write(self.target, packet)
            except OSError as error:  # the port is down, or its queue is full: a packet is lost
                if error.errno not in LOSSES:
                    raise

    def lose(self) -> None:
        """What is under way is lost."""
        self.held.size_bytes -= sum(len(packet) for _, packet in self.waiting)
        self.waiting.clear()


def carry(links: Mapping[str, tuple[int, int, int]], control: socket.socket) -> None:
    """Carry packets until the other end of ``control`` is closed. ``links``: name -> (port, port, delay in us).

    Commands: ``cut NAME`` and ``light NAME``, a line each, each answered with a line ``done``.
    """
    held = Held()
    pairs = {
        name: (Direction(a, b, delay_us * 1_000, held), Direction(b, a, delay_us * 1_000, held))
        for name, (a, b, delay_us) in links.items()
    }
    by_port = {way.source: way for pair in pairs.values() for way in pair}
    ports = [*by_port, control.fileno()]
    ways = list(by_port.values())
    while True:
        due = min((way.waiting[0][0] for way in ways if way.waiting), default=0)
        wait_s = max(0, due - time.monotonic_ns()) / 1e9 if due else None
        readable, _, _ = select.select(ports, (), (), wait_s)
        now = time.monotonic_ns()
        for port in readable:
            if port in by_port:
                by_port[port].take(now)
            elif not _obeyed(control, pairs):
                return
        now = time.monotonic_ns()
        for way in ways:
            if way.waiting:
                way.give(now)


def _obeyed(control: socket.socket, pairs: Mapping[str, Sequence[Direction]]) -> bool:
    """One command; False when nobody is there to give any."""
    line = control.recv(4_096).decode()
    if not line:
        return False
    verb, _, name = line.strip().partition(" ")
    for way in pairs[name]:
        way.is_lit = verb == "light"
        way.lose()
        shine(way.source, way.is_lit)
    control.sendall(b"done\n")
    return True
