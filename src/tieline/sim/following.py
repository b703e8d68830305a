"""Following: one exchange pulls the logs of one peer: the machine of `registry/follow.py` over simulated wires."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tieline.exchange.commands import BlamePeer, TakePage
from tieline.model.error import TielineError
from tieline.model.reason import Reason
from tieline.registry import follow
from tieline.registry.serving import Grant, TailLine, answer
from tieline.sim.network import Stream

if TYPE_CHECKING:
    from tieline.sim.exchange import SimExchange
    from tieline.sim.world import World

PAGE_MS = 30_000
AT_FAULT = ("too_large", "check_failed", "not_found", "timeout", "invalid_request")  # this answer, not the peer


class Follower:
    """The puller of one peer, in one life of its exchange."""

    def __init__(self, world: World, exchange: SimExchange, other: SimExchange) -> None:
        self.world, self.exchange, self.other = world, exchange, other
        self.life = exchange.life
        self.state: follow.FollowState | None = None
        self.prefixes = world.wanted.get(exchange.name, ())
        self._due_ms: int | None = None
        self._tails = 0

    def start(self) -> None:
        """Begin from the committed cursors."""
        view = self.exchange.view
        cursors = [cursor for cursor in view.cursors.values() if cursor.peer == self.other.id]
        fault = view.peers[self.other.id].fault
        state, actions = follow.begin(self.other.id, cursors, self._now_ms(), prefixes=self.prefixes, fault=fault)
        self._go_on(state, actions)

    def feel(self, what: follow.Input) -> None:
        """Something happened; in another life of the process it did not."""
        if self.state is None or not self.exchange.is_up or self.exchange.life != self.life:
            return
        self._go_on(*follow.step(self.state, what, self._now_ms()))

    def _now_ms(self) -> int:
        return self.exchange.clock.now_ms()

    def _go_on(self, state: follow.FollowState, actions: list[follow.Action]) -> None:
        self.state = state
        for action in actions:
            self._carry_out(action)
        due_ms = follow.next_ms(self.state)
        if due_ms is not None and due_ms != self._due_ms:
            self._due_ms = due_ms
            self._later(max(5, due_ms - self._now_ms()), follow.Ticked())

    def _later(self, ms: int, what: follow.Input) -> None:
        def happen() -> None:
            if isinstance(what, follow.Ticked):
                self._due_ms = None
            self.feel(what)

        self.world.timeline.after(ms, happen)

    def _carry_out(self, action: follow.Action) -> None:
        if isinstance(action, follow.Ask):
            self._ask(action)
        elif isinstance(action, follow.Take):
            self._take(action)
        elif isinstance(action, follow.Listen):
            self._listen()
        elif isinstance(action, follow.Hush):
            self._tails += 1
        elif isinstance(action, follow.Blame):
            reason = action.reason
            self.world.faults[f"peer blamed: {reason.code}"] += 1
            self.exchange.command(BlamePeer(peer=self.other.id, code=reason.code, values=reason.values))

    def _ask(self, ask: follow.Ask) -> None:
        if ask.is_own:
            try:
                found: Any = answer(self.exchange.archive, ask.request, Grant())
            except TielineError as error:
                self._later(1, follow.Failed(ask=ask.ask, reason=follow.reason_of(error)))
                return
            self._later(1, follow.Answered(ask=ask.ask, answer=found))
            return

        def answered(reply: Any) -> None:
            if reply is None:
                self.feel(follow.Failed(ask=ask.ask, reason=_silent(), is_peer=True))
            elif isinstance(reply, TielineError):
                is_peer = reply.code not in AT_FAULT
                self.feel(follow.Failed(ask=ask.ask, reason=follow.reason_of(reply), is_peer=is_peer))
            else:
                self.feel(follow.Answered(ask=ask.ask, answer=reply))

        self.world.network.call(self.exchange.name, self.other.name, "logs", ask.request, answered, PAGE_MS)

    def _take(self, take: follow.Take) -> None:
        command = TakePage(
            peer=self.other.id,
            prefix=take.prefix,
            session=take.session,
            serial=take.serial,
            envelopes=take.envelopes,
            checkpoint=take.checkpoint,
            page=take.page,
        )

        def taken(reply: Any, error: TielineError | None) -> None:
            if error is not None:
                self.feel(follow.NotTaken(take=take.take, reason=follow.reason_of(error)))
                return
            self.world.faults["copy refused"] += sum(reply.refused.values())
            self.feel(
                follow.Taken(
                    take=take.take,
                    stored=reply.stored,
                    unchanged=reply.unchanged,
                    parked=reply.parked,
                    equivocations=reply.equivocations,
                    refused=reply.refused,
                )
            )

        self.exchange.command(command, taken)

    def _listen(self) -> None:
        self._tails += 1
        tail = self._tails

        def heard(line: TailLine) -> None:
            if tail == self._tails:
                self.feel(follow.TailSaid(line=line))

        def broken() -> None:
            if tail == self._tails:
                self.feel(follow.TailEnded(reason=_silent()))

        def opened(reply: Any) -> None:
            if tail != self._tails:
                return
            if reply is True:
                self.feel(follow.TailOpened())
            else:
                self.feel(follow.TailEnded(reason=_silent()))

        stream = Stream(self.world.network, self.other.name, self.exchange.name, heard, broken)
        stream.prefixes = self.prefixes
        self.world.network.call(self.exchange.name, self.other.name, "tail", stream, opened)


def _silent() -> Reason:
    return Reason(code="peer_unreachable", values={"why": "no answer"})
