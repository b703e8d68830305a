"""Offer 供给, answer, quote 报价 and plan 调度方案: what finding and placing say, with their reasons as data."""

from __future__ import annotations

from typing import Any

import msgspec

from tieline.model.reason import Reason, Relaxation
from tieline.model.task import NotApplied, Task


class Offer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One findable thing as a query sees it: attribute values by name, and the evidence of those that state one."""

    id: str
    kind: str
    owner: str
    title: str = ""
    attributes: dict[str, Any] = {}
    evidence: dict[str, str] = {}
    score: float = 0.0
    via: str = ""  # the exchange that leads there; empty: it is behind none, or no way is known
    as_of_ms: int = 0  # when what is free behind that exchange was heard, by the clock of the one that answers
    is_stale: bool = False  # its lease is over; it is shown because its branch is silent, and nobody can tell


class BranchAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How old what is known of a peer's free capacity is, and why it is not newer."""

    exchange: str
    as_of_ms: int = 0  # by the clock of the exchange that answers; 0: never heard
    is_reached: bool = True
    is_late: bool = False  # it was asked, and did not answer within the budget
    error: str = ""
    silent_since_ms: int = 0  # 0: it is heard
    stale: int = 0  # leases of it that would have ended since
    is_frozen: bool = False  # so many that they do not end


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What find says: offers in order, and counted reasons for everything else that was considered."""

    offers: tuple[Offer, ...]
    considered: int
    matched: int
    reasons: tuple[Reason, ...] = ()
    nearest: Relaxation | None = None
    as_of_ms: int = 0
    unreachable: tuple[str, ...] = ()  # branches that could not be asked
    is_partial: bool = False  # not every branch was asked now, or answered in time
    branches: tuple[BranchAnswer, ...] = ()  # one for each active peer


class PlannedTransfer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one dataset would be brought to a candidate's site."""

    data: str
    source: str  # the copy that is there first: a site
    size_bytes: int
    time_us: int  # until the last byte is there, if it were booked now
    rate_bps: int = 0
    rtt_us: int | None = None  # None: unknown
    links: tuple[str, ...] = ()  # of the path that carries most; none: no topology is known
    price_micro_cny: int = 0
    is_laid: bool = False  # by the site, before the start; otherwise the work fetches it
    evidence: str = "declared"  # of the rate; `unknown`: nobody said or measured it, it is assumed


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One pool that fits one alternative of a task."""

    pool: str
    site: str
    owner: str
    alternative: int
    accelerator: str = ""
    unit: str = "core"
    unit_count: int = 0
    free_units: int = 0
    price_micro_cny_per_unit_hour: int = 0
    cost_micro_cny_per_hour: int = 0
    data_us: int = 0  # time to move the data there
    data_cost_micro_cny: int = 0
    transfers: tuple[PlannedTransfer, ...] = ()
    network: str = ""
    sandbox: str = ""
    evidence: str = "declared"
    is_chosen: bool = False
    via: str = ""  # the exchange that leads there; empty: the pool is behind none
    as_of_ms: int = 0  # when what is free behind that exchange was heard, by the clock of the one that answers


class PlannedMember(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one pool would give to a gang."""

    candidate: Candidate
    nodes: int
    rank: int  # of its first node


class PlannedWay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How two sites of a gang would be joined."""

    a: str
    b: str
    meets: str  # door: at a's or b's open door; relay: over the exchange
    links: tuple[str, ...] = ()  # of the path that would be booked; none: nothing is
    rate_bps: int = 0  # that would be booked
    rtt_us: int | None = None  # of the path, or measured where no topology is known; None: unknown
    price_micro_cny_per_hour: int = 0


class PlannedGang(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a gang over several pools would go now."""

    members: tuple[PlannedMember, ...]
    ways: tuple[PlannedWay, ...]
    cost_micro_cny_per_hour: int  # cards and ways
    bound_micro_cny_per_hour: int  # what no choice of sites undercuts


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What would happen to one task now: ranked candidates, the choice, and why the others lost."""

    name: str
    candidates: tuple[Candidate, ...]
    considered: int
    fitting: int = 0  # pools that fit now; with the counts of the reasons they add up to ``considered``
    chosen: str = ""
    because: Reason | None = None  # why that one
    reasons: tuple[Reason, ...] = ()
    nearest: Relaxation | None = None
    not_applied: tuple[NotApplied, ...] = ()
    is_possible: bool = True  # False: nothing that exists here can ever run it
    as_of_ms: int = 0
    gang: PlannedGang | None = None  # over several pools, where no single one has room


class Quote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An offer for one task, with a time to live. ``asked`` by a user, ``open`` once the owner answered."""

    id: str
    user: str
    pool: str
    site: str
    owner: str
    state: str  # asked, open, refused, accepted, expired
    task: Task
    user_owner: str = ""
    unit: str = "core"
    unit_count: int = 0
    price_micro_cny_per_unit_hour: int = 0  # the listed price until the owner answers
    listed_price_micro_cny_per_unit_hour: int = 0
    asked_price_micro_cny_per_unit_hour: int = 0  # what the user would like to pay; 0: the listed one
    duration_s: int = 0
    asked_duration_s: int = 0
    start_ms: int = 0  # earliest start that the owner states; 0: now
    is_countered: bool = False
    alternative: int = 0
    created_ms: int = 0
    expires_ms: int = 0
    reasons: tuple[Reason, ...] = ()
    job: str = ""  # once accepted
    via: str = ""  # the peer behind which the pool is: it asks the owner there
    origin: str = ""  # the peer whose user asks, and what it calls this quote
    origin_quote: str = ""
    path: tuple[str, ...] = ()  # exchanges that the question passed, the first one first
    data_class: tuple[str, ...] = ()  # of the task's data, as the peer knows it
    residency: tuple[str, ...] = ()

    @property
    def station(self) -> str:
        """Who answers: the peer behind which the pool is, or the owner's site."""
        return self.via or self.site
