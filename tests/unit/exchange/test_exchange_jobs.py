"""Jobs from submission to bill, and everything that can go wrong on the way, decided by the pure core."""

import pytest
from exchange_world import ADMIN, ALICE, World, task

from tieline.exchange.commands import ChangeSite, StopJob, SubmitJobs, Tick, WhyJob
from tieline.exchange.placing import plan_task
from tieline.model.error import TielineError
from tieline.model.event import JobEnded, RunEnded, RunOffered, StopRequested
from tieline.model.job import Job, JobState, Output, RunState
from tieline.model.party import Actor, Role
from tieline.model.protocol import Accepted, CheckpointKept, Refused, Started
from tieline.model.reason import Reason
from tieline.model.task import Checkpoint, Resources, Retry

SMALL = {"core_count": 4, "memory_bytes": 8_000_000_000, "price_micro_cny_per_accelerator_hour": 3_600_000}


def ended(world: World, job: Job) -> JobEnded:
    return next(event for event in world.events if isinstance(event, JobEnded) and event.job == job.id)


def usages(world: World) -> list[RunEnded]:
    return [event for event in world.events if isinstance(event, RunEnded) and event.usage is not None]


def test_a_job_is_booked_accepted_run_and_billed_once(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task(cores=2))
    run = world.run_of(job)
    assert (run.state, world.view.jobs[job.id].state) == (RunState.OFFERED, JobState.BOOKED)
    assert world.start(run).is_ok
    assert world.view.jobs[job.id].state is JobState.RUNNING
    world.clock.advance(1_500)
    assert world.end(run, duration_ms=1_500).is_ok
    usage = usages(world)[0].usage
    assert usage is not None
    assert (usage.unit_seconds, usage.charge_micro_cny, usage.remainder) == (4, 4_000, 0)
    assert ended(world, job).state is JobState.SUCCEEDED
    assert not world.view.runs
    assert not world.view.jobs


def test_the_same_ending_reported_again_is_answered_as_before_and_billed_once(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task())
    run = world.run_of(job)
    world.start(run)
    assert [world.end(run).is_ok, world.end(run).is_ok] == [True, True]
    assert len(usages(world)) == 1


def test_nobody_is_billed_for_more_time_than_the_exchange_saw(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task())
    run = world.run_of(job)
    world.start(run)
    world.clock.advance(2_000)
    world.end(run, duration_ms=3_600_000)
    usage = usages(world)[0].usage
    assert usage is not None
    assert usage.duration_ms == 2_000


