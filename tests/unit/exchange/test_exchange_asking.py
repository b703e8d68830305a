"""Quotes of owners behind a peer: asked, countered, accepted, and paid at the price that was quoted on both sides."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from branches_world import PRICE, Federation, Node, keys_of
from exchange_world import ALICE, task
from test_exchange_hosting import answer, token

from tieline.exchange.asking import EARLY_S, MOST_ASKED, quoted_of
from tieline.exchange.commands import AcceptQuote, AskQuote, ChangePeer, TakeAsk, TakePeerReports, TakeReport, Tick
from tieline.exchange.orders import ask_of, offer_of
from tieline.exchange.quotes import ANSWER_FAR_MS, MOST_ASKED_FAR
from tieline.exchange.settlement import verify_usage
from tieline.model.error import TielineError
from tieline.model.event import QuoteChanged
from tieline.model.job import Job, JobState, RunState
from tieline.model.party import SYSTEM
from tieline.model.plan import Quote
from tieline.model.protocol import Ask, PeerReport, Quoted
from tieline.model.reason import Reason

replace = msgspec.structs.replace
POOL = "cn.b.lab/pool/one"
LOW = PRICE // 2


def pair(**grants: Any) -> tuple[Federation, Node, Node]:
    world = Federation()
    a, b = world.add("a"), world.add("b")
    b.join("lab", "one")
    world.join_up(a, b, **grants)
    return world, a, b


def asked(a: Node, **fields: Any) -> tuple[Quote, Ask]:
    """A quote that A's user asks for, and the question as it goes to the peer."""
    quote: Quote = a.do(AskQuote(actor=ALICE, task=task(cores=2), **{"price_micro_cny": LOW, **fields}))
    return quote, ask_of(a.view, quote)


def passed(a: Node, b: Node, question: Ask, **answer: Any) -> Quote:
    """The question at B, answered by the owner's site and brought back; the quote as A has it then, if it is open."""
    here: Quote = b.do(TakeAsk(peer=a.id, ask=question))
    if answer:
        b.do(TakeReport(site=here.site, report=Quoted(quote=here.id, **answer)))
    return told(a, b, here)


def told(a: Node, b: Node, here: Quote) -> Quote:
    said = quoted_of(newest(b, here.id), b.now_ms)
    assert said is not None
    a.do(TakePeerReports(peer=b.id, reports=(PeerReport(serial=0, report=said),)))
    return newest(a, said.quote)


def newest(node: Node, name: str) -> Quote:
    """A quote as the last event about it has it."""
    return [each.quote for each in node.events if isinstance(each, QuoteChanged) and each.quote.id == name][-1]


def accepted(a: Node, quote: Quote) -> Job:
    job: Job = a.do(AcceptQuote(actor=ALICE, quote=quote.id))
    return job


def refusal(what: Any) -> TielineError:
    with pytest.raises(TielineError) as caught:
        what()
    return caught.value


def test_a_quote_below_the_listed_price_binds_both_sides_from_the_question_to_the_bill() -> None:
    world, a, b = pair()
    quote, question = asked(a, duration_s=600)
    assert (quote.state, quote.via, quote.pool) == ("asked", b.id, POOL)
    assert (question.path, question.user) == ((a.id,), "alice")
    opened = passed(a, b, question, price_micro_cny_per_unit_hour=LOW, duration_s=600, ttl_s=60)
    assert (opened.state, opened.price_micro_cny_per_unit_hour, opened.is_countered) == ("open", LOW, False)
    (theirs,) = b.view.quotes.values()
    assert (theirs.user, theirs.user_owner, theirs.origin_quote) == ("alice@cn.a", "cn.a", quote.id)
    assert opened.expires_ms + (EARLY_S - 1) * 1_000 <= theirs.expires_ms
    job = accepted(a, opened)
    world.pass_ms(2_000)
    (guest,) = b.own_runs(RunState.OFFERED)
    assert (guest.price_micro_cny_per_unit_hour, guest.stop_after_s) == (LOW, 600)
    assert b.view.jobs[guest.job].quote == theirs.id
    assert not b.view.quotes
    b.accept(guest)
    b.start(b.view.runs[guest.id])
    world.pass_ms(5_000)
    b.end(b.view.runs[guest.id])
    world.pass_ms(5_000)
    assert a.ended(job).state is JobState.SUCCEEDED
    ours, bill = a.usages[f"{job.id.rpartition('/')[2]}.1"], b.usages[guest.id]
    assert ours.charge_micro_cny == bill.charge_micro_cny > 0
    assert ours.price_micro_cny_per_unit_hour == bill.price_micro_cny_per_unit_hour == LOW
    for usage in (ours, bill):
        assert verify_usage(usage, keys_of(world)) == ()


