"""Sharing: whether projects keep their quotas, whoever gives way loses nothing, and nobody waits for a borrower.

The first two follow from the log alone (`Ledger`, a part of the books); the last is looked at in the view now and then:
what a waiting job needs, who holds it, and since when that was so (`Waits`). None of it asks what the product thinks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tieline.model import event as fact
from tieline.model.job import Job, JobState, Run, RunState, Usage
from tieline.model.project import Project

if TYPE_CHECKING:
    from tieline.sim.exchange import SimExchange

HOUR_MS = 3_600_000
GAVE_WAY = ("preempted_for_share", "preempted_for_priority")
PATIENCE_MS = 10_000  # for so long a job by right may wait although a borrower could give way
Hold = Callable[..., None]


class Ledger:
    """What the log of one exchange says of its projects."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self.projects: dict[str, Project] = {}
        self.live: dict[str, Run] = {}
        self.guests: dict[str, None] = {}  # jobs that another exchange asked for
        self.asked: dict[str, str] = {}  # run that was asked to stop -> code of why
        self.tries: dict[str, tuple[int, int]] = {}  # job -> attempts and losses
        self.left: dict[str, str] = {}  # job -> why its last run ended, where it gave way
        self.card_ms: Counter[tuple[str, str]] = Counter()  # by project and month
        self.micro_cny: Counter[tuple[str, str]] = Counter()

    def take(self, event: fact.Event, now_ms: int) -> None:
        """Book one entry."""
        match event:
            case fact.ProjectChanged(project=project):
                self.projects[project.id] = project
            case fact.JobSubmitted(job=job) if job.origin is not None:
                self.guests[job.id] = None
            case fact.RunOffered(run=run):
                self._offered(run, now_ms)
            case fact.StopRequested():
                self._stop_requested(event)
            case fact.RunEnded():
                self._run_ended(event)
            case fact.JobQueued():
                self._queued(event)
            case fact.JobEnded():
                self._job_ended(event)
            case _:
                return

    def _offered(self, run: Run, now_ms: int) -> None:
        """Whether a booking is within the quotas of its project."""
        self.live[run.id] = run
        self.left.pop(run.job, None)
        project = self.projects.get(run.project)
        if project is None:
            return
        quota, hold, name = project.quota, self.hold, project.id
        mine = [each for each in self.live.values() if each.project == name]
        cards = sum(each.accelerator_count for each in mine)
        cores = sum(each.core_count for each in mine if not each.accelerator_count)
        is_bound = quota.card_count > 0 and not project.may_borrow and run.accelerator_count > 0
        hold("a project keeps its quotas", not is_bound or cards <= quota.card_count, name, run.id, cards)
        is_bound = quota.core_count > 0 and not run.accelerator_count
        hold("a project keeps its quotas", not is_bound or cores <= quota.core_count, name, run.id, cores)
        month = month_of(now_ms)
        if quota.card_hours and run.accelerator_count:
            pledged_ms = sum(each.accelerator_count * each.stop_after_s * 1000 for each in mine)
            used_ms = self.card_ms[name, month] + pledged_ms
            is_so = run.stop_after_s > 0 and used_ms <= quota.card_hours * HOUR_MS
            hold("a project keeps its quotas", is_so, name, run.id, used_ms, "card-ms, stops after", run.stop_after_s)
        if quota.micro_cny:
            pledged = sum(each.pledged_micro_cny for each in mine) + self.micro_cny[name, month]
            is_free = not run.price_micro_cny_per_unit_hour
            is_so = is_free or (run.pledged_micro_cny > 0 and pledged <= quota.micro_cny)
            hold("a project keeps its quotas", is_so, name, run.id, pledged, "micro-yuan of", quota.micro_cny)

    def _stop_requested(self, event: fact.StopRequested) -> None:
        """Who is asked to give way."""
        if event.reason is not None and event.reason.code in GAVE_WAY:
            run = self.live[event.run]
            self.hold("only who keeps checkpoints gives way", run.is_preemptible, event.run)
            self.asked[event.run] = event.reason.code

    def _run_ended(self, event: fact.RunEnded) -> None:
        """What it used counts for its project's month."""
        run = self.live.pop(event.run)
        code = self.asked.pop(event.run, "")
        gave_way = event.state is RunState.STOPPED and event.reason is not None and event.reason.code in GAVE_WAY
        if gave_way:
            self.hold("nobody gives way unasked", bool(code) or bool(run.via), event.run)
            if code:
                self.left[run.job] = code
        if event.usage is not None and run.project:
            self._used(run, event.usage)

    def _used(self, run: Run, usage: Usage) -> None:
        key = (run.project, month_of(usage.ended_ms))
        self.micro_cny[key] += usage.charge_micro_cny
        if usage.unit == "accelerator":
            self.card_ms[key] += usage.unit_count * usage.duration_ms
        if run.pledged_micro_cny:
            is_so = usage.charge_micro_cny <= run.pledged_micro_cny
            self.hold("a project keeps its quotas", is_so, run.id, usage.charge_micro_cny, run.pledged_micro_cny)

    def _queued(self, event: fact.JobQueued) -> None:
        """Who gave way waits again as if nothing had happened."""
        before = self.tries.get(event.job, (0, 0))
        self.tries[event.job] = (event.attempts, event.losses)
        gave_way = self.left.pop(event.job, "")
        if gave_way or event.is_preempted:
            is_so = bool(gave_way) and event.is_preempted and self.tries[event.job] == before
            self.hold("who gives way loses nothing", is_so, event.job, before, "became", self.tries[event.job])

    def _job_ended(self, event: fact.JobEnded) -> None:
        """Giving way ends no job, but for those of other exchanges, and those whose time is over."""
        gave_way = self.left.pop(event.job, "")
        if gave_way and event.state is JobState.FAILED and event.job not in self.guests:
            is_late = any(reason.code == "deadline_missed" for reason in event.reasons)
            self.hold("who gives way loses nothing", is_late, event.job, gave_way)


