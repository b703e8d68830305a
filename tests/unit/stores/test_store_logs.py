from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tieline.drivers.stores.disk import Disk
from tieline.drivers.stores.logs import TAIL_BYTES, Logs
from tieline.model.api import LogKept
from tieline.model.error import TielineError

RUN = "j-7f3k2m9qab.1"


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "logs", Disk(tmp_path, 0), 1_000, 2_500).open()


def append(logs: Logs, offset: int, data: bytes, run: str = RUN, node: int = 0) -> LogKept:
    return asyncio.run(logs.append(run, node, offset, data))


def read(logs: Logs, run: str = RUN, node: int = 0, offset: int = 0, limit: int = 10_000) -> bytes:
    return asyncio.run(logs.read(run, node, offset, limit))


def test_a_log_grows_at_the_offset_that_is_stated(logs: Logs) -> None:
    assert append(logs, 0, b"hello ") == LogKept(offset=6, is_full=False)
    assert append(logs, 6, b"world") == LogKept(offset=11, is_full=False)
    assert read(logs) == b"hello world"
    assert read(logs, offset=6, limit=3) == b"wor"
    assert asyncio.run(logs.size(RUN, 0)) == 11


def test_what_is_sent_again_is_kept_once(logs: Logs) -> None:
    append(logs, 0, b"hello ")
    assert append(logs, 0, b"hello ").offset == 6
    assert append(logs, 3, b"lo world").offset == 11
    assert append(logs, 2, b"llo").offset == 11
    assert read(logs) == b"hello world"


def test_a_gap_is_not_taken_and_the_answer_says_where_to_go_on(logs: Logs) -> None:
    append(logs, 0, b"hello")
    assert append(logs, 7, b"world") == LogKept(offset=5, is_full=False)
    assert read(logs) == b"hello"
    assert append(logs, 4, b"", run="j-other.1") == LogKept(offset=0, is_full=False)


def test_a_log_is_cut_at_its_limit(logs: Logs) -> None:
    assert append(logs, 0, b"x" * 999) == LogKept(offset=999, is_full=False)
    assert append(logs, 999, b"yz") == LogKept(offset=1_000, is_full=True)
    assert append(logs, 1_000, b"z") == LogKept(offset=1_000, is_full=True)
    assert read(logs)[-2:] == b"xy"


def test_all_logs_together_have_a_limit(logs: Logs) -> None:
    for number in range(2):
        assert append(logs, 0, b"x" * 1_000, run=f"j-{number}.1").is_full
    assert append(logs, 0, b"x" * 800, run="j-3.1") == LogKept(offset=500, is_full=True)
    assert logs.bytes_kept == 2_500
    assert logs.remove("j-0.1", 0) == 1_000
    assert append(logs, 500, b"x" * 300, run="j-3.1") == LogKept(offset=800, is_full=False)


def test_the_disk_keeps_its_reserve(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs", Disk(tmp_path, 2**62), 1_000, 1_000).open()
    assert append(logs, 0, b"x") == LogKept(offset=0, is_full=True)


def test_every_node_has_a_log_of_its_own(logs: Logs) -> None:
    append(logs, 0, b"zero")
    append(logs, 0, b"one", node=1)
    assert (read(logs), read(logs, node=1), read(logs, node=2)) == (b"zero", b"one", b"")
    assert [(file.run, file.node, file.size_bytes) for file in logs.listing()] == [(RUN, 0, 4), (RUN, 1, 3)]
    assert [file.node for file in logs.listing(f"{RUN}.0")] == [1]


@pytest.mark.parametrize("run", ["", "../x", "a/b", ".hidden", "a..b", "A.1", "x" * 200, "j-1\n"])
def test_what_is_no_run_never_becomes_a_path(logs: Logs, run: str) -> None:
    with pytest.raises(TielineError) as caught:
        append(logs, 0, b"x", run=run)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(("node", "offset"), [(-1, 0), (10**9, 0), (0, -1)])
def test_nodes_and_offsets_are_counted_from_zero(logs: Logs, node: int, offset: int) -> None:
    with pytest.raises(TielineError):
        append(logs, offset, b"x", node=node)


@pytest.mark.parametrize(
    ("text", "lines", "rest"),
    [
        (b"one\ntwo\nthree\n", 1, b"three\n"),
        (b"one\ntwo\nthree\n", 2, b"two\nthree\n"),
        (b"one\ntwo\nthree\n", 9, b"one\ntwo\nthree\n"),
        (b"one\ntwo\nthr", 1, b"thr"),
        (b"one\ntwo\nthr", 2, b"two\nthr"),
        (b"one\n", 0, b""),
        (b"\n\n\n", 2, b"\n\n"),
        (b"", 5, b""),
    ],
)
def test_the_last_lines_are_found(logs: Logs, text: bytes, lines: int, rest: bytes) -> None:
    append(logs, 0, text)
    assert read(logs, offset=asyncio.run(logs.tail_offset(RUN, 0, lines))) == rest


def test_the_last_lines_are_looked_for_within_bounds(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs", Disk(tmp_path, 0), 10**8, 10**8).open()
    append(logs, 0, b"x" * (TAIL_BYTES + 50))
    assert asyncio.run(logs.tail_offset(RUN, 0, 1)) == 50


def test_a_follower_gets_what_is_there_and_what_comes(logs: Logs) -> None:
    async def story() -> list[bytes]:
        is_over = False
        got: list[bytes] = []
        caught_up = asyncio.Event()

        async def follow() -> None:
            async for piece in logs.follow(RUN, 0, 2, lambda: is_over):
                got.append(piece)
                caught_up.set()

        await logs.append(RUN, 0, 0, b"one\n")
        follower = asyncio.ensure_future(follow())
        await caught_up.wait()
        for at, piece in ((4, b"two\n"), (8, b"three\n")):
            caught_up.clear()
            await logs.append(RUN, 0, at, piece)
            await caught_up.wait()
        await logs.append(RUN, 0, 14, b"end\n")
        is_over = True
        logs.end(RUN)
        await follower
        return got

    assert b"".join(asyncio.run(story())) == b"e\ntwo\nthree\nend\n"
    assert logs._bells == {}


def test_following_a_log_that_is_over_ends_after_its_last_byte(logs: Logs) -> None:
    async def story() -> bytes:
        await logs.append(RUN, 0, 0, b"all")
        return b"".join([piece async for piece in logs.follow(RUN, 0, 0, lambda: True)])

    assert asyncio.run(story()) == b"all"


def test_followers_who_wait_are_woken_by_the_end(logs: Logs) -> None:
    async def story() -> list[bytes]:
        is_over = False
        waiting = asyncio.Semaphore(0)

        def look() -> bool:
            waiting.release()
            return is_over

        async def follow() -> bytes:
            return b"".join([piece async for piece in logs.follow(RUN, 0, 0, look)])

        followers = [asyncio.ensure_future(follow()) for _ in range(2)]
        for _ in followers:
            await waiting.acquire()
        is_over = True
        logs.end(RUN)
        return await asyncio.gather(*followers)

    assert asyncio.run(story()) == [b"", b""]
    assert logs._bells == {}


def test_a_restart_counts_what_is_there(logs: Logs) -> None:
    append(logs, 0, b"12345")
    append(logs, 0, b"123", run="j-2.1")
    again = Logs(logs.folder, Disk(logs.folder, 0), 1_000, 2_500).open()
    assert (again.count, again.bytes_kept) == (2, 8)
    assert append(again, 5, b"6").offset == 6
    assert logs.path(RUN, 0).stat().st_mode & 0o777 == 0o600
