"""Whatever owners, users, lost sites and restarts do in whatever order: a gang is one, and nothing of it is left."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "exchange"))

from gang_world import GangWorld

from tieline.exchange import gangs, runs
from tieline.exchange.commands import ChangeSite, Tick
from tieline.model.event import GangBroken, JobEnded, JobQueued, RunAccepted, RunConfirmed, RunEnded, RunStarted
from tieline.model.job import Job, JobState, Output, Run, RunState
from tieline.model.party import Actor, Role
from tieline.model.protocol import CheckpointKept
from tieline.model.reason import Reason
from tieline.model.task import Retry

PARTS = (((0, 2), (1, 1)), ((0, 1), (1, 2), (2, 1)), ((0, 1), (0, 2)), ((2, 3), (1, 1), (2, 1)))
SHA = "b" * 64


class Story:
    """Gangs that live through a list of pairs of small numbers."""

    def __init__(self) -> None:
        self.world = GangWorld()
        self.jobs: list[Job] = []
        self.runs: list[Run] = []  # of all gangs that there ever were
        self.seen: Counter[str] = Counter()
        self.looked = 0
        self.confirmed: dict[str, None] = {}
        self.accepted: dict[str, None] = {}
        self.over: dict[str, None] = {}

    def act(self, kind: int, number: int) -> None:
        name, do = ACTIONS[kind % len(ACTIONS)]
        self.world.clock.advance(number % 700)
        do(self, number)
        self.seen[name] += 1
        self.check()

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        view = self.world.view
        for event in self.world.events[self.looked :]:
            self._look(event)
        self.looked = len(self.world.events)
        live: dict[str, list[str]] = {}
        for run in view.runs.values():
            live.setdefault(run.job, []).append(run.id)
        for name, gang in view.gangs.items():
            job = view.jobs[name]
            assert sorted(gang.runs) == sorted(live.get(name, [])), name
            assert gang.is_over == (job.broken is not None or job.is_cancel_requested), name
            held = sum(view.runs[run].held_micro_cny for run in gang.runs)
            assert job.held_micro_cny == held, (name, job.held_micro_cny, held)
        for circuit in view.network.circuits.values():
            assert circuit.job in view.gangs, "a circuit lives without its gang"

    def _look(self, event: Any) -> None:
        match event:
            case RunAccepted(run=run):
                assert run not in self.over
                self.accepted[run] = None
            case RunConfirmed(run=name):
                run = self.world.view.runs.get(name) or self.world.view.recent[name]
                assert all(each.run in self.accepted for each in run.gang), "confirmed before all were accepted"
                self.confirmed[name] = None
            case RunStarted(run=name):
                assert name in self.confirmed, "started before all were accepted"
            case RunEnded():
                assert event.run not in self.over, "it ended twice"
                self.over[event.run] = None
                assert event.usage is None or event.run in self.confirmed, "paid for waiting"
                self.seen[f"a run {event.state.value}"] += 1
            case GangBroken():
                self.seen["broken"] += 1
            case JobQueued():
                self.seen["queued again"] += 1
            case JobEnded():
                self.seen[f"a job {event.state.value}"] += 1
            case _:
                return

    def settle(self) -> None:
        """Everybody ends what it was asked to, or what it runs; then nothing may be left over."""
        for _ in range(20):
            for run in [run for run in self.world.view.runs.values() if run.state is not RunState.OFFERED]:
                asked = run.is_stop_requested or not run.is_confirmed
                self.world.ends(run, "stopped" if asked else "succeeded", 143 if asked else 0)
                self.check()
            self.world.tick(6_000)
            self.check()
            if not self.world.view.gangs:
                break
        view = self.world.view
        assert not view.gangs
        assert not view.runs
        assert not view.network.joins
        assert not view.network.circuits
        for site in self.world.sites:
            assert tuple(view.supply.pools.held(f"{site.split('/')[0]}/pool/s")) == (0, 0, 0)
        for job in self.jobs:
            kept = self.world.kept(job)
            assert kept.held_micro_cny == 0
            assert kept.state is JobState.SUCCEEDED or kept.reasons, "it says why"
            charges = [each.usage.charge_micro_cny for each in self.world.events
                       if isinstance(each, RunEnded) and each.usage and each.usage.job == job.id]  # fmt: skip
            assert kept.charged_micro_cny == sum(charges)

    # -- actions ------------------------------------------------------------------------------------------------------

    def pick(self, number: int) -> Run | None:
        """A run of any gang, mostly of the newest ones."""
        return self.runs[-1 - number % min(9, len(self.runs))] if self.runs else None

    def book(self, number: int) -> None:
        waiting = [job for job in self.jobs if job.id in self.world.view.waiting]
        if len(self.world.view.gangs) >= 3:
            return
        if waiting and number % 3:
            job = waiting[number % len(waiting)]
        else:
            job = self.world.submitted(retry=Retry(limit=number % 3), max_duration_s=60)
            self.jobs.append(job)
        self.runs += self.world.book(job, *PARTS[number % len(PARTS)])

    def said(self, number: int, kind: str) -> None:
        run = self.pick(number // 3)
        if run is None:
            return
        stranger = number % 11 == 0
        epoch = run.epoch + (number % 7 == 0)
        known = self.world.view.runs.get(run.id)
        if stranger:
            others = [site for site in self.world.sites if site != run.site]
            run = Run(**{name: getattr(run, name) for name in run.__struct_fields__ if name != "site"}, site=others[0])
        if self.world.view.sites[run.site].has_left:
            return
        outcome = SAYS[kind](self.world, run, epoch, number)
        if stranger or epoch != run.epoch:
            assert not outcome.is_ok or known is None, (kind, outcome)


SAYS: dict[str, Callable[[GangWorld, Run, int, int], Any]] = {
    "accepts": lambda world, run, epoch, number: world.accepts(run) if epoch == run.epoch else world.said(
        run, runs.Accepted, epoch=epoch, sandbox="none", network="host"),
    "refuses": lambda world, run, epoch, number: world.said(
        run, runs.Refused, epoch=epoch,
        reason=Reason(code=("site_draining", "quote_not_open")[number % 2], values={})),
    "starts": lambda world, run, epoch, number: world.said(
        run, runs.Started, epoch=epoch, at_ms=world.clock.now_ms()),
    "keeps": lambda world, run, epoch, number: world.said(
        run, CheckpointKept, epoch=epoch, sha256=f"{number:064x}", size_bytes=1),
    "succeeds": lambda world, run, epoch, number: world.said(
        run, runs.Ended, epoch=epoch, state="succeeded", exit_codes=(0,), duration_ms=number,
        outputs=(Output(path="o", sha256=SHA, size_bytes=1),)),
    "fails": lambda world, run, epoch, number: world.said(
        run, runs.Ended, epoch=epoch, state="failed", exit_codes=(7,), duration_ms=number,
        is_start_failure=number % 3 == 0),
    "is stopped": lambda world, run, epoch, number: world.said(
        run, runs.Ended, epoch=epoch, state="stopped", exit_codes=(143,), duration_ms=number,
        reason=(None, Reason(code="limit_reached", values={"limit": "time", "value": "1s"}),
                Reason(code="reclaimed", values={"why": "mine"}))[number % 3]),
}  # fmt: skip


def _tick(story: Story, number: int) -> None:
    view = story.world.view
    over = [name for name, gang in view.gangs.items() if gang.is_over]
    story.world.tick(number % 1_500)
    story.world.tick(1)
    for name in over:
        live = view.gangs[name].runs if name in view.gangs else ()
        going_on = [run for run in live if not view.runs[run].is_stop_requested]
        assert not going_on, "one goes on when another one of its gang is gone"


def _go_on(story: Story, number: int) -> None:
    """Everybody takes its part of a gang; mostly all start, and sometimes all succeed."""
    live = list(story.world.view.gangs)
    gang = story.world.view.gangs[live[number % len(live)]] if live else None
    runs = [story.world.view.runs[name] for name in gang.runs] if gang is not None else []
    runs = [run for run in runs if not story.world.view.sites[run.site].has_left]
    for run in runs:
        story.world.accepts(run)
    for run in runs if number % 4 else ():
        story.world.starts(run)
    for run in runs if number % 5 == 1 else ():
        story.world.ends(run, outputs=(Output(path="o", sha256=SHA, size_bytes=1),), duration_ms=number)


def _silence(story: Story, number: int) -> None:
    """Some sites are not heard for longer than their lease."""
    for _ in range(5):
        story.world.clock.advance(2_500)
        for at, site in enumerate(story.world.sites):
            if number >> at & 1:
                story.world.beat(site)
    story.world.do(Tick())


def _forgetful(story: Story, number: int) -> None:
    """A site beats without the runs that it has."""
    story.world.clock.advance(25_000 if number % 2 else 1)
    for site in story.world.sites:
        story.world.beat(site)
    story.world.beat(story.world.sites[number % 3], runs=())


def _cancel(story: Story, number: int) -> None:
    live = [job for job in story.jobs if job.id in story.world.view.gangs]
    if live:
        story.world.cancel(live[number % len(live)])


def _restart(story: Story, number: int) -> None:
    world, before = story.world, story.world.view
    fresh = world.restarted()
    assert dict(fresh.runs) == dict(before.runs)
    assert {name: (sorted(gang.runs), gang.is_over) for name, gang in fresh.gangs.items()} == {
        name: (sorted(gang.runs), gang.is_over) for name, gang in before.gangs.items()
    }
    assert {name: sorted(joins) for name, joins in fresh.network.joins.items()} == {
        name: sorted(joins) for name, joins in before.network.joins.items()
    }
    world.restart()


def _drain(story: Story, number: int) -> None:
    site = story.world.sites[number % 3]
    what = "drain" if number % 2 else "undrain"
    story.world.do(ChangeSite(actor=Actor(name=site, roles=(Role.SITE,)), site=site, what=what))


def _reopen(story: Story, number: int) -> None:
    """A session: what it is told of is what lives, and of a gang that is over no more offers."""
    site = story.world.sites[number % 3]
    _, orders = story.world.open(site)
    for order in orders:
        if getattr(order, "part", None) is not None and order.state == "offered":
            assert not story.world.view.gangs[order.job].is_over


ACTIONS: list[tuple[str, Callable[[Story, int], None]]] = [
    *[("book", Story.book)] * 4,
    *[("goes on", _go_on)] * 7,
    *[("accepts", lambda story, number: story.said(number, "accepts"))] * 10,
    *[("starts", lambda story, number: story.said(number, "starts"))] * 6,
    *[("tick", _tick)] * 6,
    *[("succeeds", lambda story, number: story.said(number, "succeeds"))] * 3,
    ("refuses", lambda story, number: story.said(number, "refuses")),
    *[("fails", lambda story, number: story.said(number, "fails"))] * 2,
    *[("is stopped", lambda story, number: story.said(number, "is stopped"))] * 3,
    ("keeps", lambda story, number: story.said(number, "keeps")),
    ("cancel", _cancel),
    ("silence", _silence),
    ("forgetful", _forgetful),
    *[("restart", _restart)] * 2,
    ("drain", _drain),
    ("reopen", _reopen),
]
STORIES = st.lists(st.tuples(st.integers(0, len(ACTIONS) - 1), st.integers(0, 9_999)), max_size=80)
SEEDS = 60


def live(steps: list[tuple[int, int]]) -> Story:
    story = Story()
    for kind, number in steps:
        story.act(kind, number)
    story.settle()
    return story


def steps_of(seed: int) -> list[tuple[int, int]]:
    source = random.Random(seed)
    return [(source.randrange(len(ACTIONS)), source.randrange(10_000)) for _ in range(150)]


@settings(max_examples=60, deadline=None)
@given(STORIES)
def test_whatever_happens_a_gang_is_one_and_nothing_of_it_is_left_over(steps: list[tuple[int, int]]) -> None:
    live(steps)


def test_seeded_stories_meet_everything_that_can_befall_a_gang() -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        seen += live(steps_of(seed)).seen
    wanted = [f"a run {state}" for state in ("succeeded", "failed", "stopped", "lost", "refused")]
    wanted += [f"a job {state}" for state in ("succeeded", "failed", "cancelled")]
    for name in (*wanted, "broken", "queued again", *dict.fromkeys(name for name, _ in ACTIONS)):
        assert seen[name] >= 10, (name, seen)


PLANTED: dict[str, tuple[Any, str, Any]] = {
    "one starts before the others are accepted": (runs, "_may_start", lambda run: True),
    "one of two is enough": (runs, "_confirmed", lambda view, last, now_ms: [RunConfirmed(run=last.id, at_ms=now_ms)]),
    "the circuits stay": (gangs, "_joins_over", lambda *_: []),
    "nobody else is asked to end": (gangs, "stops_of", lambda *_: []),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, what = PLANTED[mistake]
    monkeypatch.setattr(where, name, what)
    for seed in range(SEEDS):
        try:
            live(steps_of(seed))
        except AssertionError:
            return
    raise AssertionError(f"no story finds that {mistake}")
