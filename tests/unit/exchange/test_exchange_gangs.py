"""Gangs over several pools: all or nothing, from the booking to the end, whoever says what in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from exchange_world import ALICE
from gang_world import PRICE, GangWorld

from tieline.exchange.bookings import CancelCircuit, ResizeCircuit
from tieline.exchange.commands import ChangeSite, StopJob, Tick
from tieline.exchange.projection import load
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import CircuitChanged, GangBroken, JobEnded, JobQueued, JobSubmitted, RunConfirmed, RunEnded
from tieline.model.job import Job, JobState, Output, Run, RunState
from tieline.model.party import Actor, Role
from tieline.model.protocol import Accepted, CheckpointKept, Offer, Stop
from tieline.model.reason import Reason
from tieline.model.task import Retry

SHA = "a" * 64


@pytest.fixture
def world() -> GangWorld:
    return GangWorld()


@pytest.fixture
def job(world: GangWorld) -> Job:
    return world.submitted()


@pytest.fixture
def runs(world: GangWorld, job: Job) -> list[Run]:
    return world.book(job)


def states(world: GangWorld, runs: list[Run]) -> list[str]:
    return [world.state_of(run).value for run in runs]


def broken(world: GangWorld) -> list[str]:
    """Why gangs broke, in order."""
    return [event.why.reason.code for event in world.events if isinstance(event, GangBroken)]


def charges(world: GangWorld) -> list[int]:
    return [event.usage.charge_micro_cny for event in world.events if isinstance(event, RunEnded) and event.usage]


# -- all or nothing ----------------------------------------------------------------------------------------------------


def test_every_site_is_offered_its_part_and_hears_of_all_members(world: GangWorld, job: Job, runs: list[Run]) -> None:
    offers = [world.told(run)[0] for run in runs]
    assert [offer.task.nodes for offer in offers] == [2, 1, 1]
    assert [offer.part.member for offer in offers] == [0, 1, 2]
    assert len({offer.part.members for offer in offers}) == 1
    assert [(each.rank, each.nodes) for each in offers[0].part.members] == [(0, 2), (2, 1), (3, 1)]
    assert [offer.part.number for offer in offers] == [offers[0].part.number] * 3
    assert offers[0].part.ports == (29_500,)
    assert offers[0].part.circuits == tuple(world.view.network.joins[job.id])
    assert len(offers[0].part.circuits) == 3


def test_nobody_may_start_before_the_last_has_accepted(world: GangWorld, job: Job, runs: list[Run]) -> None:
    assert [world.accepts(run).what for run in runs[:2]] == ["wait", "wait"]
    assert [world.accepts(run).what for run in runs[:2]] == ["wait", "wait"], "said twice, answered twice"
    assert world.starts(runs[0]).what == "stale"
    assert world.view.jobs[job.id].state is JobState.BOOKED
    assert world.accepts(runs[2]).is_ok
    assert [event.run for event in world.events if isinstance(event, RunConfirmed)] == [run.id for run in runs]
    assert [[offer.state for offer in world.told(run)] for run in runs] == [["offered", "accepted"]] * 3
    assert world.view.jobs[job.id].state is JobState.STAGING
    for run in runs:
        assert world.accepts(run).is_ok
        assert world.starts(run).is_ok
    assert world.view.jobs[job.id].state is JobState.RUNNING


def test_the_last_acceptance_of_a_site_with_two_parts_tells_the_first_to_go_on(world: GangWorld, job: Job) -> None:
    first, second = world.book(job, (0, 3), (0, 1))
    assert (world.accepts(first).what, world.accepts(second).what) == ("wait", "ok")
    assert world.told(first)[-1].state == "accepted"
    assert world.accepts(first).is_ok


@pytest.mark.parametrize("silent", [0, 2])
def test_one_that_does_not_answer_takes_the_others_with_it(
    world: GangWorld, job: Job, runs: list[Run], silent: int
) -> None:
    for run in runs:
        if run.member != silent:
            assert world.accepts(run).what == "wait"
    world.tick(5_001)
    assert world.state_of(runs[silent]) is RunState.LOST
    assert broken(world) == ["offer_expired"]
    world.tick()
    waiting = [run for run in runs if run.member != silent]
    assert [len(world.told(run, Stop)) for run in waiting] == [1, 1]
    assert world.view.jobs[job.id].state is JobState.BOOKED, "their sites have not answered yet"
    for run in waiting:
        assert world.ends(run, "stopped", 143).is_ok
    world.tick()
    again = world.view.jobs[job.id]
    assert (again.state, again.attempts, again.losses, again.avoid) == (JobState.QUEUED, 0, 1, (runs[silent].site,))
    assert (again.broken, again.held_micro_cny, charges(world)) == (None, 0, [])
    assert not world.view.gangs
    assert not world.view.network.circuits


def test_a_refusal_ends_at_once_what_nobody_has_answered_yet(world: GangWorld, job: Job, runs: list[Run]) -> None:
    assert world.refuses(runs[1]).is_ok
    assert world.accepts(runs[0]).what == "stale", "another one was quicker to refuse"
    world.tick()
    assert states(world, runs) == ["stopped", "refused", "stopped"]
    world.tick()
    assert world.view.jobs[job.id].state is JobState.QUEUED
    assert world.accepts(runs[2]).what == "stale"
    assert broken(world) == ["refused_by_owner"]
    ended = [event.reason.code for event in world.events if isinstance(event, RunEnded) and event.reason]
    assert sorted(ended) == ["gang_broken", "gang_broken", "refused_by_owner"]


def test_one_that_is_refused_after_others_were_told_to_wait_stops_them(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    world.accepts(runs[0])
    world.accepts(runs[1])
    world.refuses(runs[2])
    world.tick()
    assert [len(world.told(run, Stop)) for run in runs] == [1, 1, 0]
    world.tick()
    assert [len(world.told(run, Stop)) for run in runs] == [1, 1, 0], "asked once"
    world.ends(runs[0], "stopped", 143)
    world.tick()
    assert world.view.jobs[job.id].state is JobState.BOOKED
    world.ends(runs[1], "stopped", 143)
    world.tick()
    assert world.view.jobs[job.id].state is JobState.QUEUED


def test_a_site_that_gives_up_what_it_accepted_before_all_have_breaks_the_gang_and_bills_nothing(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    world.accepts(runs[0])
    world.clock.advance(1_000)
    world.ends(runs[0], "succeeded", duration_ms=900)
    assert (world.state_of(runs[0]), broken(world), charges(world)) == (RunState.STOPPED, ["lost"], [])
    world.tick()
    world.tick()
    assert world.view.jobs[job.id].state is JobState.QUEUED
    assert world.view.jobs[job.id].attempts == 0


def test_what_waits_keeps_no_checkpoint(world: GangWorld, job: Job, runs: list[Run]) -> None:
    world.accepts(runs[0])
    assert world.said(runs[0], CheckpointKept, sha256=SHA, size_bytes=5).what == "stale"
    assert world.view.jobs[job.id].checkpoint == ""


# -- ends --------------------------------------------------------------------------------------------------------------


def test_a_gang_that_ends_well_succeeds_with_the_outputs_of_all_ranks_and_is_paid_once_each(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    world.all_run(runs)
    world.clock.advance(3_000)
    for run in runs:
        left = tuple(Output(path="out", sha256=SHA, size_bytes=1, node=node) for node in range(run.nodes))
        world.ends(run, duration_ms=2_000, outputs=left)
        world.ends(run, duration_ms=2_000, outputs=left)
    assert world.view.jobs[job.id].state is JobState.RUNNING
    world.tick()
    done = world.kept(job)
    assert (done.state, done.held_micro_cny, done.reasons) == (JobState.SUCCEEDED, 0, ())
    assert [(each.path, each.node) for each in done.outputs] == [("out", 0), ("out", 1), ("out", 2), ("out", 3)]
    assert charges(world) == [nodes * 2 * PRICE // 3600 for nodes in (2, 1, 1)]
    assert done.charged_micro_cny == sum(charges(world))
    assert not world.view.network.circuits
    assert sum(isinstance(event, JobEnded) for event in world.events) == 1


def test_one_that_fails_counts_once_and_those_that_are_stopped_are_paid_for_what_they_did(world: GangWorld) -> None:
    job = world.submitted(retry=Retry(limit=1))
    for attempt in (1, 2):
        runs = world.book(job)
        world.all_run(runs)
        world.clock.advance(3_000)
        world.ends(runs[1], "failed", 7, duration_ms=2_000)
        world.tick()
        world.ends(runs[0], "stopped", 143, duration_ms=3_000)
        assert world.view.recent[runs[0].id].reason.code == "gang_broken"  # type: ignore[union-attr]
        world.ends(runs[2], "failed", 1, duration_ms=3_000)  # its peers were gone
        world.tick()
        assert [event.why.exit_codes for event in world.events if isinstance(event, GangBroken)] == [(7,)] * attempt
    done = world.kept(job)
    assert (done.state, [reason.code for reason in done.reasons]) == (
        JobState.FAILED,
        ["exit_code", "attempts_exhausted"],
    )
    assert done.reasons[0].values["exit_code"] == 7
    assert charges(world) == [nodes * s * PRICE // 3600 for nodes, s in ((1, 2), (2, 3), (1, 3))] * 2
    assert done.charged_micro_cny == sum(charges(world))


def test_what_one_earned_is_paid_and_its_outputs_are_dropped_when_another_is_lost(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    world.all_run(runs)
    world.clock.advance(3_000)
    world.ends(runs[0], duration_ms=2_000, outputs=(Output(path="out", sha256=SHA, size_bytes=1),))
    world.do(ChangeSite(actor=_itself(runs[1].site), site=runs[1].site, what="leave"))
    world.tick()
    world.ends(runs[2], "stopped", 143, duration_ms=3_000)
    world.tick()
    again = world.view.jobs[job.id]
    assert (again.state, again.outputs, again.losses) == (JobState.QUEUED, (), 1)
    assert again.charged_micro_cny == sum(charges(world)) == (2 * 2 + 1 * 3) * PRICE // 3600


def test_two_that_are_lost_in_one_tick_break_it_once(world: GangWorld, job: Job, runs: list[Run]) -> None:
    world.all_run(runs)
    for _ in range(4):
        world.clock.advance(3_000)
        world.beat(runs[0].site)
    world.do(Tick())
    assert states(world, runs) == ["running", "lost", "lost"]
    world.do(Tick())
    world.ends(runs[0], "stopped", 143, duration_ms=1_000)
    world.do(Tick())
    again = world.view.jobs[job.id]
    assert (again.state, again.losses) == (JobState.QUEUED, 1)
    assert sum(isinstance(event, JobQueued) for event in world.events) == 1


@pytest.mark.parametrize("is_first", [True, False])
def test_a_program_that_fails_because_a_site_fell_silent_before_is_not_held_to_have_failed(
    world: GangWorld, job: Job, runs: list[Run], is_first: bool
) -> None:
    world.all_run(runs)
    world.clock.advance(1_000)
    if not is_first:
        world.ends(runs[0], "failed", 7, duration_ms=1_000)
        world.clock.advance(1_000)
    world.beat(runs[1].site)  # for the last time
    world.clock.advance(1_000)
    if is_first:
        world.ends(runs[0], "failed", 7, duration_ms=2_000)
    world.do(Tick())
    world.ends(runs[2], "stopped", 143, duration_ms=2_000)
    for _ in range(4):
        world.clock.advance(3_000)
        world.beat(runs[0].site)
        world.beat(runs[2].site)
    world.do(Tick())
    world.do(Tick())
    assert states(world, runs) == ["failed", "lost", "stopped"]
    found = world.view.jobs.get(job.id) if is_first else world.kept(job)
    assert found is not None
    if is_first:
        assert broken(world) == ["exit_code", "lost"]
        assert (found.state, found.losses, found.attempts, found.avoid) == (JobState.QUEUED, 1, 0, (runs[1].site,))
        assert found.broken is None
    else:
        assert broken(world) == ["exit_code"]
        assert (found.state, found.losses, found.reasons[0].code) == (JobState.FAILED, 0, "exit_code")


def test_a_limit_ends_the_job_and_not_only_the_attempt(world: GangWorld, job: Job, runs: list[Run]) -> None:
    world.all_run(runs)
    reached = Reason(code="limit_reached", values={"limit": "time", "value": "1s"})
    for run in runs:
        world.ends(run, "stopped", 143, duration_ms=1_000, reason=reached)
    world.tick()
    done = world.kept(job)
    assert (done.state, [reason.code for reason in done.reasons]) == (JobState.FAILED, ["limit_reached"])


def test_whoever_does_not_end_what_it_was_asked_to_is_fenced_and_bills_nothing(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    world.all_run(runs)
    world.ends(runs[0], "failed", 1, duration_ms=10)
    world.ends(runs[1], "failed", 1, duration_ms=10)
    for _ in range(9):
        world.tick(100_000)
    assert world.state_of(runs[2]) is RunState.LOST
    assert world.ends(runs[2], "stopped", 143, duration_ms=800_000).what == "stale"
    assert len(charges(world)) == 2
    assert world.kept(job).state is JobState.FAILED


# -- asked to end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepted", [0, 1, 2, 3])
def test_a_gang_is_cancelled_in_every_state(world: GangWorld, job: Job, runs: list[Run], accepted: int) -> None:
    for run in runs[:accepted]:
        world.accepts(run)
    world.cancel(job)
    world.cancel(job)
    live = [run for run in runs if run.id in world.view.runs]
    assert len(live) == accepted
    for run in live:
        world.ends(run, "stopped", 143)
    assert job.id in world.view.jobs
    world.tick()
    done = world.kept(job)
    assert (done.state, [reason.code for reason in done.reasons]) == (JobState.CANCELLED, ["cancelled_by"])
    assert not world.view.network.circuits
    assert broken(world) == []


def test_one_that_broke_and_is_cancelled_is_not_tried_again(world: GangWorld, job: Job, runs: list[Run]) -> None:
    world.all_run(runs)
    world.ends(runs[0], "failed", 1)
    world.tick()
    world.cancel(job)
    for run in runs[1:]:
        world.ends(run, "stopped", 143)
    world.tick()
    assert world.kept(job).state is JobState.CANCELLED


def test_one_whose_members_have_all_succeeded_is_not_cancelled_any_more(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    world.all_run(runs)
    for run in runs:
        world.ends(run)
    world.cancel(job)
    world.tick()
    assert world.kept(job).state is JobState.SUCCEEDED


def test_a_site_that_is_drained_keeps_what_it_has(world: GangWorld, job: Job, runs: list[Run]) -> None:
    world.all_run(runs)
    world.do(ChangeSite(actor=_itself(runs[1].site), site=runs[1].site, what="drain"))
    world.tick()
    assert states(world, runs) == ["running"] * 3


def test_a_stop_that_comes_before_the_last_acceptance_wins(world: GangWorld, job: Job, runs: list[Run]) -> None:
    world.accepts(runs[0])
    world.accepts(runs[1])
    world.cancel(job)
    assert world.accepts(runs[2]).what == "stale"
    assert world.accepts(runs[0]).what == "wait"
    assert not [event for event in world.events if isinstance(event, RunConfirmed)]


# -- what does not belong to it ----------------------------------------------------------------------------------------


def test_reports_of_an_earlier_gang_change_nothing(world: GangWorld, job: Job, runs: list[Run]) -> None:
    world.refuses(runs[0])
    world.tick()
    world.tick()
    later = world.book(job, (1, 2), (2, 2))
    assert [world.accepts(run).what for run in runs] == ["stale"] * 3
    assert world.said(later[0], Accepted, epoch=1).what == "stale"
    assert [run.id.rpartition(".")[2] for run in later] == ["2", "1"]
    world.all_run(later)
    assert world.view.jobs[job.id].state is JobState.RUNNING


def test_a_member_says_nothing_for_another(world: GangWorld, job: Job, runs: list[Run]) -> None:
    said = Accepted(run=runs[1].id, epoch=1, sandbox="bubblewrap", network="host")
    assert world.report(runs[0].site, said).what == "unknown"


def test_a_refusal_that_speaks_of_a_quote_does_not_end_the_job_over_the_heads_of_the_others(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    world.accepts(runs[0])
    world.refuses(runs[1], "quote_not_open")
    world.tick()
    world.ends(runs[0], "stopped", 143)
    world.tick()
    assert world.view.jobs[job.id].state is JobState.QUEUED


def test_a_session_that_opens_while_its_gang_ends_is_not_offered_it_again(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    _, orders = world.open(runs[2].site)
    assert [(order.run, order.part.members) for order in orders] == [(runs[2].id, runs[2].gang)]
    world.refuses(runs[0])
    assert world.open(runs[2].site)[1] == ()


def test_a_session_that_opens_after_the_confirmation_hears_that_it_may_start(
    world: GangWorld, job: Job, runs: list[Run]
) -> None:
    for run in runs:
        world.accepts(run)
    (order,) = world.open(runs[0].site)[1]
    assert isinstance(order, Offer)
    assert (order.state, order.part) == ("accepted", world.told(runs[0])[0].part)
    assert world.accepts(runs[0]).is_ok


def test_the_next_step_gets_the_outputs_of_all_ranks(world: GangWorld) -> None:
    job = world.submitted()
    step = msgspec.structs.replace(job, id=f"{job.id}-b", after=job.id)
    world.take([JobSubmitted(job=step)], world.clock.now_ms())
    runs = world.book(job)
    world.all_run(runs)
    for run in runs:
        world.ends(run, outputs=(Output(path=f"out{run.rank}", sha256=SHA, size_bytes=1),))
    world.restart()
    world.tick()
    following = world.view.jobs[step.id]
    assert ([mount.path for mount in following.task.mounts], following.after) == (["out0", "out2", "out3"], "")


def test_circuits_end_with_the_gang_and_no_other(world: GangWorld, job: Job, runs: list[Run]) -> None:
    other = world.submitted()
    world.book(other, (0, 1), (1, 1))
    world.refuses(runs[0])
    world.tick()
    world.tick()
    ended = [e.circuit for e in world.events if isinstance(e, CircuitChanged) and e.circuit.state.value == "ended"]
    assert {circuit.job for circuit in ended} == {job.id}
    assert list(world.view.network.joins) == [other.id]


def test_the_circuits_of_a_live_gang_are_not_its_users_to_change(world: GangWorld, job: Job, runs: list[Run]) -> None:
    name, other, _ = world.view.network.joins[job.id]
    root = Actor(name="root", roles=(Role.ADMIN,))
    count = len(world.events)
    for command in (
        CancelCircuit(actor=ALICE, circuit=name),
        ResizeCircuit(actor=ALICE, circuit=name, rate_bps=1),
        ResizeCircuit(actor=root, circuit=name, rate_bps=1),
    ):
        with pytest.raises(TielineError) as caught:
            world.do(command)
        assert (caught.value.code, caught.value.reasons[0].code) == ("not_admitted", "circuit_of_gang")
        assert caught.value.hints == (f"tieline stop {job.id}",)
    assert len(world.events) == count
    world.do(CancelCircuit(actor=root, circuit=name))
    assert next(iter(world.view.network.joins[job.id])) == other, "who runs the network may take it"
    world.do(StopJob(actor=ALICE, job=job.id))
    world.tick()
    assert not world.view.network.circuits, "what is left ends with the job"


def _itself(site: str) -> Actor:
    return Actor(name=site, roles=(Role.SITE,))


@pytest.mark.parametrize("at", range(9))
def test_a_restart_between_any_two_steps_changes_nothing(at: int) -> None:
    world = GangWorld()
    job = world.submitted()
    runs = world.book(job)
    steps: list[Callable[[], object]] = [
        lambda: world.accepts(runs[0]),
        lambda: world.accepts(runs[1]),
        lambda: world.accepts(runs[2]),
        lambda: [world.starts(run) for run in runs],
        lambda: world.ends(runs[0], "failed", 1),
        world.tick,
        lambda: world.ends(runs[1], "stopped", 143),
        lambda: world.ends(runs[2], "stopped", 143),
        world.tick,
    ]
    for number, step in enumerate(steps):
        if number == at:
            before = world.view
            world.restart()
            assert {name: (sorted(gang.runs), gang.is_over) for name, gang in before.gangs.items()} == {
                name: (sorted(gang.runs), gang.is_over) for name, gang in world.view.gangs.items()
            }
            assert dict(before.runs) == dict(world.view.runs)
        step()
    assert world.kept(job).state is JobState.FAILED
    assert not world.view.gangs


@pytest.mark.parametrize("has_gang", [False, True])
def test_a_start_reads_the_jobs_of_gangs_and_no_other(has_gang: bool) -> None:
    world = GangWorld()
    for _ in range(3):
        world.submitted()
    if has_gang:
        runs = world.book(world.submitted())
        world.refuses(runs[0])
    world.keep()
    read: list[str] = []

    def fetch(names: Sequence[str]) -> dict[str, Job]:
        read.extend(names)
        return {name: world.kept_job(name) for name in names}

    fresh = View(world.keys, fetch=fetch)
    tables = {table: list(kept.values()) for table, kept in world.tables.items()}
    load(fresh, {**tables, "brief": tables["job"]}, world.clock.now_ms())
    assert read == (list(world.view.gangs) if has_gang else [])
    assert [(name, gang.is_over) for name, gang in fresh.gangs.items()] == [(name, True) for name in read]
