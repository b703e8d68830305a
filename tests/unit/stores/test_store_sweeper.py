from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from storerows import job, quote, record, run, usage
from toycore import ToyView, toy_writer

from tieline.drivers.stores.blobs import BlobFile, Blobs
from tieline.drivers.stores.disk import Disk
from tieline.drivers.stores.heads import MOST_KEPT
from tieline.drivers.stores.listing import PAGE_ROWS, EndedJob, Listing
from tieline.drivers.stores.logs import LogFile, Logs
from tieline.drivers.stores.store import Batch, Change, Store
from tieline.drivers.stores.sweeper import (
    DAY_MS,
    ORPHAN_MS,
    Sweeper,
    due_jobs,
    due_logs,
    ended_until_ms,
    idle_blobs,
)
from tieline.drivers.stores.writer import Writer
from tieline.model.limits import Limits
from tieline.ports import FakeClock

HOUR_MS = 3_600_000


class World:
    """A store, a writer, blobs and logs, and a sweeper over them."""

    def __init__(self, store: Store, writer: Writer[ToyView], folder: Path, clock: FakeClock) -> None:
        self.store, self.writer, self.clock = store, writer, clock
        disk = Disk(folder, 0)
        self.blobs = Blobs(folder / "blobs", clock, disk, 10**9).open()
        self.logs = Logs(folder / "logs", disk, 10**6, 10**9).open()
        self.forgotten: list[str] = []

    def keep(self, *changes: Change) -> None:
        self.store.append(Batch(changes=changes))

    def blob(self, data: bytes) -> str:
        async def stream() -> AsyncIterator[bytes]:
            yield data

        return asyncio.run(self.blobs.write(stream(), 10**6))[0]

    def log(self, name: str, *, written_ms: int) -> None:
        asyncio.run(self.logs.append(name, 0, 0, b"line\n"))
        os.utime(self.logs.path(name, 0), ns=(written_ms * 1_000_000, written_ms * 1_000_000))

    def sweeper(self, **limits: int) -> Sweeper:
        async def forget(names: Any) -> int:
            self.forgotten.extend(names)
            return len(names)

        bounds = Limits(**limits)
        return Sweeper(self.store, self.writer, self.blobs, self.logs, bounds, self.clock, forget)

    def sweep(self, **limits: int) -> dict[str, int]:
        sweeper = self.sweeper(**limits)
        asyncio.run(sweeper.sweep())
        return {name: count for name, count in sweeper.collected.items() if count}

    def kept(self, table: str) -> list[str]:
        with self.store.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"SELECT * FROM {table}").all()
        return sorted(row[0].rpartition("/")[2] for row in rows)


@pytest.fixture
def world(store: Store, clock: FakeClock, tmp_path: Path) -> Iterator[World]:
    writer = toy_writer(store, clock).start()
    yield World(store, writer, tmp_path, clock)
    writer.close()


def of(name: str, at_ms: int, **named: Any) -> Change:
    """A job that ended then, whose document names something."""
    table, key, row = job(name, ended_ms=at_ms, state="succeeded" if at_ms else "running")
    assert row is not None
    doc = msgspec.json.decode(row["doc"]) | named
    return table, key, {**row, "doc": msgspec.json.encode(doc)}


# -- what is due: pure -------------------------------------------------------------------------------------------------


def test_jobs_are_due_by_age_and_by_count() -> None:
    limits = Limits(finished_days=90, finished_jobs=5)
    now_ms = 1_000 * DAY_MS
    assert ended_until_ms(limits, now_ms, 0) == 910 * DAY_MS
    assert ended_until_ms(limits, now_ms, 950 * DAY_MS) == 950 * DAY_MS - 1, "the last that the count keeps is kept"
    assert ended_until_ms(limits, now_ms, 5 * DAY_MS) == 910 * DAY_MS
    assert ended_until_ms(Limits(finished_jobs=0), now_ms, 0) == now_ms


def test_a_live_a_young_and_a_billed_job_are_never_due() -> None:
    jobs = [
        EndedJob("live", 0, False),
        EndedJob("young", 101, False),
        EndedJob("billed", 9, True),
        EndedJob("old", 9, False),
    ]
    assert due_jobs(jobs, 100) == ["old"]


