"""The line to a peer that carries out runs: what it asks, in which order, and what it does when nothing comes back."""

from __future__ import annotations

from typing import Any

import pytest
from exchange_world import task

from tieline.exchange import line
from tieline.exchange.commands import Live, TakeAnswer, TakeOffer, TakeRoll, TakeStop
from tieline.model.error import TielineError
from tieline.model.job import Output
from tieline.model.protocol import (
    Accepted,
    CheckpointKept,
    Ended,
    Offer,
    Outcome,
    PaidClaims,
    PeerAnswer,
    PeerOrders,
    PeerReport,
    ReportPage,
    Roll,
    Started,
    Stop,
)
from tieline.model.reason import Reason
from tieline.model.task import Mount

OK = Outcome(is_ok=True)
WHY = Reason(code="peer_unreachable", values={"why": "test"})


def an_offer(run: str = "r.1", **fields: Any) -> Offer:
    return Offer(
        run=run, job="j", epoch=1, pool="p", task=fields.pop("task", task()), alternative=0, user="u", **fields
    )


class Driven:
    """A line whose actions are collected by kind."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self.state, actions = line.begin("cn.b/exchange/main", self.now_ms)
        self.actions: list[line.Action] = list(actions)

    def feel(self, what: line.Input) -> None:
        self.state, actions = line.step(self.state, what, self.now_ms)
        self.actions += actions

    def pop(self, kind: type[Any]) -> Any:
        """The oldest action of a kind that is not looked at yet."""
        found = next(each for each in self.actions if isinstance(each, kind))
        self.actions.remove(found)
        return found

    def has(self, kind: type[Any]) -> bool:
        return any(isinstance(each, kind) for each in self.actions)

    def joined(self, *orders: Offer | Stop) -> Driven:
        """Everything live was said and answered."""
        ask = self.pop(line.ReadLive)
        roll = Roll(at_ms=1, runs=tuple(order.run for order in orders))
        self.feel(line.LiveRead(ask=ask.ask, live=Live(roll=roll, orders=orders)))
        say = self.pop(line.Say)
        assert say.orders.roll == roll
        self.feel(line.Said(ask=say.ask, answers=(PeerAnswer(),) * len(say.orders.orders)))
        return self

    def page(self, *reports: PeerReport, session: str = "s1") -> None:
        ask = self.pop(line.AskReports)
        self.feel(line.Paged(ask=ask.ask, page=ReportPage(session=session, reports=reports)))

    def wait(self) -> None:
        """Until there is something to do again."""
        next_ms = line.next_ms(self.state)
        assert next_ms is not None
        self.now_ms = next_ms
        self.feel(line.Ticked())


def accepted(serial: int, run: str = "r.1") -> PeerReport:
    return PeerReport(serial=serial, report=Accepted(run=run, epoch=1))


def test_it_begins_with_everything_that_lives_and_with_the_whole_list() -> None:
    driven = Driven()
    assert driven.pop(line.AskReports) == line.AskReports(ask=2, session="", after=0)
    driven.joined(an_offer(), Stop(run="r.1", epoch=1))
    assert not driven.actions
    assert line.standing(driven.state).is_joined


def test_orders_go_out_one_message_after_the_other() -> None:
    driven = Driven().joined()
    driven.feel(line.Ordered(order=an_offer("r.1")))
    driven.feel(line.Ordered(order=an_offer("r.2")))
    driven.feel(line.Ordered(order=an_offer("r.3")))
    first = driven.pop(line.Say)
    assert [order.run for order in first.orders.orders] == ["r.1"]
    assert not driven.has(line.Say)
    driven.feel(line.Said(ask=first.ask, answers=(PeerAnswer(),)))
    assert [order.run for order in driven.pop(line.Say).orders.orders] == ["r.2", "r.3"]


def test_what_was_ordered_while_the_live_orders_were_read_is_said_after_them() -> None:
    driven = Driven()
    ask = driven.pop(line.ReadLive)
    driven.feel(line.Ordered(order=Stop(run="r.1", epoch=1)))
    driven.feel(line.LiveRead(ask=ask.ask, live=Live(roll=Roll(at_ms=5, runs=("r.1",)), orders=(an_offer(),))))
    said = driven.pop(line.Say).orders
    assert [type(order).__name__ for order in said.orders] == ["Offer", "Stop"]
    assert said.roll == Roll(at_ms=5, runs=("r.1",))


def test_what_could_not_be_said_is_read_again_and_not_repeated_as_it_was() -> None:
    driven = Driven().joined()
    driven.feel(line.Ordered(order=an_offer()))
    say = driven.pop(line.Say)
    driven.feel(line.Ordered(order=an_offer("r.2")))
    driven.feel(line.Failed(ask=say.ask, reason=WHY))
    assert not driven.has(line.ReadLive)
    assert line.standing(driven.state).error == WHY
    assert line.standing(driven.state).waiting == 0
    driven.feel(line.Ordered(order=an_offer("r.3")))
    driven.wait()
    driven.joined(an_offer("r.1"), an_offer("r.2"), an_offer("r.3"))
    assert line.standing(driven.state).is_joined


def test_too_many_orders_are_read_again_in_place_of_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "MOST_WAITING", 100)
    driven = Driven().joined()
    driven.feel(line.Ordered(order=an_offer("r.0")))
    for at in range(line.MOST_WAITING + 1):
        driven.feel(line.Ordered(order=Stop(run=f"r.{at}", epoch=1)))
    assert driven.state.is_live_due
    assert not driven.state.waiting
    driven.feel(line.Said(ask=driven.pop(line.Say).ask, answers=(PeerAnswer(),)))
    assert driven.has(line.ReadLive)


def test_what_the_answer_to_an_order_says_is_taken_unless_it_is_of_another_run() -> None:
    driven = Driven().joined()
    driven.feel(line.Ordered(order=an_offer()))
    answer = PeerAnswer(reports=(Accepted(run="r.1", epoch=1), Accepted(run="r.9", epoch=1)))
    driven.feel(line.Said(ask=driven.pop(line.Say).ask, answers=(answer,)))
    take = driven.pop(line.Take)
    assert (take.session, take.reports) == ("", (accepted(0),))
    driven.feel(line.Ordered(order=an_offer("r.2")))
    assert not driven.has(line.Say)  # first what the last one brought
    driven.feel(line.Taken(take=take.take, outcomes=(OK,)))
    assert driven.has(line.Say)


def test_an_order_that_is_refused_is_shown_and_the_others_go_on() -> None:
    driven = Driven().joined()
    driven.feel(line.Ordered(order=an_offer()))
    driven.feel(line.Said(ask=driven.pop(line.Say).ask, answers=(PeerAnswer(error="forbidden: no"),)))
    error = line.standing(driven.state).error
    assert error is not None
    assert (error.code, error.values) == ("order_refused", {"why": "forbidden: no"})
    driven.feel(line.Ordered(order=an_offer("r.2")))
    driven.feel(line.Said(ask=driven.pop(line.Say).ask, answers=()))
    assert line.standing(driven.state).error == Reason(code="answer_incomplete")


def test_reports_are_asked_for_after_what_was_taken() -> None:
    driven = Driven().joined()
    driven.page(accepted(3), accepted(7, "r.2"))
    assert not driven.has(line.AskReports)
    take = driven.pop(line.Take)
    driven.feel(line.Taken(take=take.take, outcomes=(OK,)))
    rest = driven.pop(line.Take)
    assert rest.reports == (accepted(7, "r.2"),)  # an answer to the first ones: the rest is taken next
    assert driven.state.after == 3
    driven.feel(line.Taken(take=rest.take, outcomes=(OK,)))
    ask = driven.pop(line.AskReports)
    assert (ask.session, ask.after) == ("s1", 7)


def test_reports_that_could_not_be_taken_are_taken_later() -> None:
    driven = Driven().joined()
    driven.page(accepted(1))
    take = driven.pop(line.Take)
    driven.feel(line.NotTaken(take=take.take, reason=WHY))
    assert not driven.actions
    driven.wait()
    assert driven.pop(line.Take) == take
    driven.feel(line.NotTaken(take=99, reason=WHY))
    assert not driven.has(line.Take)


def test_a_list_that_begins_anew_is_taken_from_its_beginning_and_everything_live_is_said_again() -> None:
    driven = Driven().joined()
    driven.page(accepted(9))
    driven.feel(line.Taken(take=driven.pop(line.Take).take, outcomes=(OK,)))
    driven.page(accepted(1), session="s2")
    assert driven.has(line.ReadLive)
    driven.feel(line.Taken(take=driven.pop(line.Take).take, outcomes=(OK,)))
    assert (driven.state.session, driven.state.after) == ("s2", 1)


def test_a_peer_that_repeats_itself_or_says_nothing_is_not_asked_in_a_circle() -> None:
    driven = Driven().joined()
    driven.page(accepted(2))
    driven.feel(line.Taken(take=driven.pop(line.Take).take, outcomes=(OK,)))
    driven.page(accepted(2))
    assert line.standing(driven.state).error == Reason(code="reports_repeated")
    assert not driven.actions
    driven.wait()
    driven.page()
    assert not driven.actions
    asked_ms = driven.now_ms
    driven.wait()
    assert driven.now_ms == asked_ms + line.PAUSE_MS
    assert driven.has(line.AskReports)


def test_waits_grow_and_are_bounded_and_a_sign_of_life_ends_them() -> None:
    driven = Driven().joined()
    waits = []
    for _ in range(12):
        driven.feel(line.Failed(ask=driven.pop(line.AskReports).ask, reason=WHY))
        waits.append(driven.state.wait_until_ms - driven.now_ms)
        driven.wait()
    assert waits[:4] == [250, 500, 1_000, 2_000]
    assert max(waits) == line.BACKOFF_MOST_MS
    assert driven.has(line.ReadLive)  # after a cut everything live is said again
    driven.feel(line.Failed(ask=driven.pop(line.AskReports).ask, reason=WHY))
    driven.feel(line.Woken())
    assert driven.has(line.AskReports)


def test_what_is_stale_here_is_stopped_there_unless_it_ended_there() -> None:
    driven = Driven().joined()
    stale = Outcome(is_ok=False, what="stale")
    reports = (accepted(1), PeerReport(serial=2, report=Started(run="r.2", epoch=3)), accepted(3, "r.3"))
    driven.page(*reports, PeerReport(serial=4, report=Ended(run="r.3", epoch=1, state="failed")))
    driven.feel(line.Taken(take=driven.pop(line.Take).take, outcomes=(stale, stale, stale, stale)))
    said = driven.pop(line.Say).orders.orders
    assert [(stop.run, stop.epoch, stop.is_fenced) for stop in said] == [("r.1", 1, True), ("r.2", 3, True)]


def test_answers_are_given_until_they_were_heard_and_those_in_between_as_well() -> None:
    driven = Driven().joined()

    def owes(serial: int, answer: str) -> None:
        driven.page(PeerReport(serial=serial, report=Ended(run=f"r.{serial}", epoch=1, state="failed")))
        driven.feel(line.Taken(take=driven.pop(line.Take).take, outcomes=(Outcome(is_ok=True, answer=answer),)))

    owes(1, "one")
    give = driven.pop(line.Give)
    assert give.answers.answers == ("one",)
    owes(2, "two")
    assert not driven.has(line.Give)
    driven.feel(line.Failed(ask=give.ask, reason=WHY))
    driven.wait()
    give = driven.pop(line.Give)
    assert give.answers.answers == ("one", "two")
    owes(3, "three")
    driven.feel(line.Given(ask=give.ask))
    assert driven.pop(line.Give).answers.answers == ("three",)


def test_answers_to_older_questions_are_not_heard() -> None:
    driven = Driven().joined()
    before = driven.state
    for what in (
        line.LiveRead(ask=1, live=Live(roll=Roll(at_ms=9), orders=(an_offer(),))),
        line.Said(ask=77, answers=()),
        line.Paged(ask=77, page=ReportPage(session="x", reports=(accepted(1),))),
        line.Given(ask=77),
        line.Failed(ask=77, reason=WHY),
        line.Failed(ask=0, reason=WHY),
        line.Taken(take=77, outcomes=(OK,)),
    ):
        driven.feel(what)
        assert driven.state == before, what


def test_what_a_peer_needs_first_and_what_we_fetch_first_is_named() -> None:
    mounts = (Mount(path="a", sha256="1" * 64, size_bytes=1), Mount(path="b", sha256="2" * 64, size_bytes=1))
    offer = an_offer(task=task(mounts=mounts, workdir=mounts[0]), checkpoint="3" * 64)
    assert line.files_of(offer) == ("1" * 64, "2" * 64, "3" * 64)
    assert line.files_of(Stop(run="r", epoch=1)) == ()
    driven = Driven().joined()
    output = Output(path="out", sha256="4" * 64, size_bytes=5)
    driven.page(
        PeerReport(serial=1, report=CheckpointKept(run="r.1", epoch=1, sha256="5" * 64, size_bytes=6)),
        PeerReport(serial=2, report=Ended(run="r.1", epoch=1, state="succeeded", outputs=(output,))),
    )
    assert driven.pop(line.Take).files == (Output(path="", sha256="5" * 64, size_bytes=6), output)


def test_the_other_side_turns_orders_into_commands_and_replies_into_one_answer() -> None:
    offer, stop = an_offer(), Stop(run="r.2", epoch=4, why="enough", is_fenced=True)
    orders = PeerOrders(orders=(offer, stop), roll=Roll(at_ms=1))
    assert line.commands_of("p", orders) == (
        TakeRoll(peer="p", roll=Roll(at_ms=1)),
        TakeOffer(peer="p", offer=offer),
        TakeStop(peer="p", run="r.2", epoch=4, why="enough", is_fenced=True),
    )
    said = (Accepted(run="r.1", epoch=1),)
    answers = line.answer_of(orders, [said, TielineError("forbidden", "no")]).answers
    assert answers == (PeerAnswer(reports=said), PeerAnswer(error="forbidden: no"))
    assert line.payments_of("p", PaidClaims(answers=("x",))) == (TakeAnswer(peer="p", answer="x"),)
    with pytest.raises(AssertionError):
        line.answer_of(orders, [])


def test_what_is_brought_later_owes_its_answer_like_what_was_taken_in_turn() -> None:
    driven = Driven().joined()
    driven.page(PeerReport(serial=1, report=Ended(run="r.1", epoch=1, state="succeeded")))
    take = driven.pop(line.Take)
    driven.feel(line.Taken(take=take.take, outcomes=(Outcome(is_ok=True, what="late"),)))
    assert driven.state.after == 1
    assert not driven.has(line.Give)
    driven.feel(line.Brought(outcomes=(Outcome(is_ok=True, answer="paid"),)))
    give = driven.pop(line.Give)
    assert give.answers == PaidClaims(answers=("paid",))
    driven.feel(line.Brought(outcomes=(Outcome(is_ok=True, answer="paid"),)))
    assert line.standing(driven.state).owed == 1
