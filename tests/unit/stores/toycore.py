"""A toy core: jobs that are submitted, offered one run each and stopped: enough to drive a writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tieline.drivers.stores.store import Change, Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import Command, CreateToken, Decision, PlanTasks, RevokeToken, StopJob, SubmitJobs, Tick
from tieline.model.error import TielineError
from tieline.model.event import Event, JobEnded, JobSubmitted, RunEnded, RunOffered, TokenCreated, TokenRevoked
from tieline.model.job import Job, JobState, Run, RunState, Usage
from tieline.model.party import Actor, Role, Token
from tieline.model.task import Task
from tieline.ports import FakeClock, FakeIds, Ids

ALICE = Actor(name="alice", roles=(Role.USER,))
SITE = "cn.demo.lab7/site/gz1"
encode = msgspec.json.encode
replace = msgspec.structs.replace


class ToyView:
    """Live jobs, their runs, tokens, and what was touched."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.runs: dict[str, Run] = {}
        self.recent: dict[str, Run] = {}
        self.tokens: dict[str, Token] = {}
        self.touched: dict[tuple[str, str], Any] = {}
        self.looks = 0  # how often somebody read

    def apply(self, event: Event, now_ms: int) -> None:
        if isinstance(event, JobSubmitted):
            self._job(event.job)
        elif isinstance(event, RunOffered):
            self._run(event.run)
            self._job(replace(self.jobs[event.run.job], state=JobState.BOOKED, run=event.run.id))
        elif isinstance(event, RunEnded):
            self._run(replace(self.runs[event.run], state=event.state, ended_ms=event.at_ms))
            if event.usage is not None:
                self.touched["usage", event.run] = event.usage
        elif isinstance(event, JobEnded):
            self._job(replace(self.jobs[event.job], state=event.state, ended_ms=event.at_ms))
        elif isinstance(event, TokenCreated):
            self._token(event.token)
        else:
            assert isinstance(event, TokenRevoked), event
            (held,) = [token for token in self.tokens.values() if token.id == event.id]
            self._token(replace(held, revoked_ms=event.at_ms))

    def _job(self, job: Job) -> None:
        if job.ended_ms:
            del self.jobs[job.id]
        else:
            self.jobs[job.id] = job
        self.touched["job", job.id] = job

    def _run(self, run: Run) -> None:
        if run.ended_ms:
            del self.runs[run.id]
            self.recent[run.id] = run
        else:
            self.runs[run.id] = run
        self.touched["run", run.id] = run

    def _token(self, token: Token) -> None:
        self.tokens[token.sha256] = token
        self.touched["token", token.sha256] = token


def decide(view: ToyView, command: Command, now_ms: int, ids: Ids) -> Decision:
    """Tasks named ``refuse``, ``bug`` and ``poison`` do what they say."""
    if isinstance(command, SubmitJobs):
        names = [task.name for task in command.tasks]
        if "refuse" in names:
            raise TielineError("unplaceable", "asked to be refused")
        if "bug" in names:
            raise KeyError("asked for a bug")
        if "poison" in names:
            return Decision((JobEnded(job="cn.demo/job/j-none", state=JobState.FAILED, at_ms=now_ms),), ())
        jobs = tuple(
            Job(
                id=f"cn.demo/job/{ids.new('job')}",
                user=command.actor.name,
                state=JobState.QUEUED,
                task=task,
                submitted_ms=now_ms,
            )
            for task in command.tasks
        )
        return Decision(tuple(JobSubmitted(job=job) for job in jobs), jobs)
    if isinstance(command, StopJob):
        job = view.jobs.get(command.job)
        if job is None:
            raise TielineError("not_found", f"no live job `{command.job}`")
        events: list[Any] = []
        if job.run:
            run = view.runs[job.run]
            events.append(
                RunEnded(
                    run=run.id, state=RunState.STOPPED, at_ms=now_ms, exit_codes=(143,), usage=usage_of(run, now_ms)
                )
            )
        ended = JobEnded(job=job.id, state=JobState.CANCELLED, at_ms=now_ms)
        return Decision((*events, ended), replace(job, state=JobState.CANCELLED, ended_ms=now_ms))
    if isinstance(command, CreateToken):
        token = Token(id=ids.new("token"), sha256=command.sha256, name=command.name, roles=command.roles)
        return Decision((TokenCreated(token=token),), token)
    if isinstance(command, RevokeToken):
        for token in view.tokens.values():
            if token.id == command.id:
                return Decision((TokenRevoked(id=token.id, at_ms=now_ms),), token)
        raise TielineError("not_found", "no such token")
    if isinstance(command, PlanTasks):
        view.looks += 1
        return Decision((), view.looks)
    assert isinstance(command, Tick)
    return Decision()


