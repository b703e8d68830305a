"""Play: one story from its beginning to the quiet after it, and what became of it."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from typing import Any

import msgspec

from tieline.sim.doing import begin
from tieline.sim.story import Story
from tieline.sim.violation import Checks, ViolationError
from tieline.sim.world import World


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a story. ``sha256`` is of the whole history, up to the violation where there was one."""

    seed: int
    sha256: str
    events: int
    ms: int  # of simulated time
    jobs: int
    faults: dict[str, int]
    checks: dict[str, int]
    invariant: str = ""  # that does not hold
    what: str = ""
    at_ms: int = 0
    last: tuple[str, ...] = ()  # of the history, before the violation


class Defects(logging.Handler):
    """Keeps what the product logs of a defect, and lets nothing through."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the traceback."""
        if record.exc_info:
            self.world.defect = "".join(traceback.format_exception(*record.exc_info))[-2_000:]


def play(story: Story) -> Outcome:
    """Let ``story`` happen. An exception of the product is a violation too."""
    log = logging.getLogger("tieline.writer")
    world: World | None = None
    handler: Defects | None = None
    was_propagating = log.propagate
    log.propagate = False
    invariant = what = ""
    try:
        world = World(story)
        handler = Defects(world)
        log.addHandler(handler)
        for happening in story.happenings:
            begin(world, happening)
        world.advance(story.horizon_ms + 1)
        world.settle()
    except ViolationError as violation:
        invariant, what = violation.invariant, violation.what
    except Exception as error:  # noqa: BLE001 - whatever it is, the story found it
        invariant = "nothing breaks"
        what = f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1_500:]}"
    finally:
        log.propagate = was_propagating
        if handler is not None:
            log.removeHandler(handler)
    return _outcome(story, world, invariant, what)


def _outcome(story: Story, world: World | None, invariant: str, what: str) -> Outcome:
    checks: Checks = world.checks if world is not None else Checks()
    faults: Counter[str] = world.faults if world is not None else Counter()
    fields: dict[str, Any] = {}
    if world is not None and invariant:
        fields = {
            "at_ms": world.timeline.now_ms,
            "last": tuple(f"{at_ms / 1000:8.3f} s  {line}" for at_ms, line in world.chronicle.lines),
        }
    return Outcome(
        seed=story.seed,
        sha256=world.sha256 if world is not None else "",
        events=world.timeline.happened if world is not None else 0,
        ms=world.timeline.now_ms if world is not None else 0,
        jobs=sum(len(exchange.books.jobs) for exchange in world.exchanges.values()) if world is not None else 0,
        faults=dict(sorted(faults.items())),
        checks=dict(sorted(checks.counts.items())),
        invariant=invariant,
        what=what,
        **fields,
    )
