"""Job row: the little that stays in memory of each live job; the whole job is in the store.

Two jobs with the same ``shape`` ask for the same: whatever refuses the one refuses the other. It is a digest of
everything of a job that placing reads, but for the task's name and labels, which few owners' policies ask for: those
are in ``words``.
"""

from __future__ import annotations

import sys
from hashlib import blake2b

import msgspec

from tieline.model.job import Job, JobState
from tieline.model.task import Task
from tieline.place.queue import turn_ms

_encode = msgspec.msgpack.Encoder().encode


class Brief(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row as the store keeps it beside the job, so that a start reads no task. New fields go to the end."""

    id: str
    state: JobState
    user: str
    project: str
    submitted_ms: int
    turn_ms: int
    eligible_ms: int
    deadline_ms: int
    after: str
    shape: int
    words: int
    cards: int = 0
    cores: int = 0


_brief = msgspec.msgpack.Decoder(Brief).decode


class JobRow(msgspec.Struct, kw_only=True, order=True, gc=False):
    """One live job. Rows compare by the first two fields, which is their order within a shape: ``seq`` is unique.

    A row of a job that waits is replaced when it waits for something else; ``is_over`` marks the old one.
    """

    submitted_ms: int
    seq: int  # of all rows: the earlier came first
    id: str
    state: JobState
    user: str
    project: str = ""
    turn_ms: int = 0  # of the order in which jobs go: the smaller first
    eligible_ms: int = 0
    deadline_ms: int = 0  # 0: none
    after: str = ""
    shape: int = 0
    words: int = 0
    cards: int = 0  # the fewest that it asks for; 0: it may do without
    cores: int = 0  # the fewest, where it asks for cores alone
    place: int = 0  # where in the queue it stands
    is_over: bool = False

    @property
    def waits_since_ms(self) -> int:
        """Since when nothing but the queue is in its way."""
        return max(self.eligible_ms, self.submitted_ms)


def row_of(job: Job, seq: int) -> JobRow:
    """The row of a live job."""
    is_queued = job.state is JobState.QUEUED
    cards, cores = least_of(job.task) if is_queued else (0, 0)
    turn = turn_ms(job.task.priority, job.submitted_ms)
    return JobRow(
        submitted_ms=job.submitted_ms,
        seq=seq,
        id=job.id,
        state=job.state,
        user=sys.intern(job.user),
        project=sys.intern(job.project),
        turn_ms=job.submitted_ms if turn == job.submitted_ms else turn,  # one integer in memory and not two
        eligible_ms=job.submitted_ms if job.eligible_ms == job.submitted_ms else job.eligible_ms,
        deadline_ms=deadline_ms(job),
        after=job.after,
        shape=shape_of(job) if is_queued else 0,
        words=words_of(job) if is_queued else 0,
        cards=cards,
        cores=cores,
    )


def brief_of(row: JobRow) -> bytes:
    """What the store keeps to make the row of a live job from."""
    times = row.submitted_ms, row.turn_ms, row.eligible_ms, row.deadline_ms
    asked = row.shape, row.words, row.cards, row.cores
    return _encode(Brief(row.id, row.state, row.user, row.project, *times, row.after, *asked))


def row_again(kept: bytes) -> JobRow:
    """The row, without its number.

    Raises msgspec.DecodeError for what no version wrote.
    """
    brief = _brief(kept)
    submitted_ms = brief.submitted_ms
    return JobRow(
        submitted_ms=submitted_ms,
        seq=0,
        id=brief.id,
        state=brief.state,
        user=sys.intern(brief.user),
        project=sys.intern(brief.project),
        turn_ms=submitted_ms if brief.turn_ms == submitted_ms else brief.turn_ms,
        eligible_ms=submitted_ms if brief.eligible_ms == submitted_ms else brief.eligible_ms,
        deadline_ms=brief.deadline_ms,
        after=brief.after,
        shape=brief.shape,
        words=brief.words,
        cards=brief.cards,
        cores=brief.cores,
    )


def deadline_ms(job: Job) -> int:
    """When it has to be over; 0: whenever."""
    return job.submitted_ms + job.task.deadline_s * 1_000 if job.task.deadline_s else 0


def least_of(task: Task) -> tuple[int, int]:
    """The fewest cards, and the fewest cores where no alternative has cards, that the task asks for over its nodes."""
    if len(task.resources) == 1:
        only = task.resources[0]
        if only.accelerator or only.accelerator_count:
            return max(1, only.accelerator_count) * task.nodes, 0
        return 0, max(1, only.core_count) * task.nodes
    cards = [
        max(1, each.accelerator_count) if each.accelerator or each.accelerator_count else 0 for each in task.resources
    ]
    cores = 0 if any(cards) else min((max(1, each.core_count) for each in task.resources), default=0)
    return min(cards, default=0) * task.nodes, cores * task.nodes


def shape_of(job: Job) -> int:
    """64 bits that are equal for jobs that ask for the same; never 0."""
    task = job.task
    asked = (
        job.user, job.user_owner, job.project, task.type, task.nodes, task.span, task.resources, task.is_ordered,
        task.network, task.is_trusted, task.owners, task.data, deadline_ms(job), task.max_duration_s, task.grace_s,
        task.budget_micro_cny, job.charged_micro_cny if task.budget_micro_cny else 0, bool(task.secrets or task.token),
        task.priority, job.quote, job.quote_pool, job.quote_price_micro_cny,
    )  # fmt: skip
    return digest(asked) or 1


def words_of(job: Job) -> int:
    """64 bits of what a policy may read of a task beside its shape."""
    return digest((job.task.name, sorted(job.task.labels.items())))


def digest(value: object) -> int:
    """64 bits of anything that can be encoded; equal for what is equal."""
    return int.from_bytes(blake2b(_encode(value), digest_size=8).digest(), "big", signed=True)
