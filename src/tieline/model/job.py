"""Job 算力任务 and run 运行: what was asked for, and each attempt at it, with the tables of their states.

::

    job:  queued --> booked --> staging --> running --> succeeded | failed | cancelled
             ^          |          |           |
             +----------+----------+-----------+   refused, lost, or failed with attempts left
    run:  offered --> accepted --> running --> succeeded | failed | stopped
             |            |           |
             +--> refused +--> lost <-+

A gang over several pools has a run in each of them, all of one epoch. None starts before all are accepted; when one
does not end well the others are stopped, and the job is queued again or ends once all of them are over.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.peer import Origin
from tieline.model.reason import Reason
from tieline.model.task import Task


class JobState(StrEnum):
    """The design's states of a job."""

    QUEUED = "queued"
    BOOKED = "booked"
    STAGING = "staging"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RunState(StrEnum):
    """The design's states of one attempt."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    REFUSED = "refused"
    STOPPED = "stopped"


JOB_NEXT: dict[JobState, tuple[JobState, ...]] = {
    JobState.QUEUED: (JobState.BOOKED, JobState.CANCELLED, JobState.FAILED),
    JobState.BOOKED: (JobState.STAGING, JobState.QUEUED, JobState.CANCELLED, JobState.FAILED),
    JobState.STAGING: (
        JobState.RUNNING,
        JobState.QUEUED,
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.CANCELLED,
    ),
    JobState.RUNNING: (JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED),
    JobState.SUCCEEDED: (),
    JobState.FAILED: (),
    JobState.CANCELLED: (),
}
RUN_NEXT: dict[RunState, tuple[RunState, ...]] = {
    RunState.OFFERED: (RunState.ACCEPTED, RunState.REFUSED, RunState.LOST, RunState.STOPPED),
    RunState.ACCEPTED: (RunState.RUNNING, RunState.SUCCEEDED, RunState.FAILED, RunState.LOST, RunState.STOPPED),
    RunState.RUNNING: (RunState.SUCCEEDED, RunState.FAILED, RunState.LOST, RunState.STOPPED),
    RunState.SUCCEEDED: (),
    RunState.FAILED: (),
    RunState.LOST: (),
    RunState.REFUSED: (),
    RunState.STOPPED: (),
}
JOB_ENDED = frozenset(state for state, following in JOB_NEXT.items() if not following)
RUN_ENDED = frozenset(state for state, following in RUN_NEXT.items() if not following)


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file that a run left behind, kept as a blob."""

    path: str
    sha256: str
    size_bytes: int
    node: int = 0


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What a usage line of a transfer rests on: bytes by receipts, and the booked price of the whole."""

    size_bytes: int  # that were booked
    moved_bytes: int  # that arrived
    late_bytes: int  # of these, after the deadline
    late_permille: int  # of the price, for late bytes
    price_micro_cny: int  # of the whole as booked


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one run used, in integers, and what that costs at the booked price.

    ``unit_seconds`` = accelerators (or cores) x whole seconds, rounded up once per run; the charge is
    ``unit_seconds x price // 3600`` and the remainder of that division is kept.

    A circuit has a line for each day (``run`` is ``CIRCUIT.NUMBER``): whole seconds in which its path was proven, the
    factors of its hours and of its goodput applied. A transfer has one: ``carried``, and no seconds. Such a line grows
    with the receipts; ``ended_ms`` is when it was begun.
    """

    run: str
    job: str
    user: str
    owner: str
    pool: str
    unit: str  # accelerator, core, circuit or transfer
    unit_count: int
    duration_ms: int
    unit_seconds: int
    price_micro_cny_per_unit_hour: int
    charge_micro_cny: int
    remainder: int  # of charge division, in micro-yuan-seconds; 0 <= remainder < 3600
    cpu_ms: int = 0
    max_memory_bytes: int = 0
    evidence: str = "measured"
    ended_ms: int = 0
    project: str = ""
    site_receipt: str = ""  # signed `MeterReading` of the site
    via: str = ""  # the exchange behind which it ran
    claim: str = ""  # its signed `UsageClaim`
    answer: str = ""  # our signed `UsageAnswer`
    disputed_micro_cny: int = 0  # what it claims beyond the charge: not billed
    origin: str = ""  # the exchange whose user it was
    given_claim: str = ""  # our signed `UsageClaim` to it
    given_answer: str = ""  # its signed `UsageAnswer`
    given_disputed_micro_cny: int = 0  # what it does not accept of the charge
    carried: Carried | None = None  # of a transfer


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of a gang over several pools, as the others are told of it."""

    run: Annotated[str, msgspec.Meta(max_length=200)]
    site: str
    rank: int  # of its first node
    nodes: int


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt at a job on one pool. ``epoch`` only grows within a job and fences every report."""

    id: str
    job: str
    epoch: int
    state: RunState
    pool: str
    site: str
    owner: str
    user: str
    price_micro_cny_per_unit_hour: int
    unit: str = "core"
    unit_count: int = 0  # accelerators or cores over all nodes
    accelerator_count: int = 0  # over all nodes
    core_count: int = 0
    memory_bytes: int = 0
    alternative: int = 0  # which entry of task.resources was booked
    network: str = ""
    sandbox: str = ""  # what isolated it: bubblewrap, container, none
    via: str = ""  # the peer that it was offered to; empty: the site is ours
    as_of_ms: int = 0  # when what is free behind that peer was heard, as the choice rests on it
    project: str = ""
    offered_ms: int = 0
    expires_ms: int = 0  # of the offer
    accepted_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    stop_after_s: int = 0  # the site stops it then: duration limit and budget, whichever is first; 0: none
    exit_codes: tuple[int, ...] = ()  # per node, once known
    checkpoint: str = ""  # blob restored at its start
    answer: str = ""  # our signed `UsageAnswer`, once it ended behind a peer: given again as it is
    reason: Reason | None = None
    is_stop_requested: bool = False
    stop_reason: Reason | None = None  # why we asked: what the end is explained with
    stop_asked_ms: int = 0  # when
    priority: int = 0
    is_preemptible: bool = False  # its job keeps checkpoints: it may give way to others, and go on later
    preemptions: int = 0  # times that its job gave way before
    kept_ms: int = 0  # when its newest checkpoint was kept
    pledged_card_ms: int = 0  # of its project's month: the most that it can use up until it is stopped
    pledged_micro_cny: int = 0
    members: int = 0  # runs of its gang, all of one epoch; 0: it is the only one
    member: int = 0  # which of them
    rank: int = 0  # of its first node in the gang
    nodes: int = 0  # of the gang's; 0: all of the task's
    held_micro_cny: int = 0  # of a member: its part of what is held for the job
    is_confirmed: bool = False  # of a member: all others are accepted too, it may start
    gang: tuple[Member, ...] = ()  # of a member: all of them by rank, as they were booked together

    @property
    def station(self) -> str:
        """Whom we talk to about it: the site, or the exchange before it."""
        return self.via or self.site


