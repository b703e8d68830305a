from __future__ import annotations

import logging
from typing import Any

import pytest
from toycore import ALICE, ToyView, decide, rows, schedule, submit, toy_writer
from writerparts import LOOK, WAIT_S, Gate, Timer, done, full, ids, refused

from tieline.drivers.stores.store import Store, StoreError
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import Decision, StopJob
from tieline.model.error import TielineError
from tieline.ports import FakeClock


def test_a_batch_that_is_not_kept_is_answered_so_and_forgotten(
    writer: Writer[ToyView], gate: Gate, store: Store
) -> None:
    (before,) = done(writer.submit(submit("before", key="k", digest="d")))
    gate.failures = [full()]
    first, second, look = writer.submit_many([submit("a", key="k2", digest="d"), submit("b"), LOOK])
    assert [refused(future).code for future in (first, second, look)] == ["storage_full"] * 3
    assert store.counts()["jobs"] == 1
    assert not writer.is_writable
    assert writer.why_not_writable == "database or disk is full"
    assert list(writer.view.jobs) == [before.id], "the view is what is kept"
    assert writer.meters.failures == 1


def test_reads_go_on_while_changes_are_refused(writer: Writer[ToyView], gate: Gate, store: Store) -> None:
    done(writer.submit(submit("before")))
    gate.failures = [full()]
    assert refused(writer.submit(submit("a"))).code == "storage_full"
    assert refused(writer.submit(submit("b"))).code == "storage_full"
    assert refused(writer.keep([("secret", "j", None)])).code == "storage_full"
    assert done(writer.submit(LOOK)) == 1
    assert refused(writer.submit(submit("refuse"))).code == "unplaceable"
    assert len(store.jobs()) == 1
    assert len(gate.batches) == 1, "nothing was tried in vain"


def test_changes_are_taken_again_once_a_probe_is_kept(
    writer: Writer[ToyView], gate: Gate, timer: Timer, store: Store
) -> None:
    done(writer.submit(submit("before")))
    gate.failures = [full(), full()]
    assert refused(writer.submit(submit("a", key="k", digest="d"))).code == "storage_full"
    assert refused(writer.submit(submit("a", key="k", digest="d"))).code == "storage_full"
    timer.at_s += 1.5
    assert refused(writer.submit(submit("a", key="k", digest="d"))).code == "storage_full", "the probe failed"
    timer.at_s += 1.5
    assert len(done(writer.submit(submit("a", key="k", digest="d")))) == 1
    assert writer.is_writable
    assert store.counts()["jobs"] == 2
    assert store.verify_chain().is_verified


def test_a_database_that_may_not_grow_refuses_and_recovers(file_store: Store, clock: FakeClock, timer: Timer) -> None:
    writer = toy_writer(file_store, clock, timer=timer).start()
    kept = [done(writer.submit(submit("a")))[0].id]
    assert file_store._connection is not None
    cursor = file_store._connection.connection.cursor()
    cursor.execute("PRAGMA page_count")
    (pages,) = cursor.fetchall()[0]
    cursor.execute(f"PRAGMA max_page_count = {pages}")
    codes = set()
    for _ in range(200):
        future = writer.submit(submit(*"abcdefgh"))
        if future.exception(WAIT_S) is None:
            kept += ids(future.result())
        else:
            codes.add(refused(future).code)
            break
    assert codes == {"storage_full"}
    assert sorted(kept) == sorted(job.id for job in file_store.jobs(limit=1_000))
    assert file_store.verify_chain().is_verified
    timer.at_s += 1.5
    kept += ids(done(writer.submit(submit("after"))))  # a new connection has no such limit
    assert sorted(kept) == sorted(job.id for job in file_store.jobs(limit=1_000))
    assert writer.close(WAIT_S)


def test_a_failure_that_is_not_about_room_is_internal(writer: Writer[ToyView], gate: Gate) -> None:
    gate.failures = [StoreError("internal", "disk I/O error")]
    assert refused(writer.submit(submit("a"))).code == "internal"
    assert not writer.is_writable


