"""The queue: the decisions of a pass that walks every job, at the cost of one that looks at shapes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from exchange_world import ADMIN, ALICE, PREFIX, World, task
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.exchange.commands import ChangeSite, StopJob, TakeReport
from tieline.exchange.decide import decide
from tieline.exchange.jobrow import JobRow, brief_of, row_again, row_of, shape_of
from tieline.exchange.offering import offer_run
from tieline.exchange.placing import _ends, demand_for, schedule
from tieline.exchange.queue import Queue
from tieline.exchange.shelf import Shelf
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import RunOffered
from tieline.model.job import JOB_ENDED, Job, JobState, RunState
from tieline.model.party import Actor, Role
from tieline.model.protocol import Ended
from tieline.model.task import Resources
from tieline.place import Placement, choose
from tieline.place.queue import order

GB = 10**9
SECOND = 1_000
USERS = (ALICE, Actor(name="bob", roles=(Role.USER,)))


class Walk:
    """The pass as it was before: every waiting job is walked, each with the version at which it was refused."""

    def __init__(self) -> None:
        self.waiting: dict[str, int] = {}
        self.held_back: dict[str, str] = {}

    def take(self, view: View) -> None:
        """Follow the view: who waits, in the order in which they came to wait."""
        live = {name: job for name, job in view.jobs.items() if job.state is JobState.QUEUED}
        for name in [name for name in self.waiting if name not in live]:
            del self.waiting[name]
        self.held_back = {pool: job for pool, job in self.held_back.items() if job in self.waiting}
        for name in sorted(
            (name for name in live if name not in self.waiting), key=lambda one: view.jobs.rows[one].seq
        ):
            self.waiting[name] = -1

    def schedule(self, view: View, now_ms: int) -> list[RunOffered]:
        """What the pass decides."""
        version = view.supply.version
        jobs = {name: view.jobs[name] for name in self.waiting}
        ready = [
            job
            for name, seen in self.waiting.items()
            if seen != version and not (job := jobs[name]).after and job.eligible_ms <= now_ms
        ]
        if not ready:
            return []
        priorities = np.array([job.task.priority for job in ready], np.int64)
        submitted = np.array([job.submitted_ms for job in ready], np.int64)
        ready = [ready[place] for place in order(priorities, submitted).tolist()]
        answers = choose(
            [demand_for(view, job, now_ms) for job in ready],
            view.supply.pools,
            view.distances,
            now_ms=now_ms,
            ends=_ends(view, now_ms),
            held_back=self.held_back,
        )
        events = []
        for job, answer in zip(ready, answers, strict=True):
            if isinstance(answer, Placement):
                events.append(offer_run(view, job, answer, now_ms))
            else:
                self.waiting[job.id] = version
                if answer.held_back:
                    self.held_back[answer.held_back] = job.id
        return events


class Compared(World):
    """A world whose every pass is compared with the walk."""

    def __post_init__(self) -> None:
        self.walk = Walk()
        self.placed = self.passes = self.kept_back = 0
        super().__post_init__()

    def do(self, command: Any) -> Any:
        now_ms = self.clock.now_ms()
        decision = decide(self.view, command, now_ms, self.ids)
        self.take(decision.events, now_ms)
        self.walk.take(self.view)
        expected = self.walk.schedule(self.view, now_ms)
        found = schedule(self.view, now_ms, self.ids, 1_000_000)
        assert found == expected
        assert self.view.held_back == self.walk.held_back
        self.placed += len(found)
        self.passes += 1
        self.kept_back += len(self.view.held_back)
        self.take(found, now_ms)
        self.walk.take(self.view)
        assert not schedule(self.view, now_ms, self.ids, 1_000_000), "a second pass finds nothing to do"
        return decision.reply


def a_world(policy: str = "") -> Compared:
    world = Compared()
    for owner, site, cores, cards in (("lab7", "sh1", 4, 0), ("lab8", "gz1", 8, 4), ("lab9", "bj1", 2, 8)):
        card = {"accelerator": "a100", "accelerator_count": cards} if cards else {}
        spec = {"core_count": cores, "memory_bytes": 32 * GB, "policy": policy, **card}
        world.join(owner, site, price_micro_cny_per_accelerator_hour=100_000, **spec)
    return world


def play(world: Compared, pick: random.Random, steps: int) -> None:
    """Submissions, ends, cancellations, losses and time, in any order."""
    sites = list(world.view.sites)
    for _ in range(steps):
        live = list(world.view.runs.values())
        what = pick.randrange(12)
        try:
            if what < 5:
                cards = (
                    {"accelerator": "a100", "accelerator_count": pick.choice((1, 4, 8))} if pick.random() < 0.4 else {}
                )
                world.submit(
                    *(
                        task(
                            pick.choice(("t", "u")),
                            resources=(Resources(core_count=pick.choice((1, 2, 8)), **cards),),
                            priority=pick.choice((0, 0, 1, 5)),
                            max_duration_s=pick.choice((0, 0, 20, 90)),
                            deadline_s=pick.choice((0, 0, 0, 100)),
                            labels={"team": pick.choice("ab")},
                        )
                        for _ in range(pick.choice((1, 1, 1, 2)))
                    ),
                    actor=pick.choice(USERS),
                )
            elif what == 5 and live:
                run = pick.choice(live)
                if run.state is RunState.OFFERED:
                    world.start(run)
            elif what in (6, 7) and live:
                run = pick.choice(live)
                if run.state is RunState.RUNNING:
                    world.end(run)
                else:
                    world.accept(run)
            elif what == 8 and len(world.view.jobs):
                world.do(StopJob(actor=ADMIN, job=pick.choice(list(world.view.jobs))))
            elif what == 9:
                world.do(ChangeSite(actor=ADMIN, site=pick.choice(sites), what=pick.choice(("drain", "undrain"))))
            else:
                world.pass_ms(pick.choice((1, 700, 9_000, 45_000)), *sites[: pick.choice((2, 3, 3))])
        except TielineError as error:
            assert error.code != "internal", error  # noqa: PT017 - a refusal is an answer


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from(("", "name == 't'", "cores <= 2 or duration <= 30s")))
def test_a_pass_over_shapes_decides_what_a_walk_over_all_jobs_would(seed: int, policy: str) -> None:
    play(a_world(policy), random.Random(seed), 60)


def test_the_comparison_meets_everything_that_it_is_about() -> None:
    placed = kept_back = 0
    for seed in range(6):
        world = a_world()
        play(world, random.Random(seed), 150)
        placed += world.placed
        kept_back += world.kept_back
    assert placed > 100
    assert kept_back > 20


def filled(count: int, **fields: Any) -> tuple[World, str]:
    """A world with one full pool, and so many jobs that wait for it."""
    world = World()
    site = world.join("lab7", "sh1", core_count=1, memory_bytes=GB)
    world.submit(task("first"))
    for at in range(count):
        world.submit(task(f"t{at}", **fields))
    return world, site


def test_a_pass_looks_at_one_job_of_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    from tieline.exchange import placing

    world, site = filled(50)
    looked: list[str] = []
    asked = placing.demand_at
    monkeypatch.setattr(
        placing, "demand_at", lambda view, row, now_ms: looked.append(row.id) or asked(view, row, now_ms)
    )
    world.beat(site)
    assert not looked, "nothing changed"
    world.view.supply.version += 1
    world.beat(site)
    assert len(looked) == 1
    assert world.view.waiting.shapes == 1
    world.end(next(iter(world.view.runs.values())))
    assert len(looked) == 3, "the first takes the place, the second is refused for all behind it"


def test_everybody_has_a_turn_though_something_changes_all_the_time() -> None:
    world = World()
    world.join("lab7", "sh1", core_count=1, memory_bytes=GB)
    world.join("lab8", "gz1", core_count=1, memory_bytes=GB, accelerator="a100", accelerator_count=1)
    card = Resources(accelerator="a100", accelerator_count=1)
    world.submit(task("first"))
    world.submit(task("card", resources=(card,)))
    held = next(run for run in world.view.runs.values() if run.accelerator_count)
    for at in range(3_000):
        world.submit(task(f"t{at}", max_duration_s=1 + at))
    (last,) = world.submit(task("last", resources=(card,)))
    report = TakeReport(site=held.site, report=Ended(run=held.id, epoch=held.epoch, state="succeeded"))
    world.take(decide(world.view, report, world.clock.now_ms(), world.ids).events, world.clock.now_ms())
    view, passes = world.view, 0
    placed: list[Any] = []
    while not placed:
        passes += 1
        assert passes < 1_000
        placed = schedule(view, world.clock.now_ms(), world.ids, 4)
        view.supply.version += 1
    assert [event.run.job for event in placed] == [last.id]
    assert passes > 10


def test_jobs_that_leave_do_not_stay_in_the_queue() -> None:
    world, _ = filled(300)
    names = list(world.view.waiting)
    assert len(names) == len(world.view.waiting) == 300
    for name in names[5:]:
        world.do(StopJob(actor=ALICE, job=name))
    queue = world.view.waiting
    assert len(queue) == 5
    line = next(iter(queue._lines.values()))
    assert len(line.jobs.items) + len(line.fresh.items) < 200, "what was struck out is cleared away"
    assert world.view.jobs.counts[JobState.QUEUED] == 5


def test_entries_that_lead_nowhere_are_cleared_away() -> None:
    queue = Queue({})
    for at in range(20_000):
        row = JobRow(submitted_ms=at, seq=at, id=str(at), state=JobState.QUEUED, user="u", shape=at + 1)
        queue.add(row)
        queue.remove(row)
    assert len(queue) == queue.shapes == 0
    assert len(queue._ready) < 5_000


def test_deadlines_end_in_order_and_a_bounded_number_at_once() -> None:
    queue = Queue({})
    rows = [
        JobRow(submitted_ms=at, seq=at, id=str(at), state=JobState.QUEUED, user="u", shape=1, deadline_ms=1_000 - at)
        for at in range(100)
    ]
    for row in rows:
        queue.add(row)
    queue.remove(rows[-1])
    assert [row.id for row in queue.overdue(904, 3)] == ["98", "97", "96"]
    assert [row.id for row in queue.overdue(904, 3)] == ["98", "97", "96"], "asking ends nothing"
    assert not queue.overdue(900, 3)


class Only:
    """A share that lets one project take nothing, and puts another behind everybody."""

    def turn_ms(self, row: JobRow) -> int:
        return row.turn_ms + (10**9 if row.project == "late" else 0)

    def may_take(self, row: JobRow) -> bool:
        return row.project != "full"


def test_a_share_decides_whose_turn_it_is_and_who_may_take_more() -> None:
    rows = {
        str(at): JobRow(
            submitted_ms=at, seq=at, id=str(at), state=JobState.QUEUED, user="u", shape=shape, project=project
        )
        for at, (shape, project) in enumerate([(1, "late"), (2, "full"), (3, "new"), (3, "new"), (1, "late")])
    }
    for row in rows.values():
        row.turn_ms = row.submitted_ms
    queue = Queue(rows)
    for row in rows.values():
        queue.add(row)
    turns = queue.turns(1, 100, Only())
    assert turns is not None
    seen = []
    while (row := turns.next()) is not None:
        seen.append(row.id)
        turns.take() if row.project == "new" else turns.refuse()
    turns.close()
    assert seen == ["2", "3", "0"]
    assert queue.turns(1, 100, Only()) is None or not [row for row in _all(queue, 1) if row.project != "new"]
    assert {row.project for row in _all(queue, 2)} == {"late", "new"}, "a new version looks at everybody again"


def _all(queue: Queue, version: int) -> list[JobRow]:
    turns = queue.turns(version, 100, Only())
    found = []
    while turns is not None and (row := turns.next()) is not None:
        found.append(row)
        turns.refuse()
    return found


# -- the shelf --------------------------------------------------------------------------------------------------------


class Kept:
    """A store of jobs."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.asked: list[str] = []

    def __call__(self, names: Any) -> dict[str, Job]:
        self.asked += names
        return {name: self.jobs[name] for name in names if name in self.jobs}