def test_a_counter_is_seen_and_what_the_owner_refuses_says_why() -> None:
    _, a, b = pair()
    countered = passed(a, b, asked(a)[1], price_micro_cny_per_unit_hour=LOW + 1, duration_s=60, ttl_s=60)
    assert (countered.is_countered, countered.duration_s) == (True, 60)
    quote, question = asked(a)
    why = Reason(code="policy_not_met", values={"term": "no"})
    assert passed(a, b, question, is_refused=True, reason=why).state == "refused"
    assert newest(a, quote.id).reasons == (why,)


def test_a_price_that_was_not_quoted_or_is_no_longer_is_not_given_and_the_job_ends() -> None:
    world, a, b = pair()
    opened = passed(a, b, asked(a)[1], price_micro_cny_per_unit_hour=LOW, ttl_s=60)
    (theirs,) = b.view.quotes.values()
    b.take([QuoteChanged(quote=replace(theirs, state="expired"))])
    job = accepted(a, opened)
    world.pass_ms(3_000)
    over = a.ended(job)
    assert over.state is JobState.FAILED
    assert over.reasons[0].values["why"] == "quote_not_open"
    assert not b.view.jobs


@pytest.mark.parametrize(
    "changes",
    [
        {"price_micro_cny_per_unit_hour": LOW - 1},
        {"stop_after_s": 601},
        {"stop_after_s": 0},
        {"quote": "q-other"},
        {"core_count": 3},
    ],
)
def test_an_offer_that_does_not_keep_to_its_quote_has_none(changes: dict[str, Any]) -> None:
    world, a, b = pair()
    world.loss = 1.0
    opened = passed(a, b, asked(a, duration_s=600)[1], price_micro_cny_per_unit_hour=LOW, duration_s=600, ttl_s=60)
    offer = token(a, offer_of(a.view, a.run_of(accepted(a, opened)), a.now_ms))
    (refused,) = answer(b, replace(offer, **changes))
    assert refused.reason.code == "quote_not_open"
    assert [quote.state for quote in b.view.quotes.values()] == ["open"]
    assert answer(b, offer) == ()
    assert not b.view.quotes  # once


def test_a_quote_that_begins_later_is_kept_until_it_does() -> None:
    world, a, b = pair()
    opened = passed(a, b, asked(a)[1], price_micro_cny_per_unit_hour=LOW, start_after_s=100, ttl_s=60)
    (theirs,) = b.view.quotes.values()
    assert opened.start_ms >= theirs.start_ms
    assert opened.expires_ms <= a.now_ms + 60_000
    job = accepted(a, opened)
    for _ in range(21):
        assert a.view.jobs[job.id].state is JobState.QUEUED or a.now_ms >= opened.start_ms
        b.beat()
        a.look(b)
        world.pass_ms(5_000)
    assert b.own_runs(RunState.OFFERED)


def test_a_peer_that_is_silent_or_gone_quotes_nothing() -> None:
    world, a, b = pair()
    quote, question = asked(a)
    here = b.do(TakeAsk(peer=a.id, ask=question))
    assert quoted_of(here, b.now_ms) is None
    assert quoted_of(here, here.expires_ms).is_refused
    world.pass_ms(ANSWER_FAR_MS)
    a.do(Tick())
    assert quote.id not in a.view.quotes
    b.beat()
    a.look(b)
    opened = passed(a, b, asked(a)[1], price_micro_cny_per_unit_hour=LOW, ttl_s=60)
    a.do(ChangePeer(actor=SYSTEM, peer=b.id, what="remove"))
    refused = refusal(lambda: accepted(a, opened))
    assert (refused.code, refused.reasons[0].code) == ("unplaceable", "quote_peer_gone")


