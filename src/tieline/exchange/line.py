"""Line: our connection to one peer that carries out runs for us: ``step(state, input, now_ms) -> (state, actions)``.

::

    begin ------> ReadLive: roll and orders of every live run there --> Live --.
    Ordered (the log ordered something of the peer) ---------------------------+--> Say --> Said: reports, taken at once
    AskReports (a long poll, from our cursor) --> Paged ------------------> Take (one decision) --> Taken
                                                                             |   stale: owe a fenced Stop
                                                                             '-> answers to claims: Give --> Given

Three lanes (orders, reports, answers), each with one question open at most; every input may come late, twice or never.
What cannot be said is not kept: after a failure the live orders are read again, with fresh times to live, and the roll
tells the peer which runs are over. Reports are asked for from the beginning of the peer's list after a restart of ours
or of the peer's list: it keeps what was not confirmed, and taking a report twice changes nothing.

The other side has no state of its own: `commands_of` turns what a peer says into commands, `answer_of` their replies
into the answer. Pure: HTTP and the simulator drive the same machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tieline.exchange.commands import Command, Live, OfferTaken, TakeAnswer, TakeOffer, TakeRoll, TakeStop
from tieline.model.error import TielineError
from tieline.model.job import Output
from tieline.model.protocol import (
    Accepted,
    CheckpointKept,
    Ended,
    Lost,
    Offer,
    Outcome,
    PaidClaims,
    PeerAnswer,
    PeerAnswers,
    PeerOrders,
    PeerReport,
    Refused,
    ReportPage,
    Reports,
    Roll,
    Started,
    Stop,
)
from tieline.model.reason import Reason

replace = msgspec.structs.replace

MOST_ORDERS = 64  # said at once
MOST_WAITING = 100_000  # orders that wait to be said; more: the live orders are read again instead
MOST_ANSWERS = 64  # given at once
MOST_OWED = 10_000  # answers that wait to be given; more are given after the next restart of this line
POLL_MS = 20_000  # how long the peer may wait with an answer when there are no reports
PAUSE_MS = 1_000  # between two questions for reports, when the first one brought none
CUT = 3  # failures in a row after which a peer that answers again is told everything that lives
BACKOFF_MS = 250
BACKOFF_MOST_MS = 15_000

# -- what can happen --------------------------------------------------------------------------------------------------


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """What happened."""


class Ticked(Input, frozen=True, kw_only=True):
    """Time passed; useful from `next_ms` on."""


class Woken(Input, frozen=True, kw_only=True):
    """The peer showed a sign of life (it called us): do not wait any longer."""


class Ordered(Input, frozen=True, kw_only=True):
    """An order for this peer followed from the log (`orders.order_of`)."""

    order: Offer | Stop


class LiveRead(Input, frozen=True, kw_only=True):
    """The answer to ReadLive."""

    ask: int
    live: Live


class Said(Input, frozen=True, kw_only=True):
    """The peer's answer to `Say`."""

    ask: int
    answers: tuple[PeerAnswer, ...]


class Paged(Input, frozen=True, kw_only=True):
    """The peer's answer to `AskReports`; empty when there was nothing within the time."""

    ask: int
    page: ReportPage


class Taken(Input, frozen=True, kw_only=True):
    """The first reports of `Take` were committed, at least one: the outcomes of these.

    One whose bytes are long in coming may be passed over with an outcome that is ok; `Brought` follows. It is said
    again after a restart, since its run still lives here.
    """

    take: int
    outcomes: tuple[Outcome, ...]


class Brought(Input, frozen=True, kw_only=True):
    """Reports whose bytes took longer, and which `Taken` had passed over, were committed: their outcomes."""

    outcomes: tuple[Outcome, ...]


class NotTaken(Input, frozen=True, kw_only=True):
    """They could not be committed here (the store is full, the writer is overloaded); nothing changed."""

    take: int
    reason: Reason


class Given(Input, frozen=True, kw_only=True):
    """The peer was told what `Give` says, whether it keeps all of it or not."""

    ask: int


class Failed(Input, frozen=True, kw_only=True):
    """The question ``ask`` (of `ReadLive`, `Say`, `AskReports` or `Give`) has no answer."""

    ask: int
    reason: Reason


