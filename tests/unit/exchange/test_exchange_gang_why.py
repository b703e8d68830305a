"""Why a gang over several pools is where it is: whom it waits for, what is prepared, where it runs, what ends it."""

from __future__ import annotations

from exchange_world import ALICE
from gang_world import GangWorld

from tieline.exchange.commands import WhyJob
from tieline.model.job import Job
from tieline.model.reason import Reason, sentence


def why(world: GangWorld, job: Job) -> Reason:
    reason: Reason = world.do(WhyJob(actor=ALICE, job=job.id)).reasons[0]
    return reason


def test_each_step_says_whom_it_is_about() -> None:
    world = GangWorld()
    job = world.submitted()
    runs = world.book(job)
    assert world.view.jobs[job.id].members == 3

    for accepted, run in enumerate(runs):
        said = why(world, job)
        assert (said.code, said.values["accepted"], said.values["members"]) == ("gang_waits", accepted, 3)
        assert said.values["site"] == ", ".join(each.site for each in runs[accepted:])
        world.accepts(run)
    assert (why(world, job).code, why(world, job).values["started"]) == ("gang_staging", 0)

    for started, run in enumerate(runs):
        said = why(world, job)
        assert (said.code, said.values["started"]) == ("gang_staging", started)
        assert said.values["pool"] == ", ".join(each.pool for each in runs[started:])
        world.accepts(run)
        world.starts(run)
    said = why(world, job)
    assert (said.code, said.values["sites"], said.values["members"]) == ("gang_running", 3, 3)

    world.ends(runs[1], "failed", 7, duration_ms=1_000)
    said = why(world, job)
    assert (said.code, said.values["site"], said.values["why"], said.values["left"]) == (
        "gang_ending", runs[1].site, "exit_code", 2,
    )  # fmt: skip
    for lang in ("en", "zh"):
        assert runs[1].site in sentence(said, lang)


def test_two_parts_at_one_site_are_one_name() -> None:
    world = GangWorld()
    job = world.submitted(nodes=3)
    runs = world.book(job, (0, 1), (0, 1), (1, 1))
    said = why(world, job)
    assert said.values["site"] == f"{runs[0].site}, {runs[2].site}"
    world.all_run(runs)
    assert (why(world, job).values["sites"], why(world, job).values["members"]) == (2, 3)


def test_the_next_attempt_counts_its_own_parts() -> None:
    world = GangWorld()
    job = world.submitted(nodes=4)
    for run in world.book(job):
        world.refuses(run)
    world.tick()
    again = world.view.jobs[job.id]
    world.tick(max(0, again.eligible_ms - world.clock.now_ms()))
    world.book(again, (0, 2), (1, 2))
    said = why(world, job)
    assert (said.values["accepted"], said.values["members"]) == (0, 2)
