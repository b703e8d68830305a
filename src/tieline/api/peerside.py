"""What another exchange says and hears whose users run here. It dials; each call is signed by the key that we pinned.

Bytes are named by the run of the peer that they belong to, so that no peer reads what is not of its own runs. What a
peer sent counts as its own: until it goes where that peer brought it first, else until this process ends. So a peer
asks before it sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import msgspec

from tieline.api.answer import Answer, encode, packed
from tieline.api.blobs import DIGEST, IMMUTABLE, LENGTH, RANGES, TAG, BlobAnswer, blob_answer
from tieline.api.call import Call
from tieline.api.hub import HEAD, log_name
from tieline.api.operation import BYTES, operation
from tieline.api.peercaller import active_peer
from tieline.api.platform import Platform
from tieline.drivers.stores.columns import short
from tieline.drivers.stores.secrets import guest_secrets
from tieline.exchange.asking import quoted_of
from tieline.exchange.commands import Command, OfferTaken, ReadReports, ReadState, TakeAsk
from tieline.exchange.guests import GuestRun
from tieline.exchange.line import answer_of, commands_of, files_of, payments_of
from tieline.model.api import BlobView
from tieline.model.error import TielineError
from tieline.model.peer import BranchState
from tieline.model.peerlog import LogMark, LogPiece, LogPieces, LogsWanted
from tieline.model.plan import Quote
from tieline.model.protocol import (
    Ask,
    CheckpointKept,
    Ended,
    Offer,
    PaidClaims,
    PeerAnswers,
    PeerOrders,
    Quoted,
    Refused,
    ReportPage,
    Reports,
    Stop,
)
from tieline.model.reason import Reason

PIECE_BYTES = 2**18
PIECES_BYTES = 2**21  # of all logs in one answer
LOOK_S = 2.0  # the end of a run without output wakes nobody who waits for its log


class ReportsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where on."""

    session: Annotated[str, msgspec.Meta(max_length=200, description="of the list, as the peer knows it")] = ""
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1, description="go on after this serial")] = 0
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=20_000, description="wait so long for something to say")] = 0


class GuestBlobQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose bytes."""

    run: Annotated[str, msgspec.Meta(min_length=1, max_length=200, description="the peer's run that made them")]


class PaidAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the answers to claims were kept."""

    kept: int


@operation("GET", "/v1/peer/state", tag="peers", errors=("forbidden",))
async def read_peer_state(call: Call) -> BranchState | Answer:
    """What is free here and behind here, for the peer that asks. Last value only; packed where it takes that."""
    peer = await active_peer(call)
    state: BranchState = await call.platform.ask(ReadState(peer=peer.id))
    accepted = call.header(b"accept-encoding")
    body, headers = await call.platform.read(lambda: packed(encode(state), accepted))
    return Answer(body, headers=headers)


@operation("POST", "/v1/peer/orders", tag="peers", errors=("forbidden", "overloaded"), example={"orders": []})
async def take_peer_orders(call: Call, body: PeerOrders) -> PeerAnswers:
    """Offers and stops of a peer, and before them the roll. Each is decided by itself; the same again changes nothing.

    Bytes that an offer needs are sent before it.
    """
    platform, peer = call.platform, await active_peer(call)
    refusals = {order.run: why for order in body.orders if (why := await _unsent(platform, peer.id, order))}
    asked = tuple(order for order in body.orders if order.run not in refusals)
    commands = in_its_name(call, commands_of(peer.id, PeerOrders(orders=asked, roll=body.roll)))
    keep = guest_secrets([order for order in asked if isinstance(order, Offer)])
    replies = (
        await asyncio.gather(*platform.writer.ask_many(commands, keep), return_exceptions=True) if commands else []
    )
    for reply in replies:
        if isinstance(reply, BaseException) and not (isinstance(reply, TielineError) and not reply.transient):
            raise reply
    if body.roll is not None and isinstance(replies[0], BaseException):
        raise replies[0]
    told = iter(replies[1:] if body.roll is not None else replies)
    answers: list[OfferTaken | tuple[Reports, ...] | TielineError] = []
    for order in body.orders:
        if order.run in refusals:
            answers.append((Refused(run=order.run, epoch=order.epoch, reason=refusals[order.run]),))
        else:
            answers.append(next(told))  # type: ignore[arg-type]
    tally = platform.peer_calls.tally(peer.id)
    for answer in answers:
        told_back = answer.reports if isinstance(answer, OfferTaken) else answer
        for report in told_back if isinstance(told_back, tuple) else ():
            if isinstance(report, Refused):
                tally.reject(report.reason.code)
    return answer_of(body, answers)


async def _unsent(platform: Platform, peer: str, order: Offer | Stop) -> Reason | None:
    """Why an offer is not taken whose bytes this peer did not send; what it did not send it may not have either."""
    if isinstance(order, Stop) or guest_run(platform, peer, order.run) is not None or order.state != "offered":
        return None
    for sha256 in files_of(order):
        if not (_sent(platform, peer, sha256) and await platform.blobs.has(sha256)):
            unsent = Reason(code="offer_wrong", values={"why": f"blob {sha256[:64]} was not sent before it"})
            return platform.peer_calls.unkept.get((peer, sha256), unsent)
    return None


