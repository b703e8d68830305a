"""The cache of a site: blobs come through the mover, whole or not at all, and go on where a process ended."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest
from moody_server import bytes_of, moody, run

from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.cache import Cache
from tieline.model.error import TielineError

BYTES = bytes_of(2, 1_500_000)  # six chunks
DIGEST = hashlib.sha256(BYTES).hexdigest()


def cached(folder, work, content=BYTES, limit_bytes=10**9, **mood):
    """``work(cache, server)`` with a cache that asks a server for its blobs."""

    async def whole():
        async with moody(content) as server:
            server.tag = f'"{hashlib.sha256(content).hexdigest()}"'
            for name, value in mood.items():
                setattr(server, name, value)
            async with HttpClient(server.url) as client:
                cache = Cache(folder, client, limit_bytes)
                cache.prepare()
                return await work(cache, server)

    return run(whole())


@pytest.mark.parametrize("size_bytes", [0, len(BYTES)])
def test_a_blob_is_moved_once_for_all_who_want_it(place, size_bytes):
    async def work(cache, server):
        async def read():
            async with cache.blob(DIGEST, size_bytes) as path:
                return path.read_bytes()

        assert set(await asyncio.gather(*(read() for _ in range(5)))) == {BYTES}
        return server

    server = cached(place, work)
    spans = [each for each in server.asked if each]
    assert sorted(set(spans)) == sorted(spans)
    assert [path.name for path in place.iterdir()] == [DIGEST]


def test_a_process_that_ended_half_way_leaves_what_the_next_one_goes_on_with(place):
    async def first(cache, server):
        server.spoil = lambda start, part: None if start >= 1_000_000 else part
        fetching = asyncio.create_task(cache.blob(DIGEST, len(BYTES)).__aenter__())
        while sum(path.read_bytes().count(b"\n") for path in place.glob(".*.moves")) < 4:  # noqa: ASYNC110 - a file grows
            await asyncio.sleep(0.01)
        fetching.cancel()  # as the end of the process does; the files stay as they are
        await asyncio.gather(fetching, return_exceptions=True)

    async def second(cache, server):
        async with cache.blob(DIGEST, len(BYTES)) as path:
            assert path.read_bytes() == BYTES
        return server.asked

    cached(place, first)
    assert not (place / DIGEST).exists()
    asked = cached(place, second)
    assert 0 < len(asked) <= 3  # three of six chunks at least were there
    assert [path.name for path in place.iterdir()] == [DIGEST]


@pytest.mark.parametrize(
    ("content", "size_bytes"), [(BYTES[::-1], len(BYTES)), (BYTES[:-1], len(BYTES)), (BYTES + b"x", len(BYTES))]
)
def test_other_bytes_than_promised_are_refused_at_once(place, content, size_bytes):
    async def work(cache, _server):
        async with cache.blob(DIGEST, size_bytes):
            raise AssertionError("it is not there")

    with pytest.raises(TielineError) as caught:
        asyncio.run(asyncio.wait_for(_in_time(place, work, content), 60))
    assert caught.value.code in ("check_failed", "too_large", "range_not_satisfiable")
    assert not (place / DIGEST).exists()


async def _in_time(place, work, content):
    return await asyncio.to_thread(cached, place, work, content)


def test_halves_of_moves_are_let_go_like_other_blobs_when_room_is_needed(place):
    for number, name in enumerate((f".{'a' * 64}.{'0' * 32}.part", "b" * 64)):
        (place / name).write_bytes(b"x" * 800_000)
        os.utime(place / name, (number, number))

    async def work(cache, _server):
        async with cache.blob(DIGEST, len(BYTES)):
            pass

    cached(place, work, limit_bytes=2_400_000)
    assert sorted(path.name for path in place.iterdir()) == sorted([DIGEST, "b" * 64])
