"""Asking: what a peer's user asks our owners before anything is taken, and the answer that binds us.

::

    A: AskQuote, best pool behind B -> Ask -----------> B: TakeAsk -> Quote with an origin -> Ask -> the owner's site
    A: Quote, open until then     <- Quoted <---------- B: Quote, open until then          <- Quoted, as for our own
    A: AcceptQuote -> a job at that price -> Offer, which names the quote --> B: that price, once, within its time

To us the question is one of our own, of a user with another name; so it may go on to a peer of ours in turn. What a
peer may have open is bounded, and each quote is good for one offer (`hosting.quote_for`).
"""

from __future__ import annotations

import msgspec

from tieline.exchange.commands import Decision, TakeAsk
from tieline.exchange.hosting import MOST, MOST_NAME, active_peer, hosted_task, way_wrong
from tieline.exchange.placing import plan_task
from tieline.exchange.quotes import ANSWER_FAR_MS, ANSWER_MS, MOST_OPEN
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import QuoteChanged
from tieline.model.party import Actor, Role
from tieline.model.peer import Peer
from tieline.model.plan import Candidate, Quote
from tieline.model.protocol import Ask, Quoted
from tieline.model.reason import Reason, Value, sentence
from tieline.ports import Ids

replace = msgspec.structs.replace

MOST_ASKED = 100  # questions and open quotes of one peer
EARLY_S = 5  # a peer is told that a quote ends so much sooner: its offer is on the way for a while


def take_ask(view: View, command: TakeAsk, now_ms: int, ids: Ids) -> Decision:
    """A peer asks for a quote, or asks again. Reply: the Quote that it is here, which its owner may not have answered.

    Raises TielineError `forbidden`, `invalid_request`, `overloaded`, or `unplaceable` with the reasons.
    """
    peer, asked = active_peer(view, command.peer), command.ask
    if not peer.may_use:
        raise _refusal("forbidden", Reason(code="use_not_granted", values={"exchange": peer.id}))
    _check(asked, peer)
    theirs = [quote for quote in view.quotes.values() if quote.origin == peer.id]
    known = next((quote for quote in theirs if quote.origin_quote == asked.quote), None)
    if known is not None:
        return Decision((), known)
    if wrong := way_wrong(view, peer, asked.path):
        raise _refusal("unplaceable", *wrong)
    if len(theirs) >= MOST_ASKED or len(view.quotes) >= MOST_OPEN:
        raise _refusal("overloaded", Reason(code="peer_quotes", values={"exchange": peer.id, "most": MOST_ASKED}))
    best, user = _candidate(view, peer, asked, now_ms), f"{asked.user}@{peer.prefix}"
    via = view.way_to(best.site)
    quote = Quote(
        id=ids.new("quote"),
        user=user,
        user_owner=peer.prefix,
        pool=best.pool,
        site=best.site,
        owner=best.owner,
        state="asked",
        task=hosted_task(asked.task, asked.alternative, asked.duration_s),
        unit=best.unit,
        unit_count=best.unit_count,
        price_micro_cny_per_unit_hour=best.price_micro_cny_per_unit_hour,
        listed_price_micro_cny_per_unit_hour=best.price_micro_cny_per_unit_hour,
        asked_price_micro_cny_per_unit_hour=asked.asked_price_micro_cny_per_unit_hour,
        asked_duration_s=asked.duration_s,
        created_ms=now_ms,
        expires_ms=now_ms + (ANSWER_FAR_MS if via else ANSWER_MS),
        via=via,
        origin=peer.id,
        origin_quote=asked.quote,
        path=asked.path,
        data_class=asked.data_class,
        residency=asked.residency,
    )
    return Decision((QuoteChanged(quote=quote),), quote)


def quoted_of(quote: Quote, now_ms: int) -> Quoted | None:
    """What a peer is told of a quote that it asked for; None while the owner has not answered."""
    left_s = (quote.expires_ms - now_ms) // 1_000
    if quote.state == "asked" and left_s > 0:
        return None
    if quote.state != "open" or left_s <= 0:
        why = quote.reasons[0] if quote.reasons else Reason(code="site_silent", values={"site": quote.site})
        return Quoted(quote=quote.origin_quote, is_refused=True, reason=why)
    start_after_s = max(0, -(-(quote.start_ms - now_ms) // 1_000))
    return Quoted(
        quote=quote.origin_quote,
        price_micro_cny_per_unit_hour=quote.price_micro_cny_per_unit_hour,
        duration_s=quote.duration_s,
        start_after_s=start_after_s,
        ttl_s=max(1, left_s - start_after_s - EARLY_S),
        reason=quote.reasons[0] if quote.reasons else None,
    )


def _check(asked: Ask, peer: Peer) -> None:
    names = (asked.quote, asked.pool, asked.user)
    if not all(name and name.isprintable() for name in names):
        raise TielineError("invalid_request", "a name in the question is empty or not printable")
    if max(map(len, (*names, f"{asked.user}@{peer.prefix}", *asked.path))) > MOST_NAME:
        raise TielineError("invalid_request", f"a name in the question is longer than {MOST_NAME} characters")
    numbers = (
        asked.alternative, asked.unit_count, asked.price_micro_cny_per_unit_hour,
        asked.asked_price_micro_cny_per_unit_hour, asked.duration_s,
    )  # fmt: skip
    if min(numbers) < 0 or max(numbers) > MOST or asked.alternative >= len(asked.task.resources):
        raise TielineError("invalid_request", "a number in the question is out of range, or no alternative of its task")


def _candidate(view: View, peer: Peer, asked: Ask, now_ms: int) -> Candidate:
    """The pool as it fits now, never back behind the exchanges that the question passed. Raises `unplaceable`."""
    task = hosted_task(asked.task, asked.alternative, asked.duration_s)
    actor = Actor(name=f"{asked.user}@{peer.prefix}", roles=(Role.USER,), owner=peer.prefix)
    if view.supply.pools.get(asked.pool) is None:
        raise _refusal("unplaceable", Reason(code="pool_not_here", values={"pool": asked.pool}))
    plan = plan_task(view, actor, task, now_ms, asked.pool)
    if not plan.candidates:
        raise _refusal("unplaceable", *(plan.reasons or (Reason(code="no_pools"),)))
    best = plan.candidates[0]
    if view.way_to(best.site) in asked.path:
        raise _refusal("unplaceable", Reason(code="path_loops", values={"path": " > ".join(asked.path)[:400]}))
    if best.unit_count != asked.unit_count:
        values: dict[str, Value] = {"pool": asked.pool, "booked": best.unit_count, "offered": asked.unit_count}
        raise _refusal("unplaceable", Reason(code="units_differ", values=values))
    return best


def _refusal(code: str, *reasons: Reason) -> TielineError:
    return TielineError(code, sentence(reasons[0]), reasons=reasons)
