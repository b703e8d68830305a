"""Whatever an exchange, a network and crashes do: nothing is oversold, no run is doubled, each end is told once."""

from __future__ import annotations

import random
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from site_world import CHOICES, World

from tieline.model.protocol import Outcome
from tieline.site import machine, stimulus
from tieline.site import turn as moves
from tieline.site.admission import Admission
from tieline.site.instruction import Persist
from tieline.site.state import Phase

STORIES = st.lists(st.tuples(st.integers(0, len(CHOICES) - 1), st.integers(0, 999)), max_size=150)

SEEDS = 400


def live(story: list[tuple[int, int]], world: World | None = None) -> World:
    world = world or World()
    for kind, number in story:
        world.act(kind, number)
    world.settle()
    return world


def story_of(seed: int, length: int = 250) -> list[tuple[int, int]]:
    source = random.Random(seed)
    return [(source.randrange(len(CHOICES)), source.randrange(1_000)) for _ in range(length)]


@settings(max_examples=250, deadline=None)
@given(STORIES)
def test_no_story_oversells_doubles_or_loses_a_run(story: list[tuple[int, int]]):
    live(story)


def test_seeded_stories_meet_every_fault_and_hold():
    faults: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for seed in range(SEEDS):
        world = live(story_of(seed))
        faults += world.faults
        reached += world.reached
        ended.update(report.state for booked in world.runs.values() for report in booked.terminals)
    for name in (
        "site crashed", "order repeated", "order out of order", "order lost", "outcome lost",
        "outcome late or repeated", "run fenced", "start failed", "line cut",
    ):  # fmt: skip
        assert faults[name] >= 50, (name, faults)
    assert reached["runs begun"] >= 1_000
    assert reached["runs at once"] >= 500
    assert min(reached[what] for what in ("gangs confirmed", "gangs broken", "told to wait")) >= 200, reached
    assert set(ended) == {"succeeded", "failed", "stopped"}, ended


@settings(max_examples=100, deadline=None)
@given(STORIES, st.integers(0, 10))
def test_a_crash_after_any_story_forgets_nothing(story: list[tuple[int, int]], salt: int):
    world = World()
    for kind, number in story:
        world.act(kind, number + salt)
    before = {run: held.phase for run, held in world.state.runs.items()}
    devices = {run: held.devices for run, held in world.state.runs.items()}
    world.crash()
    assert set(world.state.runs) == set(before)
    for run, held in world.state.runs.items():
        assert held.devices == devices[run]
        assert (held.phase is Phase.ENDED) == (before[run] is Phase.ENDED)


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_a_stimulus_that_comes_twice_changes_the_state_no_further(story: list[tuple[int, int]]):
    world = World()
    for kind, number in story:
        world.act(kind, number)
    for order in world.orders[:5]:
        twice(world, stimulus.Ordered(order=order))
    for report in list(world.outbox.values())[:5]:
        twice(world, stimulus.Answered(report=report, outcome=Outcome(is_ok=True)))


def twice(world: World, what: stimulus.Stimulus) -> None:
    once, _ = machine.step(world.state, what, world.now_ms)
    again, _ = machine.step(once, what, world.now_ms)
    assert msgspec.json.encode(again) == msgspec.json.encode(once)


# -- the checks are checked: every planted mistake is found ------------------------------------------------------------


def copy_of(**planted: Any) -> types.ModuleType:
    """The machine with some of its functions replaced, leaving the real one alone."""
    module = types.ModuleType("planted")
    path = Path(machine.__file__)
    exec(compile(path.read_text(), path, "exec"), module.__dict__)
    module.__dict__.update(planted)
    handlers = module.__dict__["HANDLERS"]
    for kind, handler in list(handlers.items()):
        if handler.__name__ in planted:
            handlers[kind] = planted[handler.__name__]
    return module


def found_in(module: types.ModuleType) -> str:
    """What the first failing story says; empty when all stories hold."""
    for seed in range(SEEDS):
        try:
            live(story_of(seed), World(module))
        except AssertionError as error:
            return str(error) or "an assertion"
    return ""


def start_at_once(turn: Any, offer: Any) -> None:
    machine._offer(turn, offer)
    held = turn.state.runs.get(offer.run)
    if held is not None and held.phase is Phase.ACCEPTING:
        turn.do(machine.Start(held=turn.put(moves.replace(held, phase=Phase.LAUNCHING, launched_ms=1))))


def admit_anything(state: Any, offer: Any) -> Any:
    pool = state.pools[offer.pool]
    admission = machine.admit(state, offer)
    if isinstance(admission, Admission):
        return admission._replace(devices=pool.devices[: offer.accelerator_count])
    return admission


def start_beside_the_older(turn: Any, report: Any, sealed: str) -> None:
    held = turn.state.runs.get(report.run)
    if held is not None and held.phase is Phase.ACCEPTING:
        turn.do(machine.Start(held=turn.put(moves.replace(held, phase=Phase.LAUNCHING, launched_ms=1))))


def start_when_told_to_wait(turn: Any, answered: Any) -> None:
    report, outcome = answered.report, answered.outcome
    if outcome.what == "wait":
        machine._accepted(turn, report, "")
    else:
        machine._answered(turn, answered)


def accept_without_a_journal(turn: Any, offer: Any) -> None:
    machine._offer(turn, offer)
    turn.instructions[:] = [told for told in turn.instructions if not isinstance(told, Persist)]


def forget_before_the_outcome(turn: Any, over: Any) -> None:
    machine._handed_over(turn, over)
    turn.change(runs={run: held for run, held in turn.state.runs.items() if run != over.run})


def stay_when_not_listed(turn: Any, welcome: Any) -> None:
    turn.change(is_connected=True)
    for order in welcome.orders:
        machine._ordered(turn, stimulus.Ordered(order=order))


PLANTED: dict[str, Callable[[], types.ModuleType]] = {
    "a run starts before its outcome": lambda: copy_of(_offer=start_at_once),
    "a member starts before its whole gang is accepted": lambda: copy_of(_answered=start_when_told_to_wait),
    "an accepted run is not journalled": lambda: copy_of(_offer=accept_without_a_journal),
    "the same devices are given again": lambda: copy_of(admit=admit_anything),
    "a newer epoch starts beside the older": lambda: copy_of(_accepted=start_beside_the_older),
    "the end is forgotten before it was taken": lambda: copy_of(_handed_over=forget_before_the_outcome),
    "runs that are not ours any more go on": lambda: copy_of(_welcomed=stay_when_not_listed),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_found(mistake: str):
    assert found_in(PLANTED[mistake]()), mistake
