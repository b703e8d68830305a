"""Share: where each project stands, whose turn that makes it, and whether it may take this much more now.

A project's cards quota is its guaranteed share. What it holds beyond that is borrowed, and everything is that a project
without such a quota holds, for nothing is guaranteed to it.

Whose turn it is follows Dominant Resource Fairness (Ghodsi et al., NSDI 2011): the project that holds the least, in the
kind of capacity of which it holds most, goes first; a weight of two lets it hold twice as much. Whoever takes cards by
right, which keep its project within its guaranteed share, goes before whoever borrows. Both are added to the age of the
job, so that they are handicaps with an end and never walls::

    turn_ms = turn_ms of the job + FULL_MS x dominant share / weight + FULL_MS where cards are borrowed
                                                                                                  the smaller goes first

Within a project the order stays that of `queue`; a job goes before any that was submitted twice `FULL_MS` and the head
start of its priority later, whatever the projects hold.

Quotas are walls. What a live run may still use up of a month, as far as its stop bounds it, is pledged while it lives.

Pure: the caller says what is held, spent and pledged, and asks. Cost: about 1 us a question.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Final, NamedTuple

from tieline.model.project import Project, Quota
from tieline.model.reason import Reason, Value
from tieline.place.pools import Amount
from tieline.place.queue import AGEING_MS

FULL_MS: Final = 1_440 * AGEING_MS  # how far behind a project of weight 1 stands that holds all there is: a day
HOUR_MS: Final = 3_600_000
SECOND_MS: Final = 1_000


class Standing(NamedTuple):
    """Where a project stands now."""

    project: str
    held: Amount
    guaranteed: int  # cards
    borrowed: int  # cards held beyond them
    share: Fraction  # dominant share / weight, at most 1
    pledged_card_ms: int  # to live runs
    pledged_micro_cny: int
    bare_cores: int  # held, of pools without accelerators


class Use(NamedTuple):
    """What quotas count: at once, and of a month."""

    cards: int = 0
    cores: int = 0  # of pools without accelerators
    card_ms: int = 0
    micro_cny: int = 0


class Over(NamedTuple):
    """The first quota that does not hold: a field of `Quota`, and amounts in its unit (card-hours rounded up)."""

    what: str
    used: int
    bound: int
    asked: int


class Left(NamedTuple):
    """What a project may still use up this month; None: no bound."""

    card_ms: int | None = None
    micro_cny: int | None = None

    def run_s(self, cards: int, end_s: int = 0) -> int | None:
        """How long a run of so many cards may last that takes ``end_s`` to end; None: no bound, below 1: not at all."""
        return None if self.card_ms is None or not cards else self.card_ms // (cards * SECOND_MS) - end_s


NO_BOUND: Final = Left()


class Account:
    """One project: its terms, and what it has."""

    __slots__ = ("bare_cores", "card_ms", "held", "micro_cny", "pledged_card_ms", "pledged_micro_cny", "project")

    def __init__(self, project: Project) -> None:
        self.project = project
        self.held = Amount()
        self.bare_cores = 0  # of pools without accelerators
        self.card_ms = 0  # spent this month
        self.micro_cny = 0
        self.pledged_card_ms = 0  # to live runs
        self.pledged_micro_cny = 0

    @property
    def borrowed(self) -> int:
        """Cards beyond the guaranteed ones."""
        return max(0, self.held.accelerators - self.project.quota.card_count)

    @property
    def use(self) -> Use:
        """What its quotas count."""
        card_ms, micro_cny = self.card_ms + self.pledged_card_ms, self.micro_cny + self.pledged_micro_cny
        return Use(self.held.accelerators, self.bare_cores, card_ms, micro_cny)


class Shares:
    """All projects of one exchange. A project that is not known is one of weight 1 without quotas."""

    def __init__(self, capacity: Amount, projects: Iterable[Project] = ()) -> None:
        self.capacity = capacity  # of all pools, what is booked included
        self._accounts: dict[str, Account] = {}
        self._guaranteed = 0  # cards, to all together
        for project in projects:
            self.put(project)

    # -- facts --------------------------------------------------------------------------------------------------------

    def put(self, project: Project) -> None:
        """A project, new or changed."""
        account = self._account(project.id)
        self._guaranteed += project.quota.card_count - account.project.quota.card_count
        account.project = project

    def hold(self, project: str, amount: Amount, card_ms: int = 0, micro_cny: int = 0) -> None:
        """A run of the project was booked, to which that much of the month is pledged."""
        assert min(*amount, card_ms, micro_cny) >= 0, (project, amount, card_ms, micro_cny)
        self._move(self._account(project), amount, card_ms, micro_cny, 1)

    def release(self, project: str, amount: Amount, card_ms: int = 0, micro_cny: int = 0) -> None:
        """A run of the project ended. More than is held or pledged is an assertion, and changes nothing."""
        account = self._account(project)
        assert min(*amount, card_ms, micro_cny) >= 0, (project, amount, card_ms, micro_cny)
        assert all(has >= back for has, back in zip(account.held, amount, strict=True)), (project, account.held, amount)
        assert amount.accelerators or account.bare_cores >= amount.cores, (project, account.bare_cores, amount)
        assert account.pledged_card_ms >= card_ms, (project, account.pledged_card_ms, card_ms)
        assert account.pledged_micro_cny >= micro_cny, (project, account.pledged_micro_cny, micro_cny)
        self._move(account, amount, card_ms, micro_cny, -1)

    def use(self, project: str, card_ms: int, micro_cny: int) -> None:
        """What the project has spent this month, in place of what was said."""
        assert min(card_ms, micro_cny) >= 0, (project, card_ms, micro_cny)
        account = self._account(project)
        account.card_ms, account.micro_cny = card_ms, micro_cny

    # -- answers ------------------------------------------------------------------------------------------------------

    def standing(self, project: str) -> Standing:
        """Where the project stands."""
        account = self._known(project)
        share = min(Fraction(1), max((Fraction(has, of) for has, of in self._parts(account)), default=Fraction(0)))
        weighted = share / account.project.weight
        pledged = account.pledged_card_ms, account.pledged_micro_cny
        cards = account.project.quota.card_count
        return Standing(project, account.held, cards, account.borrowed, weighted, *pledged, account.bare_cores)

    def borrowed(self, project: str) -> int:
        """Cards that the project holds beyond its guaranteed share."""
        return self._known(project).borrowed

    def left(self, project: str) -> Left:
        """What of the quotas of the month is left."""
        account = self._known(project)
        quota, use = account.project.quota, account.use
        card_ms = max(0, quota.card_hours * HOUR_MS - use.card_ms) if quota.card_hours else None
        return Left(card_ms, max(0, quota.micro_cny - use.micro_cny) if quota.micro_cny else None)

    def turn_ms(self, project: str, turn_ms: int, cards: int = 0) -> int:
        """The number by which a job of the project goes that asks for so many cards, from its own number.

        Never below that; grows with what is held.
        """
        account = self._known(project)
        weight = account.project.weight
        behind_ms = max((has * FULL_MS // (of * weight) for has, of in self._parts(account)), default=0)
        borrows = cards and self._guaranteed and not self.is_by_right(project, cards)
        return turn_ms + min(behind_ms, FULL_MS // weight) + (FULL_MS if borrows else 0)

    def is_by_right(self, project: str, cards: int) -> bool:
        """Whether so many cards more are within the project's guaranteed share."""
        account = self._known(project)
        return 0 < cards <= account.project.quota.card_count - account.held.accelerators

    def refusal(self, project: str, asked: Amount, least_s: int = 1) -> Reason | None:
        """Why the project may not take ``asked`` now for ``least_s`` at least; None where it may.

        Whether it fits anywhere, and what it costs there, is not asked here.
        """
        account = self._known(project)
        cards = asked.accelerators
        use = Use(cards, 0 if cards else asked.cores, cards * least_s * SECOND_MS, 1)
        over = first_over(account.project.quota, account.use, use, may_borrow=account.project.may_borrow)
        return _reason(account.project.id, over) if over is not None else None

    # -- inside -------------------------------------------------------------------------------------------------------

    def _account(self, project: str) -> Account:
        if project not in self._accounts:
            self._accounts[project] = Account(Project(id=project))
        return self._accounts[project]

    def _known(self, project: str) -> Account:
        """Asking leaves nothing behind, whatever name is asked for."""
        return self._accounts.get(project) or Account(Project(id=project))

    def _move(self, account: Account, amount: Amount, card_ms: int, micro_cny: int, sign: int) -> None:
        account.held = Amount(*(has + sign * more for has, more in zip(account.held, amount, strict=True)))
        if not amount.accelerators:
            account.bare_cores += sign * amount.cores
        account.pledged_card_ms += sign * card_ms
        account.pledged_micro_cny += sign * micro_cny

    def _parts(self, account: Account) -> list[tuple[int, int]]:
        """Of each kind of capacity, what is held of how much; of capacity that went away it is all."""
        return [(has, of) if of > 0 else (1, 1) for has, of in zip(account.held, self.capacity, strict=True) if has]