def test_a_store_that_cannot_be_read_either_answers_everything_with_its_error(
    writer: Writer[ToyView], gate: Gate, store: Store, timer: Timer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = done(writer.submit(submit("before")))

    def broken() -> tuple[int, bytes]:
        raise OSError("the disk is gone")

    monkeypatch.setattr(store, "position", broken)
    gate.failures = [StoreError("internal", "disk I/O error")]
    assert refused(writer.submit(submit("a"))).code == "internal"
    assert refused(writer.submit(LOOK)).code == "internal"
    monkeypatch.undo()
    timer.at_s += 1.5
    assert done(writer.submit(LOOK)) == 1
    assert list(writer.view.jobs) == [before.id]


def test_a_bug_in_a_decision_is_answered_and_costs_the_others_nothing(
    writer: Writer[ToyView], store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "tieline.writer"):
        good, bad, fine = writer.submit_many([submit("a"), submit("bug"), submit("b")])
        assert refused(bad).code == "internal"
    assert len(done(good)) == len(done(fine)) == 1
    assert store.counts()["jobs"] == 2
    assert (writer.meters.defects, writer.is_writable) == (1, True)
    assert "asked for a bug" in caplog.text


def test_an_event_that_cannot_be_applied_spoils_nothing_but_its_own_command(
    writer: Writer[ToyView], store: Store
) -> None:
    before = ids(done(writer.submit(submit("before"))))
    futures = writer.submit_many([submit("a"), submit("poison"), submit("b"), submit("poison"), submit("c")])
    assert [refused(futures[at]).code for at in (1, 3)] == ["internal", "internal"]
    kept = before + [job for at in (0, 2, 4) for job in ids(done(futures[at]))]
    assert sorted(kept) == sorted(writer.view.jobs) == sorted(ids(store.jobs()))
    assert store.verify_chain().is_verified


def test_a_bug_in_the_placing_pass_does_not_stop_commands(store: Store, clock: FakeClock) -> None:
    def broken(view: ToyView, now_ms: int, ids: Any, limit: int) -> list[Any]:
        raise ZeroDivisionError

    writer = toy_writer(store, clock, schedule=broken).start()
    assert len(done(writer.submit(submit("a")))) == 1
    assert writer.meters.defects == 1
    assert writer.close(WAIT_S)


def test_a_placing_that_cannot_be_applied_does_not_stop_commands(store: Store, clock: FakeClock) -> None:
    def impossible(view: ToyView, now_ms: int, ids: Any, limit: int) -> list[Any]:
        return [*schedule(view, now_ms, ids, limit), object()]

    writer = toy_writer(store, clock, schedule=impossible).start()
    (job,) = done(writer.submit(submit("a")))
    assert [event.kind for event in store.events(job=job.id)] == ["job_submitted"]
    assert writer.close(WAIT_S)


def test_a_bug_in_the_projections_keeps_nothing(store: Store, clock: FakeClock, timer: Timer) -> None:
    is_broken = True

    def sometimes(view: ToyView) -> list[Any]:
        if is_broken:
            raise KeyError("row")
        return list(rows(view))

    writer = toy_writer(store, clock, rows=sometimes, timer=timer).start()
    assert refused(writer.submit(submit("a"))).code == "internal"
    assert store.position()[0] == 0
    is_broken = False
    timer.at_s += 1.5
    assert len(done(writer.submit(submit("b")))) == 1
    assert writer.close(WAIT_S)


def test_a_bug_in_a_subscriber_hurts_nobody(writer: Writer[ToyView]) -> None:
    heard: list[int] = []
    writer.subscribe(lambda entries: heard.append(1 // 0))
    writer.subscribe(lambda entries: heard.extend(entry.seq for entry in entries))
    done(writer.submit(submit("a")))
    done(writer.submit(LOOK))
    assert heard == [1, 2]
    assert writer.meters.defects == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_dies_is_noticed_and_leaves_nobody_waiting(store: Store, clock: FakeClock) -> None:
    def deadly(view: ToyView, command: Any, now_ms: int, ids: Any) -> Decision:
        if isinstance(command, StopJob):
            raise SystemExit("killed")
        return decide(view, command, now_ms, ids)

    gate = Gate(store)
    writer = toy_writer(store, clock, decide=deadly, batch=2).start()
    gate.open.clear()
    first = writer.submit(submit("a"))
    assert gate.reached.wait(WAIT_S)
    futures = writer.submit_many([submit("b"), StopJob(actor=ALICE, job="x"), submit("c"), submit("d")])
    gate.open.set()
    assert len(done(first)) == 1
    assert [refused(future).code for future in futures] == ["internal"] * 4
    assert writer.close(WAIT_S)
    assert not writer.alive
    assert not writer.is_writable
    with pytest.raises(TielineError):
        writer.submit(LOOK)
    assert store.counts()["jobs"] == 1