def test_nobody_answers_for_another_and_the_first_answer_stands() -> None:
    world, a, b = pair()
    c = world.add("c")
    a.knows(c)
    quote, _ = asked(a)
    cheap = PeerReport(serial=0, report=Quoted(quote=quote.id, price_micro_cny_per_unit_hour=1))
    (outcome,) = a.do(TakePeerReports(peer=c.id, reports=(cheap,)))
    assert outcome.what == "unknown"
    assert a.view.quotes[quote.id].state == "asked"
    dear = PeerReport(serial=0, report=Quoted(quote=quote.id, price_micro_cny_per_unit_hour=PRICE))
    a.do(TakePeerReports(peer=b.id, reports=(dear,)))
    a.do(TakePeerReports(peer=b.id, reports=(cheap,)))
    assert a.view.quotes[quote.id].price_micro_cny_per_unit_hour == PRICE


def test_the_same_question_again_is_the_same_quote() -> None:
    _, a, b = pair()
    _, question = asked(a)
    assert b.do(TakeAsk(peer=a.id, ask=question)) == b.do(TakeAsk(peer=a.id, ask=question))
    assert len(b.view.quotes) == 1


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no name": ({"quote": ""}, "invalid_request", ""),
    "a long name": ({"user": "u" * 300}, "invalid_request", ""),
    "not printable": ({"user": "a\nb"}, "invalid_request", ""),
    "no alternative": ({"alternative": 1}, "invalid_request", ""),
    "less than nothing": ({"unit_count": -1}, "invalid_request", ""),
    "no pool of ours": ({"pool": "cn.b.lab/pool/none"}, "unplaceable", "pool_not_here"),
    "no way": ({"path": ()}, "unplaceable", "path_wrong"),
    "been here": ({"path": ("cn.b/exchange/main", "cn.a/exchange/main")}, "unplaceable", "path_loops"),
    "other units": ({"unit_count": 1}, "unplaceable", "units_differ"),
    "too much": ({"task": task(cores=99)}, "unplaceable", "cores_total"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_question_that_cannot_be_answered_is_refused_with_the_reason_and_nothing_is_kept(name: str) -> None:
    changes, code, reason = WRONG[name]
    _, a, b = pair()
    refused = refusal(lambda: b.do(TakeAsk(peer=a.id, ask=replace(asked(a)[1], **changes))))
    assert refused.code == code, refused.message
    assert not reason or reason in [each.code for each in refused.reasons]
    assert not b.view.quotes


def test_what_a_peer_may_ask_is_bounded_and_needs_its_grant() -> None:
    world, a, b = pair()
    for number in range(MOST_ASKED):
        b.do(TakeAsk(peer=a.id, ask=replace(asked(a)[1], quote=f"q-{number}")))
        a.view.quotes.clear()
    full = refusal(lambda: b.do(TakeAsk(peer=a.id, ask=asked(a)[1])))
    assert (full.code, full.reasons[0].code) == ("overloaded", "peer_quotes")
    a.view.quotes.clear()
    for _ in range(MOST_ASKED_FAR):
        asked(a)
    assert refusal(lambda: asked(a)).code == "overloaded"
    assert len(world.nodes) == 2
    b.do(ChangePeer(actor=SYSTEM, peer=a.id, what="grant", may_use=False))
    question = ask_of(a.view, next(iter(a.view.quotes.values())))
    assert refusal(lambda: b.do(TakeAsk(peer=a.id, ask=question))).code == "forbidden"


def test_a_question_goes_on_over_a_hub_and_the_price_holds_there_too() -> None:
    world = Federation()
    a, hub, b = world.add("a"), world.add("hub"), world.add("b")
    b.join("lab", "one")
    world.join_up(hub, b)
    a.knows(b)
    world.join_up(a, hub)
    quote, question = asked(a)
    assert quote.via == hub.id
    middle: Quote = hub.do(TakeAsk(peer=a.id, ask=question))
    further = ask_of(hub.view, middle)
    assert (further.path, further.user) == ((a.id, hub.id), "alice@cn.a")
    assert passed(hub, b, further, price_micro_cny_per_unit_hour=LOW, ttl_s=60).state == "open"
    job = accepted(a, told(a, hub, middle))
    world.pass_ms(3_000)
    (guest,) = b.own_runs(RunState.OFFERED)
    assert guest.price_micro_cny_per_unit_hour == LOW
    assert a.run_of(job).price_micro_cny_per_unit_hour == LOW
    assert not hub.view.quotes
