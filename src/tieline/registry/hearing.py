"""Hearing: what each input changes in the puller of a peer's logs (`follow.py`), one function for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import is_under
from tieline.model.reason import Reason
from tieline.registry import comparison
from tieline.registry.pages import MAX_PAGE_BYTES, page_refused, whole_page
from tieline.registry.pulling import (
    Answered,
    Asking,
    Cleared,
    Failed,
    Filtered,
    Hush,
    Input,
    Log,
    NotTaken,
    Pending,
    TailEnded,
    TailOpened,
    TailSaid,
    Taken,
    Ticked,
    Trusted,
    Woken,
    is_wanted,
    kinds_of,
)
from tieline.registry.serving import (
    AskDigest,
    AskLogs,
    AskRecords,
    AskSnapshot,
    LogLine,
    LogsAnswer,
    PageAnswer,
    Request,
    SnapshotAnswer,
)
from tieline.registry.turn import (
    ASK_MOST_MS,
    BUSY_MS,
    COMPARE_MS,
    FAR_BEHIND,
    GONE,
    IDLE_SERIALS,
    LATER,
    LIST_MS,
    MEND_MS,
    MOST_LOGS,
    MOST_RENUMBERS,
    MOST_RESTARTS,
    OPEN_MOST_MS,
    PAUSE_LEAST_MS,
    PAUSE_MOST_MS,
    PENDING_RECORDS,
    POLL_MS,
    RENUMBER_MS,
    TAKE_MOST_MS,
    Turn,
)

replace = msgspec.structs.replace


def hear(turn: Turn, what: Input) -> None:
    """Let an input take effect; of a peer that lied nothing more is heard."""
    if turn.state.fault is None or isinstance(what, Cleared | Taken | NotTaken):
        HEAR[type(what)](turn, what)


def _ticked(turn: Turn, _: Ticked) -> None:
    state, now_ms = turn.state, turn.now_ms
    if state.asking is not None and now_ms >= state.asking.asked_ms + ASK_MOST_MS:
        turn.fail(Reason(code="peer_stalled"))
    if state.opening_ms and now_ms >= state.opening_ms + OPEN_MOST_MS:
        turn.fail(Reason(code="peer_stalled"))
    for prefix, taking in state.taking.items():
        if now_ms >= taking.taking_ms + TAKE_MOST_MS:
            turn.drop("taking", prefix)
            turn.add("due", prefix)
    for prefix in state.paused:
        if now_ms >= state.logs[prefix].paused_until_ms:
            turn.resume(prefix)


def _woken(turn: Turn, _: Woken) -> None:
    turn.change(wait_until_ms=min(turn.state.wait_until_ms, turn.now_ms))


def _answered(turn: Turn, what: Answered) -> None:
    asking = turn.state.asking
    if asking is None or asking.ask != what.ask:
        return  # of a question that was given up
    turn.change(asking=None)
    if not asking.is_own:
        turn.change(heard_ms=turn.now_ms)
    before = turn.state.error
    try:
        _taken_in(turn, asking, what.answer)
    except TielineError as error:
        _at_fault(turn, asking.request, error.reasons[0] if error.reasons else Reason(code="page_form"))
        return
    if not asking.is_own:
        is_worse = turn.state.error is not before or turn.state.fault is not None
        turn.change(stumbles=0, failures=0, error=turn.state.error if is_worse else None)


def _taken_in(turn: Turn, asking: Asking, answer: Any) -> None:
    request = asking.request
    if isinstance(request, AskLogs) and isinstance(answer, LogsAnswer):
        _logs(turn, asking, answer)
    elif isinstance(request, AskRecords) and isinstance(answer, PageAnswer):
        _page(turn, request, answer)
    elif isinstance(request, AskSnapshot) and isinstance(answer, SnapshotAnswer):
        _snapshot(turn, request, answer)
    else:
        comparison.answered(turn, asking, answer)


def _at_fault(turn: Turn, request: Request, reason: Reason) -> None:
    """One answer cannot be used: the log that it was about rests."""
    if isinstance(request, AskLogs):
        turn.fail(reason)
        return
    turn.change(comparing=None)
    turn.pause(request.prefix, reason)
    turn.stumble(reason)


def _failed(turn: Turn, what: Failed) -> None:
    asking = turn.state.asking
    if asking is None or asking.ask != what.ask:
        return
    turn.change(asking=None)
    request = asking.request
    if what.is_peer and not asking.is_own:
        turn.fail(what.reason)
    elif isinstance(request, AskSnapshot) and what.reason.code == GONE:
        turn.put_log(request.prefix, page=-1)  # no checkpoint helps: its log does
        turn.add("due", request.prefix)
    elif asking.is_own and isinstance(request, AskDigest) and what.reason.code == GONE:
        comparison.nothing_here(turn)
    else:
        _at_fault(turn, request, what.reason)


def _logs(turn: Turn, asking: Asking, answer: LogsAnswer) -> None:
    state = turn.state
    if state.session and answer.session == state.session and answer.head < asking.head:
        turn.blame(_rolled_back("the log of events", answer.head, asking.head))
        return
    if state.session and answer.session != state.session:
        _renumbered(turn)
    turn.change(session=answer.session, head=answer.head)
    logs = dict(state.logs)
    behind: dict[str, None] = {}
    for line in answer.logs:
        if not is_wanted(state.prefixes, line.prefix):
            continue
        before = asking.logs.get(line.prefix)
        if before is not None and before.session == answer.session and line.serial < max(before.serial, before.theirs):
            known = max(before.serial, before.theirs)
            turn.blame(_rolled_back(line.prefix, line.serial, known))
            return
        if line.prefix not in logs and len(logs) >= MOST_LOGS:
            turn.change(error=Reason(code="logs_many", values={"limit": MOST_LOGS}))
            continue
        log = logs[line.prefix] = _listed(
            logs.get(line.prefix), line, answer.session, bool(kinds_of(state, line.prefix))
        )
        if (log.serial < log.theirs or log.page >= 0 or log.is_new) and line.prefix not in state.paused:
            behind[line.prefix] = None
        elif turn.now_ms >= log.compared_ms + COMPARE_MS:
            turn.add("compares", line.prefix)
    turn.change(logs=logs, due=dict.fromkeys(sorted({**turn.state.due, **behind})))
    if answer.next_after and answer.next_after > state.listing:
        turn.change(listing=answer.next_after)
        return
    every_ms = LIST_MS if turn.state.is_listening else POLL_MS
    turn.change(listing="", list_ms=turn.now_ms + every_ms)


def _listed(log: Log | None, line: LogLine, session: str, is_part: bool) -> Log:
    """A log as it stands after the peer listed it; of a log that is pulled in part no checkpoint helps."""
    has_checkpoint = line.has_checkpoint and not is_part
    if log is None or log.session != session:
        log = log or Log(prefix=line.prefix)
        page = 0 if has_checkpoint else -1
        return replace(
            log,
            session=session,
            serial=0,
            committed=0,
            theirs=line.serial,
            has_checkpoint=has_checkpoint,
            page=page,
            restarts=0,
            is_new=line.count >= comparison.COMPARED_LEAST,
        )
    theirs = max(log.theirs, line.serial)
    page = log.page
    if page < 0 and has_checkpoint and theirs - log.serial > FAR_BEHIND and not log.restarts:
        page = 0
    return replace(log, theirs=theirs, has_checkpoint=has_checkpoint, page=page)


def _page(turn: Turn, request: AskRecords, answer: PageAnswer) -> None:
    log = turn.state.logs.get(request.prefix)
    if log is None or not _is_about(turn, request.prefix, answer.prefix, answer.session):
        return
    if answer.serial < request.after:
        turn.blame(_rolled_back(request.prefix, answer.serial, request.after))
        return
    envelopes = whole_page(answer.body, answer.count, answer.sha256)
    if not answer.is_last and (answer.serial == request.after or not envelopes):
        raise _page_order(request.after, answer.serial)
    if request.after != log.serial:
        return  # the tail was quicker
    theirs = answer.serial if answer.is_last else max(log.theirs, answer.serial + 1)
    turn.put_log(request.prefix, theirs=max(theirs, answer.serial))
    if envelopes or answer.serial - log.committed >= IDLE_SERIALS:
        turn.take(request.prefix, answer.serial, envelopes)
    else:
        turn.put_log(request.prefix, serial=answer.serial)
        turn.caught_up(request.prefix)


def _renumbered(turn: Turn) -> None:
    """The peer numbers its logs anew: that is rare, and one that does it all the time is asked ever less."""
    state, now_ms = turn.state, turn.now_ms
    renumbers = state.renumbers + 1 if now_ms - state.renumbered_ms < RENUMBER_MS else 1
    turn.change(renumbers=renumbers, renumbered_ms=now_ms, pending={}, comparing=None)
    if renumbers > MOST_RENUMBERS:
        wait_ms = min(PAUSE_MOST_MS, PAUSE_LEAST_MS << min(renumbers, 12))
        error = Reason(code="peer_renumbers", values={"times": renumbers})
        turn.change(wait_until_ms=now_ms + wait_ms, error=error)


def _rolled_back(what: str, seen: int, known: int) -> Reason:
    return Reason(code="peer_rolled_back", values={"what": what, "seen": seen, "known": known})


def _page_order(after: int, serial: int) -> TielineError:
    return page_refused("page_order", asked=after, seen=serial)


def _snapshot(turn: Turn, request: AskSnapshot, answer: SnapshotAnswer) -> None:
    log = turn.state.logs.get(request.prefix)
    if log is None or not _is_about(turn, request.prefix, answer.prefix, answer.session):
        return
    if answer.page != request.page or not answer.page < answer.pages <= 100_000:
        raise _page_order(request.page, answer.page)
    envelopes = whole_page(answer.body, answer.count, answer.sha256)
    checkpoint = sha256(answer.checkpoint).digest()
    if request.page and checkpoint != log.checkpoint:  # its owner signed a new one: the pages are cut anew
        page = 0 if log.restarts < MOST_RESTARTS else -1
        turn.put_log(request.prefix, page=page, restarts=log.restarts + 1)
        turn.add("due", request.prefix)
        return
    turn.put_log(request.prefix, checkpoint=checkpoint)
    is_last = request.page + 1 == answer.pages
    serial = max(log.serial, answer.serial) if is_last else log.serial
    turn.take(
        request.prefix,
        serial,
        envelopes,
        checkpoint=answer.checkpoint,
        page=request.page,
        next_page=-1 if is_last else request.page + 1,
    )


def _is_about(turn: Turn, prefix: str, seen: str, session: str) -> bool:
    """Whether an answer is about that log in the session that we know; a new session is looked at as a whole."""
    if seen != prefix:
        raise page_refused("page_other", asked=prefix, seen=seen)
    if session != turn.state.logs[prefix].session:
        turn.change(list_ms=turn.now_ms)
        return False
    return True


def _taken(turn: Turn, what: Taken) -> None:
    prefix = _place_of(turn, what.take)
    if not prefix:
        return
    taking = turn.state.taking[prefix]
    turn.drop("taking", prefix)
    log = turn.state.logs.get(prefix)
    if log is None or log.session != taking.session:
        turn.drop("pending", prefix)
        return  # the peer numbered its logs anew meanwhile
    if what.parked:
        turn.put_log(prefix, parked=what.parked)
        turn.change(comparing=None)
        turn.pause(prefix, Reason(code="log_parked", values={"prefix": prefix}), BUSY_MS)
        return
    refused = dict(log.refused)
    for rule, count in sorted(what.refused.items()):
        refused[rule] = refused.get(rule, 0) + count
    log = turn.put_log(
        prefix,
        serial=max(log.serial, taking.serial),
        committed=max(log.committed, taking.serial),
        theirs=max(log.theirs, taking.serial),
        page=log.page if taking.is_mending else taking.page,
        taken_ms=turn.now_ms,
        stored=log.stored + what.stored,
        equivocations=log.equivocations + what.equivocations,
        parked=0,
        refused=refused,
        pause=None,
        pauses=0,
    )
    if what.refused.get("log_foreign"):
        values: dict[str, int | str] = {"prefix": prefix, "records": what.refused["log_foreign"]}
        turn.blame(Reason(code="peer_foreign", values=values))
        return
    if what.stored:
        _release(turn, prefix)
    if taking.is_mending:
        comparison.mended(turn, prefix)
        return
    if what.refused.get("quota_full", 0) * 2 > taking.count:
        turn.pause(prefix, Reason(code="log_flooded", values={"prefix": prefix}), PAUSE_MOST_MS)
        return
    if any(rule in LATER for rule in what.refused):
        turn.put_log(prefix, compared_ms=turn.now_ms - COMPARE_MS + MEND_MS)
    elif not log.compared_ms and log.serial >= log.theirs:
        turn.put_log(prefix, compared_ms=turn.now_ms)  # it was just taken from its beginning
    pending = turn.state.pending.get(prefix)
    turn.drop("pending", prefix)
    if pending is not None and pending.after <= log.serial < pending.serial and log.page < 0:
        turn.take(prefix, pending.serial, pending.envelopes)
    turn.caught_up(prefix)


def _release(turn: Turn, prefix: str) -> None:
    """What was stored may be the delegation that a log below it waits for."""
    for name in turn.state.paused:
        log = turn.state.logs[name]
        if log.pause is not None and log.pause.code == "log_parked" and is_under(name, prefix):
            turn.resume(name)


def _not_taken(turn: Turn, what: NotTaken) -> None:
    prefix = _place_of(turn, what.take)
    if not prefix:
        return
    turn.drop("taking", prefix)
    if prefix in turn.state.logs:
        turn.change(comparing=None)
        turn.pause(prefix, what.reason, BUSY_MS)


def _place_of(turn: Turn, number: int) -> str:
    return next((prefix for prefix, taking in turn.state.taking.items() if taking.take == number), "")


def _tail_opened(turn: Turn, _: TailOpened) -> None:
    if turn.state.opening_ms:
        turn.change(is_listening=True, opening_ms=0, list_ms=turn.now_ms, heard_ms=turn.now_ms)


def _tail_ended(turn: Turn, what: TailEnded) -> None:
    if not turn.state.is_listening and not turn.state.opening_ms:
        return
    turn.change(is_listening=False, opening_ms=0, listen_ms=turn.now_ms + POLL_MS, list_ms=turn.now_ms)
    if what.is_peer:
        turn.change(listen_ms=0)
        turn.fail(what.reason)
        return
    turn.change(error=what.reason)


def _tail_said(turn: Turn, what: TailSaid) -> None:
    state, line = turn.state, what.line
    if not state.is_listening:
        return
    turn.change(heard_ms=turn.now_ms)
    if not is_wanted(state.prefixes, line.prefix):
        return
    if not state.session or line.session != state.session:
        turn.change(list_ms=turn.now_ms)
        return
    log = state.logs.get(line.prefix)
    if log is None or log.session != line.session:
        if len(state.logs) >= MOST_LOGS:
            turn.change(list_ms=turn.now_ms)
            return
        if log is None:
            log = turn.put_log(line.prefix, session=line.session, compared_ms=turn.now_ms)
        else:
            turn.change(list_ms=turn.now_ms)
            return
    if line.serial <= log.serial:
        return
    log = turn.put_log(line.prefix, theirs=max(log.theirs, line.serial))
    if not line.sha256 or line.prefix in state.paused or line.prefix in state.due or log.page >= 0 or log.is_new:
        turn.caught_up(line.prefix)
        return
    try:
        envelopes = whole_page(line.body, line.count, line.sha256)
    except TielineError as error:
        turn.pause(line.prefix, error.reasons[0])
        return
    if line.prefix in state.taking:
        _later(turn, line.prefix, line.after, line.serial, envelopes, len(line.body))
    elif line.after > log.serial:
        turn.caught_up(line.prefix)  # something is missing between
    elif envelopes or line.serial - log.committed >= IDLE_SERIALS:
        turn.take(line.prefix, line.serial, envelopes)
    else:
        turn.put_log(line.prefix, serial=line.serial)


def _later(turn: Turn, prefix: str, after: int, serial: int, envelopes: tuple[bytes, ...], size_bytes: int) -> None:
    """Keep what the tail said until the page before it is taken; what does not follow on is asked for then."""
    pending = turn.state.pending.get(prefix)
    if pending is None:
        if after <= turn.state.taking[prefix].serial:
            value = Pending(after=after, serial=serial, envelopes=envelopes, size_bytes=size_bytes)
            turn.add("pending", prefix, value)
        return
    if after > pending.serial or serial <= pending.serial:
        return
    together = len(pending.envelopes) + len(envelopes)
    if together > PENDING_RECORDS or pending.size_bytes + size_bytes > MAX_PAGE_BYTES:
        return
    value = Pending(
        after=pending.after,
        serial=serial,
        envelopes=pending.envelopes + envelopes,
        size_bytes=pending.size_bytes + size_bytes,
    )
    turn.add("pending", prefix, value)


def _filtered(turn: Turn, what: Filtered) -> None:
    state = turn.state
    if (state.kinds, state.prefixes) == (what.kinds, what.prefixes):
        return
    if state.is_listening or state.opening_ms:
        turn.actions.append(Hush())
    logs = state.logs
    if state.kinds != what.kinds:
        logs = {prefix: Log(prefix=prefix) for prefix in logs}
    kept = {prefix: log for prefix, log in logs.items() if is_wanted(what.prefixes, prefix)}
    _begin_anew(turn, kept)
    turn.change(kinds=what.kinds, prefixes=what.prefixes)


def _cleared(turn: Turn, _: Cleared) -> None:
    if turn.state.fault is None:
        return
    _begin_anew(turn, {prefix: Log(prefix=prefix) for prefix in turn.state.logs})
    turn.change(fault=None, error=None, session="", head=0)


def _trusted(turn: Turn, _: Trusted) -> None:
    for prefix in turn.state.paused:
        pause = turn.state.logs[prefix].pause
        if pause is not None and pause.code == "log_parked":
            turn.resume(prefix)
    for prefix, log in turn.state.logs.items():
        if log.refused:
            turn.put_log(prefix, session="")  # perhaps by another key: it is looked at from its beginning
            turn.change(list_ms=turn.now_ms)


def _begin_anew(turn: Turn, logs: Mapping[str, Log]) -> None:
    turn.change(
        logs=logs,
        due={},
        paused={prefix: None for prefix in turn.state.paused if prefix in logs and logs[prefix].pause is not None},
        compares={},
        taking={},
        pending={},
        asking=None,
        comparing=None,
        is_listening=False,
        opening_ms=0,
        listen_ms=0,
        list_ms=turn.now_ms,
        listing="",
        wait_until_ms=0,
    )


HEAR: dict[type, Callable[[Turn, Any], None]] = {
    Ticked: _ticked,
    Woken: _woken,
    Answered: _answered,
    Failed: _failed,
    TailOpened: _tail_opened,
    TailSaid: _tail_said,
    TailEnded: _tail_ended,
    Taken: _taken,
    NotTaken: _not_taken,
    Filtered: _filtered,
    Cleared: _cleared,
    Trusted: _trusted,
}