def first_over(quota: Quota, used: Use, asked: Use, *, may_borrow: bool) -> Over | None:
    """The first quota that ``asked`` would break beside what is ``used``; None where all hold.

    Who may borrow has no bound on cards. Cores beside accelerators are not counted, and nobody borrows cores. A quota
    that was lowered below what is used refuses what asks for more of it, and nothing else.
    """
    hours = (used.card_ms, quota.card_hours * HOUR_MS, asked.card_ms)
    for what, has, bound, more in (
        ("card_count", used.cards, 0 if may_borrow else quota.card_count, asked.cards),
        ("core_count", used.cores, quota.core_count, asked.cores),
        ("card_hours", *hours),
        ("micro_cny", used.micro_cny, quota.micro_cny, asked.micro_cny),
    ):
        if bound and more and has + more > bound:
            unit = HOUR_MS if what == "card_hours" else 1
            return Over(what, -(-has // unit), bound // unit, -(-more // unit))
    return None


def _reason(project: str, over: Over) -> Reason:
    values: dict[str, Value] = {"project": project, "used": over.used, "bound": over.bound}
    if over.what in ("card_count", "core_count"):
        code = "quota_cards" if over.what == "card_count" else "quota_cores"
        return Reason(code=code, values={**values, "asked": over.asked})
    if over.what == "card_hours":
        return Reason(code="quota_card_hours", values=values)
    return Reason(
        code="quota_money", values={"project": project, "used_micro_cny": over.used, "bound_micro_cny": over.bound}
    )
