"""Guests: what the users of each peer have here, and what that peer is told of it.

::

    JobSubmitted (with an origin) --> GuestRun, live     RunAccepted, RunStarted, CheckpointStored --> one report each
    RunEnded, JobEnded --> the last report, with our claim --> kept until the peer has answered it, and a while on

Derived from facts alone, before each takes effect. Every report has a serial that only grows within a peer's list; a
peer asks for what comes after the serial that it knows. Nothing has to be confirmed: what is over and settled is kept
for `MOST_SETTLED` runs, so that a peer that was restored can be told again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from tieline.model import event as fact
from tieline.model.job import Job, RunState, Usage
from tieline.model.protocol import Accepted, CheckpointKept, Ended, Lost, PeerReport, Refused, Reports, Started
from tieline.model.reason import Reason

if TYPE_CHECKING:
    from tieline.exchange.view import View

replace = msgspec.structs.replace
MOST_SETTLED = 2_000  # runs of one peer that are over and settled, and are remembered


class GuestRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of a peer here, by the name that it has over there."""

    peer: str
    run: str
    epoch: int
    origin_job: str
    job: str  # ours
    accelerator_count: int = 0
    core_count: int = 0
    offered_ms: int = 0  # by the peer's clock
    expires_ms: int = 0  # by ours
    is_live: bool = True
    reports: tuple[PeerReport, ...] = ()  # told so far; of checkpoints the newest
    usage: Usage | None = None  # the line whose claim is not answered yet

    @property
    def serial(self) -> int:
        """Of the newest report; 0: nothing was told."""
        return self.reports[-1].serial if self.reports else 0

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to come, from either side."""
        return not self.is_live and self.usage is None


class Guest:
    """Everything of one peer. ``runs`` holds the live, the unsettled and the newest settled ones."""

    def __init__(self) -> None:
        self.runs: dict[str, GuestRun] = {}
        self.live: dict[str, None] = {}
        self.waiting: dict[str, int] = {}  # live and not accepted here yet -> when that is too late
        self.newest: dict[str, str] = {}  # the peer's job -> its live run
        self.unanswered: dict[str, str] = {}  # our run -> theirs
        self.settled: dict[str, None] = {}
        self.unnamed: dict[str, None] = {}  # that the peer's roll did not name: the next ticks fence them; not kept
        self.ending: dict[str, fact.RunEnded] = {}  # between a run's end and its job's
        self.serial = 0
        self.accelerator_count = 0  # asked for by live runs
        self.core_count = 0

    def put(self, run: GuestRun) -> list[str]:
        """Keep a run as it is now; the names of those that are not remembered any more."""
        before = self.runs.get(run.run)
        self.runs[run.run] = run
        self.serial = max(self.serial, run.serial)
        self._count(before, -1)
        self._count(run, 1)
        if run.is_live:
            self.live[run.run] = None
            self.newest[run.origin_job] = run.run
            if run.reports:
                self.waiting.pop(run.run, None)
            else:
                self.waiting[run.run] = run.expires_ms
        elif before is None or before.is_live:
            self.live.pop(run.run, None)
            self.waiting.pop(run.run, None)
            if self.newest.get(run.origin_job) == run.run:
                del self.newest[run.origin_job]
        if run.usage is not None:
            self.unanswered[run.usage.run] = run.run
        elif before is not None and before.usage is not None:
            self.unanswered.pop(before.usage.run, None)
        if run.is_settled:
            self.settled[run.run] = None
        return self._let_go()

    def told(self, run: GuestRun, report: Reports, **changes: Any) -> GuestRun:
        """``run`` with one more report."""
        kept = run.reports
        if isinstance(report, CheckpointKept):
            kept = tuple(each for each in kept if not isinstance(each.report, CheckpointKept))
        return replace(run, reports=(*kept, PeerReport(serial=self.serial + 1, report=report)), **changes)

    def after(self, serial: int, most: int) -> tuple[tuple[PeerReport, ...], bool]:
        """The reports that follow ``serial``, at most so many, and whether there are more.

        What a peer answered it knows, so that only a peer that asks from the beginning gets all the rest again.
        """
        found = [
            each
            for run in self.runs.values()
            if run.serial > serial and not _is_answered(run)
            for each in run.reports
            if each.serial > serial
        ]
        found.sort(key=_serial)
        return tuple(found[:most]), len(found) > most

    def _count(self, run: GuestRun | None, sign: int) -> None:
        if run is not None and run.is_live:
            self.accelerator_count += sign * run.accelerator_count
            self.core_count += sign * run.core_count

    def _let_go(self) -> list[str]:
        gone: list[str] = []
        while len(self.settled) > MOST_SETTLED:
            name = next(iter(self.settled))
            del self.settled[name]
            del self.runs[name]
            gone.append(name)
        return gone


def _serial(report: PeerReport) -> int:
    return report.serial


def _is_answered(run: GuestRun) -> bool:
    last = run.reports[-1].report
    return run.is_settled and isinstance(last, Ended) and bool(last.receipt)


def load_guests(view: View, runs: Iterable[GuestRun]) -> None:
    """Fill an empty view; the oldest reports first, so that what is let go next is the oldest."""
    for run in sorted(runs, key=lambda run: (run.serial, run.run)):
        view.guests.setdefault(run.peer, Guest()).put(run)


def tell(view: View, event: fact.Event) -> None:
    """What ``event`` means for the peer whose job it concerns, if any. Call it before the event takes effect."""
    telling = TELLING.get(type(event))
    if telling is not None:
        telling(view, event)


# -- one function per fact --------------------------------------------------------------------------------------------


def _submitted(view: View, event: fact.JobSubmitted) -> None:
    job, origin = event.job, event.job.origin
    if origin is None:
        return
    run = GuestRun(
        peer=origin.peer,
        run=origin.run,
        epoch=origin.epoch,
        origin_job=origin.job,
        job=job.id,
        accelerator_count=origin.accelerator_count,
        core_count=origin.core_count,
        offered_ms=origin.offered_ms,
        expires_ms=origin.expires_ms,
    )
    _put(view, view.guests.setdefault(origin.peer, Guest()), run)


def _accepted(view: View, event: fact.RunAccepted) -> None:
    if (found := _of_run(view, event.run)) is not None:
        guest, run, _ = found
        accepted = Accepted(run=run.run, epoch=run.epoch, sandbox=event.sandbox, network=event.network)
        _put(view, guest, guest.told(run, accepted))


def _started(view: View, event: fact.RunStarted) -> None:
    if (found := _of_run(view, event.run)) is not None:
        guest, run, _ = found
        started = Started(run=run.run, epoch=run.epoch, at_ms=event.at_ms, devices=event.devices)
        _put(view, guest, guest.told(run, started))


def _checkpoint(view: View, event: fact.CheckpointStored) -> None:
    if (found := _of_run(view, event.run)) is not None:
        guest, run, _ = found
        kept = CheckpointKept(
            run=run.run, epoch=run.epoch, sha256=event.sha256, size_bytes=event.size_bytes, at_ms=event.at_ms
        )
        _put(view, guest, guest.told(run, kept))


def _run_ended(view: View, event: fact.RunEnded) -> None:
    if (found := _of_run(view, event.run)) is not None:
        guest, run, _ = found
        guest.ending[run.run] = event


def _job_ended(view: View, event: fact.JobEnded) -> None:
    job = view.jobs.get(event.job) if view.guests else None
    if job is None or (found := _of_job(view, job)) is None:
        return
    guest, run = found
    ending = guest.ending.pop(run.run, None)
    report = last_report(run, job, event, ending)
    usage = ending.usage if ending is not None and ending.usage is not None and ending.usage.given_claim else None
    _put(view, guest, guest.told(run, report, is_live=False, usage=usage))


def last_report(run: GuestRun, job: Job, event: fact.JobEnded, ending: fact.RunEnded | None) -> Refused | Lost | Ended:
    """What a peer is told at the end of a job that it asked for."""
    reason = (ending.reason if ending is not None else None) or next(iter(event.reasons), None)
    if ending is None or ending.state is RunState.REFUSED:
        return Refused(run=run.run, epoch=run.epoch, reason=reason or Reason(code="refused_by_owner"))
    if ending.state is RunState.LOST:
        return Lost(run=run.run, epoch=run.epoch, reason=reason or Reason(code="lost"))
    usage = ending.usage
    return Ended(
        run=run.run,
        epoch=run.epoch,
        state=ending.state.value,
        exit_codes=ending.exit_codes,
        duration_ms=usage.duration_ms if usage is not None else 0,
        cpu_ms=usage.cpu_ms if usage is not None else 0,
        max_memory_bytes=usage.max_memory_bytes if usage is not None else 0,
        outputs=event.outputs,
        checkpoint=job.checkpoint,
        reason=reason,
        is_start_failure=usage is None,
        receipt=usage.given_claim if usage is not None else "",
    )


def _answered(view: View, event: fact.UsageAnswered) -> None:
    guest = view.guests.get(event.usage.origin)
    name = guest.unanswered.get(event.usage.run) if guest is not None else None
    if guest is not None and name is not None:
        _put(view, guest, replace(guest.runs[name], usage=None))


TELLING: dict[type, Callable[[Any, Any], None]] = {
    fact.JobSubmitted: _submitted,
    fact.RunAccepted: _accepted,
    fact.RunStarted: _started,
    fact.CheckpointStored: _checkpoint,
    fact.RunEnded: _run_ended,
    fact.JobEnded: _job_ended,
    fact.UsageAnswered: _answered,
}


def _of_run(view: View, name: str) -> tuple[Guest, GuestRun, Job] | None:
    run = view.runs.get(name)
    if run is None or not view.guests:
        return None
    job = view.jobs[run.job]
    found = _of_job(view, job)
    return (*found, job) if found is not None else None


def _of_job(view: View, job: Job) -> tuple[Guest, GuestRun] | None:
    if job.origin is None:
        return None
    guest = view.guests[job.origin.peer]
    return guest, guest.runs[job.origin.run]


def _put(view: View, guest: Guest, run: GuestRun) -> None:
    view.touch("guest", f"{run.peer} {run.run}", run)
    for name in guest.put(run):
        view.touch("guest", f"{run.peer} {name}", None)