# -- what is to be done -----------------------------------------------------------------------------------------------


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done. Carrying one out twice does no harm."""


class ReadLive(Action, frozen=True, kw_only=True):
    """Submit the command ReadLive here; bring back `LiveRead` or `Failed`."""

    ask: int


class Say(Action, frozen=True, kw_only=True):
    """Tell the peer; `files_of` names what it must hold first. Bring back `Said` or `Failed`."""

    ask: int
    orders: PeerOrders


class AskReports(Action, frozen=True, kw_only=True):
    """Ask the peer; it may wait ``wait_ms`` for something to say. Bring back `Paged` or `Failed`."""

    ask: int
    session: str
    after: int
    wait_ms: int = POLL_MS


class Take(Action, frozen=True, kw_only=True):
    """Submit the command TakePeerReports here, once ``files`` are fetched as far as they can be had.

    Bring back `Taken` or `NotTaken`.
    """

    take: int
    session: str
    reports: tuple[PeerReport, ...]
    files: tuple[Output, ...] = ()


class Give(Action, frozen=True, kw_only=True):
    """Tell the peer what is paid of its claims. Bring back `Given` or `Failed`."""

    ask: int
    answers: PaidClaims


# -- state ------------------------------------------------------------------------------------------------------------


class LineState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the line to one peer knows. A restart begins with `begin` and loses nothing."""

    peer: str
    session: str = ""  # of the peer's list of reports
    after: int = 0  # serial up to which they are taken
    is_live_due: bool = True  # the live orders are to be read and said (again)
    roll: Roll | None = None
    waiting: tuple[Offer | Stop, ...] = ()
    said: tuple[Offer | Stop, ...] = ()
    reading: int = 0  # the open question of each lane; 0: none
    saying: int = 0
    asking: int = 0
    asked_ms: int = 0
    is_quiet: bool = False  # the last page was empty
    giving: int = 0
    takes: tuple[Take, ...] = ()  # being taken: at most one of each lane
    due: tuple[int, ...] = ()  # of them: to be submitted again once the wait is over
    owed: tuple[str, ...] = ()
    given: tuple[str, ...] = ()  # of them: on their way
    asks: int = 0  # questions and takes so far: their names
    heard_ms: int = 0
    failures: int = 0  # in a row
    wait_until_ms: int = 0
    error: Reason | None = None  # of the last failure; None once an answer came


class LineStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How the line stands, for `exchange status`."""

    peer: str
    is_joined: bool  # it answered, and everything live was said
    serial: int
    waiting: int  # orders that were not said yet
    owed: int  # answers to claims that were not given yet
    heard_ms: int = 0
    error: Reason | None = None


def begin(peer: str, now_ms: int) -> tuple[LineState, list[Action]]:
    """Begin, or begin again after a restart."""
    return _next(LineState(peer=peer), now_ms)


def step(state: LineState, what: Input, now_ms: int) -> tuple[LineState, list[Action]]:
    """What follows from ``what`` at ``now_ms``. ``state`` stays as it was."""
    if isinstance(what, Ordered):
        state = _ordered(state, (what.order,))
    elif isinstance(what, Woken):
        state = replace(state, wait_until_ms=0)
    elif isinstance(what, LiveRead):
        state = _live_read(state, what)
    elif isinstance(what, Said):
        state = _said(state, what, now_ms)
    elif isinstance(what, Paged):
        state = _paged(state, what, now_ms)
    elif isinstance(what, Taken):
        state = _taken(state, what)
    elif isinstance(what, Brought):
        state = _owing(state, what.outcomes)
    elif isinstance(what, NotTaken):
        if any(take.take == what.take for take in state.takes) and what.take not in state.due:
            state = _waits(replace(state, due=(*state.due, what.take)), what.reason, now_ms)
    elif isinstance(what, Given):
        if what.ask == state.giving:
            owed = tuple(answer for answer in state.owed if answer not in state.given)
            state = _heard(replace(state, giving=0, given=(), owed=owed), now_ms)
    elif isinstance(what, Failed):
        state = _failed(state, what, now_ms)
    return _next(state, now_ms)


def next_ms(state: LineState) -> int | None:
    """When `Ticked` next has something to do; None: not before something else happens."""
    return state.wait_until_ms or (state.asked_ms + PAUSE_MS if state.is_quiet and not state.asking else None)


def standing(state: LineState) -> LineStanding:
    """How it stands."""
    is_joined = bool(state.heard_ms) and state.error is None and not (state.is_live_due or state.roll)
    return LineStanding(
        peer=state.peer,
        is_joined=is_joined,
        serial=state.after,
        waiting=len(state.waiting) + len(state.said),
        owed=len(state.owed),
        heard_ms=state.heard_ms,
        error=state.error,
    )


def files_of(order: Offer | Stop) -> tuple[str, ...]:
    """What the peer must hold before it is told: sha256 of the task's mounts and of the checkpoint, each once."""
    if isinstance(order, Stop):
        return ()
    mounts = (*((order.task.workdir,) if order.task.workdir else ()), *order.task.mounts)
    found = (*(mount.sha256 for mount in mounts), order.checkpoint)
    return tuple(dict.fromkeys(sha256 for sha256 in found if sha256))


