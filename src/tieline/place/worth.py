"""Steps that compare what the task would pay and wait with what a pool costs and how long its data takes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tieline.language import Term
from tieline.language.context import RESTS_ON
from tieline.language.tree import Compare, Relate, refs
from tieline.language.types import NUMERIC, show
from tieline.language.vector import Rows as Frame
from tieline.language.vector import evaluate, integers_of
from tieline.model.quantity import show_duration, show_money
from tieline.model.reason import Reason, Relaxation
from tieline.place.coded import Flags, Numbers, Rows
from tieline.place.scene import MOST, Asking
from tieline.place.step import Step, reason

HOUR_S = 3_600
STOP_S = 2  # one second of work, and one that rounding up may add: what a budget must cover beside the grace


class Price(Step):
    """A price above the limit is no offer."""

    codes: tuple[str, ...] = ("price_above",)

    def asked(self, asking: Asking) -> bool:
        """Whether a limit is set."""
        return asking.need.max_price_micro_cny is not None

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Not above it."""
        return asking.price(rows) <= _limit(asking)

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The limit, and the lowest price above it."""
        lowest = int(asking.price(rows).min())
        return reason("price_above", rows, limit_micro_cny=_limit(asking), lowest_micro_cny=lowest)

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """The lowest price above it."""
        price = asking.price(rows)
        lowest = int(price.min())
        admits = int((price == lowest).sum())
        return Relaxation(term="max_price", asked=show_money(_limit(asking)), needed=show_money(lowest), admits=admits)


class Budget(Step):
    """A run that its budget stops at once is no run: it must cover a second, the grace to stop, and rounding."""

    codes: tuple[str, ...] = ("budget_below",)

    def asked(self, asking: Asking) -> bool:
        """Whether there is one."""
        return asking.demand.budget_micro_cny is not None

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Prices at which it covers that much: ``units x seconds x price // 3600 <= budget``."""
        most = ((_budget(asking) + 1) * HOUR_S - 1) // (asking.need.unit_count * _least_s(asking))
        return asking.price(rows) <= min(most, MOST)

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The budget, the seconds, and what they cost at the cheapest."""
        return reason(
            "budget_below",
            rows,
            budget_micro_cny=_budget(asking),
            lowest_micro_cny=self._lowest(asking, rows),
            least_us=_least_s(asking) * 1_000_000,
        )

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """What the cheapest would need."""
        price = asking.price(rows)
        admits = int((price == price.min()).sum())
        needed = show_money(self._lowest(asking, rows))
        return Relaxation(term="budget", asked=show_money(_budget(asking)), needed=needed, admits=admits)

    def _lowest(self, asking: Asking, rows: Rows) -> int:
        return asking.need.unit_count * _least_s(asking) * int(asking.price(rows).min()) // HOUR_S


class Deadline(Step):
    """Start now, plus the time that the data takes, plus the longest run, must be before the deadline."""

    codes: tuple[str, ...] = ("deadline_missed",)

    def asked(self, asking: Asking) -> bool:
        """Whether there is one."""
        return asking.demand.deadline_ms > 0

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """In time."""
        return asking.moves(rows).time_us <= asking.slack_us

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """By how much the earliest would be late."""
        return reason("deadline_missed", rows, earliest_us=self._late_us(asking, rows))

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """A later deadline."""
        late = self._late_us(asking, rows)
        admits = int((asking.moves(rows).time_us == int(asking.moves(rows).time_us.min())).sum())
        return Relaxation(term="deadline", asked="as stated", needed=f"{show_duration(late)} later", admits=admits)

    def _late_us(self, asking: Asking, rows: Rows) -> int:
        return int(asking.moves(rows).time_us.min()) - asking.slack_us


class Where(Step):
    """The task's own expression over offers. Unknown never matches; `Unmeasured` asks for what may become known."""

    codes: tuple[str, ...] = ("query_not_met", "query_unknown")

    def asked(self, asking: Asking) -> bool:
        """Whether there is one."""
        return asking.need.where is not None

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Where it is true, or a reading may make it so."""
        assert asking.need.where is not None
        yes = asking.need.where.evaluate(asking.pools.table, rows, asking.context).yes
        return yes if yes.all() else yes | _coming(asking, rows)

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The first term that is false, with the nearest value there is; else the first that is unknown."""
        found: list[Reason] = []
        open_rows, unknown_by = rows, np.full(len(rows), -1, np.int64)
        for index, term in enumerate(_terms(asking)):
            yes, unknown = evaluate(term.node, asking.pools.table, open_rows, asking.context)
            false = ~(yes | unknown)
            if false.any():
                nearest = _nearest(asking, term, open_rows[false])
                values = {"term": term.text, "nearest": nearest or "-"}
                found += [Reason(code="query_not_met", count=int(false.sum()), values=dict(values))]
            unknown_by[unknown & (unknown_by < 0)] = index
            open_rows, unknown_by = open_rows[~false], unknown_by[~false]
        return found + _unknown(asking, unknown_by, "query_unknown")

    def relax(self, asking: Asking, rows: Rows) -> Relaxation | None:
        """The first term which alone keeps some pools out: its nearest value, or leaving it out."""
        terms = _terms(asking)
        verdicts = [evaluate(term.node, asking.pools.table, rows, asking.context) for term in terms]
        misses = np.sum([~verdict.yes for verdict in verdicts], axis=0)
        for term, (yes, unknown) in zip(terms, verdicts, strict=True):
            alone = rows[(misses == 1) & ~yes & ~unknown]
            if len(alone):
                nearest = _nearest(asking, term, alone)
                if not nearest:
                    return Relaxation(term=term.text, asked=term.text, needed="without it", admits=len(alone))
                admits = int((_numbers(asking, term, alone)[0] == _best(asking, term, alone)).sum())
                assert term.bound is not None
                asked = show(term.bound.ref.type, term.bound.value)
                return Relaxation(term=term.bound.ref.key, asked=asked, needed=nearest, admits=admits)
        return None