class Waits:
    """Since when each waiting job of one exchange could have what a borrower holds."""

    def __init__(self) -> None:
        self.since_ms: dict[str, int] = {}

    def look(self, exchange: SimExchange, hold: Hold, now_ms: int) -> None:
        """Look at every job that waits by right; ``now_ms`` is true time."""
        found = dict(_could_have(exchange)) if exchange.view.shares is not None else {}
        self.since_ms = {job: self.since_ms.get(job, now_ms) for job, run in found.items() if run}
        for job, run in found.items():
            since_ms = self.since_ms.get(job, now_ms)
            said = (exchange.name, job, "for", run, "since", since_ms)
            hold("nobody below its share waits for a borrower", now_ms - since_ms <= PATIENCE_MS, *said)


def _could_have(exchange: SimExchange) -> Iterator[tuple[str, str]]:
    """(job, run): jobs that wait by right, and a borrower's run that alone would make room for each; none: empty."""
    view, ledger = exchange.view, exchange.books.ledger
    held: Counter[str] = Counter()
    for run in view.runs.values():
        held[run.project] += run.accelerator_count
    now_ms = exchange.clock.now_ms()
    lent = [run for run in view.runs.values() if _may_give_way(run, held, ledger.projects)]
    for name in sorted(view.waiting):
        job = view.jobs[name]
        project = ledger.projects.get(job.project)
        task = job.task
        cards = task.resources[0].accelerator_count * task.nodes
        is_plain = not (task.budget_micro_cny or task.deadline_s or job.after or job.quote_pool or job.origin)
        if project is None or not cards or not is_plain or job.eligible_ms > now_ms:
            continue
        quota = project.quota
        if quota.card_hours or quota.micro_cny or held[project.id] + cards > quota.card_count:
            continue
        able = (run.id for run in lent if run.project != project.id and _would_fit(exchange, job, run))
        yield name, next(able, "")


def _may_give_way(run: Run, held: Counter[str], projects: dict[str, Project]) -> bool:
    known = projects.get(run.project)
    guaranteed = known.quota.card_count if known is not None else 0
    is_free_to = run.is_preemptible and not run.is_stop_requested and run.state in (RunState.ACCEPTED, RunState.RUNNING)
    return is_free_to and run.accelerator_count > 0 and held[run.project] > guaranteed


def _would_fit(exchange: SimExchange, job: Job, run: Run) -> bool:
    """Whether the pool of ``run`` would take the job without it. A pool that is kept for somebody else is left out."""
    view = exchange.view
    pools, task = view.supply.pools, job.task
    row = pools.get(run.pool)
    at = pools.index(run.pool)
    if row is None or at is None or not pools.flags["site_open"][at] or run.pool in view.held_back:
        return False
    if any(room.pool == run.pool for room in view.yielding.kept.values()):
        return False
    asked = task.resources[0]
    needs = (asked.accelerator_count * task.nodes, asked.core_count * task.nodes, asked.memory_bytes * task.nodes)
    gives = (run.accelerator_count, run.core_count, run.memory_bytes)
    dimensions = (pools.accelerators, pools.cores, pools.memory)
    rows = zip(dimensions, needs, gives, strict=True)
    return all(int(each.free[at]) + gives >= needs for each, needs, gives in rows) and (
        int(pools.expires_ms[at]) == 0 or int(pools.expires_ms[at]) > exchange.clock.now_ms()
    )


def month_of(at_ms: int) -> str:
    """The month in which a moment lies, in UTC."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{at.year}-{at.month:02}"
