"""Using: one exchange places runs behind a peer: the product's line (`exchange/line.py`) over simulated wires.

The peer's side is the product's too: what it is told becomes commands, their replies the answer. Reports are asked for
by a long poll; what is free there every few seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tieline.exchange import line
from tieline.exchange.commands import ReadLive, TakeBranch, TakePeerReports
from tieline.market import charge_of
from tieline.model.error import TielineError
from tieline.model.peer import CLAIM, BranchState, UsageClaim
from tieline.model.protocol import Ask, Ended, Offer, Orders, PeerAnswers, PeerReport, Quoted, ReportPage, Stop
from tieline.model.reason import Reason
from tieline.registry import follow, open_statement, sign_statement

if TYPE_CHECKING:
    from tieline.exchange.keys import ExchangeKeys
    from tieline.sim.exchange import SimExchange
    from tieline.sim.world import World

STATE_MS = 4_000  # how often it is asked what is free there
POLL_MS = 30_000
TIMES = 7  # what a cheating peer makes of a claim


class Caller:
    """The line to one peer, in one life of its exchange."""

    def __init__(self, world: World, exchange: SimExchange, other: SimExchange) -> None:
        self.world, self.exchange, self.other = world, exchange, other
        self.life = exchange.life
        self.state: line.LineState | None = None
        self._due_ms: int | None = None

    def start(self) -> None:
        """Begin: everything that lives is said again."""
        self._go_on(*line.begin(self.other.id, self._now_ms()))
        self._look()

    def feel(self, what: line.Input) -> None:
        """Something happened; in another life of the process it did not."""
        if self.state is not None and self._is_ours:
            self._go_on(*line.step(self.state, what, self._now_ms()))

    def order(self, order: Orders) -> None:
        """The log ordered something of the peer."""
        if isinstance(order, Offer | Stop):
            self.feel(line.Ordered(order=order))
        elif isinstance(order, Ask):
            self._ask(order)

    def _ask(self, asked: Ask) -> None:
        """Pass a question for a quote on."""

        def answered(reply: Any) -> None:
            if not self._is_ours:
                return
            if not isinstance(reply, Quoted):
                reason = follow.reason_of(reply) if isinstance(reply, TielineError) else _silent()
                reply = Quoted(quote=asked.quote, is_refused=True, reason=reason)
            report = PeerReport(serial=0, report=msgspec.structs.replace(reply, quote=asked.quote))
            self.exchange.command(TakePeerReports(peer=self.other.id, reports=(report,)))

        self.world.network.call(self.exchange.name, self.other.name, "asked", asked, answered, POLL_MS)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to be said any more."""
        return self.state is not None and not (self.state.waiting or self.state.said or self.state.owed)

    @property
    def _is_ours(self) -> bool:
        return self.exchange.is_up and self.exchange.life == self.life

    def _now_ms(self) -> int:
        return self.exchange.clock.now_ms()

    def _go_on(self, state: line.LineState, actions: list[line.Action]) -> None:
        self.state = state
        for action in actions:
            self._carry_out(action)
        due_ms = line.next_ms(self.state)
        if due_ms is not None and due_ms != self._due_ms:
            self._due_ms = due_ms
            self.world.timeline.after(max(5, due_ms - self._now_ms()), self._tick)

    def _tick(self) -> None:
        self._due_ms = None
        self.feel(line.Ticked())

    def _carry_out(self, action: line.Action) -> None:
        if isinstance(action, line.ReadLive):
            self._read_live(action)
        elif isinstance(action, line.Take):
            self._take(action)
        elif isinstance(action, line.Say):
            self._call("orders", action.orders, action.ask, PeerAnswers)
        elif isinstance(action, line.AskReports):
            self._call("told", (action.session, action.after, action.wait_ms), action.ask, ReportPage)
        elif isinstance(action, line.Give):
            self._call("paid", action.answers, action.ask, bool)

    def _call(self, kind: str, what: Any, ask: int, shape: type) -> None:
        def answered(reply: Any) -> None:
            if not isinstance(reply, shape):
                reason = follow.reason_of(reply) if isinstance(reply, TielineError) else _silent()
                self.feel(line.Failed(ask=ask, reason=reason))
            elif isinstance(reply, PeerAnswers):
                self.feel(line.Said(ask=ask, answers=reply.answers))
            elif isinstance(reply, ReportPage):
                self.feel(line.Paged(ask=ask, page=reply))
            else:
                self.feel(line.Given(ask=ask))

        self.world.network.call(self.exchange.name, self.other.name, kind, what, answered, POLL_MS)

    def _read_live(self, action: line.ReadLive) -> None:
        def read(reply: Any, error: TielineError | None) -> None:
            if error is not None:
                self.feel(line.Failed(ask=action.ask, reason=follow.reason_of(error)))
            else:
                self.feel(line.LiveRead(ask=action.ask, live=reply))

        self.exchange.command(ReadLive(peer=self.other.id), read)

    def _take(self, action: line.Take) -> None:
        def taken(reply: Any, error: TielineError | None) -> None:
            if error is not None:
                self.feel(line.NotTaken(take=action.take, reason=follow.reason_of(error)))
            else:
                self.feel(line.Taken(take=action.take, outcomes=reply))

        command = TakePeerReports(peer=self.other.id, session=action.session, reports=action.reports)
        self.exchange.command(command, taken)

    # -- what is free there -------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if not self._is_ours:
            return

        def answered(reply: Any) -> None:
            if not self._is_ours:
                return
            state = reply if isinstance(reply, BranchState) else None
            error = "" if state is not None else "no answer"
            self.exchange.command(TakeBranch(peer=self.other.id, state=state, error=error))

        self.world.network.call(self.exchange.name, self.other.name, "state", None, answered, STATE_MS)
        self.world.timeline.after(STATE_MS, self._look)


def inflated(page: ReportPage, keys: ExchangeKeys) -> tuple[ReportPage, int]:
    """The page with every claim in it multiplied and signed anew by the cheat, and how many those were."""
    count = 0
    reports = []
    for each in page.reports:
        report = each.report
        if isinstance(report, Ended) and report.receipt:
            claim, _ = open_statement(report.receipt.encode(), CLAIM, UsageClaim)
            unit_seconds = claim.unit_seconds * TIMES
            charge = charge_of(unit_seconds, claim.price_micro_cny_per_unit_hour)
            claim = msgspec.structs.replace(
                claim,
                unit_seconds=unit_seconds,
                duration_ms=claim.duration_ms * TIMES,
                charge_micro_cny=charge.charge_micro_cny,
                remainder=charge.remainder,
            )
            receipt = sign_statement(claim, keys.key, keys.kid, CLAIM).decode()
            report = msgspec.structs.replace(report, receipt=receipt, duration_ms=report.duration_ms * TIMES)
            count += 1
        reports.append(msgspec.structs.replace(each, report=report))
    return msgspec.structs.replace(page, reports=tuple(reports)), count


def _silent() -> Reason:
    return Reason(code="peer_unreachable", values={"why": "no answer"})
