"""Reading: who may read a blob: admins and auditors; whoever sent it or runs a job that refers to it; members of the
project of such a job; a site, what its live runs need, and of their data what their users may read.

What was allowed once is remembered, but not to members, who may leave; what is not remembered is looked for among the
caller's newest jobs, then among those of its projects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tieline.model.error import TielineError
from tieline.model.job import Job
from tieline.model.party import Actor, Role, Site
from tieline.model.task import Task
from tieline.place.demand import DataFact

if TYPE_CHECKING:
    from tieline.api.platform import Platform

PAGE = 500
PAGES = 6  # of the caller's newest jobs that are looked through
PROJECT_PAGES = 2  # of the newest jobs of each of the caller's projects
MOST_PROJECTS = 8


def taken_along(task: Task) -> Iterator[str]:
    """The blobs that a task lays out before it starts."""
    if task.workdir is not None:
        yield task.workdir.sha256
    for mount in task.mounts:
        yield mount.sha256


def referred(job: Job) -> Iterator[str]:
    """Every blob that a job refers to."""
    yield from taken_along(job.task)
    if job.checkpoint:
        yield job.checkpoint
    for output in job.outputs:
        yield output.sha256


async def may_read(platform: Platform, actor: Actor, sha256: str) -> bool:
    """Whether ``actor`` may read a blob, if it is there."""
    if actor.job and not await _is_of_job(platform, actor.job, sha256):
        return False
    if actor.has(Role.ADMIN, Role.AUDITOR) or platform.facts.is_allowed(actor.name, sha256):
        return True
    if actor.has(Role.SITE):
        return _is_needed_at(platform, actor.name, sha256) or await _is_laid_at(platform, actor.name, sha256)
    if await platform.read(_is_of_jobs, platform, sha256, PAGES, user=actor.name):
        platform.facts.allow(actor.name, sha256)
        return True
    projects = platform.view.members.of(actor)[:MOST_PROJECTS]
    if not projects or not await platform.blobs.has(sha256):
        return False
    for name in projects:
        if await platform.read(_is_of_jobs, platform, sha256, PROJECT_PAGES, project=name):
            return True
    return False


def is_behind(platform: Platform, site: str, door: Site, sha256: str) -> bool:
    """Whether a live run at ``site`` names a dataset whose owner put this chunk behind the ``door`` of its own site."""
    return any(
        fact.owner == door.owner and f"door:{door.id}#{sha256}" in urls
        for _, fact, urls in _data_at(platform, site, sha256)
    )


async def check_taken_along(platform: Platform, actor: Actor, tasks: Sequence[Task]) -> None:
    """Refuse tasks that take blobs along which are not here, or which the caller may not read: `not_found`."""
    for digest in dict.fromkeys(digest for task in tasks for digest in taken_along(task)):
        if not (await may_read(platform, actor, digest) and await platform.blobs.has(digest)):
            raise TielineError(
                "not_found",
                f"the task takes blob `{digest}` along, and it is not here for you",
                where="mounts",
                hints=("send it to POST /v1/blobs first",),
            )


async def _is_of_job(platform: Platform, name: str, sha256: str) -> bool:
    """Whether the one job that a delegated token is bound to refers to the blob."""
    job = platform.view.jobs.get(name) or await platform.read(platform.store.job, name)
    return job is not None and sha256 in referred(job)


def _is_needed_at(platform: Platform, site: str, sha256: str) -> bool:
    view = platform.view
    for name in list(view.runs_at.get(site, ())):
        run = view.runs.get(name)
        job = view.jobs.peek(run.job) if run is not None else None
        if run is not None and job is not None and (run.checkpoint == sha256 or sha256 in referred(job)):
            return True
    return False


async def _is_laid_at(platform: Platform, site: str, sha256: str) -> bool:
    """Whether a live run there names a dataset whose bytes are this blob, and the user of its job may read that."""
    users = {
        job.user
        for job, _, urls in _data_at(platform, site, sha256)
        if job.origin is None and f"blob:{sha256}" in urls  # a user of a peer is nobody here
    }
    for user in sorted(users):
        if await may_read(platform, Actor(name=user, roles=(Role.USER,)), sha256):
            return True
    return False


def _data_at(platform: Platform, site: str, sha256: str) -> Iterator[tuple[Job, DataFact, list[str]]]:
    """The datasets with these bytes that live runs at a site name: the job, the record, the addresses of its places."""
    view = platform.view
    for name in list(view.runs_at.get(site, ())):
        run = view.runs.get(name)
        job = view.jobs.peek(run.job) if run is not None else None
        for use in job.task.data if job is not None else ():
            fact = view.supply.datasets.get(use.id)
            if job is not None and fact is not None and fact.spec.sha256 == sha256:
                yield job, fact, [place.url for place in fact.spec.places]


def _is_of_jobs(platform: Platform, sha256: str, pages: int, *, user: str = "", project: str = "") -> bool:
    before = ""
    for _ in range(pages):
        jobs = platform.store.jobs(user=user, project=project, before=before, limit=PAGE)
        if any(sha256 in referred(job) for job in jobs):
            return True
        if len(jobs) < PAGE:
            return False
        before = jobs[-1].id
    return False
