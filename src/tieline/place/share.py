"""Share: where each project stands, whose turn that makes it, and whether it may take this much more now.

A project's cards quota is its guaranteed share. What it holds beyond that is borrowed, and everything is that a project
without such a quota holds, for nothing is guaranteed to it.

Whose turn it is follows Dominant Resource Fairness (Ghodsi et al., NSDI 2011): the project that holds the least, in the
kind of capacity of which it holds most, goes first; a weight of two lets it hold twice as much. The share is added to
the age of the job, so that it is a handicap with an end and never a wall::

    turn_ms = turn_ms of the job + FULL_MS x dominant share / weight        the smaller goes first

Within a project the order stays that of `queue`; a job goes before any that was submitted `FULL_MS` and the head start
of its priority later, whatever the projects hold.

By right a job takes what keeps its project within its guaranteed share. Beyond it a project takes what leaves enough
free for the jobs of others that wait by right: `owed`. Only jobs that fit as a whole into what is left of their
project's guarantee are counted there: what waits by right can be placed by right, so two that would both borrow never
wait for each other.

Pure: the caller says what is held, spent, pledged, wanted and free, and asks. Cost: about 1 us a question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

from tieline.model.project import Project
from tieline.model.reason import Reason, Value
from tieline.place.pools import Amount
from tieline.place.queue import AGEING_MS

FULL_MS: Final = 1_440 * AGEING_MS  # how far behind a project of weight 1 stands that holds all there is: a day
MOST_WANTED: Final = 256  # waiting jobs of a project that are looked at for what is owed to it
HOUR_MS: Final = 3_600_000
SECOND_MS: Final = 1_000


class Standing(NamedTuple):
    """Where a project stands now."""

    project: str
    held: Amount
    guaranteed: int  # cards
    borrowed: int  # cards held beyond them
    owed: int  # cards that its waiting jobs may take by right
    share: Fraction  # dominant share / weight, at most 1


class Left(NamedTuple):
    """What a project may still use up this month; None: no bound."""

    card_ms: int | None
    micro_cny: int | None

    def run_s(self, cards: int) -> int | None:
        """How long a run of so many cards may last; None: no bound. Money bounds it as budgets do."""
        return None if self.card_ms is None or not cards else self.card_ms // (cards * SECOND_MS)


class Account:
    """One project: its terms, and what it has."""

    __slots__ = ("bare_cores", "card_ms", "held", "micro_cny", "owed", "project", "wanted")

    def __init__(self, project: Project) -> None:
        self.project = project
        self.held = Amount()
        self.bare_cores = 0  # of pools without accelerators
        self.card_ms = 0  # spent this month and pledged to live runs
        self.micro_cny = 0
        self.wanted: tuple[int, ...] = ()
        self.owed = 0

    @property
    def borrowed(self) -> int:
        """Cards beyond the guaranteed ones."""
        return max(0, self.held.accelerators - self.project.quota.card_count)


class Shares:
    """All projects of one exchange. A project that is not known is one of weight 1 without quotas."""

    def __init__(self, capacity: Amount, projects: Iterable[Project] = ()) -> None:
        self.capacity = capacity  # of all pools, what is booked included
        self._accounts: dict[str, Account] = {}
        self._owed = 0
        for project in projects:
            self.put(project)

    # -- facts --------------------------------------------------------------------------------------------------------

    def put(self, project: Project) -> None:
        """A project, new or changed."""
        account = self._account(project.id)
        account.project = project
        self._owe(account)

    def hold(self, project: str, amount: Amount) -> None:
        """A run of the project was booked."""
        assert min(amount) >= 0, amount
        self._move(self._account(project), amount, 1)

    def release(self, project: str, amount: Amount) -> None:
        """A run of the project ended. More than is held is an assertion, and changes nothing."""
        account = self._account(project)
        assert min(amount) >= 0, amount
        assert all(has >= back for has, back in zip(account.held, amount, strict=True)), (project, account.held, amount)
        assert amount.accelerators or account.bare_cores >= amount.cores, (project, account.bare_cores, amount)
        self._move(account, amount, -1)

    def use(self, project: str, card_ms: int, micro_cny: int) -> None:
        """What the project has spent this month and what its live runs may still spend, in place of what was said."""
        assert min(card_ms, micro_cny) >= 0, (project, card_ms, micro_cny)
        account = self._account(project)
        account.card_ms, account.micro_cny = card_ms, micro_cny

    def want(self, project: str, cards: Sequence[int]) -> None:
        """The cards that each waiting job of the project asks for, in its turn, in place of what was said.

        Name those alone that could run on the cards which others would borrow: what can run nowhere would keep these
        idle for ever. The first `MOST_WANTED` count.
        """
        account = self._account(project)
        account.wanted = tuple(cards[:MOST_WANTED])
        assert min(account.wanted, default=0) >= 0, (project, account.wanted)
        self._owe(account)

    # -- answers ------------------------------------------------------------------------------------------------------

    def standing(self, project: str) -> Standing:
        """Where the project stands."""
        account = self._known(project)
        share = min(Fraction(1), max((Fraction(has, of) for has, of in self._parts(account)), default=Fraction(0)))
        quota = account.project.quota
        weighted = share / account.project.weight
        return Standing(project, account.held, quota.card_count, account.borrowed, account.owed, weighted)

    def left(self, project: str) -> Left:
        """What of the quotas of the month is left."""
        account = self._known(project)
        quota = account.project.quota
        card_ms = max(0, quota.card_hours * HOUR_MS - account.card_ms) if quota.card_hours else None
        return Left(card_ms, max(0, quota.micro_cny - account.micro_cny) if quota.micro_cny else None)

    def turn_ms(self, project: str, turn_ms: int) -> int:
        """The number by which a job of the project goes, from its own; never below it, grows with what is held."""
        account = self._known(project)
        weight = account.project.weight
        behind_ms = max((has * FULL_MS // (of * weight) for has, of in self._parts(account)), default=0)
        return turn_ms + min(behind_ms, FULL_MS // weight)

    def is_by_right(self, project: str, cards: int) -> bool:
        """Whether so many cards more are within the project's guaranteed share."""
        account = self._known(project)
        return 0 < cards <= account.project.quota.card_count - account.held.accelerators

    def refusal(self, project: str, asked: Amount, free_cards: int) -> Reason | None:
        """Why the project may not take ``asked`` now; None where it may.

        ``free_cards`` are those free where the job could run. Whether it fits there is not asked here.
        """
        account = self._known(project)
        return _month_over(account, asked) or _bound_over(account, asked) or self._not_lent(account, asked, free_cards)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _account(self, project: str) -> Account:
        if project not in self._accounts:
            self._accounts[project] = Account(Project(id=project))
        return self._accounts[project]

    def _known(self, project: str) -> Account:
        """Asking leaves nothing behind, whatever name is asked for."""
        return self._accounts.get(project) or Account(Project(id=project))

    def _move(self, account: Account, amount: Amount, sign: int) -> None:
        account.held = Amount(*(has + sign * more for has, more in zip(account.held, amount, strict=True)))
        if not amount.accelerators:
            account.bare_cores += sign * amount.cores
        self._owe(account)

    def _owe(self, account: Account) -> None:
        self._owed -= account.owed
        room = account.project.quota.card_count - account.held.accelerators
        account.owed = 0
        for cards in account.wanted:
            if account.owed + cards <= room:
                account.owed += cards
        self._owed += account.owed

    def _parts(self, account: Account) -> list[tuple[int, int]]:
        """Of each kind of capacity, what is held of how much; of capacity that went away it is all."""
        return [(has, of) if of > 0 else (1, 1) for has, of in zip(account.held, self.capacity, strict=True) if has]

    def _not_lent(self, account: Account, asked: Amount, free_cards: int) -> Reason | None:
        """Cards beyond the guarantee are lent while enough stays for those who are below theirs."""
        project, owed = account.project, self._owed - account.owed
        cards, held, bound = asked.accelerators, account.held.accelerators, project.quota.card_count
        if not cards or held + cards <= bound or not owed or free_cards - cards >= owed:
            return None
        rest = sorted((-each.owed, name) for name, each in self._accounts.items() if each.owed and each is not account)
        values = _values(project.id or "-", held, bound, cards)
        return Reason(code="share_owed", values={**values, "free": free_cards, "owed": owed, "to": rest[0][1]})


