"""The mover beside what moves bytes without it: a plain aiohttp download to a file, and a copy by shutil.

One server process on loopback gives a file by ranges (aiohttp's own file sender). The mover fetches it over four
connections, journalled, hashed by chunk and as a whole, synced to disk; the anchor writes what one connection brings,
and nothing more. A copy of a file is compared with `shutil.copyfile` and an fsync. Then pacing: what a token bucket
lets through in a few seconds, beside the rate it was given, alone and with eight connections that share it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.row import Row
from tieline.drivers.mover import Lane, Moved, Schedule, Terms, address_of, move
from tieline.drivers.mover.files import FileSource, FileTarget
from tieline.drivers.mover.web import HttpSource

SIZE = 256 * 2**20
TURNS = 5
PACED_S = 4
RATES_BPS = (2_000_000, 50_000_000, 400_000_000)


def run() -> list[Row]:
    """Rows: download, copy, and how exact the pacing is."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "file").write_bytes(random.Random(4).randbytes(2**20) * (SIZE // 2**20))
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=_serve, args=(name, theirs))
        server.start()
        try:
            url = ours.recv()
            return [asyncio.run(_downloads(folder, url)), asyncio.run(_copies(folder)), *_pacing(folder, url)]
        finally:
            server.terminate()
            server.join()


def _serve(folder: str, told: Connection) -> None:
    from aiohttp import web

    async def serve() -> None:
        app = web.Application()
        app.router.add_static("/", folder)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        told.send(f"http://127.0.0.1:{runner.addresses[0][1]}/file")
        await asyncio.Event().wait()

    asyncio.run(serve())


async def _timed(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Wall and CPU seconds of this process."""
    began, cpu = time.perf_counter(), time.process_time()
    await work()
    return time.perf_counter() - began, time.process_time() - cpu


async def _downloads(folder: Path, url: str) -> Row:
    import aiohttp

    target = folder / "to"

    async def plain() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            with open(target, "wb") as file:  # noqa: ASYNC230 - the anchor
                async for chunk in answer.content.iter_any():
                    file.write(chunk)

    async def ours() -> None:
        await move(HttpSource(address_of(url)), FileTarget(str(target), is_replacing=True), Terms())

    plains, movers = [], []
    for _ in range(TURNS):
        plains.append(await _timed(plain))
        movers.append(await _timed(ours))
    return _row("download over loopback", "plain aiohttp to a file, no hash, no sync", plains, movers)


async def _copies(folder: Path) -> Row:
    async def plain() -> None:
        def copy() -> None:
            shutil.copyfile(folder / "file", folder / "copy")
            descriptor = os.open(folder / "copy", os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

        await asyncio.to_thread(copy)

    async def ours() -> None:
        source = FileSource(str(folder / "file"))
        await move(source, FileTarget(str(folder / "to"), is_replacing=True), Terms())

    plains, movers = [], []
    for _ in range(TURNS):
        plains.append(await _timed(plain))
        movers.append(await _timed(ours))
    return _row("copy of a file", "shutil.copyfile and fsync, no hash", plains, movers)


def _row(what: str, anchor: str, plains: list[tuple[float, float]], movers: list[tuple[float, float]]) -> Row:
    mb = SIZE / 10**6
    figure = mb / median(wall for wall, _ in movers)
    base = mb / median(wall for wall, _ in plains)
    cpu, base_cpu = median(cpu for _, cpu in movers), median(cpu for _, cpu in plains)
    return Row(
        claim=f"mover: {what}, verified by sha256",
        figure=figure,
        unit="MB/s",
        anchor=base,
        anchor_name=anchor,
        ratio=figure / base,
        note=f"{mb:,.0f} MB, median of {TURNS} turns; CPU {cpu:.2f} s against {base_cpu:.2f} s (its own process)",
    )


def _pacing(folder: Path, url: str) -> list[Row]:
    rows = []
    for rate in RATES_BPS:
        size = min(SIZE, rate * PACED_S // 8)
        (folder / "part").write_bytes((folder / "file").read_bytes()[:size])
        part = url.replace("/file", "/part")
        worst = max((asyncio.run(_paced(folder, part, rate, streams)) for streams in (1, 8)), key=lambda each: each[0])
        rows.append(
            Row(
                claim=f"mover: pacing at {rate / 10**6:g} Mbit/s, error",
                figure=worst[0],
                unit="%",
                target="3 %",
                note=f"worst of 1 and 8 connections, {size / 10**6:,.0f} MB in {worst[1]:.2f} s; loopback",
            )
        )
    return rows


async def _paced(folder: Path, url: str, rate: int, streams: int) -> tuple[float, float]:
    """Error in percent, and how long the bytes took from the first to the last that was let through."""
    lane = Lane(schedule=Schedule.always(rate))
    spans: list[float] = []
    pay = lane.pay

    async def timed(size: int) -> None:
        if not spans:
            spans.append(time.perf_counter())
        await pay(size)
        spans[1:] = [time.perf_counter()]

    lane.pay = timed  # type: ignore[method-assign]
    terms = Terms(streams=streams)
    moved: Moved = await move(
        HttpSource(address_of(url)), FileTarget(str(folder / "paced"), is_replacing=True), terms, [lane]
    )
    took = spans[1] - spans[0]
    return abs(moved.size_bytes * 8 / took / rate - 1) * 100, took
