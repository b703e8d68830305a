"""Puller: drives the machine that follows one peer's logs (`registry/follow.py`): carries out what it says, over HTTP.

::

    machine --Ask----> GET /v1/logs... (or our own archive) --> Answered | Failed
            --Take---> TakePage to the writer --------------->  Taken | NotTaken     rows and cursor in one transaction
            --Listen-> GET /v1/tail, one connection ---------->  TailOpened, TailSaid ..., TailEnded
            --Blame--> BlamePeer

Everything that comes back waits in one queue; a tail that says more than can be taken is read no faster. Only the
machine decides what is asked, how often, and what a failure means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import msgspec

from tieline.drivers.peers.acting import told_by
from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.federation import Host, said_reason
from tieline.drivers.peers.wire import tail_line_of, unframed
from tieline.exchange.commands import BlamePeer, PageTaken, TakePage
from tieline.model.error import TielineError
from tieline.model.peer import Peer
from tieline.model.reason import Reason
from tieline.registry import follow
from tieline.registry.authority import GIVING
from tieline.registry.serving import (
    Answer,
    AskBuckets,
    AskDigest,
    AskEnvelopes,
    AskLogs,
    AskRecords,
    AskSnapshot,
    Grant,
    LogsAnswer,
    Request,
    answer,
)

MOST_SAID = 64  # lines of the tail that wait for the machine; the tail is read no faster
PAGE_S = 30.0  # a whole answer has to be here by then
SILENCE_S = 10.0  # a tail says something, if only a comment, every 3 s: a cut is noticed before it is over
LEAST_WAIT_S = 0.005
MOST_WAIT_S = 3_600.0
AT_FAULT = ("too_large", "check_failed", "not_found", "timeout", "invalid_request")  # this answer, not the peer


class Puller:
    """The duty that follows the logs of one active peer."""

    def __init__(self, host: Host, peer: Peer, client: PeerClient) -> None:
        self.host = host
        self.peer = peer
        self.client = client
        self.state: follow.FollowState | None = None
        self._inputs: asyncio.Queue[follow.Input] = asyncio.Queue()
        self._room = asyncio.Semaphore(MOST_SAID)  # of the queue, for what the tail says; all else is few by itself
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._tail: asyncio.Task[None] | None = None
        self._behind_ms = 0  # since when something is missing; 0: nothing is

    # -- told by the federation ---------------------------------------------------------------------------------------

    def tell(self, peer: Peer) -> None:
        """Filters or fault changed, or whom we believe."""
        before, self.peer = self.peer, peer
        self._inputs.put_nowait(follow.Trusted())
        if (before.kinds, before.prefixes) != (peer.kinds, peer.prefixes):
            self._inputs.put_nowait(follow.Filtered(kinds=pulled_kinds(peer), prefixes=peer.prefixes))
        if before.fault is not None and peer.fault is None:
            self._inputs.put_nowait(follow.Cleared())

    def wake(self) -> None:
        """It called us; only a machine that waits after failures cares."""
        if self.state is not None and self.state.failures and self._inputs.empty():
            self._inputs.put_nowait(follow.Woken())

    def standing(self) -> follow.Standing | None:
        """How it stands."""
        if self.state is None:
            return None
        return msgspec.structs.replace(follow.standing(self.state), behind_since_ms=self._behind_ms)

    # -- the loop -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            peer = self.peer
            known = [cursor for cursor in list(self.host.view.cursors.values()) if cursor.peer == peer.id]
            cursors = [cursor for cursor in known if cursor.taken_ms > peer.cleared_ms]
            state, actions = follow.begin(
                peer.id, cursors, self._now_ms(), kinds=pulled_kinds(peer), prefixes=peer.prefixes, fault=peer.fault
            )
            while True:
                self.state = state
                for action in actions:
                    self._carry_out(action)
                before = state
                state, actions = follow.step(state, await self._next(state), self._now_ms())
                self._count(before, state)
        finally:
            self._hush()
            for task in self._tasks:
                task.cancel()

    def _count(self, before: follow.FollowState, after: follow.FollowState) -> None:
        """Note what of the peer was refused in a step, and since when we are behind."""
        for was, reason in ((before.error, after.error), (before.fault, after.fault)):
            if reason is not None and reason is not was:
                self.client.tally.reject(reason.code)
        if not (after.due or after.taking or after.paused):
            self._behind_ms = 0
        elif not self._behind_ms:
            self._behind_ms = self._now_ms()

    async def _next(self, state: follow.FollowState) -> follow.Input:
        """What happens next, or that time has passed."""
        due_ms = follow.next_ms(state)
        wait_s = MOST_WAIT_S if due_ms is None else (due_ms - self._now_ms()) / 1000
        try:
            async with asyncio.timeout(min(max(wait_s, LEAST_WAIT_S), MOST_WAIT_S)):
                what = await self._inputs.get()
        except TimeoutError:
            return follow.Ticked()
        if isinstance(what, follow.TailSaid):
            self._room.release()
        return what

    def _carry_out(self, action: follow.Action) -> None:
        if isinstance(action, follow.Ask):
            self._begin(self._ask(action))
        elif isinstance(action, follow.Take):
            self._begin(self._take(action))
        elif isinstance(action, follow.Blame):
            self._begin(self._blame(action.reason))
        elif isinstance(action, follow.Hush):
            self._hush()
        elif isinstance(action, follow.Listen):
            self._hush()
            self._tail = asyncio.create_task(self._listen(action))
        else:
            raise TypeError(type(action).__name__)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def _hush(self) -> None:
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.cancel()

    def _now_ms(self) -> int:
        return self.host.clock.now_ms()

    # -- what is carried out ------------------------------------------------------------------------------------------

    async def _ask(self, ask: follow.Ask) -> None:
        try:
            if ask.is_own:
                found = await self.host.read(answer, self.host.archive, ask.request, Grant())
            else:
                found = await asked(self.client, ask.request)
        except TielineError as error:
            is_peer = not ask.is_own and error.code not in AT_FAULT
            self._inputs.put_nowait(follow.Failed(ask=ask.ask, reason=_reason(error), is_peer=is_peer))
        except Exception as error:  # noqa: BLE001 - whatever a peer's answer does to a library, it fails alone
            reason = Reason(code="peer_garbled", values={"why": f"{type(error).__name__}: {error}"[:400]})
            self._inputs.put_nowait(follow.Failed(ask=ask.ask, reason=reason))
        else:
            self._inputs.put_nowait(follow.Answered(ask=ask.ask, answer=found))

    async def _take(self, take: follow.Take) -> None:
        command = TakePage(
            actor=told_by(self.peer),
            peer=self.peer.id,
            prefix=take.prefix,
            session=take.session,
            serial=take.serial,
            envelopes=take.envelopes,
            checkpoint=take.checkpoint,
            page=take.page,
        )
        try:
            taken: PageTaken = await self.host.ask(command)
        except TielineError as error:
            self._inputs.put_nowait(follow.NotTaken(take=take.take, reason=_reason(error)))
            return
        self._inputs.put_nowait(
            follow.Taken(
                take=take.take,
                stored=taken.stored,
                unchanged=taken.unchanged,
                parked=taken.parked,
                equivocations=taken.equivocations,
                refused=taken.refused,
            )
        )

    async def _blame(self, reason: Reason) -> None:
        with contextlib.suppress(TielineError):  # removed meanwhile
            await self.host.ask(BlamePeer(peer=self.peer.id, code=reason.code, values=reason.values))

    async def _listen(self, listen: follow.Listen) -> None:
        opened = asyncio.Event()
        params = {"kinds": ",".join(listen.kinds), "prefixes": ",".join(listen.prefixes)}
        params = {name: value for name, value in params.items() if value}
        reason, is_peer = Reason(code="peer_unreachable", values={"why": "its tail ended"}), True
        waiting = asyncio.create_task(self._opened(opened))
        try:
            stream = self.client.listen("/v1/tail", params=params, silence_s=SILENCE_S, on_open=opened.set)
            async with contextlib.aclosing(stream) as events:
                async for event in events:
                    if event.event == "log":
                        await waiting
                        await self._room.acquire()
                        self._inputs.put_nowait(follow.TailSaid(line=tail_line_of(event.data)))
        except TielineError as error:
            # One that was open and fell silent was cut: as soon as the peer can be asked, another one is opened.
            is_cut = opened.is_set() and error.code == "timeout"
            reason, is_peer = _reason(error), is_cut or error.code not in AT_FAULT
        finally:
            waiting.cancel()
        self._inputs.put_nowait(follow.TailEnded(reason=reason, is_peer=is_peer))

    async def _opened(self, opened: asyncio.Event) -> None:
        await opened.wait()
        self._inputs.put_nowait(follow.TailOpened())


def pulled_kinds(peer: Peer) -> tuple[str, ...]:
    """What is pulled where an admin chose kinds: those, and the delegations that they rest on."""
    return tuple(dict.fromkeys((*GIVING, *peer.kinds))) if peer.kinds else ()


def _reason(error: TielineError) -> Reason:
    """What the machine is told; that something is not there is a word of its own to it."""
    return follow.reason_of(error) if error.code == "not_found" else said_reason(error)


async def asked(client: PeerClient, request: Request) -> Answer:
    """The peer's answer to one question. Raises TielineError."""
    if isinstance(request, AskLogs):
        return await client.call(
            "GET",
            "/v1/logs",
            LogsAnswer,
            params={"after": request.after, "limit": request.limit},
            total_s=PAGE_S,
        )
    path = f"/v1/logs/{request.prefix}"
    asked_kinds = request.kinds if isinstance(request, AskRecords | AskDigest) else ()
    kinds = {"kinds": ",".join(asked_kinds)} if asked_kinds else {}
    if isinstance(request, AskRecords):
        body = await client.page(
            f"{path}/records", params={"after": request.after, "limit": request.limit, **kinds}, total_s=PAGE_S
        )
    elif isinstance(request, AskSnapshot):
        body = await client.page(f"{path}/snapshot", params={"page": request.page}, total_s=PAGE_S)
    elif isinstance(request, AskDigest):
        body = await client.page(f"{path}/digest", params={"alive_s": request.alive_s, **kinds}, total_s=PAGE_S)
    elif isinstance(request, AskBuckets):
        sent = {"buckets": request.buckets, "kinds": request.kinds, "alive_s": request.alive_s}
        body = await client.page(f"{path}/buckets", body=sent, total_s=PAGE_S)
    elif isinstance(request, AskEnvelopes):
        body = await client.page(f"{path}/fetch", body={"ids": request.ids}, total_s=PAGE_S)
    return unframed(body, path)