class Unmeasured(Step):
    """A way that nobody measured yet: whoever asks how far it is waits for whoever measures."""

    codes: tuple[str, ...] = ("query_unmeasured",)
    is_lasting: ClassVar[bool] = False  # a reading may come

    def asked(self, asking: Asking) -> bool:
        """Whether the expression speaks of ways at all."""
        where = asking.need.where
        return where is not None and any(ref.name in RESTS_ON for ref in where.refs)

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Where everything that may become known is known."""
        return ~_coming(asking, rows)

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The first term that is unknown."""
        unknown_by = np.full(len(rows), -1, np.int64)
        for index, term in enumerate(_terms(asking)):
            unknown = evaluate(term.node, asking.pools.table, rows, asking.context)[1]
            unknown_by[unknown & (unknown_by < 0)] = index
        return _unknown(asking, unknown_by, self.codes[0])


class DataRate(Step):
    """Without a known rate from any copy of the data nobody can say when the work would begin."""

    codes: tuple[str, ...] = ("data_rate_unknown",)
    is_lasting: ClassVar[bool] = False  # a reading may come

    def asked(self, asking: Asking) -> bool:
        """Whether there is data that has a place."""
        return asking.is_moving

    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Where the rate is known, or a copy is."""
        return asking.moves(rows).is_known

    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """The data."""
        return reason("data_rate_unknown", rows, data=", ".join(term.name for term in asking.demand.data[:3]))


def _limit(asking: Asking) -> int:
    limit = asking.need.max_price_micro_cny
    assert limit is not None
    return limit


def _budget(asking: Asking) -> int:
    budget = asking.demand.budget_micro_cny
    assert budget is not None
    return budget


def _least_s(asking: Asking) -> int:
    return STOP_S + asking.demand.grace_s


def _terms(asking: Asking) -> tuple[Term, ...]:
    assert asking.need.where is not None
    return asking.need.where.terms


def _unknown(asking: Asking, unknown_by: Numbers, code: str) -> list[Reason]:
    """One reason for each term that is the first unknown one of some row."""
    counts = [int((unknown_by == index).sum()) for index in range(len(_terms(asking)))]
    return [
        Reason(code=code, count=count, values={"term": term.text})
        for term, count in zip(_terms(asking), counts, strict=True)
        if count
    ]


def _coming(asking: Asking, rows: Rows) -> Flags:
    """Where no term is false, some are unknown, and each of these for a reading that may still come."""
    coming = np.zeros(len(rows), np.bool_)
    if not Unmeasured().asked(asking):
        return coming
    sites = asking.pools.table.texts("site").codes[rows]
    left = np.ones(len(rows), np.bool_)
    for term in _terms(asking):
        yes, unknown = evaluate(term.node, asking.pools.table, rows, asking.context)
        readable = np.zeros(len(rows), np.bool_)
        for ref in refs(term.node):
            if ref.name in RESTS_ON:
                known = asking.context.reading(ref.name, ref.argument, asking.scene.sites)[1]
                readable |= (asking.scene.may_read(ref.name, ref.argument) & ~known)[sites]
        coming |= unknown
        left &= yes | (unknown & readable)
    return coming & left


def _numbers(asking: Asking, term: Term, rows: Rows) -> tuple[Numbers, Flags]:
    assert isinstance(term.node, Compare)
    frame = Frame(asking.pools.table, rows)
    values, known = integers_of(term.node.ref, asking.pools.table, asking.context)(frame)
    return values, np.ones(len(rows), np.bool_) if known is None else known


def _best(asking: Asking, term: Term, rows: Rows) -> int | None:
    """The value of an ordered comparison that comes nearest to holding."""
    bound = term.bound
    if bound is None or isinstance(term.node, Relate) or bound.ref.type not in NUMERIC or bound.op in ("==", "!="):
        return None
    values, known = _numbers(asking, term, rows)
    if not known.any():
        return None
    return int(values[known].min() if bound.op in ("<", "<=") else values[known].max())


def _nearest(asking: Asking, term: Term, rows: Rows) -> str:
    best = _best(asking, term, rows)
    return "" if best is None or term.bound is None else show(term.bound.ref.type, best)
