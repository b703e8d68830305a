"""Shrink: a long story that breaks an invariant, cut down to a short one that still breaks the same.

Delta debugging (Zeller and Hildebrandt, IEEE TSE 2002): leave out ever smaller parts of the happenings while the same
invariant still fails; then nodes that nothing happens to; then make what is left simpler. Bounded by ``most`` plays.
"""

from __future__ import annotations

import msgspec

from tieline.sim.planted import planted
from tieline.sim.play import Outcome, play
from tieline.sim.story import Happening, Shape, Story

replace = msgspec.structs.replace
Happenings = tuple[Happening, ...]


class Shrunk(msgspec.Struct, frozen=True, kw_only=True):
    """The shortest story that was found, and how it ends."""

    story: Story
    outcome: Outcome
    plays: int


class _Trial:
    """Plays stories and remembers the shortest that still shows it."""

    def __init__(self, story: Story, outcome: Outcome, mistake: str, most: int) -> None:
        self.story, self.outcome, self.mistake, self.left = story, outcome, mistake, most
        self.plays = 0

    def shows(self, story: Story) -> bool:
        """Whether ``story`` breaks the same; if so it is the best so far."""
        if self.left <= 0:
            return False
        self.left -= 1
        self.plays += 1
        with planted(self.mistake):
            outcome = play(story)
        if outcome.invariant != self.outcome.invariant:
            return False
        self.story, self.outcome = story, outcome
        return True


def shrink(story: Story, outcome: Outcome, *, mistake: str = "", most: int = 300) -> Shrunk:
    """A short story that breaks ``outcome.invariant`` as ``story`` does."""
    trial = _Trial(story, outcome, mistake, most)
    after = tuple(each for each in story.happenings if each.at_ms <= outcome.at_ms)
    if len(after) < len(story.happenings):
        trial.shows(replace(story, happenings=after))
    _drop_happenings(trial)
    _drop_nodes(trial)
    _simplify(trial)
    _drop_happenings(trial)
    return Shrunk(story=trial.story, outcome=trial.outcome, plays=trial.plays)


def _drop_happenings(trial: _Trial) -> None:
    parts = 2
    while trial.left > 0 and trial.story.happenings:
        happenings = trial.story.happenings
        size = max(1, -(-len(happenings) // parts))
        for begin in range(0, len(happenings), size):
            rest = happenings[:begin] + happenings[begin + size :]
            if trial.shows(replace(trial.story, happenings=rest)):
                parts = max(2, parts - 1)
                break
        else:
            if size == 1:
                return
            parts = min(len(happenings), parts * 2)


def _drop_nodes(trial: _Trial) -> None:
    for field in ("sites", "users", "exchanges"):
        while trial.left > 0:
            count = getattr(trial.story, field)
            last = f"{field[0] if field != 'exchanges' else 'x'}{count}"
            is_used = any(last in (each.node, each.other) for each in trial.story.happenings)
            if count <= 1 or is_used or not trial.shows(replace(trial.story, **{field: count - 1})):
                break


def _simplify(trial: _Trial) -> None:
    """Plain jobs, shorter faults."""
    for place in range(len(trial.story.happenings)):
        for make in (_plain, _shorter):
            happenings = trial.story.happenings
            simpler = make(happenings[place])
            if simpler != happenings[place]:
                changed = (*happenings[:place], simpler, *happenings[place + 1 :])
                trial.shows(replace(trial.story, happenings=changed))


def _plain(happening: Happening) -> Happening:
    shape = happening.shape
    return happening if shape is None else replace(happening, shape=Shape(duration_ms=shape.duration_ms))


def _shorter(happening: Happening) -> Happening:
    return replace(happening, for_ms=happening.for_ms // 4)