def usage_of(run: Run, now_ms: int) -> Usage:
    return Usage(
        run=run.id,
        job=run.job,
        user=run.user,
        owner=run.owner,
        pool=run.pool,
        unit="core",
        unit_count=1,
        duration_ms=now_ms - run.offered_ms,
        unit_seconds=1,
        price_micro_cny_per_unit_hour=3_600,
        charge_micro_cny=1,
        remainder=0,
        ended_ms=now_ms,
    )


def schedule(view: ToyView, now_ms: int, ids: Ids, limit: int) -> list[Any]:
    """Offer one run of every queued job to the one site."""
    waiting = [job for job in view.jobs.values() if job.state is JobState.QUEUED][:limit]
    return [
        RunOffered(
            run=Run(
                id=f"{job.id.rpartition('/')[2]}.1",
                job=job.id,
                epoch=1,
                state=RunState.OFFERED,
                pool="cn.demo.lab7/pool/gz1-a100",
                site=SITE,
                owner="cn.demo.lab7",
                user=job.user,
                price_micro_cny_per_unit_hour=3_600,
                offered_ms=now_ms,
            )
        )
        for job in waiting
    ]


def no_schedule(view: ToyView, now_ms: int, ids: Ids, limit: int) -> list[Any]:
    return []


def order_of(event: Event, view: ToyView, now_ms: int) -> tuple[str, str] | None:
    """The offered run and the state of its job, as they stand right after the event."""
    if isinstance(event, RunOffered):
        return event.run.site, f"{event.run.id} {view.jobs[event.run.job].state}"
    return None


def rows(view: ToyView) -> list[Change]:
    drained: list[Change] = [(table, key, row_of(table, key, doc)) for (table, key), doc in view.touched.items()]
    view.touched.clear()
    return drained


def row_of(table: str, key: str, doc: Any) -> dict[str, Any]:
    if table == "job":
        names: tuple[str, ...] = ("user", "pipeline", "submitted_ms", "ended_ms")
        named = {name: getattr(doc, name) for name in names}
        return {"id": key, "state": doc.state.value, "doc": encode(doc), "brief": None, **named, "project": None}
    if table == "run":
        names = ("job", "site", "owner", "offered_ms")
        return {"id": key, "state": doc.state.value, "doc": encode(doc), **{name: getattr(doc, name) for name in names}}
    if table == "usage":
        names = ("job", "user", "owner", "ended_ms", "charge_micro_cny")
        return {"run": key, "doc": encode(doc), **{name: getattr(doc, name) for name in names}, "project": None}
    return {"sha256": key, "id": doc.id, "doc": encode(doc)}


def load(view: ToyView, tables: Mapping[str, Iterable[Mapping[str, Any]]], now_ms: int) -> None:
    for row in tables["token"]:
        view.tokens[row["sha256"]] = msgspec.json.decode(row["doc"], type=Token)
    for row in tables["job"]:
        view.jobs[row["id"]] = msgspec.json.decode(row["doc"], type=Job)
    for row in tables["run"]:
        run = msgspec.json.decode(row["doc"], type=Run)
        (view.recent if run.ended_ms else view.runs)[run.id] = run


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'tieline.db'}"


def submit(*names: str, key: str = "", digest: str = "") -> SubmitJobs:
    return SubmitJobs(actor=ALICE, key=key, digest=digest, tasks=tuple(Task(name=name) for name in names or ("t",)))


def toy_writer(store: Store, clock: FakeClock | None = None, **options: Any) -> Writer[ToyView]:
    """A writer over the toy core whose ticks come only as commands, unless told otherwise."""
    parts: dict[str, Any] = {"decide": decide, "schedule": schedule, "rows": rows, "load": load, "view": ToyView}
    parts |= {name: options.pop(name) for name in tuple(options) if name in parts}
    options = {"tick_ms": 0, "order_of": order_of, **options}
    return Writer(store, clock=clock or FakeClock(), ids=options.pop("ids", None) or FakeIds(), **parts, **options)
