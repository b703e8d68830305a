from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tieline.drivers.stores.blobs import PIECE_BYTES, Blobs
from tieline.drivers.stores.disk import Disk
from tieline.model.error import TielineError
from tieline.ports import FakeClock

NONE = "0" * 64


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def broken(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    raise ConnectionResetError("the sender has gone")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path, clock: FakeClock) -> Blobs:
    return Blobs(tmp_path / "blobs", clock, Disk(tmp_path, 0), 10 * PIECE_BYTES).open()


def write(blobs: Blobs, *chunks: bytes, limit: int = 10**9) -> tuple[str, int]:
    return asyncio.run(blobs.write(stream(*chunks), limit))


def read(blobs: Blobs, digest: str, start: int = 0, end: int | None = None) -> bytes:
    async def whole() -> bytes:
        return b"".join([piece async for piece in blobs.read(digest, start, end)])

    return asyncio.run(whole())


def files(blobs: Blobs) -> Iterator[Path]:
    return (path for path in blobs.folder.rglob("*") if path.is_file())


def test_bytes_come_back_by_their_hash(blobs: Blobs) -> None:
    data = os.urandom(3 * PIECE_BYTES + 5)
    assert write(blobs, data[:10], data[10:PIECE_BYTES], data[PIECE_BYTES:]) == (sha256(data), len(data))
    assert read(blobs, sha256(data)) == data
    assert asyncio.run(blobs.has(sha256(data)))
    assert asyncio.run(blobs.size(sha256(data))) == len(data)
    assert blobs.path(sha256(data)).relative_to(blobs.folder).parts == (sha256(data)[:2], sha256(data)[2:])


def test_an_empty_blob_is_a_blob(blobs: Blobs) -> None:
    digest, size = write(blobs)
    assert (digest, size) == (sha256(b""), 0)
    assert read(blobs, digest) == b""


@pytest.mark.parametrize(("start", "end"), [(0, 5), (3, None), (3, 7), (7, 7), (9, 100), (PIECE_BYTES, None), (20, 5)])
def test_a_range_is_read(blobs: Blobs, start: int, end: int | None) -> None:
    data = os.urandom(PIECE_BYTES + 100)
    digest, _ = write(blobs, data)
    assert read(blobs, digest, start, end) == data[start:end]


def test_the_same_bytes_are_kept_once(blobs: Blobs) -> None:
    assert write(blobs, b"same") == write(blobs, b"sa", b"me")
    assert (blobs.count, blobs.bytes_kept, len(list(files(blobs)))) == (1, 4, 1)


def test_the_same_bytes_written_at_once_are_kept_once(blobs: Blobs) -> None:
    async def story() -> None:
        found = await asyncio.gather(*(blobs.write(stream(b"same", b"again"), 100) for _ in range(8)))
        assert set(found) == {(sha256(b"sameagain"), 9)}

    asyncio.run(story())
    assert (blobs.count, blobs.bytes_kept) == (1, 9)


def test_a_blob_over_its_limit_leaves_nothing(blobs: Blobs) -> None:
    with pytest.raises(TielineError, match="over its limit of 5 B") as caught:
        write(blobs, b"123", b"456", limit=5)
    assert caught.value.code == "too_large"
    assert list(files(blobs)) == []
    assert write(blobs, b"12345", limit=5)[1] == 5


def test_a_sender_that_goes_leaves_nothing(blobs: Blobs) -> None:
    with pytest.raises(ConnectionResetError):
        asyncio.run(blobs.write(broken(b"x" * (2 * PIECE_BYTES)), 10**9))
    assert list(files(blobs)) == []
    assert blobs.bytes_kept == 0
    write(blobs, b"x" * (9 * PIECE_BYTES))


def test_a_writer_that_is_cancelled_leaves_nothing(blobs: Blobs) -> None:
    async def story() -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b"x" * (2 * PIECE_BYTES)
            reached.set()
            await asyncio.Event().wait()

        reached = asyncio.Event()
        task = asyncio.ensure_future(blobs.write(endless(), 10**9))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
    assert list(files(blobs)) == []


