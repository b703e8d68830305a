"""Yielding: the live runs that may give way to others or are about to end, and the room that is kept where they were.

Kept from runs as they change; who gives way, and for whom, `preempting` decides.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from tieline.model.job import RUN_ENDED, Run, RunState
from tieline.place import Amount

ACTIVE = (RunState.ACCEPTED, RunState.RUNNING)


class KeptRoom(NamedTuple):
    """Room that is kept for a job that waits, from when others were asked to give way until it takes the room."""

    pool: str
    project: str
    amount: Amount
    shape: int  # of the job: one of its shape may take the room of another


class Yielding:
    """Live runs that keep checkpoints, and those that were asked to stop, by pool. Last value only: `kept`, asks."""

    def __init__(self) -> None:
        self.pools: dict[str, dict[str, None]] = {}
        self.stopping: dict[str, Run] = {}
        self.priorities: Counter[int] = Counter()  # of those that may be asked
        self.kept: dict[str, KeptRoom] = {}  # job that waits -> what is kept for it
        self.asked_ms: dict[str, int] = {}  # job -> when it was last asked in vain who may give way for it
        self.is_wanted = False  # somebody waits who would take the cards of others
        self.look_ms = 0  # then everybody is looked at again; 0: nothing was left out
        self.month = ""  # at the last look at the calendar
        self._askable: dict[str, int] = {}  # run -> its priority

    def put(self, run: Run) -> bool:
        """A run, new, changed or ended. True where somebody may be asked who could not be before, and is wanted."""
        if not run.is_preemptible and not run.is_stop_requested and run.pool not in self.pools:
            return False  # nearly always
        is_live = run.state not in RUN_ENDED
        is_stopping = is_live and run.is_stop_requested
        is_askable = run.is_preemptible and run.state in ACTIVE and not is_stopping
        if is_stopping:
            self.stopping[run.id] = run
        elif run.id in self.stopping:
            del self.stopping[run.id]
        before = self._askable.pop(run.id, None)
        if before is not None:
            self.priorities[before] -= 1
            if not self.priorities[before]:
                del self.priorities[before]
        if is_askable:
            self._askable[run.id] = run.priority
            self.priorities[run.priority] += 1
        if is_askable or is_stopping:
            self.pools.setdefault(run.pool, {})[run.id] = None
        else:
            here = self.pools.get(run.pool)
            if here is not None:
                here.pop(run.id, None)
                if not here:
                    del self.pools[run.pool]
        return is_askable and before is None and self.is_wanted
