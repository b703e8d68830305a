from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from toycore import ALICE, SITE, ToyView, decide, no_schedule, rows, schedule, submit, toy_writer

from tieline.drivers.stores.secrets import ended_secrets, kept_secret
from tieline.drivers.stores.store import Batch, Store, StoreError
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import CreateToken, Decision, PlanTasks, StopJob, Tick
from tieline.model.error import TielineError
from tieline.model.job import Job, JobState
from tieline.model.party import Actor, Role, Token
from tieline.ports import FakeClock, FakeIds

WAIT_S = 30
LOOK = PlanTasks(tasks=())


class Gate:
    """A store whose transactions wait, fail or break when told."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.open = threading.Event()
        self.open.set()
        self.reached = threading.Event()
        self.failures: list[BaseException] = []
        self.batches: list[Batch] = []
        self._append = store.append
        self._probe = store.probe
        store.append = self.append  # type: ignore[method-assign]
        store.probe = self.probe  # type: ignore[method-assign]

    def append(self, batch: Batch) -> None:
        self.reached.set()
        assert self.open.wait(WAIT_S)
        if self.failures:
            raise self.failures.pop(0)
        self._append(batch)
        self.batches.append(batch)

    def probe(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self._probe()


class Timer:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
def gate(store: Store) -> Gate:
    return Gate(store)


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def writer(store: Store, gate: Gate, clock: FakeClock, timer: Timer) -> Iterator[Writer[ToyView]]:
    made = toy_writer(store, clock, timer=timer, batch=8, queue=40).start()
    yield made
    gate.open.set()
    assert made.close(WAIT_S)


def done(future: Future[Any]) -> Any:
    return future.result(WAIT_S)


def refused(future: Future[Any]) -> TielineError:
    error = future.exception(WAIT_S)
    assert isinstance(error, TielineError)
    return error


def ids(jobs: Sequence[Job]) -> list[str]:
    return [job.id for job in jobs]


# -- deciding and keeping ----------------------------------------------------------------------------------------------


def test_an_answer_comes_after_the_commit_and_not_before(writer: Writer[ToyView], gate: Gate, store: Store) -> None:
    gate.open.clear()
    future = writer.submit(submit("a"))
    assert gate.reached.wait(WAIT_S)
    assert not future.done()
    assert store.position()[0] == 0
    gate.open.set()
    (job,) = done(future)
    assert store.job(job.id) is not None


def test_what_waits_is_kept_in_one_transaction(writer: Writer[ToyView], gate: Gate) -> None:
    gate.open.clear()
    first = writer.submit(submit("first"))
    assert gate.reached.wait(WAIT_S)
    rest = [writer.submit(submit(f"t{n}")) for n in range(20)]
    gate.open.set()
    assert {len(done(future)) for future in [first, *rest]} == {1}
    assert [len(batch.entries) for batch in gate.batches] == [2, 16, 16, 8], "one, then eight at once, two events each"
    assert writer.meters.batches == 4
    assert writer.meters.commands == 21
    assert writer.meters.events == 42
    assert writer.meters.commit_s.count == 4
    assert writer.meters.batch_commands.total == 21


def test_commands_are_decided_in_the_order_in_which_they_came(writer: Writer[ToyView], store: Store) -> None:
    futures = writer.submit_many([submit(f"t{n}") for n in range(20)])
    given = [done(future)[0].id for future in futures]
    assert [event.subject for event in store.events(kinds=("job_submitted",), limit=100)] == given


def test_what_waits_is_placed_after_the_commands_of_its_batch(writer: Writer[ToyView], store: Store) -> None:
    (job,) = done(writer.submit(submit("a")))
    history = store.events(job=job.id)
    assert [(event.kind, event.actor) for event in history] == [("job_submitted", "alice"), ("run_offered", "exchange")]
    assert [event.seq for event in store.events(site=SITE)] == [2]


def test_a_placing_pass_that_reached_its_limit_is_followed_by_another(store: Store, clock: FakeClock) -> None:
    writer = toy_writer(store, clock, placements=3).start()
    jobs = done(writer.submit(submit(*"abcdefgh")))
    for _ in range(2):
        done(writer.submit(LOOK))
    assert writer.close(WAIT_S)
    assert len(store.events(kinds=("run_offered",))) == len(jobs) == 8


def test_a_refusal_changes_nothing_and_costs_the_others_nothing(writer: Writer[ToyView], store: Store) -> None:
    good, bad, fine = writer.submit_many([submit("a"), submit("refuse"), submit("b")])
    assert refused(bad).code == "unplaceable"
    assert len(done(good)) == len(done(fine)) == 1
    assert store.counts()["jobs"] == 2
    assert writer.meters.rejects == 1


def test_a_question_is_answered_without_a_transaction(writer: Writer[ToyView], gate: Gate) -> None:
    assert [done(writer.submit(LOOK)) for _ in range(3)] == [1, 2, 3]
    assert gate.batches == []


def test_a_tick_comes_by_itself_and_only_once_at_a_time(store: Store, clock: FakeClock, timer: Timer) -> None:
    ticks = []

    def counting(view: ToyView, command: Any, now_ms: int, ids: Any) -> Decision:
        if isinstance(command, Tick):
            ticks.append(now_ms)
            return Decision()
        return decide(view, command, now_ms, ids)

    writer = toy_writer(store, clock, tick_ms=250, timer=timer, decide=counting).start()
    done(writer.submit(LOOK))
    assert ticks == []
    timer.at_s += 10
    clock.advance(10_000)
    for _ in range(3):
        done(writer.submit(LOOK))
    assert ticks == [clock.at_ms]
    assert writer.close(WAIT_S)


def test_commands_that_came_before_a_tick_are_decided_before_it(store: Store, clock: FakeClock, timer: Timer) -> None:
    seen: list[str] = []

    def noting(view: ToyView, command: Any, now_ms: int, ids: Any) -> Decision:
        seen.append(type(command).__name__)
        return decide(view, command, now_ms, ids)

    gate = Gate(store)
    writer = toy_writer(store, clock, tick_ms=250, timer=timer, decide=noting, batch=2).start()
    gate.open.clear()
    waiting = [writer.submit(submit("a"))]
    assert gate.reached.wait(WAIT_S)
    timer.at_s += 0.5
    waiting += [writer.submit(LOOK) for _ in range(5)]
    gate.open.set()
    for future in waiting:
        done(future)
    assert writer.close(WAIT_S)
    assert seen == ["SubmitJobs", *["PlanTasks"] * 5, "Tick"]


# -- idempotency -------------------------------------------------------------------------------------------------------


def test_a_repeated_key_is_answered_as_before_and_done_once(writer: Writer[ToyView], store: Store) -> None:
    first = done(writer.submit(submit("a", key="k", digest="d")))
    second = done(writer.submit(submit("a", key="k", digest="d")))
    assert second == first
    assert isinstance(second[0], Job)
    assert store.counts()["jobs"] == 1
    assert writer.meters.replays == 1


def test_a_key_repeated_within_one_batch_is_done_once(writer: Writer[ToyView], store: Store) -> None:
    futures = writer.submit_many([submit("a", key="k", digest="d"), submit("a", key="k", digest="d")])
    assert done(futures[0]) == done(futures[1])
    assert store.counts()["jobs"] == 1


def test_a_key_is_remembered_over_a_restart(store: Store, clock: FakeClock) -> None:
    writer = toy_writer(store, clock).start()
    token = done(
        writer.submit(CreateToken(actor=ALICE, key="k", digest="d", sha256="ab", name="n", roles=(Role.USER,)))
    )
    writer.close(WAIT_S)
    path = store.path
    store.close()
    again = Store(f"sqlite:///{path}").open()
    writer = toy_writer(again, clock).start()
    repeated = CreateToken(actor=ALICE, key="k", digest="d", sha256="cd", name="n", roles=(Role.USER,))
    assert done(writer.submit(repeated)) == token
    assert isinstance(token, Token)
    writer.close(WAIT_S)
    again.close()


@pytest.mark.parametrize("is_one_batch", [True, False])
def test_a_key_used_for_another_request_is_a_conflict(
    writer: Writer[ToyView], store: Store, is_one_batch: bool
) -> None:
    commands = [submit("a", key="k", digest="d"), submit("b", key="k", digest="other")]
    if is_one_batch:
        futures = writer.submit_many(commands)
    else:
        futures = [writer.submit(commands[0])]
        done(futures[0])
        futures.append(writer.submit(commands[1]))
    assert len(done(futures[0])) == 1
    assert refused(futures[1]).code == "idempotency_conflict"
    assert store.counts()["jobs"] == 1


def test_two_callers_may_use_the_same_key(writer: Writer[ToyView], store: Store) -> None:
    mine = submit("a", key="k", digest="d")
    theirs = type(mine)(actor=Actor(name="bob"), key="k", digest="d", tasks=mine.tasks)
    assert done(writer.submit(mine)) != done(writer.submit(theirs))
    assert store.counts()["jobs"] == 2


def test_a_question_needs_no_key_and_may_have_one(writer: Writer[ToyView], gate: Gate) -> None:
    look = PlanTasks(actor=ALICE, key="k", digest="d", tasks=())
    assert [done(writer.submit(look)) for _ in range(2)] == [1, 2]
    assert gate.batches == []


def test_a_refused_request_may_be_sent_again_with_its_key(writer: Writer[ToyView]) -> None:
    assert refused(writer.submit(submit("refuse", key="k", digest="d"))).code == "unplaceable"
    assert len(done(writer.submit(submit("a", key="k", digest="d")))) == 1


def test_a_key_is_forgotten_after_its_time(store: Store, clock: FakeClock) -> None:
    writer = toy_writer(store, clock, idempotency_ms=1_000).start()
    first = done(writer.submit(submit("a", key="k", digest="d")))
    clock.advance(1_000)
    assert done(writer.submit(submit("a", key="k", digest="d"))) == first
    clock.advance(1)
    assert done(writer.submit(submit("b", key="k", digest="other"))) != first
    writer.close(WAIT_S)


def test_an_answer_that_this_version_cannot_read_is_a_conflict(writer: Writer[ToyView], store: Store) -> None:
    done(writer.keep([("idempotency", "alice k", row := idempotency_row())]))
    assert row["reply"] == b"{}"
    assert refused(writer.submit(submit("a", key="k", digest="d"))).code == "idempotency_conflict"
    assert store.counts()["jobs"] == 0


def idempotency_row() -> dict[str, Any]:
    return {"key": "alice k", "digest": "d", "time_ms": FakeClock().at_ms, "reply": b"{}"}


def test_a_key_that_is_too_long_is_refused(writer: Writer[ToyView]) -> None:
    with pytest.raises(TielineError, match="256 characters") as caught:
        writer.submit(submit("a", key="k" * 256))
    assert caught.value.code == "invalid_request"


# -- more than it can take ---------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_with_a_time_to_retry(writer: Writer[ToyView], gate: Gate) -> None:
    gate.open.clear()
    first = writer.submit(submit("a"))
    assert gate.reached.wait(WAIT_S)
    waiting = [writer.submit(LOOK) for _ in range(40)]
    with pytest.raises(TielineError, match="retry after") as caught:
        writer.submit(LOOK)
    assert caught.value.code == "overloaded"
    assert int(caught.value.reasons[0].values["wait_us"]) >= 50_000
    assert (writer.queue_depth, writer.meters.overloads) == (40, 1)
    gate.open.set()
    assert [done(future) for future in waiting] == list(range(1, 41))
    assert done(first)
    assert done(writer.submit(LOOK)) == 41


def test_new_work_is_refused_while_there_is_room_for_what_must_end(writer: Writer[ToyView], gate: Gate) -> None:
    gate.open.clear()
    (job,) = done_later = [writer.submit(submit("a"))]
    assert gate.reached.wait(WAIT_S)
    taken = [writer.submit(submit(f"t{n}")) for n in range(30)]
    with pytest.raises(TielineError, match="of 30 that may"):
        writer.submit(submit("one too many"))
    stop = writer.submit(StopJob(actor=ALICE, job="cn.demo/job/none"))
    gate.open.set()
    assert all(len(done(future)) == 1 for future in [*taken, *done_later, job])
    assert refused(stop).code == "not_found"


def test_several_commands_are_taken_in_together_or_not_at_all(
    writer: Writer[ToyView], gate: Gate, store: Store
) -> None:
    gate.open.clear()
    first = writer.submit(submit("a"))
    assert gate.reached.wait(WAIT_S)
    with pytest.raises(TielineError):
        writer.submit_many([submit("b")] * 31)
    assert writer.queue_depth == 0
    gate.open.set()
    done(first)
    assert store.counts()["jobs"] == 1


def test_new_work_is_refused_while_the_disk_is_low_and_old_work_may_end(store: Store, clock: FakeClock) -> None:
    looks = []

    def room() -> None:
        looks.append(1)
        if is_low:
            raise TielineError("storage_full", "1 MB of disk are free", hints=("tieline status",))

    is_low = False
    writer = toy_writer(store, clock, room=room).start()
    (job,) = done(writer.submit(submit("a")))
    is_low = True
    looks.clear()
    first, stop, second = writer.submit_many(
        [submit("b"), StopJob(actor=ALICE, job=job.id), submit("c")],
    )
    assert [refused(first).code, refused(second).code] == ["storage_full", "storage_full"]
    assert done(stop).state is JobState.CANCELLED
    assert writer.is_writable
    assert looks == [1], "asked once for a batch"
    writer.close(WAIT_S)


# -- when the store fails ----------------------------------------------------------------------------------------------


def full() -> StoreError:
    return StoreError("storage_full", "database or disk is full")


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


def test_a_database_that_may_not_grow_refuses_and_recovers(store: Store, clock: FakeClock, timer: Timer) -> None:
    writer = toy_writer(store, clock, timer=timer).start()
    kept = [done(writer.submit(submit("a")))[0].id]
    assert store._connection is not None
    cursor = store._connection.connection.cursor()
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
    assert sorted(kept) == sorted(job.id for job in store.jobs(limit=1_000))
    assert store.verify_chain().is_verified
    timer.at_s += 1.5
    kept += ids(done(writer.submit(submit("after"))))  # a new connection has no such limit
    assert sorted(kept) == sorted(job.id for job in store.jobs(limit=1_000))
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


# -- when we fail ------------------------------------------------------------------------------------------------------


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


# -- beside the log ----------------------------------------------------------------------------------------------------


def test_secrets_live_from_the_commit_of_their_job_to_the_commit_of_its_end(store: Store, clock: FakeClock) -> None:
    writer = toy_writer(store, clock, aside=ended_secrets).start()
    future = writer.submit(submit("a"), lambda jobs: [kept_secret(job.id, b"sealed") for job in jobs])
    (job,) = done(future)
    assert store.secret(job.id) == b"sealed"
    done(writer.submit(StopJob(actor=ALICE, job=job.id)))
    assert store.secret(job.id) is None
    writer.close(WAIT_S)


def test_what_is_kept_beside_a_refused_command_is_not_kept(writer: Writer[ToyView], store: Store) -> None:
    future = writer.submit(submit("refuse"), lambda jobs: [kept_secret("j", b"sealed")])
    assert refused(future).code == "unplaceable"
    assert store.secret("j") is None


def test_rows_outside_the_log_are_kept_and_dropped_without_an_event(writer: Writer[ToyView], store: Store) -> None:
    row = {"sha256": "ab", "size_bytes": 1, "owner": "alice", "created_ms": 1, "used_ms": 1}
    assert done(writer.keep([("blob", "ab", row)])) is None
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM blob").all() == [("ab", 1, "alice", 1, 1)]
    assert done(writer.keep([("blob", "ab", None)])) is None
    assert store.position()[0] == 0


# -- telling -----------------------------------------------------------------------------------------------------------


def test_subscribers_hear_what_was_committed_with_its_row(writer: Writer[ToyView], store: Store) -> None:
    heard: list[Any] = []
    positions: list[int] = []
    writer.subscribe(heard.extend)
    writer.subscribe(lambda entries: positions.append(store.position()[0] - entries[-1].seq))
    (job,) = done(writer.submit(submit("a")))
    done(writer.submit(LOOK))
    assert [(entry.seq, entry.kind, entry.actor, entry.job, entry.site) for entry in heard] == [
        (1, "job_submitted", "alice", job.id.rpartition("/")[2], None),
        (2, "run_offered", "exchange", job.id.rpartition("/")[2], SITE),
    ]
    assert heard[0].event.job == job
    assert [(entry.hash, entry.body) for entry in heard] == [(row.hash, row.body) for row in store.log_rows()]
    assert positions == [0], "it was committed when it was told"


def test_orders_are_made_from_the_view_as_it_stood_after_their_event(writer: Writer[ToyView]) -> None:
    heard: list[Any] = []
    writer.subscribe_orders(heard.extend)
    (job,) = done(writer.submit(submit("a")))
    done(writer.submit(LOOK))
    assert heard == [(2, SITE, f"{job.id.rpartition('/')[2]}.1 booked")]


# -- living ------------------------------------------------------------------------------------------------------------


def test_closing_finishes_what_waits_and_takes_nothing_more(store: Store, clock: FakeClock) -> None:
    gate = Gate(store)
    writer = toy_writer(store, clock, batch=4).start()
    gate.open.clear()
    futures = [writer.submit(submit("a"))]
    assert gate.reached.wait(WAIT_S)
    futures += [writer.submit(submit(f"t{n}")) for n in range(10)]
    closing = threading.Thread(target=writer.close)
    closing.start()
    gate.open.set()
    closing.join(WAIT_S)
    assert [len(done(future)) for future in futures] == [1] * 11
    with pytest.raises(TielineError, match="stopping"):
        writer.submit(LOOK)
    assert not writer.alive
    assert store.counts()["jobs"] == 11


def test_a_restart_goes_on_from_what_was_kept(store: Store, clock: FakeClock) -> None:
    writer = toy_writer(store, clock).start()
    jobs = [done(writer.submit(submit(f"t{n}")))[0] for n in range(6)]
    for job in jobs[:3]:
        done(writer.submit(StopJob(actor=ALICE, job=job.id)))
    before = (dict(writer.view.jobs), dict(writer.view.runs), writer.position)
    writer.close(WAIT_S)
    path = store.path
    store.close()
    again = Store(f"sqlite:///{path}").open()
    writer = toy_writer(again, clock, ids=FakeIds(seed=1)).start()
    assert (writer.view.jobs, writer.view.runs, writer.position) == before
    done(writer.submit(submit("next")))
    assert again.verify_chain().is_verified
    writer.close(WAIT_S)
    again.close()


def test_an_event_loop_awaits_its_answers(writer: Writer[ToyView], store: Store) -> None:
    async def story() -> None:
        jobs = await asyncio.gather(*(writer.ask(submit(f"t{n}")) for n in range(20)))
        assert {len(found) for found in jobs} == {1}
        with pytest.raises(TielineError, match="asked to be refused"):
            await writer.ask(submit("refuse"))
        first, second = writer.ask_many([submit("x"), LOOK])
        assert len(await first) == 1
        assert await second == 1

    asyncio.run(story())
    assert store.counts()["jobs"] == 21


def test_a_caller_that_went_away_is_not_missed(writer: Writer[ToyView], gate: Gate, store: Store) -> None:
    async def story() -> None:
        gate.open.clear()
        gone = asyncio.ensure_future(writer.ask(submit("gone")))
        stays = asyncio.ensure_future(writer.ask(submit("stays")))
        await asyncio.to_thread(gate.reached.wait, WAIT_S)
        gone.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        assert len(await stays) == 1

    asyncio.run(story())
    assert store.counts()["jobs"] == 2, "what was asked for is done"


def test_a_loop_that_was_closed_is_not_missed(writer: Writer[ToyView], gate: Gate) -> None:
    async def leave() -> None:
        gate.open.clear()
        writer.ask_many([submit("a")])
        await asyncio.to_thread(gate.reached.wait, WAIT_S)

    asyncio.run(leave())
    gate.open.set()
    assert done(writer.submit(LOOK)) == 1


def test_many_threads_may_ask_at_once(writer: Writer[ToyView], store: Store) -> None:
    found: list[str] = []

    def ask() -> None:
        for _ in range(10):
            found.extend(ids(done(writer.submit(submit("a")))))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(found) == sorted(ids(store.jobs()))
    assert len(found) == 40


def test_a_view_is_not_scheduled_while_nothing_can_be_kept(store: Store, clock: FakeClock) -> None:
    passes = []

    def counting(view: ToyView, now_ms: int, ids: Any, limit: int) -> list[Any]:
        passes.append(now_ms)
        return no_schedule(view, now_ms, ids, limit)

    gate = Gate(store)
    writer = toy_writer(store, clock, schedule=counting, timer=Timer()).start()
    gate.failures = [full()]
    assert refused(writer.submit(submit("a"))).code == "storage_full"
    passes.clear()
    done(writer.submit(LOOK))
    assert passes == []
    writer.close(WAIT_S)