def _sent(platform: Platform, peer: str, sha256: str) -> bool:
    """Whether the peer sent these bytes: in this life of the process, or as the first who did."""
    return platform.facts.is_allowed(peer, sha256) or platform.blobs.was_brought(sha256, peer)


@operation(
    "POST",
    "/v1/peer/asks",
    tag="peers",
    errors=("forbidden", "overloaded", "unplaceable", "invalid_expression"),
    example={
        "order": "ask",
        "quote": "q-0",
        "pool": "cn.b.lab/pool/cpu",
        "task": {"run": "x"},
        "alternative": 0,
        "user": "alice",
    },
)
async def take_peer_ask(call: Call, body: Ask) -> Quoted:
    """What an owner here would take for a run of the peer's user: the answer comes when the owner's site has answered.

    The same question again is answered by the same quote while that is open. An offer may name it, once.
    """
    platform, peer = call.platform, await active_peer(call, uses=True)
    asked: Quote = await platform.ask(TakeAsk(actor=call.actor, peer=peer.id, ask=body))
    while True:
        with platform.hub.waiting(HEAD) as more:
            now_ms = platform.clock.now_ms()
            found = platform.view.quotes.get(asked.id) or await platform.read(platform.store.quote, asked.id) or asked
            said = quoted_of(found, now_ms)
            if said is not None:
                return said
            await platform.within(more, max(0.05, (found.expires_ms - now_ms) / 1000))
        if platform.hub.is_closed:
            raise TielineError("overloaded", "this exchange is about to end")


@operation("GET", "/v1/peer/reports", tag="peers", errors=("forbidden",))
async def read_peer_reports(call: Call, query: ReportsQuery) -> ReportPage:
    """What there is to say of the peer's runs after a serial; the answer waits when there is nothing."""
    platform, peer = call.platform, await active_peer(call)
    end_s = asyncio.get_running_loop().time() + query.wait_ms / 1000
    while True:
        serial = _serial(platform, peer.id)
        page: ReportPage = await platform.ask(ReadReports(peer=peer.id, session=query.session, after=query.after))
        if page.reports or page.session != query.session:
            return page
        while _serial(platform, peer.id) <= serial:
            with platform.hub.waiting(HEAD) as more:
                left_s = end_s - asyncio.get_running_loop().time()
                if left_s <= 0 or platform.hub.is_closed:
                    return page
                if _serial(platform, peer.id) <= serial:
                    await platform.within(more, left_s)


def _serial(platform: Platform, peer: str) -> int:
    guest = platform.view.guests.get(peer)
    return guest.serial if guest is not None else 0


def in_its_name(call: Call, commands: Sequence[Command]) -> list[Command]:
    """Commands that follow from what a peer says, with the peer as who asked, for the audit."""
    return [msgspec.structs.replace(command, actor=call.actor) for command in commands]


@operation("POST", "/v1/peer/answers", tag="peers", errors=("forbidden", "overloaded"), example={"answers": []})
async def take_peer_answers(call: Call, body: PaidClaims) -> PaidAnswer:
    """What the peer signed of our claims. One that is not sound is left out, and the claim stays unanswered."""
    platform, peer = call.platform, await active_peer(call)
    commands = in_its_name(call, payments_of(peer.id, body))
    replies = await asyncio.gather(*platform.writer.ask_many(commands), return_exceptions=True) if commands else []
    for reply in replies:
        if isinstance(reply, BaseException) and not (isinstance(reply, TielineError) and not reply.transient):
            raise reply
    return PaidAnswer(kept=sum(not isinstance(reply, BaseException) for reply in replies))


# -- logs -------------------------------------------------------------------------------------------------------------


@operation(
    "POST",
    "/v1/peer/logs",
    tag="peers",
    errors=("forbidden",),
    example={"logs": [{"run": "j-0.1", "node": 0, "offset": 0}]},
)
async def read_peer_logs(call: Call, body: LogsWanted) -> LogPieces:
    """What the peer's runs printed after the offsets that it knows; the answer waits when there is nothing."""
    platform, peer = call.platform, await active_peer(call)
    end_s = asyncio.get_running_loop().time() + body.wait_ms / 1000
    while True:
        names = {mark.run: await _name_here(platform, peer.id, mark.run) for mark in body.logs}
        with platform.hub.waiting(*dict.fromkeys(log_name(name) for name, _ in names.values() if name)) as more:
            pieces = await _pieces(platform, names, body.logs)
            left_s = end_s - asyncio.get_running_loop().time()
            if pieces or left_s <= 0 or platform.hub.is_closed:
                return LogPieces(pieces=tuple(pieces))
            await platform.within(more, min(left_s, LOOK_S))


async def _name_here(platform: Platform, peer: str, run: str) -> tuple[str, bool]:
    """Our name of a peer's run, empty before it has one, and whether it is over."""
    guest = guest_run(platform, peer, run)
    if guest is None:
        return "", True
    job = platform.view.jobs.peek(guest.job) or await platform.read(platform.store.job, guest.job)
    name = f"{short(job.id)}.{job.epoch}" if job is not None and job.epoch else ""
    return name, not guest.is_live


