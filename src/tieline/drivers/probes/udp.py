"""UDP: echoes at a door, one after the other, timed by the kernel; and the path MTU by packets that must not be cut."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from tieline.drivers.doors.echo import received, stamped
from tieline.drivers.doors.pace import Pace
from tieline.drivers.doors.packet import LEAST_BYTES, MOST_BYTES, Kind, packed, unpacked
from tieline.drivers.doors.visitor import Echoes
from tieline.drivers.probes.samples import Sample, sample_of

ANSWER_S = 1.0  # an answer that comes later counts as lost
HEADERS_BYTES = {socket.AF_INET: 28, socket.AF_INET6: 48}  # of IP and UDP
BASE_BYTES = {socket.AF_INET: 576, socket.AF_INET6: 1_280}  # what every path carries (RFC 791, RFC 8200)
LIKELY_BYTES = (1_500, 9_000, MOST_BYTES + 28, 1_400, 1_280)  # tried before the search
TRIES = 3  # MAX_PROBES of RFC 8899
MTU_DISCOVER = {socket.AF_INET: (socket.IPPROTO_IP, 10), socket.AF_INET6: (socket.IPPROTO_IPV6, 23)}
PROBE = 3  # IP_PMTUDISC_PROBE of <linux/in.h>: never cut, whatever was learnt of the path before


class Asked(NamedTuple):
    """What came of a row of echoes."""

    samples: list[Sample]
    sent: int
    moved_bytes: int


class Caller:
    """One socket towards a door, for one session."""

    def __init__(self, sock: socket.socket, echoes: Echoes) -> None:
        self.sock = sock
        self.echoes = echoes
        self.session = bytes.fromhex(echoes.said.session)
        self.moved_bytes = 0
        self.seq = 0
        self.pace = Pace(echoes.said.rate_bytes_per_s * 9 // 10, burst_s=0.5)  # the door drops what is more
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, tuple[int, asyncio.Future[Sample]]] = {}  # when it was sent, and who waits
        self._loop.add_reader(sock.fileno(), self._ready)

    def close(self) -> None:
        """No more answers."""
        self._loop.remove_reader(self.sock.fileno())
        self.sock.close()
        for _, waiter in self._waiting.values():
            waiter.cancel()

    async def ask(self, size: int, kind: Kind = Kind.ASK, wait_s: float = ANSWER_S) -> Sample | None:
        """One echo; None when it was lost. Raises OSError EMSGSIZE where this machine's own link is too narrow."""
        self.seq += 1
        seq = self.seq
        waiter: asyncio.Future[Sample] = self._loop.create_future()
        await asyncio.sleep(self.pace.take(size * (1 + (kind is Kind.ASK))))
        asked_ns = time.time_ns()
        self._waiting[seq] = asked_ns, waiter
        try:
            data = packed(self.echoes.key, kind, self.session, seq, asked_ns, size=size)
            self.sock.send(data)
            self.moved_bytes += len(data)
            async with asyncio.timeout(wait_s):
                return await waiter
        except TimeoutError:
            return None
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise
            return None
        finally:
            del self._waiting[seq]

    def _ready(self) -> None:
        while (found := received(self.sock)) is not None:
            data, now_ns, _ = found
            said = unpacked(self.echoes.key, data)
            if said is None or said.kind is not Kind.ANSWER or said.session != self.session:
                continue
            self.moved_bytes += len(data)
            asked_ns, waiter = self._waiting.get(said.seq, (0, None))
            if waiter is None or waiter.done() or (sample := sample_of(said, asked_ns, now_ns)) is None:
                continue
            waiter.set_result(sample)


@contextlib.asynccontextmanager
async def caller(host: str, echoes: Echoes) -> AsyncIterator[Caller]:
    """A socket towards the door at ``host``. Raises OSError where there is no way."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, echoes.said.udp_port, type=socket.SOCK_DGRAM)
    family, _, _, _, address = found[0]
    sock = stamped(family)
    try:
        sock.connect(address)
        made = Caller(sock, echoes)
    except BaseException:
        sock.close()
        raise
    try:
        yield made
    finally:
        made.close()


async def ask_often(made: Caller, count: int, gap_ms: int, size: int, most_bytes: int) -> Asked:
    """``count`` echoes of ``size`` bytes, one every ``gap_ms``; fewer where they would move over ``most_bytes``."""
    samples: list[Sample] = []
    sent = 0
    size = min(max(size, LEAST_BYTES), made.echoes.said.packet_bytes)
    for turn in range(count):
        if most_bytes and made.moved_bytes + 2 * size > most_bytes:
            break
        began_s = time.monotonic()
        sent += 1
        sample = await made.ask(size)
        if sample is not None:
            samples.append(sample)
        if turn + 1 < count:
            await asyncio.sleep(max(0.0, gap_ms / 1_000 - (time.monotonic() - began_s)))
    return Asked(samples, sent, made.moved_bytes)


async def path_mtu(made: Caller, most_bytes: int, wait_s: float = ANSWER_S) -> tuple[int, int]:
    """The largest packet, with its IP header, that reached the door in one piece (RFC 8899), and how many were sent.

    Nothing larger than `MOST_BYTES` and its headers is looked for. 0: not even the smallest came through.
    """
    family = made.sock.family
    headers = HEADERS_BYTES[family]
    made.sock.setsockopt(*MTU_DISCOVER[family], PROBE)
    least, most = 0, min(MOST_BYTES, made.echoes.said.packet_bytes) + headers + 1  # passes, does not pass
    sent = 0
    likely = [BASE_BYTES[family], *(size for size in LIKELY_BYTES if size > BASE_BYTES[family])]
    while most - max(least, 0) > 1 and (least or likely):
        size = likely.pop(0) if likely else (least + most) // 2
        if not least < size < most:
            continue
        if most_bytes and made.moved_bytes + TRIES * size > most_bytes:
            break
        passed = False
        for _ in range(TRIES):
            sent += 1
            try:
                passed = await made.ask(size - headers, Kind.ASK_SHORT, wait_s) is not None
            except OSError:  # this machine's own link
                break
            if passed:
                break
        if passed:
            least = size
        else:
            most = size
            if not least and size == BASE_BYTES[family]:
                return 0, sent
    return least, sent
