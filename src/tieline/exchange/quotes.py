"""Quotes: ask before you take. The owner answers as listed, with a counter, or not at all; accepting books it."""

from __future__ import annotations

import msgspec

from tieline.exchange.commands import AcceptQuote, AskQuote, Decision
from tieline.exchange.jobs import check_possible, new_job
from tieline.exchange.permission import allow, no_such
from tieline.exchange.placing import plan_task
from tieline.exchange.projects import project_for
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import Events, JobSubmitted, QuoteChanged
from tieline.model.party import Role
from tieline.model.peer import PeerState
from tieline.model.plan import Quote
from tieline.model.protocol import Outcome, Quoted
from tieline.model.reason import Reason, sentence
from tieline.ports import Ids

replace = msgspec.structs.replace
MOST_OPEN = 10_000
ANSWER_MS = 10_000  # how long an owner has to answer
ANSWER_FAR_MS = 15_000  # behind a peer
MOST_ASKED_FAR = 100  # questions that wait for the answer of one peer


def ask_quote(view: View, command: AskQuote, now_ms: int, ids: Ids) -> Decision:
    """Ask the owner of the best fitting pool (or of the named one)."""
    allow(command.actor, Role.USER, Role.ADMIN, what="ask for quotes")
    if len(view.quotes) >= MOST_OPEN:
        raise TielineError("overloaded", f"{MOST_OPEN:,} quotes are open")
    check_possible(view, command.actor, command.task, now_ms)
    plan = plan_task(view, command.actor, command.task, now_ms)
    candidates = [found for found in plan.candidates if not command.pool or found.pool == command.pool]
    if not candidates:
        raise TielineError(
            "unplaceable",
            f"`{command.pool}` does not fit now" if command.pool else f"nothing fits `{command.task.name}` now",
            reasons=plan.reasons,
        )
    best = candidates[0]
    via = view.way_to(best.site)
    if via and sum(quote.via == via and quote.state == "asked" for quote in view.quotes.values()) >= MOST_ASKED_FAR:
        raise TielineError("overloaded", f"{MOST_ASKED_FAR} questions wait for the answer of `{via}`")
    quote = Quote(
        id=ids.new("quote"),
        user=command.actor.name,
        user_owner=command.actor.owner,
        pool=best.pool,
        site=best.site,
        owner=best.owner,
        state="asked",
        task=command.task,
        unit=best.unit,
        unit_count=best.unit_count,
        price_micro_cny_per_unit_hour=best.price_micro_cny_per_unit_hour,
        listed_price_micro_cny_per_unit_hour=best.price_micro_cny_per_unit_hour,
        asked_price_micro_cny_per_unit_hour=command.price_micro_cny,
        asked_duration_s=command.duration_s or command.task.max_duration_s,
        alternative=best.alternative,
        created_ms=now_ms,
        expires_ms=now_ms + (ANSWER_FAR_MS if via else ANSWER_MS),
        via=via,
    )
    return Decision((QuoteChanged(quote=quote),), quote)


def take_quoted(view: View, station: str, report: Quoted, now_ms: int) -> tuple[list[Events], Outcome]:
    """The owner's answer, from its site or from the peer behind which that is, opens the quote or refuses it."""
    quote = view.quotes.get(report.quote)
    if quote is None or quote.station != station:
        return [], Outcome(is_ok=False, what="unknown")
    if quote.state != "asked":
        return [], Outcome(is_ok=True)
    if report.is_refused:
        reason = report.reason or Reason(code="refused_by_owner", values={"why": "no reason given"})
        return [QuoteChanged(quote=replace(quote, state="refused", reasons=(reason,)))], Outcome(is_ok=True)
    wished = quote.asked_price_micro_cny_per_unit_hour or quote.listed_price_micro_cny_per_unit_hour
    is_countered = (
        report.price_micro_cny_per_unit_hour != wished
        or (report.duration_s != quote.asked_duration_s and bool(quote.asked_duration_s))
        or bool(report.start_after_s)
    )
    ttl_s = min(max(report.ttl_s, 1), view.limits.quote_ttl_s)
    if quote.origin:  # the peer offers when it may begin, not when it accepts
        ttl_s += report.start_after_s
    opened = replace(
        quote,
        state="open",
        price_micro_cny_per_unit_hour=report.price_micro_cny_per_unit_hour,
        duration_s=report.duration_s,
        start_ms=now_ms + report.start_after_s * 1000 if report.start_after_s else 0,
        is_countered=is_countered,
        expires_ms=now_ms + ttl_s * 1000,
        reasons=(report.reason,) if report.reason else (),
    )
    return [QuoteChanged(quote=opened)], Outcome(is_ok=True)


def accept_quote(view: View, command: AcceptQuote, now_ms: int, ids: Ids) -> Decision:
    """Accepting books it: the job runs on that pool at that price, or not at all."""
    quote = view.quotes.get(command.quote)
    if quote is None or quote.user != command.actor.name:
        raise no_such("open quote", command.quote)
    if quote.state == "asked":
        raise TielineError("conflict", f"the owner has not answered `{quote.id}` yet", hints=("ask again in a second",))
    if now_ms >= quote.expires_ms:
        raise TielineError(
            "quote_expired",
            f"`{quote.id}` expired {(now_ms - quote.expires_ms) / 1000:.0f} s ago",
            hints=("tieline ask",),
        )
    project = project_for(view, command.actor, command.project, (quote.task,))
    peer = view.peers.get(quote.via)
    if quote.via and (peer is None or peer.state is not PeerState.ACTIVE or peer.fault is not None):
        why = Reason(code="quote_peer_gone", values={"exchange": quote.via})
        raise TielineError("unplaceable", sentence(why), reasons=(why,), hints=("tieline ask",))
    bound = {limit for limit in (quote.duration_s, quote.task.max_duration_s) if limit}
    task = replace(quote.task, max_duration_s=min(bound, default=0))
    job = replace(
        new_job(view, command.actor, task, now_ms, ids, project=project),
        quote=quote.id,
        quote_pool=quote.pool,
        quote_alternative=quote.alternative,
        quote_price_micro_cny=quote.price_micro_cny_per_unit_hour,
        eligible_ms=max(now_ms, quote.start_ms),
    )
    accepted = replace(quote, state="accepted", job=job.id)
    return Decision((QuoteChanged(quote=accepted), JobSubmitted(job=job)), job)


def expired_quotes(view: View, now_ms: int) -> list[Events]:
    """Quotes whose time to live is over."""
    return [
        QuoteChanged(
            quote=replace(
                quote,
                state="expired" if quote.state == "open" else "refused",
                reasons=quote.reasons or ((Reason(code="site_silent"),) if quote.state == "asked" else ()),
            )
        )
        for quote in tuple(view.quotes.values())
        if now_ms >= quote.expires_ms
    ]