def a_job(at: int, **fields: Any) -> Job:
    state = fields.pop("state", JobState.QUEUED)
    return Job(
        id=f"{PREFIX}/job/j-{at}", user="alice", state=state, task=task(**fields), submitted_ms=at, eligible_ms=at
    )


def test_the_shelf_keeps_few_jobs_whole_and_finds_the_others() -> None:
    kept = Kept()
    shelf = Shelf(kept, most_bytes=20 * 2_600)
    jobs = [a_job(at) for at in range(200)]
    for job in jobs:
        shelf.put(job)
    assert len(shelf) == 200
    assert not kept.asked
    assert shelf[jobs[0].id] is jobs[0], "what is not kept yet is here"
    kept.jobs = {job.id: job for job in jobs}
    shelf.settle()
    for job in jobs[180:]:
        shelf.put(job)
        shelf.settle()
    whole = len(shelf._kept)
    assert whole <= 200
    for job in jobs:
        assert shelf[job.id] == job
    assert len(shelf._kept) <= 21
    assert kept.asked
    assert shelf.peek(jobs[0].id) == jobs[0]
    assert shelf == {job.id: job for job in jobs}
    shelf.end(jobs[3].id)
    assert jobs[3].id not in shelf
    assert shelf.get(jobs[3].id) is None
    assert shelf.peek(jobs[3].id) is None