def test_all_blobs_together_have_a_limit(blobs: Blobs) -> None:
    write(blobs, os.urandom(9 * PIECE_BYTES))
    with pytest.raises(TielineError, match="all blobs together") as caught:
        write(blobs, os.urandom(2 * PIECE_BYTES))
    assert caught.value.code == "storage_full"
    assert blobs.count == 1
    write(blobs, os.urandom(PIECE_BYTES))


def test_the_disk_keeps_its_reserve(tmp_path: Path, clock: FakeClock) -> None:
    disk = Disk(tmp_path, 2**62)
    blobs = Blobs(tmp_path / "blobs", clock, disk, 10**12).open()
    with pytest.raises(TielineError, match="kept in reserve") as caught:
        write(blobs, b"x")
    assert caught.value.code == "storage_full"
    assert list(files(blobs)) == []
    disk.reserve_bytes = 0
    write(blobs, b"x")


@pytest.mark.parametrize("digest", ["", "abc", "../../etc/passwd", "A" * 64, NONE + "0", "../" + "0" * 61, NONE + "\n"])
def test_what_is_no_hash_never_becomes_a_path(blobs: Blobs, digest: str) -> None:
    with pytest.raises(TielineError) as caught:
        asyncio.run(blobs.has(digest))
    assert caught.value.code == "invalid_request"


def test_what_is_not_there_is_not_found(blobs: Blobs) -> None:
    assert not asyncio.run(blobs.has(NONE))
    for ask in (lambda: read(blobs, NONE), lambda: asyncio.run(blobs.size(NONE))):
        with pytest.raises(TielineError) as caught:
            ask()
        assert caught.value.code == "not_found"


def test_files_belong_to_their_owner_alone(blobs: Blobs) -> None:
    before = os.umask(0)
    try:
        digest, _ = write(blobs, b"private")
    finally:
        os.umask(before)
    path = blobs.path(digest)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, blobs.folder)] == [0o600, 0o700, 0o700]


def test_a_restart_counts_what_is_there_and_drops_what_was_half_written(blobs: Blobs, clock: FakeClock) -> None:
    write(blobs, b"one")
    write(blobs, b"three")
    (blobs.folder / "tmp" / "left").write_bytes(b"half")
    again = Blobs(blobs.folder, clock, Disk(blobs.folder, 0), 10**9).open()
    assert (again.count, again.bytes_kept) == (2, 8)
    assert sorted(blob.sha256 for blob in again.listing()) == sorted(sha256(data) for data in (b"one", b"three"))
    assert list((blobs.folder / "tmp").iterdir()) == []


def test_the_listing_goes_on_after_a_hash(blobs: Blobs) -> None:
    for number in range(20):
        write(blobs, b"%d" % number)
    whole = [blob.sha256 for blob in blobs.listing()]
    assert whole == sorted(whole)
    assert [blob.sha256 for blob in blobs.listing(whole[7])] == whole[8:]


def test_asking_reading_and_writing_again_are_uses(blobs: Blobs, clock: FakeClock) -> None:
    digest, _ = write(blobs, b"x")
    for use in (
        lambda: asyncio.run(blobs.has(digest)),
        lambda: read(blobs, digest),
        lambda: write(blobs, b"x"),
    ):
        clock.advance(5_000)
        use()
        assert [blob.used_ms for blob in blobs.listing()] == [clock.at_ms]


def test_a_blob_that_was_used_since_is_not_removed(blobs: Blobs, clock: FakeClock) -> None:
    digest, _ = write(blobs, b"12345")
    listed_ms = clock.at_ms
    clock.advance(1)
    assert blobs.touch(digest)
    assert blobs.remove(digest, listed_ms) is None
    assert blobs.remove(digest, clock.at_ms) == 5
    assert blobs.remove(digest, clock.at_ms) is None
    assert (blobs.count, blobs.bytes_kept, blobs.touch(digest)) == (0, 0, False)


def test_a_folder_of_blobs_needs_no_database() -> None:
    script = "import sys, tieline.drivers.stores.blobs; print(any(n.startswith('sqlalchemy') for n in sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )
