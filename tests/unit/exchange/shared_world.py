"""An exchange with projects that share pools of cards."""

from __future__ import annotations

from typing import Any

from exchange_world import ADMIN, World, task

from tieline.exchange.commands import ChangeProject, PlanTasks, SubmitJobs, WhyJob
from tieline.exchange.placing import schedule
from tieline.exchange.projection import ROW, load, rows
from tieline.exchange.view import View
from tieline.model.event import RunEnded, StopRequested
from tieline.model.job import Job, Run, RunState
from tieline.model.party import Actor, Role
from tieline.model.plan import Plan
from tieline.model.project import Member, Quota
from tieline.model.protocol import CheckpointKept
from tieline.model.reason import Reason
from tieline.model.task import Checkpoint, Resources, Task

PRICE = 3_600_000  # a yuan per card and 1,000 s


def cards(count: int, name: str = "t", **fields: Any) -> Task:
    """A task of so many cards; with ``keeps`` it declares a checkpoint."""
    if fields.pop("keeps", False):
        fields["checkpoint"] = Checkpoint(path="kept")
    return task(name, resources=(Resources(accelerator="a100", accelerator_count=count, core_count=1),), **fields)


class Shared(World):
    """A world with one site of cards, and others on demand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.site = ""

    def cards(self, count: int, owner: str = "lab7", site: str = "sh1", **fields: Any) -> str:
        """A site with one pool of so many cards."""
        spec = {"core_count": 64, "memory_bytes": 10**12, "accelerator": "a100", "accelerator_count": count, **fields}
        self.site = self.join(owner, site, price_micro_cny_per_accelerator_hour=PRICE, **spec)
        return self.site

    def project(self, name: str, card_count: int = 0, **fields: Any) -> None:
        """A project whose one member is the user of its name, made or changed."""
        terms = {key: fields.pop(key) for key in ("weight", "may_borrow", "priority_most") if key in fields}
        quota = Quota(card_count=card_count, **fields)
        what = "set" if name in self.view.projects else "create"
        put = () if what == "set" else (Member(name=name),)
        self.do(ChangeProject(actor=ADMIN, project=name, what=what, quota=quota, put=put, **terms))

    def run(self, project: str, *tasks: Task) -> Job:
        """A job of a project, by its member; without one by nobody in particular."""
        actor = Actor(name=project or "nobody", roles=(Role.USER,))
        jobs: tuple[Job, ...] = self.do(SubmitJobs(actor=actor, tasks=tasks, project=project))
        return jobs[0]

    def job(self, job: Job) -> Job:
        """As it is now."""
        return self.view.jobs[job.id]

    def started(self, project: str, task: Task) -> Run:
        """A job that runs."""
        run = self.run_of(self.run(project, task))
        self.start(run)
        return self.view.runs[run.id]

    def stops(self) -> dict[str, Reason]:
        """Everybody who was asked to stop, and why."""
        return {each.run: each.reason for each in self.events if isinstance(each, StopRequested) and each.reason}

    def stopped(self, run: Run, ran_ms: int = 1_000) -> None:
        """The site did as it was asked."""
        self.end(run, "stopped", 143, duration_ms=ran_ms)

    def kept(self, run: Run, sha256: str = "a" * 64) -> None:
        """A checkpoint of a run was kept."""
        self.report(run.site, CheckpointKept(run=run.id, epoch=run.epoch, sha256=sha256, size_bytes=1))

    def why(self, job: Job) -> list[str]:
        """The codes of why a job is where it is."""
        return [reason.code for reason in self.reasons(job)]

    def reasons(self, job: Job) -> tuple[Reason, ...]:
        """Why a job is where it is."""
        return tuple(self.do(WhyJob(actor=ADMIN, job=job.id)).reasons)

    def plan(self, project: str, task: Task) -> Plan:
        """What would become of a task."""
        actor = Actor(name=project, roles=(Role.USER,))
        (plan,) = self.do(PlanTasks(actor=actor, tasks=(task,), project=project))
        return plan

    def ended(self, run: Run) -> RunEnded:
        """How a run ended."""
        return next(each for each in self.events if isinstance(each, RunEnded) and each.run == run.id)

    def live(self, *states: RunState) -> list[Run]:
        """The live runs, of some states."""
        return [run for run in self.view.runs.values() if not states or run.state in states]

    def restarted(self, tables: dict[str, dict[str, Any]]) -> View:
        """The view that a restart would fill from the rows that were kept so far."""
        view = View(self.keys)
        load(view, {name: list(kept.values()) for name, kept in tables.items()}, self.clock.now_ms())
        return view

    def keep(self, tables: dict[str, dict[str, Any]]) -> None:
        """Write what changed into ``tables``, as a store would."""
        for table, key, row in rows(self.view):
            kept = tables.setdefault(table, {})
            if row is None:
                kept.pop(key, None)
            else:
                kept[key] = row
        for table in ROW:
            tables.setdefault(table, {})


__all__ = ["ADMIN", "PRICE", "Shared", "cards", "schedule"]