# -- the other side ---------------------------------------------------------------------------------------------------


def commands_of(peer: str, orders: PeerOrders) -> tuple[Command, ...]:
    """What ``peer`` asks for, as commands to be submitted in this order: the roll, and one for each order."""
    roll = (TakeRoll(peer=peer, roll=orders.roll),) if orders.roll is not None else ()
    return (
        *roll,
        *(
            TakeOffer(peer=peer, offer=order)
            if isinstance(order, Offer)
            else TakeStop(peer=peer, run=order.run, epoch=order.epoch, why=order.why, is_fenced=order.is_fenced)
            for order in orders.orders
        ),
    )


def answer_of(orders: PeerOrders, replies: Sequence[OfferTaken | tuple[Reports, ...] | TielineError]) -> PeerAnswers:
    """The answer, from the replies to `commands_of` without that to the roll; a refused order does not touch others."""
    assert len(replies) == len(orders.orders), len(replies)
    return PeerAnswers(
        answers=tuple(
            PeerAnswer(error=f"{reply.code}: {reply.message}"[:2_000])
            if isinstance(reply, TielineError)
            else PeerAnswer(reports=reply.reports if isinstance(reply, OfferTaken) else reply)
            for reply in replies
        )
    )


def payments_of(peer: str, claims: PaidClaims) -> tuple[TakeAnswer, ...]:
    """What ``peer`` says of claims of ours, as commands."""
    return tuple(TakeAnswer(peer=peer, answer=answer) for answer in claims.answers)


# -- inside -----------------------------------------------------------------------------------------------------------


def _next(state: LineState, now_ms: int) -> tuple[LineState, list[Action]]:
    """Everything that can be done now, one question for each free lane."""
    actions: list[Action] = []
    if now_ms < state.wait_until_ms:
        return state, actions
    if state.due:
        actions += [take for take in state.takes if take.take in state.due]
        state = replace(state, due=())
    is_free = not (state.reading or state.saying or any(not take.session for take in state.takes))
    if is_free and state.is_live_due:
        state = replace(state, asks=state.asks + 1, reading=state.asks + 1)
        actions.append(ReadLive(ask=state.reading))
    elif is_free and (state.roll is not None or state.waiting):
        orders = PeerOrders(orders=state.waiting[:MOST_ORDERS], roll=state.roll)
        state = replace(
            state,
            asks=state.asks + 1,
            saying=state.asks + 1,
            said=orders.orders,
            waiting=state.waiting[MOST_ORDERS:],
            roll=None,
        )
        actions.append(Say(ask=state.saying, orders=orders))
    if not (state.asking or any(take.session for take in state.takes)) and (
        not state.is_quiet or now_ms >= state.asked_ms + PAUSE_MS
    ):
        state = replace(state, asks=state.asks + 1, asking=state.asks + 1, asked_ms=now_ms)
        actions.append(AskReports(ask=state.asking, session=state.session, after=state.after))
    if not state.giving and state.owed:
        state = replace(state, asks=state.asks + 1, giving=state.asks + 1, given=state.owed[:MOST_ANSWERS])
        actions.append(Give(ask=state.giving, answers=PaidClaims(answers=state.given)))
    return replace(state, wait_until_ms=0), actions


def _ordered(state: LineState, orders: tuple[Offer | Stop, ...]) -> LineState:
    if state.is_live_due and not state.reading:
        return state  # it will be among the live orders
    if len(state.waiting) + len(orders) > MOST_WAITING:
        return replace(state, waiting=(), roll=None, is_live_due=True)
    return replace(state, waiting=(*state.waiting, *orders))


def _live_read(state: LineState, what: LiveRead) -> LineState:
    if what.ask != state.reading:
        return state
    waiting = (*what.live.orders, *state.waiting)  # what was ordered while they were read comes after them
    return replace(state, reading=0, is_live_due=False, roll=what.live.roll, waiting=waiting)