def _values(project: str, used: int, bound: int, asked: int) -> dict[str, Value]:
    return {"project": project, "used": used, "bound": bound, "asked": asked}


def _bound_over(account: Account, asked: Amount) -> Reason | None:
    """What may be held at once. Cores beside accelerators are not counted, and nobody borrows cores."""
    quota, name = account.project.quota, account.project.id
    cards, held = asked.accelerators, account.held.accelerators
    if cards and quota.card_count and not account.project.may_borrow and held + cards > quota.card_count:
        return Reason(code="quota_cards", values=_values(name, held, quota.card_count, cards))
    if not cards and asked.cores and quota.core_count and account.bare_cores + asked.cores > quota.core_count:
        return Reason(code="quota_cores", values=_values(name, account.bare_cores, quota.core_count, asked.cores))
    return None


def _month_over(account: Account, asked: Amount) -> Reason | None:
    """What may be used up in a month: a second of it must be left, or some money."""
    quota, name = account.project.quota, account.project.id
    cards = asked.accelerators
    if cards and quota.card_hours and account.card_ms + cards * SECOND_MS > quota.card_hours * HOUR_MS:
        values: dict[str, Value] = {"project": name, "used": account.card_ms // HOUR_MS, "bound": quota.card_hours}
        return Reason(code="quota_card_hours", values=values)
    if quota.micro_cny and account.micro_cny >= quota.micro_cny:
        money: dict[str, Value] = {
            "project": name,
            "used_micro_cny": account.micro_cny,
            "bound_micro_cny": quota.micro_cny,
        }
        return Reason(code="quota_money", values=money)
    return None
