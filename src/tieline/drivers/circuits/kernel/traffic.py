"""Traffic of our own: packets of full size that come back, and as much as a circuit carries for a second.

The sockets are made inside the networks at both ends; one thread serves them, with `poll` and deadlines, no more than
the stated packets and bytes. Not with `select`: a large laboratory has more descriptors open than that can name.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

from tieline.drivers.circuits.kernel.namespaces import inside

IPV6_MTU_DISCOVER: Final = 23
IPV6_DONTFRAG: Final = 62
NEVER_FRAGMENT: Final = 3  # IPV6_PMTUDISC_PROBE: send whole, believe no route about its MTU
UDP_HEADERS_BYTES: Final = 40 + 8
TCP_HEADERS_BYTES: Final = 40 + 20 + 12  # with time stamps
FRAME_BYTES: Final = 14
GAP_S: Final = 0.002  # between two probes
LATE_S: Final = 1.0  # after the last one
STREAMS: Final = 4
WARM_S: Final = 0.3  # until the streams have found the rate
CHUNK: Final = bytes(65_536)


@dataclass(frozen=True)
class End:
    """One end of a circuit: the network in which it is, and its address."""

    network: int
    address: str


@dataclass(frozen=True, kw_only=True)
class Probed:
    """Packets that were sent and came back."""

    sent: int
    rtts_us: tuple[int, ...]  # sorted
    sent_bytes: int  # IP packets, one way

    @property
    def lost_ppm(self) -> int:
        """Of a million."""
        return (self.sent - len(self.rtts_us)) * 1_000_000 // max(1, self.sent)


def _socket(end: End, kind: int) -> socket.socket:
    with inside(end.network):
        made = socket.socket(socket.AF_INET6, kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((end.address, 0))
    except OSError:
        made.close()
        raise
    return made


def _ready(sockets: Sequence[socket.socket], event: int, wait_s: float) -> list[socket.socket]:
    """Those that can be read or written, once there are any or the time is over."""
    poll = select.poll()
    for each in sockets:
        poll.register(each, event)
    found = {number for number, _ in poll.poll(max(0.0, wait_s) * 1e3)}
    return [each for each in sockets if each.fileno() in found]


def probe(near: End, far: End, packet_bytes: int, count: int) -> Probed:
    """Send ``count`` IP packets of ``packet_bytes`` that no router may cut, and wait for each to come back whole."""
    with _socket(near, socket.SOCK_DGRAM) as here, _socket(far, socket.SOCK_DGRAM) as there:
        for each in (here, there):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, NEVER_FRAGMENT)
            each.setsockopt(socket.IPPROTO_IPV6, IPV6_DONTFRAG, 1)
        target = there.getsockname()
        padding = bytes(max(0, packet_bytes - UDP_HEADERS_BYTES - 12))
        sent_ns: dict[int, int] = {}
        rtts: dict[int, int] = {}
        next_ns = time.monotonic_ns()
        until_ns = next_ns + int((count * GAP_S + LATE_S) * 1e9)
        while len(rtts) < count and (now := time.monotonic_ns()) < until_ns:
            if len(sent_ns) < count and now >= next_ns:
                number = len(sent_ns)
                sent_ns[number] = now
                with suppress(OSError):  # too large for a link on the way: it is lost, and counted
                    here.sendto(struct.pack("!QI", now, number) + padding, target)
                next_ns = now + int(GAP_S * 1e9)
            due_ns = next_ns if len(sent_ns) < count else until_ns
            readable = _ready((here, there), select.POLLIN, (due_ns - time.monotonic_ns()) / 1e9)
            if there in readable:
                with suppress(OSError):
                    packet, source = there.recvfrom(65_536)
                    there.sendto(packet, source)
            if here in readable:
                with suppress(OSError):
                    packet = here.recv(65_536)
                    if len(packet) == 12 + len(padding):
                        began, number = struct.unpack_from("!QI", packet)
                        rtts.setdefault(number, (time.monotonic_ns() - began) // 1_000)
    return Probed(sent=len(sent_ns), rtts_us=tuple(sorted(rtts.values())), sent_bytes=count * packet_bytes)


def rate_bps(near: End, far: End, seconds: float = 1.0) -> tuple[int, int]:
    """What TCP carries from one end to the other: (bytes of payload that arrived, bit/s once it was warm).

    Sender and receiver have a thread each; both end by themselves.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(_socket(far, socket.SOCK_STREAM))
        listener.listen(STREAMS)
        listener.settimeout(5)
        outs, ins = [], []
        for _ in range(STREAMS):
            out = stack.enter_context(_socket(near, socket.SOCK_STREAM))
            out.settimeout(5)
            out.connect(listener.getsockname())
            outs.append(out)
            ins.append(stack.enter_context(listener.accept()[0]))
        until = time.monotonic() + WARM_S + seconds
        sender = threading.Thread(target=_send, args=(outs, until), name="rate-test")
        sender.start()
        try:
            return _received(ins, until, seconds)
        finally:
            for each in ins:
                each.close()
            sender.join()


def _send(outs: list[socket.socket], until: float) -> None:
    for each in outs:
        each.setblocking(False)
    while (left := until - time.monotonic()) > 0:
        for each in _ready(outs, select.POLLOUT, left):
            with suppress(BlockingIOError):
                try:
                    each.send(CHUNK)
                except OSError:
                    return


def _received(ins: list[socket.socket], until: float, seconds: float) -> tuple[int, int]:
    total = warm = 0
    begun = until - seconds
    for each in ins:
        each.setblocking(False)
    while (left := until - time.monotonic()) > 0:
        for each in _ready(ins, select.POLLIN, left):
            with suppress(OSError):
                count = len(each.recv(262_144))
                total += count
                warm += count if time.monotonic() >= begun else 0
    return total, int(warm * 8 / (time.monotonic() - begun))


def goodput_bps(rate: int, packet_bytes: int, wrapped_bytes: int) -> int:
    """Payload that TCP carries in full packets of ``packet_bytes``, in a class of ``rate`` that counts whole frames."""
    return rate * (packet_bytes - TCP_HEADERS_BYTES) // (packet_bytes + wrapped_bytes + FRAME_BYTES)
