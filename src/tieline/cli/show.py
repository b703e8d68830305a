"""Showing what the exchange said: errors, reasons, plans, jobs. Sentences come from `model.reason`, never from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tieline.cli import words
from tieline.cli.face import marked, note
from tieline.cli.table import age, clean, show
from tieline.model.error import TielineError
from tieline.model.plan import Candidate, Plan
from tieline.model.quantity import show_duration, show_money, show_rate, show_size
from tieline.model.reason import Reason, Relaxation, sentence

MOST_REASONS = 20
MOST_CANDIDATES = 10
MOST_LINES = 12  # of one message


class Because(msgspec.Struct, frozen=True, kw_only=True):
    """The reasons in the body of an event, whichever event it is."""

    reason: Reason | None = None
    reasons: tuple[Reason, ...] = ()


def said(reason: Reason) -> str:
    """A reason in the reader's language, on one line."""
    return clean(sentence(reason, words.language()))


def through(via: str, age_ms: int = -1) -> str:
    """That something is behind another exchange, and how old the state was that the choice rests on, where known."""
    if age_ms < 0:
        return words.say("through", exchange=clean(via))
    return words.say("through_old", exchange=clean(via), age=age(age_ms))


def show_error(error: TielineError) -> None:
    """``error: ...``, counted reasons, ``hint: ...``, on stderr."""
    message = error.message if words.language() == "en" else f"{words.say('code_' + error.code)}：{error.message}"
    note(marked("error") + "\n".join(clean(line) for line in message.splitlines()[:MOST_LINES]))
    if error.where and f"`{error.where}`" not in error.message:
        note(f"  {words.say('where')} {clean(error.where)}")
    if [said(reason) for reason in error.reasons] != [message]:  # what was just said needs no second line
        show_reasons(error.reasons)
    if error.hints:
        note()
    for each in error.hints:
        note(marked("hint") + clean(each))


def show_reasons(reasons: Sequence[Reason], *, counted: bool = True) -> None:
    """Reasons, one to a line: the most frequent first with their counts aligned, or as they come without counts."""
    ordered = sorted(reasons, key=lambda reason: -reason.count) if counted else list(reasons)
    if not ordered:
        return
    size = len(f"{max(reason.count for reason in ordered):,}")
    for reason in ordered[:MOST_REASONS]:
        note(f"  {reason.count:>{size},}  {said(reason)}" if counted else f"  {said(reason)}")
    if len(ordered) > MOST_REASONS:
        note(f"  {words.say('and_more', count=len(ordered) - MOST_REASONS)}")


def show_nearest(nearest: Relaxation | None) -> None:
    """The nearest change of the ask that would help."""
    if nearest is not None:
        note(
            "  "
            + words.say(
                "nearest",
                term=clean(nearest.term),
                asked=clean(nearest.asked),
                needed=clean(nearest.needed),
                count=nearest.admits,
            )
        )


def show_plans(plans: Iterable[Plan], notes: Sequence[Sequence[Reason]] = ()) -> None:
    """Plan tables on stderr, with what is not applied and why the others lost."""
    for number, plan in enumerate(plans):
        if number:
            note()
        show_plan(plan, notes[number] if number < len(notes) else ())


def show_plan(plan: Plan, notes: Sequence[Reason] = ()) -> None:
    """One plan: candidates, what is not applied, remarks, and counted reasons for the rest."""
    note(words.say("plan_head", name=clean(plan.name), fitting=len(plan.candidates), considered=plan.considered))
    if plan.candidates:
        shown = plan.candidates[:MOST_CANDIDATES]
        if not any(each.is_chosen for each in shown):
            shown = (*shown, *(each for each in plan.candidates[MOST_CANDIDATES:] if each.is_chosen))
        columns: tuple[str, ...] = (
            "chosen",
            "pool",
            "owner",
            "accelerators",
            "price",
            "cost_hour",
            "data",
            "network",
            "sandbox",
            "evidence",
            "via",
        )
        rows = [_candidate_row(each) for each in shown]
        if not any(each.via for each in shown):
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        show(columns, rows, right=(4, 5), err=True)
        if len(plan.candidates) > len(shown):
            note("  " + words.say("and_more", count=len(plan.candidates) - len(shown)))
        for each in shown:
            _show_brought(each)
    if plan.gang is not None:
        from tieline.cli.gang import show_gang

        show_gang(plan.gang)
    for via, as_of_ms in {each.via: each.as_of_ms for each in plan.candidates if each.via}.items():
        note("  " + words.say("state_old", exchange=clean(via), age=age(plan.as_of_ms - as_of_ms)))
    if plan.because is not None:
        note("  " + said(plan.because))
    for field in plan.not_applied:
        note("  " + said(Reason(code="not_applied", values={"field": field.field, "why": field.why})))
    for remark in notes:
        note("  " + said(remark))
    if plan.reasons and plan.is_possible:
        note("  " + words.say("lost_head", count=sum(reason.count for reason in plan.reasons)))
        show_reasons(plan.reasons)
    show_nearest(plan.nearest)
    if not plan.chosen and plan.gang is None and plan.is_possible:
        note("  " + words.say("would_wait"))


def _show_brought(candidate: Candidate) -> None:
    """How the data of a task would come to a candidate, and what that costs beside the price of the cards."""
    for trip in candidate.transfers:
        note(
            "  "
            + words.say(
                "plan_brings",
                pool=clean(candidate.pool),
                data=clean(trip.data),
                size=show_size(trip.size_bytes),
                source=clean(trip.source),
                path=clean(" > ".join(trip.links)) or words.say("plan_way_unknown"),
                rate=show_rate(trip.rate_bps),
                evidence=words.say("plan_rate_assumed")
                if trip.evidence == "unknown"
                else words.term("evidence", trip.evidence),
                rtt=words.term("evidence", "unknown") if trip.rtt_us is None else show_duration(trip.rtt_us),
                time=show_duration(trip.time_us),
                cost=show_money(trip.price_micro_cny),
            )
            + "; "
            + words.say("plan_laid" if trip.is_laid else "plan_not_laid")
        )


def _candidate_row(each: Candidate) -> tuple[str, ...]:
    units = f"{each.accelerator or words.say('unit_core')} x{each.unit_count}"
    return (
        "*" if each.is_chosen else "",
        each.pool,
        each.owner,
        units,
        show_money(each.price_micro_cny_per_unit_hour),
        show_money(each.cost_micro_cny_per_hour),
        show_duration(each.data_us) if each.data_us else "-",
        each.network or "-",
        each.sandbox or words.say("none"),
        words.term("evidence", each.evidence),
        each.via or "-",
    )


def check_possible(plans: Sequence[Plan]) -> None:
    """Raise TielineError `unplaceable` for the first plan that nothing here can ever fulfil."""
    for plan in plans:
        if not plan.is_possible:
            raise TielineError(
                "unplaceable",
                f"nothing here can run `{plan.name}`: {plan.considered:,} pools considered, none can ever fit",
                reasons=plan.reasons,
                hints=("tieline find ''  # everything that is offered",),
            )