def test_logs_are_due_by_the_end_of_their_job_and_not_by_their_own_age() -> None:
    now_ms = 1_000 * DAY_MS
    names = ("live", "young", "old", "beyond", "orphan")
    logs = [LogFile(name, 0, 1, 5) for name in names] + [LogFile("fresh-orphan", 0, 1, now_ms - ORPHAN_MS)]
    ends_ms = {"live": 0, "young": now_ms - 30 * DAY_MS + 1, "old": now_ms - 30 * DAY_MS, "beyond": now_ms - 2 * DAY_MS}
    assert [file.run for file in due_logs(logs, ends_ms, Limits(log_days=30), now_ms, 0)] == ["old", "orphan"]
    until_ms = now_ms - 2 * DAY_MS
    assert [file.run for file in due_logs(logs, ends_ms, Limits(log_days=30), now_ms, until_ms)] == [
        "young",
        "old",
        "beyond",
        "orphan",
    ]


def test_blobs_are_idle_after_their_time() -> None:
    blobs = [BlobFile("a", 1, 1_000), BlobFile("b", 1, 1_001)]
    assert [blob.sha256 for blob in idle_blobs(blobs, Limits(blob_unused_s=60), 61_001)] == ["a"]


# -- letting go --------------------------------------------------------------------------------------------------------


