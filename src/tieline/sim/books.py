"""Books: a second set of books of one exchange, kept from its log alone. It shares no code with the view.

After every batch the new entries are read back from the disk and booked; the first that does not fit is a violation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from tieline.drivers.stores.log import LogRow, decode_event
from tieline.model import event as fact
from tieline.model.job import Job, JobState, Run, RunState, Usage
from tieline.model.peer import Origin
from tieline.sim.gangs import Gangs
from tieline.sim.sharing import Ledger
from tieline.sim.truth import Truth, payload_of
from tieline.sim.violation import Checks

LIE = (77,)  # exit code of ends that are reported by whoever has no say in them, and of no real one
BILLED = (RunState.SUCCEEDED, RunState.FAILED, RunState.STOPPED)
Amount = tuple[int, int, int]  # accelerators, cores, bytes of memory


class Books:
    """Jobs, runs, holds, usage and records of one exchange, as its log tells them."""

    def __init__(self, name: str, checks: Checks, capacity: dict[str, Amount], truth: Truth) -> None:
        self.name, self.checks, self.capacity, self.truth = name, checks, capacity, truth
        self.seq = 0
        self.jobs: dict[str, Job] = {}
        self.ended: dict[str, JobState] = {}
        self.origins: dict[str, Origin] = {}  # of jobs that another exchange asked for
        self.requests: dict[str, str] = {}  # as its user marked it -> job
        self.runs: dict[str, Run] = {}
        self.live: dict[str, dict[str, None]] = {}  # job -> its live run, or those of its gang
        self.epochs: Counter[str] = Counter()
        self.offered_ms: dict[str, int] = {}
        self.accepted_ms: dict[str, int] = {}
        self.over: dict[str, RunState] = {}
        self.held: dict[str, Amount] = {}
        self.usages: dict[str, Usage] = {}
        self.charged: Counter[str] = Counter()  # by job
        self.ledger = Ledger(self._hold)  # of projects
        self.gangs = Gangs(self._hold)
        self.revisions: dict[str, tuple[bool, int, int]] = {}  # withdrawn, rev, the smaller sha256: what follows what
        self.withdrawn: dict[str, int] = {}
        self.revoked: dict[str, int] = {}  # kid -> from when its delegation, as stored here, gives it no word

    def again(self, rows: Sequence[LogRow]) -> Books:
        """Books of a log that was set back. What it still says was looked at before."""
        fresh = Books(self.name, Checks(), self.capacity, self.truth)
        fresh.catch_up(rows)
        fresh.checks = self.checks
        return fresh

    def catch_up(self, rows: Sequence[LogRow]) -> None:
        """Book what was added to the log."""
        while self.seq < len(rows):
            row = rows[self.seq]
            self.seq += 1
            event = decode_event(row.body)
            self._take(event, row.time_ms)
            self.ledger.take(event, row.time_ms)
            self.gangs.take(event)
        self.gangs.look()

    @property
    def live_runs(self) -> list[str]:
        """Every live run, in the order in which their jobs were placed."""
        return [run for runs in self.live.values() for run in runs]

    def _hold(self, invariant: str, is_so: bool, *what: object) -> None:
        self.checks.hold(invariant, is_so, self.name, *what)

    def _take(self, event: fact.Event, now_ms: int) -> None:
        match event:
            case fact.JobSubmitted(job=job):
                self._hold("a job has one beginning", job.id not in self.jobs, job.id)
                self.jobs[job.id] = job
                if job.origin is not None:
                    self.origins[job.id] = job.origin
                request = job.task.labels.get("request", "") if job.origin is None else ""
                self._hold("a request is taken once", request not in self.requests, request, job.id)
                if request:
                    self.requests[request] = job.id
            case fact.RunOffered(run=run):
                self._offered(run, now_ms)
            case fact.RunAccepted(run=run):
                self._hold("an ended run is not accepted", run not in self.over, run)
                self.accepted_ms[run] = now_ms
            case fact.RunEnded():
                self._run_ended(event, now_ms)
            case fact.JobQueued():
                self._hold("every waiting job is explained", bool(event.reasons), event.job)
                self._hold("nothing follows a job's end", event.job not in self.ended, event.job)
            case fact.JobEnded():
                self._job_ended(event)
            case fact.RecordStored():
                self._stored(event, now_ms)
            case fact.RecordsTaken(records=records):
                for stored in records:
                    self._stored(stored, now_ms)
            case fact.RecordsForgotten(ids=ids):
                for name in ids:
                    self.revisions.pop(name, None)
                    self.withdrawn.pop(name, None)
            case _:
                return

    # -- runs ---------------------------------------------------------------------------------------------------------

    def _offered(self, run: Run, now_ms: int) -> None:
        self._hold("nothing follows a job's end", run.job in self.jobs and run.job not in self.ended, run.id)
        others = [self.runs[name] for name in self.live.get(run.job, ())]
        is_beside = bool(others) and all(each.gang and each.gang == run.gang for each in others)
        self._hold("a job has one live run", not others or is_beside, run.id, [each.id for each in others])
        self._hold("epochs only grow", run.epoch > self.epochs[run.job] - is_beside, run.id)
        job = self.jobs[run.job]
        self.epochs[run.job] = run.epoch
        self.offered_ms[run.id] = now_ms
        self.runs[run.id] = run
        self.live.setdefault(run.job, {})[run.id] = None
        self._book(run, 1)
        capacity = self.capacity.get(run.pool)
        held = self.held[run.pool]
        self._hold(
            "no pool is booked twice",
            capacity is not None and all(have >= want for have, want in zip(capacity, held, strict=True)),
            run.id,
            run.pool,
            held,
            "of",
            capacity,
        )
        if job.task.budget_micro_cny:
            left = job.task.budget_micro_cny - self.charged[run.job]
            rates = (each.unit_count * each.price_micro_cny_per_unit_hour for each in (*others, run))
            least = sum(rates) * run.stop_after_s // 3600
            self._hold(
                "a budget is never exceeded",
                run.price_micro_cny_per_unit_hour == 0 or (run.stop_after_s > 0 and least <= left),
                run.id,
                "stops after",
                run.stop_after_s,
                "s, left are",
                left,
            )

    def _book(self, run: Run, sign: int) -> None:
        amount = (run.accelerator_count, run.core_count, run.memory_bytes)
        before = self.held.get(run.pool, (0, 0, 0))
        self.held[run.pool] = (
            before[0] + sign * amount[0],
            before[1] + sign * amount[1],
            before[2] + sign * amount[2],
        )

    def _run_ended(self, event: fact.RunEnded, now_ms: int) -> None:
        run = self.runs[event.run]
        self._hold("a run ends once", event.run not in self.over, event.run)
        self.over[event.run] = event.state
        self._hold("a fenced report is not taken", event.exit_codes != LIE, event.run)
        live = self.live.get(run.job, {})
        live.pop(event.run, None)
        if not live:
            self.live.pop(run.job, None)
        self._book(run, -1)
        if event.usage is not None:
            self._billed(event, event.usage, run, now_ms)

    def _billed(self, event: fact.RunEnded, usage: Usage, run: Run, now_ms: int) -> None:
        self._hold("a run is billed once", usage.run == event.run and usage.run not in self.usages, event.run)
        is_good = event.run in self.accepted_ms and event.state in BILLED
        self._hold("a fenced run bills nothing", is_good, event.run, event.state)
        paid = usage.charge_micro_cny * 3_600 + usage.remainder
        owed = usage.unit_seconds * run.price_micro_cny_per_unit_hour
        self._hold("money is conserved", paid == owed and 0 <= usage.remainder < 3_600, usage)
        began = self.offered_ms if run.via else self.accepted_ms  # a peer's acceptance may come late
        seen_ms = max(0, now_ms - began.get(event.run, now_ms))
        most = run.unit_count * -(-seen_ms // 1000)
        self._hold(
            "nobody pays for more than was seen",
            usage.unit_seconds <= most,
            event.run,
            usage.unit_seconds,
            "unit-seconds, seen were",
            most,
        )
        self.usages[event.run] = usage
        self.charged[run.job] += usage.charge_micro_cny
        budget = self.jobs[run.job].task.budget_micro_cny
        self._hold(
            "a budget is never exceeded",
            not budget or self.charged[run.job] <= budget,
            run.job,
            self.charged[run.job],
            "of",
            budget,
        )

    def _job_ended(self, event: fact.JobEnded) -> None:
        self._hold("a job ends once", event.job in self.jobs and event.job not in self.ended, event.job)
        self._hold("an ended job has no live run", event.job not in self.live, event.job)
        is_good = event.state is JobState.SUCCEEDED
        self._hold("a job that did not succeed says why", is_good or bool(event.reasons), event.job)
        self.ended[event.job] = event.state

    # -- records ------------------------------------------------------------------------------------------------------

    def _stored(self, event: fact.RecordStored, now_ms: int) -> None:
        flaw = self.truth.flaw(event.envelope, event.id)
        self._hold("no record without a valid chain", not flaw, event.id, event.rev, flaw)
        thief = self.truth.by_thieves.get(event.envelope, "")
        self._hold(
            "a revoked key says nothing",
            not thief or thief not in self.revoked or now_ms // 1000 < self.revoked[thief],
            event.id,
            thief,
        )
        last = self.revisions.get(event.id, (False, 0, 0))
        is_so = event.id not in self.withdrawn or event.status == "withdrawn"
        self._hold("a withdrawn record stays withdrawn", is_so, event.id, event.rev)
        place = (event.status == "withdrawn", event.rev, -int(event.sha256, 16))
        self._hold("revisions only grow", place > last, event.id, event.rev, "after", last[1])
        self.revisions[event.id] = place
        if event.status == "withdrawn":
            self.withdrawn[event.id] = event.rev
        if event.kind in ("owner", "exchange"):
            self._note_keys(event)

    def _note_keys(self, event: fact.RecordStored) -> None:
        for key in keys_of(event.envelope):
            if key.get("revoked_from"):
                self.revoked[key["kid"]] = key["revoked_from"]


def keys_of(envelope: str) -> list[dict[str, Any]]:
    """The keys that a delegation names, read without the registry."""
    spec = payload_of(envelope).get("spec", {})
    return msgspec.convert(spec.get("keys", []), list[dict[str, Any]])
