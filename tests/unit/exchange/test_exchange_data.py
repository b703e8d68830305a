"""Data with places: what a plan says of it, what a record must say, and what becomes of a job that does not get it."""

import pytest
from exchange_world import ALICE, PREFIX, World, task
from test_exchange_bringing import FAR, GB, HOME, NEAR, live, reading, wide

from tieline.exchange.commands import PlanTasks, Tick
from tieline.exchange.runs import MOST_LASTING
from tieline.model.error import TielineError
from tieline.model.event import JobEnded, JobQueued
from tieline.model.protocol import Ended
from tieline.model.reason import Reason
from tieline.model.task import DataUse

__all__ = ["wide"]
NAME = f"{PREFIX}.lab7/dataset/laid"
SPEC = {"size_bytes": 90 * GB, "sha256": "a" * 64, "places": [{"url": "https://example.org/d", "site": HOME}]}


def test_a_plan_says_who_fetches_the_data_and_places_are_copies(wide: World) -> None:
    wide.register("lab7", "dataset/laid", SPEC)
    uses = {"laid": DataUse(id=NAME, path="d"), "left": DataUse(id=f"{PREFIX}.lab7/dataset/d", path="d")}
    uses["no-path"] = DataUse(id=NAME)
    wide.register("lab7", "dataset/file", {**SPEC, "places": [{"url": "file:///d", "site": HOME}]})
    uses["file-elsewhere"] = DataUse(id=f"{PREFIX}.lab7/dataset/file", path="d")
    for name, use in uses.items():
        (plan,) = wide.do(PlanTasks(actor=ALICE, tasks=(task(data=(use,), max_duration_s=3_600),)))
        assert [each.site for each in plan.candidates] == [NEAR, FAR]
        (trip,) = plan.candidates[0].transfers
        assert (trip.source, trip.is_laid) == (HOME, name == "laid")


@pytest.mark.parametrize("lasting", [0, 1])
def test_a_refusal_that_no_wait_mends_is_heard_so_often_and_no_more(wide: World, lasting: int) -> None:
    (job,) = wide.submit(reading())
    reason = Reason(code="data_not_fetched", values={"data": NAME, "why": "x", "lasting": lasting})
    for _ in range(MOST_LASTING):
        run = wide.run_of(job)
        wide.accept(run)
        failed = Ended(run=run.id, epoch=run.epoch, state="failed", reason=reason, is_start_failure=True)
        wide.report(run.site, failed)
        for _ in range(200):
            if job.id in wide.view.jobs.rows and not wide.view.runs:
                wide.pass_ms(1_000, NEAR, FAR)
    ends = [each for each in wide.events if isinstance(each, JobEnded)]
    assert [each.job for each in ends] == [job.id] * lasting


@pytest.mark.parametrize("is_laid", [True, False])
def test_the_room_of_laid_data_is_free_once_the_run_runs(wide: World, is_laid: bool) -> None:
    wide.register("lab7", "dataset/laid", SPEC)
    use = DataUse(id=NAME if is_laid else f"{PREFIX}.lab7/dataset/d", path="d")
    (job,) = wide.submit(task(data=(use,), max_duration_s=3_600))
    run = wide.run_of(job)
    wide.accept(run)
    wide.do(Tick())
    assert [each.run for each in live(wide)] == [run.id], "while it is brought"
    wide.start(run)
    wide.do(Tick())
    assert bool(live(wide)) != is_laid


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({**SPEC, "sha256": ""}, "sha256"),
        ({**SPEC, "sha256": "A" * 64}, "sha256"),
        ({**SPEC, "size_bytes": 0}, "size_bytes"),
        ({**SPEC, "places": [{"url": "file:///d"}]}, "state the `site`"),
        ({**SPEC, "places": [{"url": "ftp://example.org/d"}]}, "url"),
        ({**SPEC, "places": [{"url": "https://example.org/a b"}]}, "url"),
        ({**SPEC, "places": SPEC["places"] * 17}, "places"),
        ({**SPEC, "places": [{"url": "https://example.org/d", "key": "x"}]}, "key"),
    ],
)
def test_a_place_without_hash_size_or_form_is_no_record(wide: World, spec: dict, why: str) -> None:
    with pytest.raises(TielineError) as caught:
        wide.register("lab7", "dataset/laid", spec)
    assert caught.value.code == "record_refused"
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("code", "is_tried_again"),
    [
        ("data_not_fetched", True),
        ("data_over_limit", True),
        ("data_wrong", False),
        ("data_over_disk", False),
    ],
)
def test_a_job_is_tried_elsewhere_where_another_site_may_do_better(
    wide: World, code: str, is_tried_again: bool
) -> None:
    (job,) = wide.submit(reading())
    run = wide.run_of(job)
    reason = Reason(code=code, values={"data": NAME, "why": "x"})
    wide.accept(run)
    wide.report(run.site, Ended(run=run.id, epoch=run.epoch, state="failed", reason=reason, is_start_failure=True))
    said = [each for each in wide.events if isinstance(each, JobQueued | JobEnded) and each.job == job.id][-1]
    assert isinstance(said, JobQueued) == is_tried_again
    assert code in [each.code for each in said.reasons]
    if isinstance(said, JobQueued):
        assert said.avoid == (NEAR,)