def _said(state: LineState, what: Said, now_ms: int) -> LineState:
    if what.ask != state.saying:
        return state
    orders = state.said
    if len(what.answers) != len(orders):
        return _failed(state, Failed(ask=what.ask, reason=Reason(code="answer_incomplete")), now_ms)
    state = _heard(replace(state, saying=0, said=()), now_ms)
    reports = tuple(
        PeerReport(serial=0, report=report)
        for order, answer in zip(orders, what.answers, strict=True)
        for report in answer.reports
        if getattr(report, "run", "") == order.run
    )
    errors = [answer.error for answer in what.answers if answer.error]
    if errors:
        state = replace(state, error=Reason(code="order_refused", count=len(errors), values={"why": errors[0]}))
    return _take(state, "", reports) if reports else state


def _paged(state: LineState, what: Paged, now_ms: int) -> LineState:
    if what.ask != state.asking:
        return state
    page = what.page
    is_new = page.session != state.session
    if page.reports and max(each.serial for each in page.reports) <= (0 if is_new else state.after):
        return _failed(state, Failed(ask=what.ask, reason=Reason(code="reports_repeated")), now_ms)
    state = _heard(replace(state, asking=0, is_quiet=not page.reports), now_ms)
    if is_new:  # its list begins anew: it may have forgotten our runs as well
        is_live_due = state.is_live_due or bool(state.session)
        state = replace(state, session=page.session, after=0, is_live_due=is_live_due)
    return _take(state, page.session, page.reports) if page.reports else state


def _take(state: LineState, session: str, reports: tuple[PeerReport, ...]) -> LineState:
    files = [
        file
        for each in reports
        for file in (
            each.report.outputs
            if isinstance(each.report, Ended)
            else (Output(path="", sha256=each.report.sha256, size_bytes=each.report.size_bytes),)
            if isinstance(each.report, CheckpointKept)
            else ()
        )
    ]
    number = state.asks + 1
    take = Take(take=number, session=session, reports=reports, files=tuple(files))
    return replace(state, asks=number, takes=(*state.takes, take), due=(*state.due, number))


def _taken(state: LineState, what: Taken) -> LineState:
    take = next((take for take in state.takes if take.take == what.take), None)
    if take is None or not what.outcomes:
        return state
    taken, rest = take.reports[: len(what.outcomes)], take.reports[len(what.outcomes) :]
    takes = tuple(each for each in state.takes if each.take != what.take)
    state = replace(state, takes=takes, due=tuple(number for number in state.due if number != what.take))
    if take.session and take.session == state.session:
        state = replace(state, after=max(state.after, max(each.serial for each in taken)))
    state = _owing(state, what.outcomes)
    over = dict.fromkeys(each.report.run for each in take.reports if isinstance(each.report, Ended | Lost | Refused))
    fenced = {  # but for what has ended there: it would only be answered with the same reports again
        each.report.run: Stop(run=each.report.run, epoch=each.report.epoch, why=outcome.what, is_fenced=True)
        for each, outcome in zip(taken, what.outcomes, strict=True)
        if not outcome.is_ok and isinstance(each.report, Accepted | Started | CheckpointKept)
        if each.report.run not in over
    }
    state = _ordered(state, tuple(fenced.values()))
    return _take(state, take.session, rest) if rest else state


def _owing(state: LineState, outcomes: Sequence[Outcome]) -> LineState:
    answers = dict.fromkeys((*state.owed, *(outcome.answer for outcome in outcomes if outcome.answer)))
    return replace(state, owed=tuple(answers)[:MOST_OWED])


def _heard(state: LineState, now_ms: int) -> LineState:
    return replace(state, heard_ms=now_ms, failures=0, wait_until_ms=0, error=None)


def _waits(state: LineState, reason: Reason, now_ms: int) -> LineState:
    wait_ms = min(BACKOFF_MOST_MS, BACKOFF_MS << min(state.failures, 10))
    return replace(state, failures=state.failures + 1, wait_until_ms=now_ms + wait_ms, error=reason)


def _failed(state: LineState, what: Failed, now_ms: int) -> LineState:
    if not what.ask:
        return state
    if what.ask == state.reading:
        state = replace(state, reading=0)
    elif what.ask == state.saying:  # nobody knows whether it was heard: all that lives is said again
        state = replace(state, saying=0, said=(), waiting=(), roll=None, is_live_due=True)
    elif what.ask == state.asking:
        is_cut = state.failures + 1 >= CUT
        state = replace(state, asking=0, is_live_due=state.is_live_due or is_cut)
    elif what.ask == state.giving:
        state = replace(state, giving=0, given=())
    else:
        return state
    return _waits(state, what.reason, now_ms)
