"""TCP: echoes over an open connection to a door, the handshake of a reference point, and a short bounded upload."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from tieline.drivers.doors.pace import Pace
from tieline.drivers.doors.packet import LEAST_BYTES, MOST_BYTES, Kind, packed, unpacked
from tieline.drivers.doors.visitor import Echoes, Visitor
from tieline.drivers.probes.samples import Sample, sample_of
from tieline.drivers.probes.udp import Asked
from tieline.model.door import RateSeen
from tieline.model.error import TielineError

if TYPE_CHECKING:
    from aiohttp import BaseConnector

ANSWER_S = 2.0
CONNECT_S = 5.0
PIECE_BYTES = 16_384
RATE_MOST_S = 20.0
RTT_AT = 68  # of tcpi_rtt (us) in struct tcp_info of <linux/tcp.h>
HANDSHAKE_BYTES = 160  # of four segments with their headers


async def echo_often(
    visitor: Visitor,
    echoes: Echoes,
    count: int,
    gap_ms: int,
    size: int,
    most_bytes: int,
    connector: BaseConnector | None = None,
) -> Asked:
    """Echoes over one WebSocket, one every ``gap_ms``. Raises TielineError for a door that does not answer."""
    import aiohttp

    path = f"/v1/echo/{echoes.said.session}"
    session, size = bytes.fromhex(echoes.said.session), min(max(size, LEAST_BYTES), echoes.said.packet_bytes)
    samples: list[Sample] = []
    sent = moved = 0
    try:
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            client.ws_connect(
                visitor.client.base_url + path,
                headers=visitor.headers("GET", path),
                max_msg_size=2 * MOST_BYTES,  # 0, which a door may state, would be no bound
                timeout=aiohttp.ClientWSTimeout(ws_receive=ANSWER_S, ws_close=ANSWER_S),
            ) as stream,
        ):
            for turn in range(count):
                if most_bytes and moved + 2 * size > most_bytes:
                    break
                began_s = time.monotonic()
                sent += 1
                seq = turn + 1
                asked_ns = time.time_ns()
                await stream.send_bytes(packed(echoes.key, Kind.ASK, session, seq, asked_ns, size=size))
                answer = await stream.receive_bytes()
                now_ns, moved = time.time_ns(), moved + 2 * size
                said = unpacked(echoes.key, answer)
                if said is not None and said.seq == seq and (sample := sample_of(said, asked_ns, now_ns)) is not None:
                    samples.append(sample)
                if turn + 1 < count:
                    await asyncio.sleep(max(0.0, gap_ms / 1_000 - (time.monotonic() - began_s)))
    except (aiohttp.ClientError, TimeoutError, TypeError, OSError) as error:
        if not sent:
            raise TielineError("site_unreachable", f"`{visitor.given.door}` does not echo: {error}") from None
    return Asked(samples, sent, moved)


async def handshakes(host: str, port: int, count: int, gap_ms: int) -> Asked:
    """The three-way handshake with a port of ``host``, ``count`` times, timed by the kernel."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, _, _, _, where = found[0]
    samples: list[Sample] = []
    for turn in range(count):
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await loop.sock_connect(sock, where)
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
                (rtt_us,) = struct.unpack_from("=I", info, RTT_AT)
                if rtt_us:
                    samples.append(Sample(rtt_us * 1_000))
            except OSError:  # refused, unreachable, or too late
                pass
        if turn + 1 < count:
            await asyncio.sleep(gap_ms / 1_000)
    return Asked(samples, count, count * HANDSHAKE_BYTES)


async def upload(visitor: Visitor, size: int, rate_bps: int) -> RateSeen:
    """Send ``size`` bytes at no more than ``rate_bps`` (0: as they go), and hear what the door saw.

    Raises TielineError. The door's word counts only as far as the time here allows it.
    """
    pace = Pace(rate_bps // 8, burst_s=0.02) if rate_bps else None
    began_s = time.perf_counter()

    def content() -> AsyncIterator[bytes]:
        return _random(size, pace)

    headers = {**visitor.headers("POST", "/v1/rate"), "Content-Length": str(size)}
    seen = await visitor.client.call(
        "POST", "/v1/rate", RateSeen, body=content, headers=headers, key=None, total_s=RATE_MOST_S
    )
    took_us = (time.perf_counter() - began_s) * 1e6
    if seen.moved_bytes != size or seen.took_us > took_us:
        raise TielineError("check_failed", f"`{visitor.given.door}` saw {seen.moved_bytes:,} of {size:,} bytes")
    if seen.counted_bytes > size or seen.counted_us > seen.took_us:
        raise TielineError("check_failed", f"`{visitor.given.door}` counts more than all: {seen.counted_bytes:,} bytes")
    return seen


async def _random(size: int, pace: Pace | None) -> AsyncIterator[bytes]:
    """Bytes that nothing on the way can make fewer."""
    piece = os.urandom(PIECE_BYTES)
    while size > 0:
        part = piece[: min(size, PIECE_BYTES)]
        if pace is not None:
            await asyncio.sleep(pace.take(len(part)))
        size -= len(part)
        yield part
