"""Rating 计费: from a run's length to its charge, and from a budget to the second at which a run must stop.

The rule (design, section 5): unit-seconds are accelerators (or cores) times whole seconds, rounded up once per run;
the charge is ``unit_seconds x price // 3600`` micro-yuan, rounded down once per usage line, and the remainder of that
division is kept beside it. So ``charge x 3600 + remainder == unit_seconds x price`` holds for every line and every sum
of lines: no money appears or vanishes by rounding. Integers only.
"""

from __future__ import annotations

from typing import NamedTuple

from tieline.model.error import TielineError
from tieline.model.job import Run, Usage
from tieline.model.reason import Reason

HOUR_S = 3_600
ROUNDING_S = 1  # a started second counts whole: a stop that comes a moment late must still be paid for
MAX_STOP_S = 31_536_000  # the longest run that a task may ask for, one year; later stops mean: no stop


class Charge(NamedTuple):
    """Money for one line, and what the division left over."""

    charge_micro_cny: int
    remainder: int  # micro-yuan-seconds, 0 <= remainder < 3600


def unit_seconds_of(unit_count: int, duration_ms: int, most_s: int = 0) -> int:
    """Accelerator-seconds (or core-seconds) of one run: its milliseconds rounded up to whole seconds, once.

    ``most_s`` caps the seconds (0: no cap): what an owner's site lets run past the agreed stop is the owner's own.
    """
    assert unit_count >= 0, unit_count
    assert duration_ms >= 0, duration_ms
    seconds = -(-duration_ms // 1_000)
    return unit_count * (min(seconds, most_s) if most_s else seconds)


def charge_of(unit_seconds: int, price_micro_cny_per_unit_hour: int) -> Charge:
    """Rate one line: rounded down once, with the remainder."""
    assert unit_seconds >= 0, unit_seconds
    assert price_micro_cny_per_unit_hour >= 0, price_micro_cny_per_unit_hour
    return Charge(*divmod(unit_seconds * price_micro_cny_per_unit_hour, HOUR_S))


def covered_s(budget_micro_cny: int, unit_count: int, price_micro_cny_per_unit_hour: int) -> int | None:
    """The most whole seconds whose charge stays within the budget; None when what costs nothing is never over.

    The charge is rounded down, so ``units x s x price < (budget + 1) x 3600`` is the exact bound.
    """
    rate = unit_count * price_micro_cny_per_unit_hour
    return ((budget_micro_cny + 1) * HOUR_S - 1) // rate if rate else None


def stop_after_s(
    *,
    budget_micro_cny: int,
    max_duration_s: int,
    unit_count: int,
    price_micro_cny_per_unit_hour: int,
    grace_s: int = 0,
) -> int:
    """After how many seconds the site must begin to stop a run; 0: never.

    The duration limit is meant as written. The budget must also pay for the ``grace_s`` between SIGTERM and SIGKILL and
    for the second that rounding up may add, so it stops the run that much earlier. Zero means no such limit, for both.
    Raises TielineError `unplaceable` when the budget does not even pay for one second with its grace (placing has
    refused such a pool before: reason `budget_below`).
    """
    limits = [max_duration_s] if max_duration_s else []
    if budget_micro_cny:
        paid_s = covered_s(budget_micro_cny, unit_count, price_micro_cny_per_unit_hour)
        if paid_s is not None:
            least_s = 1 + grace_s + ROUNDING_S
            if paid_s < least_s:
                lowest = charge_of(unit_count * least_s, price_micro_cny_per_unit_hour).charge_micro_cny
                values = {"budget_micro_cny": budget_micro_cny, "lowest_micro_cny": lowest, "least_us": least_s * 10**6}
                raise TielineError(
                    "unplaceable",
                    "the budget ends before the run could begin and stop in order",
                    reasons=(Reason(code="budget_below", values=dict(values)),),
                    hints=(f"raise `budget` to more than {lowest / 10**6:g} CNY",),
                )
            limits.append(min(paid_s - grace_s - ROUNDING_S, MAX_STOP_S))
    return min(limits, default=0)


def hold_of(
    *,
    budget_micro_cny: int,
    max_duration_s: int,
    unit_count: int,
    price_micro_cny_per_unit_hour: int,
    grace_s: int = 0,
) -> int:
    """Micro-yuan held at booking: the most that the run can cost, never more than its budget; 0 where nothing limits
    it or it costs nothing."""
    stop_s = stop_after_s(
        budget_micro_cny=budget_micro_cny,
        max_duration_s=max_duration_s,
        unit_count=unit_count,
        price_micro_cny_per_unit_hour=price_micro_cny_per_unit_hour,
        grace_s=grace_s,
    )
    if not stop_s:
        return 0
    worst = charge_of(unit_count * (stop_s + grace_s + ROUNDING_S), price_micro_cny_per_unit_hour).charge_micro_cny
    return min(worst, budget_micro_cny) if budget_micro_cny else worst


def usage_of(
    run: Run,
    *,
    duration_ms: int,
    ended_ms: int,
    most_micro_cny: int = 0,
    cpu_ms: int = 0,
    max_memory_bytes: int = 0,
    evidence: str = "measured",
) -> Usage:
    """The one usage line of a run at its booked price; it never exceeds ``most_micro_cny``, the run's hold (0: none).

    A run that outlived its stop is rated for the seconds that the hold covers; ``duration_ms`` still says the truth.
    """
    price = run.price_micro_cny_per_unit_hour
    paid_s = covered_s(most_micro_cny, run.unit_count, price) if most_micro_cny else None
    unit_seconds = 0 if paid_s == 0 else unit_seconds_of(run.unit_count, duration_ms, paid_s or 0)
    charge = charge_of(unit_seconds, price)
    return Usage(
        run=run.id,
        job=run.job,
        user=run.user,
        owner=run.owner,
        pool=run.pool,
        unit=run.unit,
        unit_count=run.unit_count,
        duration_ms=duration_ms,
        unit_seconds=unit_seconds,
        price_micro_cny_per_unit_hour=price,
        charge_micro_cny=charge.charge_micro_cny,
        remainder=charge.remainder,
        cpu_ms=cpu_ms,
        max_memory_bytes=max_memory_bytes,
        project=run.project,
        evidence=evidence,
        ended_ms=ended_ms,
    )