def test_a_live_job_that_the_store_lost_is_a_defect_and_not_nobody() -> None:
    shelf = Shelf(Kept(), most_bytes=1)
    shelf.put(a_job(1))
    shelf.settle()
    shelf.put(a_job(2))
    shelf.settle()
    with pytest.raises(TielineError, match="not in the store"):
        shelf[a_job(1).id]


def test_large_scripts_count() -> None:
    kept = Kept()
    shelf = Shelf(kept, most_bytes=100_000)
    for at in range(10):
        job = a_job(at, envs={"A": "x" * 60_000})
        kept.jobs[job.id] = job
        shelf.put(job)
        shelf.settle()
    assert len(shelf._kept) == 1


# -- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_comes_back_from_the_store_as_it_was() -> None:
    job = a_job(7, priority=3, deadline_s=60, labels={"a": "b"})
    row = row_again(brief_of(row_of(job, 0)))
    row.seq = 5
    assert row == row_of(job, 5)
    assert row.turn_ms == 7 - 3 * 60_000
    assert row.deadline_ms == 60_007


def test_jobs_that_ask_for_the_same_have_one_shape_whatever_they_are_called() -> None:
    assert shape_of(a_job(1, name="a")) == shape_of(a_job(2, name="b"))
    different = [
        a_job(1),
        a_job(1, cores=2),
        a_job(1, priority=1),
        a_job(1, max_duration_s=5),
        a_job(1, network="none"),
    ]
    assert len({shape_of(job) for job in different}) == len(different)


def test_states_that_end_are_no_rows() -> None:
    shelf = Shelf()
    shelf.put(a_job(1, state=JobState.RUNNING))
    assert shelf.counts[JobState.RUNNING] == 1
    assert not [row for row in shelf.rows.values() if row.state in JOB_ENDED]
