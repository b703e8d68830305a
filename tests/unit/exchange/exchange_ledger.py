"""A second set of books, kept from events alone: what must hold whatever happens to an exchange.

It shares no code with the view. `take` raises AssertionError at the first event after which something does not hold.
"""

from __future__ import annotations

from collections import Counter

from tieline.model import event as fact
from tieline.model.job import Job, JobState, Run, RunState, Usage

BILLED = (RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED)


class Ledger:
    """Jobs, runs, holds and usage as the log tells them; ``checked`` counts how often each invariant was looked at."""

    def __init__(self, capacity: dict[str, tuple[int, int, int]]) -> None:
        self.capacity = capacity  # pool -> accelerators, cores, bytes of memory
        self.jobs: dict[str, Job] = {}
        self.ended: dict[str, JobState] = {}
        self.runs: dict[str, Run] = {}
        self.live: dict[str, str] = {}  # job -> its live run
        self.epochs: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self.over: dict[str, RunState] = {}
        self.held: dict[str, tuple[int, int, int]] = {}
        self.usages: dict[str, Usage] = {}
        self.checked: Counter[str] = Counter()

    def take(self, event: fact.Event) -> None:
        """Book one event."""
        if isinstance(event, fact.JobSubmitted):
            self.hold_true("a job has one beginning", event.job.id not in self.jobs, event.job.id)
            self.jobs[event.job.id] = event.job
        elif isinstance(event, fact.RunOffered):
            self._offered(event.run)
        elif isinstance(event, fact.RunAccepted):
            self.hold_true("an ended run is not accepted", event.run not in self.over, event.run)
            self.accepted.add(event.run)
        elif isinstance(event, fact.RunEnded):
            self._run_ended(event)
        elif isinstance(event, fact.JobQueued):
            self.hold_true("waiting again has a reason", bool(event.reasons), event)
            self.hold_true("nothing follows a job's end", event.job not in self.ended, event)
        elif isinstance(event, fact.JobEnded):
            self._job_ended(event)

    def hold_true(self, invariant: str, is_so: bool, what: object = "") -> None:
        """Count one check of ``invariant``, and fail when it does not hold."""
        self.checked[invariant] += 1
        assert is_so, f"{invariant}: {what}"

    def _offered(self, run: Run) -> None:
        self.hold_true("nothing follows a job's end", run.job in self.jobs and run.job not in self.ended, run.id)
        self.hold_true("a job has one live run", run.job not in self.live, run.id)
        self.hold_true("epochs only grow", run.epoch > self.epochs[run.job], run.id)
        self.epochs[run.job] = run.epoch
        self.runs[run.id], self.live[run.job] = run, run.id
        self._hold(run, 1)
        capacity = self.capacity.get(run.pool)
        self.hold_true(
            "no pool is oversold",
            capacity is not None and all(h <= c for h, c in zip(self.held[run.pool], capacity, strict=True)),
            f"{run.id} on {run.pool}: {self.held[run.pool]} of {capacity}",
        )

    def _hold(self, run: Run, sign: int) -> None:
        amount = (run.accelerator_count, run.core_count, run.memory_bytes)
        before = self.held.get(run.pool, (0, 0, 0))
        self.held[run.pool] = (
            before[0] + sign * amount[0],
            before[1] + sign * amount[1],
            before[2] + sign * amount[2],
        )

    def _run_ended(self, event: fact.RunEnded) -> None:
        run = self.runs[event.run]
        self.hold_true("a run ends once", event.run not in self.over, event.run)
        self.over[event.run] = event.state
        self.live.pop(run.job)
        self._hold(run, -1)
        if event.state is not RunState.SUCCEEDED and run.job not in self.ended:
            self.hold_true("a bad end has a reason", event.reason is not None or event.state is RunState.STOPPED, event)
        if event.usage is None:
            return
        usage = event.usage
        self.hold_true("a run is billed once", usage.run == event.run and usage.run not in self.usages, event.run)
        self.hold_true("only an accepted run is billed", event.run in self.accepted, event.run)
        self.hold_true("a fenced run bills nothing", event.state in BILLED, event)
        paid = usage.charge_micro_cny * 3_600 + usage.remainder
        owed = usage.unit_seconds * run.price_micro_cny_per_unit_hour
        self.hold_true("money is conserved", paid == owed and 0 <= usage.remainder < 3_600, usage)
        self.usages[event.run] = usage

    def _job_ended(self, event: fact.JobEnded) -> None:
        self.hold_true("a job ends once", event.job in self.jobs and event.job not in self.ended, event.job)
        self.hold_true("an ended job has no live run", event.job not in self.live, event.job)
        is_good = event.state is JobState.SUCCEEDED
        self.hold_true("a job that did not succeed says why", is_good or bool(event.reasons), event)
        self.ended[event.job] = event.state

    @property
    def waiting(self) -> list[str]:
        """Acknowledged jobs that have not ended."""
        return [name for name in self.jobs if name not in self.ended]