def test_nothing_is_let_go_before_its_time(world: World) -> None:
    now_ms = world.clock.at_ms
    world.keep(of("j-1", now_ms - 1), run("j-1.1", "j-1", state="succeeded"), usage("j-1.1", ended_ms=now_ms - 1))
    world.keep(quote("q-1", state="expired", expires_ms=now_ms), record("a", exp=now_ms // 1000))
    world.blob(b"unnamed")
    world.log("j-1.1", written_ms=5)
    assert world.sweep() == {}


def test_old_idempotency_keys_go(world: World) -> None:
    now_ms = world.clock.at_ms
    rows = [(f"alice k{n}", now_ms - 86_400_000 - 5 + n) for n in range(10)]
    world.store.append(Batch(replies=[(key, "d", at_ms, b"{}") for key, at_ms in rows]))
    assert world.sweep() == {"idempotency_keys": 5}
    assert world.kept("idempotency") == [f"alice k{n}" for n in range(5, 10)]


def test_more_than_one_page_goes_in_one_sweep(world: World) -> None:
    count = 2 * PAGE_ROWS + 7
    world.store.append(Batch(replies=[(f"alice k{n}", "d", n, b"{}") for n in range(count)]))
    assert world.sweep() == {"idempotency_keys": count}
    assert world.kept("idempotency") == []


def test_ended_jobs_beyond_the_count_go_with_their_runs_and_their_events_stay(world: World) -> None:
    now_ms = world.clock.at_ms
    for number in range(6):
        world.keep(of(f"j-{number}", now_ms - 100 + number), run(f"j-{number}.1", f"j-{number}", state="failed"))
    world.keep(of("j-live", 0), run("j-live.1", "j-live"))
    assert world.sweep(finished_jobs=2) == {"jobs": 4, "runs": 4}
    assert world.kept("job") == ["j-4", "j-5", "j-live"]
    assert world.kept("run") == ["j-4.1", "j-5.1", "j-live.1"]


def test_ended_jobs_of_one_millisecond_are_not_cut_in_the_middle(world: World) -> None:
    now_ms = world.clock.at_ms
    world.keep(*[of(f"j-{number}", now_ms - 5) for number in range(6)], of("j-old", now_ms - 6))
    assert world.sweep(finished_jobs=2) == {"jobs": 1}


def test_a_job_that_a_kept_usage_line_names_stays_as_long_as_the_line(world: World) -> None:
    now_ms = world.clock.at_ms
    old_ms = now_ms - 200 * DAY_MS
    world.keep(of("j-1", old_ms), run("j-1.1", "j-1", state="succeeded"), usage("j-1.1", ended_ms=old_ms))
    world.keep(of("j-2", old_ms), run("j-2.1", "j-2", state="failed"))
    world.log("j-1.1", written_ms=old_ms)
    assert world.sweep() == {"jobs": 1, "runs": 1, "logs": 1, "log_bytes": 5}
    assert (world.kept("job"), world.kept("run"), world.kept("usage")) == (["j-1"], ["j-1.1"], ["j-1.1"])
    world.clock.advance(200 * DAY_MS + 1)
    assert world.sweep() == {"usage_lines": 1, "jobs": 1, "runs": 1}
    assert (world.kept("job"), world.kept("run"), world.kept("usage")) == ([], [], [])


def test_billed_jobs_at_the_front_do_not_hold_back_what_comes_after_them(world: World) -> None:
    old_ms = world.clock.at_ms - 200 * DAY_MS
    changes: list[Change] = []
    for number in range(PAGE_ROWS + 3):
        changes += [of(f"j-{number}", old_ms + number), usage(f"j-{number}.1", ended_ms=old_ms)]
    world.keep(*changes, of("j-last", old_ms + 10**6))
    assert world.sweep() == {"jobs": 1}
    assert "j-last" not in world.kept("job")


def test_old_closed_quotes_go_and_open_ones_stay(world: World) -> None:
    old_ms = world.clock.at_ms - 100 * DAY_MS
    world.keep(
        quote("q-1", state="expired", expires_ms=old_ms),
        quote("q-2", state="open", expires_ms=old_ms),
        quote("q-3", state="refused", expires_ms=world.clock.at_ms),
    )
    assert world.sweep() == {"quotes": 1}
    assert world.kept("quote") == ["q-2", "q-3"]


def test_logs_of_old_jobs_and_of_nobody_go(world: World) -> None:
    now_ms = world.clock.at_ms
    world.keep(of("j-1", now_ms - 31 * DAY_MS), run("j-1.1", "j-1", state="failed"))
    world.keep(of("j-2", 0), run("j-2.1", "j-2"))
    world.log("j-1.1", written_ms=now_ms)
    world.log("j-2.1", written_ms=5)
    world.log("j-9.1", written_ms=5)
    assert world.sweep() == {"logs": 2, "log_bytes": 10}
    assert [file.run for file in world.logs.listing()] == ["j-2.1"]


def envelope(payload: dict[str, Any]) -> bytes:
    text = base64.urlsafe_b64encode(msgspec.json.encode(payload)).rstrip(b"=").decode()
    return msgspec.json.encode({"payload": text, "protected": "", "signature": ""})


def named_by_live_job(world: World, digest: str) -> None:
    world.keep(of("j-1", 0, task={"mounts": [{"path": "a", "sha256": digest}]}))


def named_as_checkpoint(world: World, digest: str) -> None:
    world.keep(of("j-1", 0, checkpoint=digest))


def named_as_output(world: World, digest: str) -> None:
    world.keep(of("j-1", world.clock.at_ms - 30 * DAY_MS, outputs=[{"path": "a", "sha256": digest, "size_bytes": 1}]))


def named_by_live_run(world: World, digest: str) -> None:
    table, key, row = run("j-1.1", "j-1")
    assert row is not None
    world.keep(
        (table, key, {**row, "doc": msgspec.json.encode(msgspec.json.decode(row["doc"]) | {"checkpoint": digest})})
    )


def named_by_open_quote(world: World, digest: str) -> None:
    table, key, row = quote("q-1")
    assert row is not None
    world.keep((table, key, {**row, "doc": msgspec.json.encode({"id": "q-1", "workdir": {"sha256": digest}})}))


def named_by_record(world: World, digest: str) -> None:
    table, key, row = record("m", kind="model", exp=world.clock.at_ms // 1000 + 10**7)
    assert row is not None
    world.keep((table, key, {**row, "envelope": envelope({"spec": {"weights": f"sha256:{digest}"}})}))


@pytest.mark.parametrize(
    "name",
    [named_by_live_job, named_as_checkpoint, named_as_output, named_by_live_run, named_by_open_quote, named_by_record],
)
def test_a_blob_that_something_names_is_never_let_go(world: World, name: Callable[[World, str], None]) -> None:
    named, unnamed = world.blob(b"named"), world.blob(b"unnamed")
    name(world, named)
    world.keep(("blob", unnamed, blob_row(unnamed)), ("blob", named, blob_row(named)))
    world.clock.advance(25 * HOUR_MS)
    assert world.sweep() == {"blobs": 1, "blob_bytes": 7}
    assert [blob.sha256 for blob in world.blobs.listing()] == [named]
    assert world.kept("blob") == [named]


def blob_row(digest: str) -> dict[str, Any]:
    return {"sha256": digest, "size_bytes": 1, "owner": "a", "created_ms": 1, "used_ms": 1}


def test_a_blob_goes_once_nothing_that_is_kept_names_it(world: World) -> None:
    digest = world.blob(b"output")
    world.keep(of("j-1", world.clock.at_ms, outputs=[{"path": "a", "sha256": digest, "size_bytes": 6}]))
    world.clock.advance(89 * DAY_MS)
    assert world.sweep() == {}
    world.clock.advance(2 * DAY_MS)
    assert world.sweep() == {"jobs": 1, "blobs": 1, "blob_bytes": 6}


def test_an_expired_record_names_nothing(world: World) -> None:
    digest = world.blob(b"weights")
    named_by_record(world, digest)
    world.clock.advance(10**10 + 10**3)
    assert world.sweep()["blobs"] == 1


def test_a_blob_that_was_asked_for_is_kept_for_a_job_that_is_about_to_name_it(world: World) -> None:
    digest = world.blob(b"workdir")
    world.clock.advance(25 * HOUR_MS)
    assert asyncio.run(world.blobs.has(digest))
    assert world.sweep() == {}


def test_references_are_read_only_now_and_then(world: World) -> None:
    sweeper = world.sweeper()
    asyncio.run(sweeper.sweep())
    os.utime(world.blobs.path(world.blob(b"unnamed")), (1, 1))
    world.clock.advance(HOUR_MS - 1)
    asyncio.run(sweeper.sweep())
    assert sweeper.collected["blobs"] == 0
    world.clock.advance(1)
    asyncio.run(sweeper.sweep())
    assert sweeper.collected["blobs"] == 1


def test_records_that_expired_long_ago_are_handed_over_to_be_forgotten(world: World) -> None:
    now_s = world.clock.at_ms // 1000
    world.keep(record("old", exp=now_s - 430 * 86_400 - 1), record("young", exp=now_s - 430 * 86_400))
    assert world.sweep() == {"records": 1}
    assert world.forgotten == ["cn.demo.lab7/pool/old"]


def test_one_part_that_fails_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store.append(Batch(replies=[("alice k", "d", 1, b"{}")]))
    world.keep(of("j-1", 1))

    def broken(*_: Any) -> list[str]:
        raise OSError("cannot be read")

    monkeypatch.setattr(Listing, "idempotency_keys", broken)
    assert world.sweep() == {"jobs": 1}
    monkeypatch.undo()
    assert world.sweep() == {"idempotency_keys": 1}


def test_what_is_swept_goes_on_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tieline.drivers.stores.sweeper.STEP", 2)
    monkeypatch.setattr("tieline.drivers.stores.sweeper.MOST_STEPS", 1)
    for number in range(5):
        world.log(f"j-{number}.1", written_ms=5)
    sweeper = world.sweeper()
    counts = []
    for _ in range(3):
        asyncio.run(sweeper.sweep())
        counts.append(sweeper.collected["logs"])
    assert counts == [2, 4, 5]


def test_of_the_signed_heads_of_a_log_the_older_half_is_thinned(world: World) -> None:
    def head(exchange: str, size: int) -> Change:
        row = {"exchange": exchange, "size": size, "root": b"", "at_ms": size * 10, "statement": b"s"}
        return ("checkpoint", f"{exchange} {size}", row)

    def sizes(exchange: str) -> list[int]:
        with world.store.engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT exchange, size FROM checkpoint ORDER BY size").all()
        return [size for name, size in rows if name == exchange]

    world.keep(*(head("cn/exchange/main", size) for size in range(1, MOST_KEPT + 2)))
    world.keep(*(head("cn.sh/exchange/main", size) for size in range(1, MOST_KEPT + 1)))
    assert world.sweep() == {"heads": MOST_KEPT // 4}
    kept = sizes("cn/exchange/main")
    assert kept[:4] == [1, 3, 5, 7]
    assert kept[-MOST_KEPT // 2 :] == list(range(MOST_KEPT // 2 + 2, MOST_KEPT + 2))
    assert len(sizes("cn.sh/exchange/main")) == MOST_KEPT
    assert world.sweep() == {}
