"""Use: drives the line to one peer that carries out runs for our users (`exchange/line.py`), over HTTP.

::

    GET  /v1/peer/state   every `beat_ms`  --> TakeBranch                   what is free there; silence is told too
    POST /v1/peer/orders  the machine's Say, after the bytes that it needs  what the log ordered of this peer
    GET  /v1/peer/reports a long poll      --> files and logs --> TakePeerReports --> POST /v1/peer/answers
    POST /v1/peer/logs    a long poll      --> our own log store            so that `tieline logs -f` works as ever

Before the end of a run is taken, its outputs, its checkpoint and the rest of its logs are here, so that a job that has
ended can be read with the peer gone. What the peer refuses to give is left out; what it cannot give now is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from tieline.drivers.peers.acting import told_by
from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.federation import Host, Orders, said_reason
from tieline.drivers.peers.printed import Printed
from tieline.drivers.peers.results import LANES, Results
from tieline.exchange import line
from tieline.exchange.branches import clean
from tieline.exchange.commands import Live, TakeBranch, TakePeerReports
from tieline.exchange.commands import ReadLive as AskLive
from tieline.model.error import TielineError
from tieline.model.peer import BranchState, Peer
from tieline.model.protocol import (
    Ask,
    Offer,
    Outcome,
    PeerAnswer,
    PeerAnswers,
    PeerOrders,
    PeerReport,
    Quoted,
    Refused,
    ReportPage,
    Roll,
    Stop,
)
from tieline.model.reason import Reason

if TYPE_CHECKING:
    from tieline.registry.follow import Standing

replace = msgspec.structs.replace
_encode = msgspec.json.Encoder().encode

BYTES = "application/octet-stream"
STATE_BYTES = 64 * 2**20
STATE_S = 10.0
FRESH_S = 0.25  # no peer is asked more often, however many look for something
ORDERS_S = 30.0
ORDERS_BYTES = 2**21  # of one request with several of them
ASK_S = 20.0
LEAST_WAIT_S = 0.005
MOST_WAIT_S = 3_600.0
BOX_S = 60.0
MOST_BACKOFF_S = 15.0
LATE = Outcome(is_ok=True, what="late")


class _Broken(line.Input, frozen=True, kw_only=True):
    """A part of this broke off: everything begins anew."""

    error: BaseException


class Use:
    """The duty that uses what is behind one active peer."""

    def __init__(self, host: Host, peer: Peer, client: PeerClient) -> None:
        self.host = host
        self.peer = peer
        self.client = client
        self.state: line.LineState | None = None
        self._inputs: asyncio.Queue[line.Input] = asyncio.Queue()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._called = asyncio.Event()
        self._refresh: asyncio.Task[bool] | None = None
        self._asked_s = 0.0
        self.printed = Printed(host, peer.id, client)
        self.results = Results(host, peer, client, self.printed)

    # -- told by the federation ---------------------------------------------------------------------------------------

    def tell(self, peer: Peer) -> None:
        """Grants changed: perhaps it may be used now."""
        self.peer = self.results.peer = peer
        self.wake()

    def wake(self) -> None:
        """It called us; only what waits after failures cares."""
        self._called.set()
        if self.state is not None and self.state.failures and self._inputs.empty():
            self._inputs.put_nowait(line.Woken())

    def standing(self) -> Standing | None:
        """Logs of records are followed by another duty."""
        return None

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Use it until cancelled. Raises TielineError when the orders were lost: then it is begun anew."""
        self._inputs = asyncio.Queue()
        self.results = Results(self.host, self.peer, self.client, self.printed)
        orders = self.host.open_orders(self.peer.id)
        try:
            lanes = [self.results.lane(self._brought) for _ in range(LANES)]
            for work in (self._follow(orders), self._poll(), self.printed.follow(), *lanes):
                self._begin(work)
            state, actions = line.begin(self.peer.id, self._now_ms())
            while True:
                self.state = state
                for action in actions:
                    self._begin(self._carry_out(action))
                what = await self._next(state)
                if isinstance(what, _Broken):
                    raise what.error
                state, actions = line.step(state, what, self._now_ms())
        finally:
            self.host.close_orders(self.peer.id, orders)
            if self._refresh is not None:
                self._refresh.cancel()
            for task in self._tasks:
                task.cancel()

    async def _next(self, state: line.LineState) -> line.Input:
        due_ms = line.next_ms(state)
        wait_s = MOST_WAIT_S if due_ms is None else (due_ms - self._now_ms()) / 1000
        try:
            async with asyncio.timeout(min(max(wait_s, LEAST_WAIT_S), MOST_WAIT_S)):
                return await self._inputs.get()
        except TimeoutError:
            return line.Ticked()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._inputs.put_nowait(_Broken(error=error))

    async def _follow(self, orders: Orders) -> None:
        while True:
            try:
                found = await orders.take(BOX_S)
            except Exception as error:
                raise TielineError("overloaded", f"the orders to `{self.peer.id}` are read again: {error}") from error
            for _, _, order in found:
                if isinstance(order, Offer | Stop):
                    self._inputs.put_nowait(line.Ordered(order=order))
                elif isinstance(order, Ask):
                    self._begin(self._pass_on(order))

    async def _pass_on(self, asked: Ask) -> None:
        """Pass a question for a quote on; what comes of it is an answer. `exchange.quotes` bounds how many are open."""
        try:
            said = await self.client.call("POST", "/v1/peer/asks", Quoted, body=asked, key=None, total_s=ASK_S)
            said = replace(said, quote=asked.quote)
        except TielineError as error:
            said = Quoted(quote=asked.quote, is_refused=True, reason=said_reason(error))
        report = clean(said)
        with contextlib.suppress(TielineError):  # then the question ends by itself
            await self.host.ask(
                TakePeerReports(
                    actor=told_by(self.peer), peer=self.peer.id, reports=(PeerReport(serial=0, report=report),)
                )
            )

    def _now_ms(self) -> int:
        return self.host.clock.now_ms()

    # -- what is carried out ------------------------------------------------------------------------------------------

    async def _carry_out(self, action: line.Action) -> None:
        if isinstance(action, line.Take):
            await self._take(action)
            return
        assert isinstance(action, line.ReadLive | line.Say | line.AskReports | line.Give), action
        try:
            found = await self._asked(action)
        except TielineError as error:
            found = line.Failed(ask=action.ask, reason=said_reason(error))
        except Exception as error:  # noqa: BLE001 - whatever a peer's answer does to a library, it fails alone
            reason = Reason(code="peer_garbled", values={"why": f"{type(error).__name__}: {error}"[:400]})
            found = line.Failed(ask=action.ask, reason=reason)
        if isinstance(found, line.Failed):
            self.client.tally.reject(found.reason.code)
        self._inputs.put_nowait(found)

    async def _asked(self, action: line.ReadLive | line.Say | line.AskReports | line.Give) -> line.Input:
        if isinstance(action, line.ReadLive):
            live: Live = await self.host.ask(AskLive(peer=self.peer.id))
            return line.LiveRead(ask=action.ask, live=live)
        if isinstance(action, line.Say):
            for sha256 in dict.fromkeys(each for order in action.orders.orders for each in line.files_of(order)):
                await self._send(sha256)
            orders = tuple([await self._with_secrets(order) for order in action.orders.orders])
            return line.Said(ask=action.ask, answers=await self._told(orders, action.orders.roll))
        if isinstance(action, line.AskReports):
            params: dict[str, str | int] = {"after": action.after, "wait_ms": action.wait_ms}
            params |= {"session": action.session} if action.session else {}
            total_s = action.wait_ms / 1000 + ORDERS_S
            page = await self.client.call("GET", "/v1/peer/reports", ReportPage, params=params, total_s=total_s)
            return line.Paged(ask=action.ask, page=page)
        await self.client.raw("POST", "/v1/peer/answers", body=action.answers, key=None, total_s=ORDERS_S)
        return line.Given(ask=action.ask)

    async def _told(self, orders: Sequence[Offer | Stop], roll: Roll | None) -> tuple[PeerAnswer, ...]:
        """The peer's answers to orders: in several requests where they are large, with the roll in the first.

        One that the peer finds too large by itself is refused in its name.
        """
        answers: list[PeerAnswer] = []
        for batch in batches(orders):
            body = PeerOrders(orders=batch, roll=roll)
            try:
                said = await self.client.call(
                    "POST", "/v1/peer/orders", PeerAnswers, body=body, key=None, total_s=ORDERS_S
                )
            except TielineError as error:
                is_lone = len(batch) == 1 and isinstance(batch[0], Offer) and len(_encode(batch[0])) > ORDERS_BYTES
                if error.code != "too_large" or not is_lone:
                    raise
                refused = Refused(run=batch[0].run, epoch=batch[0].epoch, reason=said_reason(error))
                said = PeerAnswers(answers=(PeerAnswer(reports=(refused,)),))
            if len(said.answers) != len(batch):
                raise TielineError("check_failed", f"{len(said.answers)} answers came to {len(batch)} orders")
            answers += said.answers
            roll = None
        return tuple(answers)

    async def _with_secrets(self, order: Offer | Stop) -> Offer | Stop:
        """An offer with what its run is given, sealed to the site; what cannot be sealed is left to its refusal."""
        if not isinstance(order, Offer) or order.state != "offered" or not (order.task.secrets or order.task.token):
            return order
        try:
            return replace(order, sealed=await self.host.sealed_for(order))
        except TielineError as error:
            if error.transient:
                raise
            return order

    async def _send(self, sha256: str) -> None:
        """See to it that the peer holds these bytes; what is not here is left to its refusal of the offer."""
        path = f"/v1/peer/blobs/{sha256}"
        try:
            await self.client.raw("HEAD", path)
        except TielineError as error:
            if error.transient:
                raise
        else:
            return
        if not await self.host.blobs.has(sha256):
            return
        try:
            await self.client.upload(
                path, sha256, lambda: self.host.blobs.read(sha256), headers={"Content-Type": BYTES}
            )
        except TielineError as error:
            if error.transient:
                raise

    # -- reports ------------------------------------------------------------------------------------------------------

    async def _take(self, take: line.Take) -> None:
        """Take the reports in order, but for those whose bytes are many or hard to get: they wait beside the others."""
        try:
            late = [await self.results.is_late(each) for each in take.reports]
            now = tuple(each for each, waits in zip(take.reports, late, strict=True) if not waits)
            taken: tuple[Outcome, ...] = ()
            if now:
                taken = await self.host.ask(
                    TakePeerReports(actor=told_by(self.peer), peer=self.peer.id, reports=now, session=take.session)
                )
        except TielineError as error:
            self._inputs.put_nowait(line.NotTaken(take=take.take, reason=said_reason(error)))
            return
        self._inputs.put_nowait(line.Taken(take=take.take, outcomes=_in_turn(late, taken)))

    def _brought(self, outcomes: tuple[Outcome, ...]) -> None:
        """What became of a report that had to wait."""
        self._inputs.put_nowait(line.Brought(outcomes=outcomes))

    # -- what is free there -------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        """Ask again and again; a peer that does not answer is asked less often, until it calls us."""
        failures = 0
        while True:
            self._called.clear()
            failures = 0 if await self.refresh() else failures + 1
            beat_s = self.host.view.limits.beat_ms / 1000
            if not failures:
                await asyncio.sleep(beat_s)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(MOST_BACKOFF_S, beat_s * 2 ** min(failures - 1, 5))):
                    await self._called.wait()

    def refreshing(self) -> asyncio.Task[bool] | None:
        """The question that is under way, or a new one; None where it was asked only just now."""
        if self._refresh is None and asyncio.get_running_loop().time() - self._asked_s >= FRESH_S:
            self._refresh = asyncio.create_task(self.refresh())
            self._refresh.add_done_callback(self._refreshed)
        return self._refresh

    def _refreshed(self, task: asyncio.Task[bool]) -> None:
        self._refresh = None
        if not task.cancelled() and task.exception() is not None:
            self._inputs.put_nowait(_Broken(error=task.exception() or asyncio.CancelledError()))

    async def refresh(self, total_s: float = STATE_S) -> bool:
        """Ask once what is free there, and tell placing; whether there was an answer."""
        self._asked_s = asyncio.get_running_loop().time()
        try:
            body = await self.client.page("/v1/peer/state", limit_bytes=STATE_BYTES, total_s=total_s)
            state = msgspec.json.decode(body, type=BranchState)
            command = TakeBranch(peer=self.peer.id, state=state)
        except TielineError as error:
            self.client.tally.reject(said_reason(error).code)
            command = TakeBranch(peer=self.peer.id, state=None, error=error.message[:400])
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            self.client.tally.reject("peer_garbled")
            command = TakeBranch(peer=self.peer.id, state=None, error=f"its answer cannot be read: {error}"[:400])
        self.results.is_heard = command.state is not None
        try:
            await self.host.ask(command)
        except TielineError:
            return False
        return command.state is not None


def batches(orders: Sequence[Offer | Stop]) -> list[tuple[Offer | Stop, ...]]:
    """Orders in their turn, in as few requests as `ORDERS_BYTES` allows; a larger order goes alone."""
    found: list[list[Offer | Stop]] = [[]]
    size = 0
    for order in orders:
        more = len(_encode(order))
        if found[-1] and size + more > ORDERS_BYTES:
            found.append([])
            size = 0
        found[-1].append(order)
        size += more
    return [tuple(batch) for batch in found]


def _in_turn(late: list[bool], taken: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    """One outcome for each report, up to the first whose own is not there yet; of one that waits, that it does."""
    found, outcomes = list[Outcome](), iter(taken)
    for waits in late:
        outcome = LATE if waits else next(outcomes, None)
        if outcome is None:
            break
        found.append(outcome)
    return tuple(found)
