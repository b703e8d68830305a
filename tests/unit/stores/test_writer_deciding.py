from __future__ import annotations

from typing import Any

from toycore import ALICE, SITE, ToyView, decide, submit, toy_writer
from writerparts import LOOK, WAIT_S, Gate, Timer, done, refused

from tieline.drivers.stores.secrets import ended_secrets, kept_secret
from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import Decision, StopJob, Tick
from tieline.ports import FakeClock


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
