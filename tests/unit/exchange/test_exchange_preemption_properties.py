"""Random stories of projects: what is held adds up, walls hold, passes come to rest, nobody takes turns for ever."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_world import Shared, cards, schedule

from tieline.exchange import preempting, sharing
from tieline.exchange.commands import StopJob
from tieline.model.error import TielineError
from tieline.model.event import JobQueued, RunOffered, StopRequested
from tieline.model.job import Run, RunState
from tieline.model.party import Actor, Role
from tieline.place import Amount
from tieline.place.share import Shares

ADMIN = Actor(name="admin", roles=(Role.ADMIN,))
PROJECTS = ("a", "b", "c")
REST = 60  # rounds within which a world without news comes to rest


class Watched(Shared):
    """A world in which everything that must hold is looked at after each step."""

    def __post_init__(self) -> None:
        self.seen: Counter[str] = Counter()
        super().__post_init__()

    def do(self, command: Any) -> Any:
        before = len(self.events)
        reply = super().do(command)
        for event in self.events[before:]:
            self.look_at(event)
        self.check()
        return reply

    def look_at(self, event: Any) -> None:
        if isinstance(event, RunOffered):
            self.seen["offered"] += 1
            self.check_walls(event.run)
        elif isinstance(event, StopRequested) and event.reason is not None:
            self.seen[event.reason.code] += 1
            assert event.reason.values["job"] in self.view.yielding.kept, "room is kept for whom it is made"
        elif isinstance(event, JobQueued) and event.is_preempted:
            self.seen["gave way"] += 1

    def check_walls(self, run: Run) -> None:
        project = self.view.projects.get(run.project)
        if project is None:
            return
        mine = [each for each in self.view.runs.values() if each.project == run.project]
        if project.quota.card_count and not project.may_borrow:
            assert sum(each.accelerator_count for each in mine) <= project.quota.card_count
        if project.quota.card_hours:
            spent = self.view.spent.get((project.id, "2025-11"))
            pledged = sum(each.pledged_card_ms for each in mine)
            assert (spent.card_ms if spent else 0) + pledged <= project.quota.card_hours * 3_600_000
            self.seen["card-hours"] += 1

    def check(self) -> None:
        """What is held is what live runs hold, and a pass has left nothing behind."""
        view = self.view
        if view.shares is None:
            return
        fresh = Shares(Amount(), view.projects.values())
        held: Counter[str] = Counter()
        for run in view.runs.values():
            amount = Amount(run.accelerator_count, run.core_count, run.memory_bytes)
            fresh.hold(run.project, amount, run.pledged_card_ms, run.pledged_micro_cny)
            held[run.pool] += run.accelerator_count
        for name in (*PROJECTS, ""):
            found, expected = view.shares.standing(name), fresh.standing(name)
            assert found._replace(share=expected.share) == expected
        for at in view.supply.pools.live.tolist():
            pool = view.supply.pools.at(at).id
            assert view.supply.pools.held(pool).accelerators == held[pool]
        assert all(job in view.waiting for job in view.yielding.kept), "room is kept for those who wait"
        assert set(view.yielding.stopping) == {run.id for run in view.runs.values() if run.is_stop_requested}
        self.seen["checked"] += 1
        self.seen["kept"] += len(view.yielding.kept)
        self.quiet()

    def quiet(self) -> None:
        """What a pass let go of is looked at by the next; soon there is nothing to do."""
        now_ms = self.clock.now_ms()
        for _ in range(6):
            found = schedule(self.view, now_ms, self.ids, 1_000)
            if not found:
                return
            self.take(found, now_ms)
            for event in found:
                self.look_at(event)
        raise AssertionError("passes go on without end")

    def rest(self) -> int:
        """Owners accept, who is asked to stop does, and nothing else happens: rounds until nothing changes."""
        for done in range(REST):
            before = len(self.events)
            for run in self.live():
                live = self.view.runs.get(run.id)
                if live is None:
                    continue
                if live.state is RunState.OFFERED:
                    self.start(live)
                elif live.is_stop_requested:
                    self.end(live, "stopped", 143)
            self.pass_ms(2_000, *self.view.sites)
            if len(self.events) == before:
                assert not self.view.yielding.kept, "room is kept for nobody when nobody leaves"
                return done
        raise AssertionError(f"no rest within {REST} rounds: {self.seen}")


def a_world(pick: random.Random) -> Watched:
    found = Watched()
    for owner, site, count in (("lab7", "sh1", 8), ("lab8", "gz1", 4)):
        found.cards(count, owner, site)
    for name in PROJECTS:
        terms(found, name, pick)
    return found


def terms(found: Watched, name: str, pick: random.Random) -> None:
    found.project(
        name,
        pick.choice((0, 2, 4, 6)),
        card_hours=pick.choice((0, 0, 0, 8)),
        weight=pick.choice((1, 2)),
        may_borrow=pick.random() < 0.8,
    )


def step(found: Watched, pick: random.Random) -> None:
    live = found.live()
    what = pick.randrange(10)
    if what < 4:
        task = cards(
            pick.choice((1, 2, 4, 8)),
            keeps=pick.random() < 0.7,
            priority=pick.choice((0, 0, 5, 20)),
            max_duration_s=pick.choice((0, 600)),
        )
        for _ in range(pick.choice((1, 1, 3))):
            found.run(pick.choice((*PROJECTS, "")), task)
    elif what < 6 and live:
        run = pick.choice(live)
        if run.state is RunState.OFFERED:
            found.start(run)
        else:
            found.end(run, *(("stopped", 143) if run.is_stop_requested else ("succeeded", 0)))
    elif what == 6 and live:
        for run in live:
            if run.state is RunState.OFFERED:
                found.start(run)
    elif what == 7:
        terms(found, pick.choice(PROJECTS), pick)
    elif what == 8 and len(found.view.jobs):
        found.do(StopJob(actor=ADMIN, job=pick.choice(list(found.view.jobs))))
    else:
        found.pass_ms(pick.choice((500, 4_000)), *found.view.sites)


def play(seed: int, steps: int = 40) -> Watched:
    pick = random.Random(seed)
    found = a_world(pick)
    for _ in range(steps):
        try:
            step(found, pick)
        except TielineError as error:
            assert error.code != "internal", error  # noqa: PT017 - a refusal is an answer
    found.rest()
    return found


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_whatever_happens_it_adds_up_and_comes_to_rest(seed: int) -> None:
    play(seed)


def test_the_stories_meet_everything_that_they_are_about() -> None:
    seen: Counter[str] = Counter()
    for seed in range(12):
        seen.update(play(seed, 60).seen)
    for name in ("offered", "preempted_for_share", "preempted_for_priority", "gave way", "kept", "card-hours"):
        assert seen[name] > 5, seen


def test_who_waits_by_right_at_rest_waits_for_nobody_who_could_give_way() -> None:
    """At rest: no job by right whose cards a single borrower's run would make free."""
    looked = 0
    for seed in range(70):
        found = play(seed)
        view = found.view
        assert view.shares is not None
        for name in view.waiting:
            job = view.jobs[name]
            asked = job.task.resources[0].accelerator_count
            if not view.shares.is_by_right(job.project, asked) or found.why(job)[0].startswith("quota"):
                continue
            looked += 1
            for run in view.runs.values():
                free = view.supply.pools.free(run.pool).accelerators
                is_free_to = run.is_preemptible and run.project != job.project and view.shares.borrowed(run.project) > 0
                assert not is_free_to or free + run.accelerator_count < asked or run.pool in view.held_back, (
                    seed,
                    name,
                )
    assert looked > 10


PLANTED = {
    "room is not kept": (sharing.Sharing, "keep", lambda _self, _job, _room: None),
    "what is kept is not given back": (sharing.Sharing, "_give_back", lambda self, job: self._reserved.pop(job)),
    "room is kept for ever": (preempting.Preempting, "forget", lambda _self, _row: None),
    "what was placed does not count": (sharing.Sharing, "take", lambda _self, _row, _run: None),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_mistake_is_seen(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, wrong = PLANTED[mistake]
    monkeypatch.setattr(where, name, wrong)
    for seed in range(60):
        try:
            play(seed, 60)
        except AssertionError:
            return
    raise LookupError(f"{mistake}: 60 stories do not show it")
