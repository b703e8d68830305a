"""Bills from usage lines: one per owner and one per user, whose sums agree because they are sums of the same lines."""

from __future__ import annotations

from collections.abc import Iterable

from tieline.model.bill import Bill, BillLine, BillSum
from tieline.model.job import Usage

SIDES = ("owner", "user")


def bills_of(usages: Iterable[Usage], side: str) -> tuple[Bill, ...]:
    """One bill for each owner (``side="owner"``: earned) or user (``side="user"``: owed), in order of name.

    A run has at most one usage line; a second line for the same run would be billing twice and is an assertion.
    """
    assert side in SIDES, side
    grouped: dict[str, list[BillLine]] = {}
    seen: set[str] = set()
    for usage in usages:
        assert usage.run not in seen, usage.run
        seen.add(usage.run)
        line = _line(usage)
        grouped.setdefault(line.owner if side == "owner" else line.user, []).append(line)
    return tuple(bill_of(party, side, grouped[party]) for party in sorted(grouped))


def bill_of(party: str, side: str, lines: Iterable[BillLine]) -> Bill:
    """The bill of one party from its lines, oldest first."""
    ordered = tuple(sorted(lines, key=lambda line: (line.ended_ms, line.run)))
    grouped: dict[str, list[BillLine]] = {}
    for line in ordered:
        grouped.setdefault(line.user if side == "owner" else line.owner, []).append(line)
    sums = tuple(_sum(name, grouped[name]) for name in sorted(grouped))
    return Bill(
        party=party,
        side=side,
        lines=ordered,
        sums=sums,
        accelerator_seconds=sum(each.accelerator_seconds for each in sums),
        core_seconds=sum(each.core_seconds for each in sums),
        charge_micro_cny=sum(each.charge_micro_cny for each in sums),
        remainder=sum(each.remainder for each in sums),
        disputed_micro_cny=sum(each.disputed_micro_cny for each in sums),
        from_ms=ordered[0].ended_ms if ordered else 0,
        until_ms=ordered[-1].ended_ms if ordered else 0,
    )


def _sum(party: str, lines: list[BillLine]) -> BillSum:
    return BillSum(
        party=party,
        run_count=len(lines),
        accelerator_seconds=sum(line.unit_seconds for line in lines if line.unit == "accelerator"),
        core_seconds=sum(line.unit_seconds for line in lines if line.unit == "core"),
        charge_micro_cny=sum(line.charge_micro_cny for line in lines),
        remainder=sum(line.remainder for line in lines),
        disputed_micro_cny=sum(line.disputed_micro_cny for line in lines),
    )


def _line(usage: Usage) -> BillLine:
    return BillLine(
        run=usage.run,
        job=usage.job,
        user=usage.user,
        owner=usage.owner,
        pool=usage.pool,
        unit=usage.unit,
        unit_seconds=usage.unit_seconds,
        price_micro_cny_per_unit_hour=usage.price_micro_cny_per_unit_hour,
        charge_micro_cny=usage.charge_micro_cny,
        remainder=usage.remainder,
        evidence=usage.evidence,
        ended_ms=usage.ended_ms,
        via=usage.via,
        origin=usage.origin,
        disputed_micro_cny=usage.disputed_micro_cny + usage.given_disputed_micro_cny,
        carried=usage.carried,
    )