def test_what_can_never_run_is_refused_whole_with_counted_reasons(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    with pytest.raises(TielineError) as refused:
        world.submit(task(cores=64))
    assert refused.value.code == "unplaceable"
    assert [(reason.code, reason.count) for reason in refused.value.reasons] == [("cores_total", 1)]
    assert not world.view.jobs


def test_a_busy_pool_queues_and_the_end_of_a_run_places_the_next_one(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    first, second = world.submit(task(cores=4))[0], world.submit(task(cores=4))[0]
    assert world.view.jobs[second.id].state is JobState.QUEUED
    why = world.do(WhyJob(actor=ALICE, job=second.id))
    assert why.reasons[0].code == "cores_free"
    world.start(world.run_of(first))
    world.end(world.run_of(first))
    assert world.view.jobs[second.id].state is JobState.BOOKED


def test_a_refusal_by_the_owner_places_the_job_elsewhere(world: World) -> None:
    cheap = world.join("lab7", "gz1", **SMALL)
    dear = world.join("lab8", "sh1", **{**SMALL, "price_micro_cny_per_accelerator_hour": 9_000_000})
    (job,) = world.submit(task())
    run = world.run_of(job)
    assert run.site == cheap
    world.report(cheap, Refused(run=run.id, epoch=run.epoch, reason=Reason(code="policy_not_met")))
    world.pass_ms(2_000, cheap, dear)
    assert world.run_of(job).site == dear
    assert world.run_of(job).epoch == 2


def test_a_lost_site_fences_its_run_which_finishes_elsewhere_and_is_billed_there_alone(world: World) -> None:
    first = world.join("lab7", "gz1", **SMALL)
    second = world.join("lab8", "sh1", **{**SMALL, "price_micro_cny_per_accelerator_hour": 9_000_000})
    (job,) = world.submit(task(checkpoint=Checkpoint(path="ckpt")))
    lost = world.run_of(job)
    world.start(lost)
    world.report(first, CheckpointKept(run=lost.id, epoch=1, sha256="a" * 64))
    world.pass_ms(14_000, second)
    run = world.run_of(job)
    assert (run.site, run.epoch, run.checkpoint) == (second, 2, "a" * 64)
    world.open(first)
    assert world.beat(first, runs=(lost.id,)).stale == (lost.id,)
    late = world.end(lost, duration_ms=9_000)
    assert (late.is_ok, late.what) == (False, "stale")
    world.start(run)
    world.end(run, duration_ms=1_000)
    assert [event.run for event in usages(world)] == [run.id]


def test_an_offer_that_nobody_answers_expires_and_is_made_elsewhere(world: World) -> None:
    silent = world.join("lab7", "gz1", **SMALL)
    other = world.join("lab8", "sh1", **{**SMALL, "price_micro_cny_per_accelerator_hour": 9_000_000})
    (job,) = world.submit(task())
    offer = world.run_of(job)
    world.pass_ms(8_000, silent, other)
    assert world.run_of(job).site == other
    assert not world.accept(offer).is_ok


def test_a_failed_run_is_tried_again_as_often_as_its_task_says(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task(retry=Retry(limit=1)))
    for attempt in (1, 2):
        run = world.run_of(job)
        assert run.epoch == attempt
        world.start(run)
        world.end(run, "failed", 3)
        world.pass_ms(2_000, site)
    assert ended(world, job).state is JobState.FAILED
    assert [reason.code for reason in ended(world, job).reasons] == ["exit_code", "attempts_exhausted"]


def test_exit_codes_that_mean_recover_do_not_count(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task(retry=Retry(limit=0, on_exit_codes=(33,))))
    for _ in range(3):
        run = world.run_of(job)
        world.start(run)
        world.end(run, "failed", 33)
        world.pass_ms(4_000, site)
    assert world.view.jobs[job.id].attempts == 0
    assert world.run_of(job).epoch == 4


def test_stopping_a_running_job_asks_the_site_and_bills_what_was_used(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task())
    run = world.run_of(job)
    world.start(run)
    world.do(StopJob(actor=ALICE, job=job.id))
    assert any(isinstance(event, StopRequested) for event in world.events)
    world.clock.advance(1_000)
    world.end(run, "stopped", 143, duration_ms=1_000)
    assert ended(world, job).state is JobState.CANCELLED
    assert len(usages(world)) == 1


def test_stopping_an_offered_job_cancels_it_at_once_and_its_acceptance_comes_too_late(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task())
    run = world.run_of(job)
    world.do(StopJob(actor=ALICE, job=job.id))
    assert ended(world, job).state is JobState.CANCELLED
    assert not world.accept(run).is_ok


def test_nobody_stops_somebody_elses_job(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task())
    with pytest.raises(TielineError, match="may not see it"):
        world.do(StopJob(actor=Actor(name="mallory", roles=(Role.USER,)), job=job.id))
    assert job.id in world.view.jobs


def test_a_pipeline_runs_in_order_and_hands_its_outputs_on(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    one, two = world.submit(task("one"), task("two"))
    assert world.view.jobs[two.id].state is JobState.QUEUED
    assert world.do(WhyJob(actor=ALICE, job=two.id)).reasons[0].code == "waiting_for_dependency"
    world.start(world.run_of(one))
    world.end(world.run_of(one), outputs=(Output(path="out.txt", sha256="b" * 64, size_bytes=3),))
    assert world.view.jobs[two.id].state is JobState.BOOKED
    assert [mount.path for mount in world.view.jobs[two.id].task.mounts] == ["out.txt"]


def test_the_failure_of_a_step_ends_all_that_wait_for_it(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    one, two, three = world.submit(task("one"), task("two"), task("three"))
    world.start(world.run_of(one))
    world.end(world.run_of(one), "failed", 1)
    states = [ended(world, job).state for job in (one, two, three)]
    assert states == [JobState.FAILED, JobState.CANCELLED, JobState.CANCELLED]


def test_a_deadline_that_passes_in_the_queue_ends_the_job(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    blocker = world.submit(task(cores=4))[0]
    late = world.submit(task(cores=4, deadline_s=3))[0]
    world.start(world.run_of(blocker))
    world.pass_ms(6_000, site)
    assert ended(world, late).state is JobState.FAILED
    assert ended(world, late).reasons[0].code == "deadline_missed"


def test_a_budget_is_held_at_booking_and_never_exceeded(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task(budget_micro_cny=20_000, grace_s=2))
    run = world.run_of(job)
    assert run.stop_after_s == 17
    assert world.view.jobs[job.id].held_micro_cny == 20_000
    world.start(run)
    world.clock.advance(60_000)
    limit = Reason(code="limit_reached", values={"limit": "budget", "value": "0.02"})
    world.end(run, "stopped", 143, duration_ms=60_000, reason=limit)
    usage = usages(world)[0].usage
    assert usage is not None
    assert usage.charge_micro_cny <= 20_000
    assert ended(world, job).state is JobState.FAILED


def test_a_draining_site_takes_nothing_new_and_a_leaving_one_loses_its_runs(world: World) -> None:
    first = world.join("lab7", "gz1", **SMALL)
    second = world.join("lab8", "sh1", **{**SMALL, "price_micro_cny_per_accelerator_hour": 9_000_000})
    (running,) = world.submit(task())
    world.start(world.run_of(running))
    world.do(ChangeSite(actor=ADMIN, site=first, what="drain"))
    (job,) = world.submit(task())
    assert world.run_of(job).site == second
    world.do(ChangeSite(actor=ADMIN, site=first, what="leave"))
    assert world.run_of(running).site == second


def test_a_gang_is_booked_whole_or_not_at_all(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    (gang,) = world.submit(task(nodes=4))
    assert (world.run_of(gang).core_count, world.run_of(gang).unit_count) == (4, 4)
    with pytest.raises(TielineError, match="none can ever run it"):
        world.submit(task(nodes=5))


def test_a_pipeline_with_one_impossible_step_is_refused_whole(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    with pytest.raises(TielineError):
        world.do(SubmitJobs(actor=ALICE, tasks=(task(), task(resources=(Resources(accelerator="a100"),)))))
    assert not world.view.jobs


def test_a_site_cannot_report_on_another_sites_run(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    other = world.join("lab8", "sh1", **{**SMALL, "price_micro_cny_per_accelerator_hour": 9_000_000})
    (job,) = world.submit(task())
    run = world.run_of(job)
    assert not world.report(other, Accepted(run=run.id, epoch=1)).is_ok
    assert not world.report(other, Started(run=run.id, epoch=1)).is_ok
    assert world.run_of(job).state is RunState.OFFERED


def test_a_run_that_its_site_forgot_is_placed_again(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task())
    world.start(world.run_of(job))
    for _ in range(13):
        world.clock.advance(2_000)
        world.beat(site, runs=())
        world.do(Tick())
    offers = [event for event in world.events if isinstance(event, RunOffered)]
    assert len(offers) == 2


def test_a_run_may_last_until_the_deadline_and_is_not_tried_again_after_it(world: World) -> None:
    site = world.join("lab7", "gz1", **SMALL)
    (job,) = world.submit(task(deadline_s=10, retry=Retry(limit=5)))
    run = world.run_of(job)
    assert run.stop_after_s == 10
    world.start(run)
    for _ in range(6):
        world.clock.advance(2_000)
        world.beat(site)
    world.end(run, "failed", 1)
    assert ended(world, job).state is JobState.FAILED
    assert [reason.code for reason in ended(world, job).reasons] == ["exit_code", "deadline_missed"]


def test_a_pool_is_held_back_for_nobody_who_has_gone(world: World) -> None:
    world.join("lab7", "gz1", **SMALL)
    blocker = world.submit(task(cores=1))[0]
    world.start(world.run_of(blocker))
    big = world.submit(task(cores=4))[0]
    world.view.held_back = {"cn.demo.lab7/pool/gz1": big.id}
    assert plan_task(world.view, ALICE, task(), world.clock.now_ms()).fitting == 0
    world.do(StopJob(actor=ALICE, job=big.id))
    assert plan_task(world.view, ALICE, task(), world.clock.now_ms()).fitting == 1