class Break(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a gang over several pools cannot go on: what befell the first of its runs that did not end well."""

    reason: Reason
    site: str
    is_loss: bool = False  # not the job's doing
    is_final: bool = False  # it is not tried again, such as after a limit
    exit_codes: tuple[int, ...] = ()
    at_ms: int = 0


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a user asked for and what has become of it."""

    id: str
    user: str
    state: JobState
    task: Task
    submitted_ms: int
    user_owner: str = ""  # prefix that the user belongs to
    after: str = ""  # the previous step of a pipeline
    pipeline: str = ""
    epoch: int = 0  # of the latest run
    run: str = ""  # the latest run
    attempts: int = 0  # runs that ended badly by themselves
    losses: int = 0  # runs that were lost or refused
    eligible_ms: int = 0  # not placed before
    ended_ms: int = 0
    held_micro_cny: int = 0
    charged_micro_cny: int = 0
    quote: str = ""  # the accepted quote: this pool at this price, or not at all
    quote_pool: str = ""
    quote_alternative: int = 0
    quote_price_micro_cny: int = 0
    checkpoint: str = ""  # newest uploaded blob
    checkpoint_ms: int = 0
    outputs: tuple[Output, ...] = ()
    reasons: tuple[Reason, ...] = ()
    avoid: tuple[str, ...] = ()  # sites where a run was lost, refused or could not start, oldest first
    is_cancel_requested: bool = False
    project: str = ""
    origin: Origin | None = None  # another exchange asked for it
    preemptions: int = 0  # times that it gave way to others; not held against it
    via: str = ""  # the peer behind which its newest run was placed; empty: at one of our sites
    members: int = 0  # runs of its newest gang over several pools; 0: it has one run
    broken: Break | None = None  # its gang of the newest epoch: the others are being ended