async def _pieces(platform: Platform, names: dict[str, tuple[str, bool]], marks: Sequence[LogMark]) -> list[LogPiece]:
    found: list[LogPiece] = []
    left_bytes = PIECES_BYTES
    for mark in marks:
        name, is_done = names[mark.run]
        data, size = b"", 0
        if name:
            size = await platform.logs.size(name, mark.node)
            data = await platform.logs.read(name, mark.node, mark.offset, min(PIECE_BYTES, left_bytes))
        left_bytes -= len(data)
        is_over = is_done and mark.offset + len(data) >= size
        if data or is_over:
            found.append(LogPiece(run=mark.run, node=mark.node, offset=mark.offset, data=data, is_over=is_over))
    return found


# -- bytes ------------------------------------------------------------------------------------------------------------


@operation("HEAD", "/v1/peer/blobs/{sha256}", tag="peers", gives="", answers=(LENGTH,), errors=("forbidden",))
async def check_peer_blob(call: Call, sha256: str) -> Answer:
    """Whether bytes are here that the peer sent, and how many they are."""
    platform, peer = call.platform, await active_peer(call, uses=True)
    if not (_sent(platform, peer.id, _digest(sha256)) and await platform.blobs.has(sha256)):
        raise TielineError("not_found", f"`{peer.id}` did not send blob `{sha256}`")
    answer = Answer(media=BYTES, headers=IMMUTABLE)
    answer.headers[1] = (b"content-length", str(await platform.blobs.size(sha256)).encode())
    return answer


@operation(
    "PUT",
    "/v1/peer/blobs/{sha256}",
    tag="peers",
    takes=BYTES,
    errors=("forbidden", "storage_full", "check_failed"),
    example="twelve bytes",
)
async def store_peer_blob(call: Call, sha256: str) -> BlobView:
    """Keep bytes that an offer of the peer will need. Nothing is kept where their hash is another.

    All that a peer sends, and what was fetched from it, is bounded by `peer_blobs_bytes`.
    """
    call.expect(BYTES)
    platform, peer = call.platform, await active_peer(call, uses=True)
    limit = platform.limits.blob_bytes
    chunks = call.chunks(limit)
    try:
        kept, size = await platform.blobs.write(hashed(chunks, _digest(sha256)), limit, peer.id)
    except TielineError as error:
        if error.reasons:
            platform.peer_calls.leave_out(peer.id, sha256, error.reasons[0])
            await _rest(chunks)
        raise
    platform.peer_calls.unkept.pop((peer.id, sha256), None)
    platform.facts.allow(peer.id, kept)
    return BlobView(sha256=kept, size_bytes=size)


@operation(
    "GET",
    "/v1/peer/blobs/{sha256}",
    tag="peers",
    gives=BYTES,
    errors=("forbidden", "range_not_satisfiable"),
    headers=RANGES,
    answers=(TAG,),
)
async def read_peer_blob(call: Call, sha256: str, query: GuestBlobQuery) -> BlobAnswer | Answer:
    """An output or a checkpoint of one of the peer's runs, or one range of it."""
    platform, peer = call.platform, await active_peer(call)
    run = guest_run(platform, peer.id, query.run)
    if run is None or not _made(run, _digest(sha256)):
        raise TielineError("not_found", f"there is no blob `{sha256}` of a run `{query.run}` of `{peer.id}` here")
    return blob_answer(call, sha256, await platform.blobs.size(sha256))


async def _rest(chunks: AsyncIterator[bytes]) -> None:
    """Read what is still coming: whoever sends may not hear the answer before its last byte."""
    with contextlib.suppress(TielineError):
        async for _ in chunks:
            pass


def guest_run(platform: Platform, peer: str, run: str) -> GuestRun | None:
    """A run of a peer here, by the name that it has over there."""
    guest = platform.view.guests.get(peer)
    return guest.runs.get(run) if guest is not None else None


def _made(run: GuestRun, sha256: str) -> bool:
    """Whether a run was reported to have made these bytes."""
    for each in run.reports:
        report = each.report
        if isinstance(report, CheckpointKept) and report.sha256 == sha256:
            return True
        if isinstance(report, Ended) and (
            report.checkpoint == sha256 or any(output.sha256 == sha256 for output in report.outputs)
        ):
            return True
    return False


async def hashed(chunks: AsyncIterator[bytes], sha256: str) -> AsyncIterator[bytes]:
    """``chunks``, ending with `check_failed` where they are not the bytes of that hash."""
    hasher = hashlib.sha256()
    async for chunk in chunks:
        hasher.update(chunk)
        yield chunk
    if hasher.hexdigest() != sha256:
        raise TielineError("check_failed", f"these are not the bytes of `{sha256}`", where="path")


def _digest(sha256: str) -> str:
    if not DIGEST.fullmatch(sha256):
        raise TielineError("invalid_identifier", "a blob is named by its sha256: 64 letters of 0-9a-f", where="path")
    return sha256
