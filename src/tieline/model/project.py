"""Project 项目: people who share a budget and a share of the cards, and how much of each.

A job names its project (``--project``, or the caller's only one). Quotas of a project bind when work is placed; what is
over waits, with the reason counted. A project that may *borrow* goes over its cards while nobody else's share waits for
them, and gives them back by preemption (checkpoint first).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from tieline.model.spec import Word

Amount = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Priority = Annotated[int, msgspec.Meta(ge=-1_000, le=1_000)]
Weight = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
PRIORITY_MOST = 50  # of a project's jobs, where nobody said otherwise


class ProjectRole(StrEnum):
    """What a member may do in a project."""

    MEMBER = "member"  # runs jobs in it, sees its jobs
    MANAGER = "manager"  # and changes its members, stops its jobs


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A user, or everybody in a group of the identity provider."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    role: ProjectRole = ProjectRole.MEMBER
    is_group: bool = False


class Quota(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Zero: no bound."""

    card_count: Amount = 0  # accelerators held at once
    core_count: Amount = 0  # cores held at once, of pools without accelerators
    card_hours: Amount = 0  # of a calendar month, UTC
    micro_cny: Amount = 0  # of a calendar month, UTC


class Project(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One project of this exchange."""

    id: Word
    title: str = ""
    members: Annotated[tuple[Member, ...], msgspec.Meta(max_length=10_000)] = ()
    quota: Quota = Quota()
    weight: Weight = 1  # of its fair share
    may_borrow: bool = True
    priority_most: Priority = PRIORITY_MOST  # that its members may ask for; an admin may ask for any
    is_closed: bool = False  # takes no new jobs
    created_ms: int = 0
    changed_ms: int = 0


class Spending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a project used up in one calendar month (UTC)."""

    project: str
    month: str  # 2026-11
    card_ms: int = 0
    charge_micro_cny: int = 0
