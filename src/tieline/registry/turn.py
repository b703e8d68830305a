"""Turn: one step of the puller of a peer's logs (`follow.py`): what an input changes, and what is done next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import is_under
from tieline.model.reason import Reason
from tieline.registry import comparison
from tieline.registry.pages import MAX_PAGE_BYTES, MAX_PAGE_RECORDS, page_refused, whole_page
from tieline.registry.pulling import (
    Action,
    Answered,
    Ask,
    Asking,
    Blame,
    Cleared,
    Failed,
    Filtered,
    FollowState,
    Hush,
    Input,
    Listen,
    Log,
    NotTaken,
    Pending,
    TailEnded,
    TailOpened,
    TailSaid,
    Take,
    Taken,
    Taking,
    Ticked,
    Woken,
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

V = TypeVar("V")
replace = msgspec.structs.replace

ASK_MOST_MS = 120_000  # a question that nothing came of is given up, whatever the shell does
TAKE_MOST_MS = 300_000
OPEN_MOST_MS = 60_000
LIST_MS = 60_000  # how often the logs are listed although the tail says what changes
POLL_MS = 5_000  # and where there is no tail
COMPARE_MS = 600_000  # how often a log's digest is compared
MEND_MS = 30_000  # sooner, where something was refused that may be good by then
WAIT_LEAST_MS, WAIT_MOST_MS = 250, 1_500  # between attempts, as long as the peer was heard lately
LATELY_MS = 600_000
WAIT_LONG_MS = 15_000
PAUSE_LEAST_MS, PAUSE_MOST_MS = 1_000, 600_000  # of one log
BUSY_MS = 1_000  # before a page that could not be committed here is taken again
STUMBLES = 3  # answers at fault in a row before the peer as a whole is given a rest
FAR_BEHIND = 4_000  # serials, beyond which the owner's checkpoint is taken instead of the log
MOST_LOGS = 100_000
GONE = "log_not_here"
MOST_RESTARTS = 3
PENDING_RECORDS = 1_000
IDLE_SERIALS = 1_000  # a cursor that moves over nothing that is wanted is committed only so often
LATER = (  # refusals that the parent's next word may turn
    "key_unknown", "key_ahead", "kind_not_given", "delegation_expired", "delegation_withdrawn", "root_unknown",
    "quota_full", "lease_ahead",
)  # fmt: skip


class Turn:
    """A state in the making, and what is to be done."""

    def __init__(self, state: FollowState, now_ms: int) -> None:
        self.state = state
        self.now_ms = now_ms
        self.actions: list[Action] = []

    # -- changing the state -------------------------------------------------------------------------------------------

    def change(self, **values: Any) -> None:
        """Change fields of the state."""
        self.state = replace(self.state, **values)

    def put_log(self, prefix: str, **values: Any) -> Log:
        """Change fields of a log, or make it."""
        log = self.state.logs.get(prefix)
        log = replace(log, **values) if log is not None else Log(prefix=prefix, **values)
        self.change(logs={**self.state.logs, prefix: log})
        return log

    def drop(self, field: str, prefix: str) -> None:
        """Take a prefix out of one of the state's mappings."""
        held: Mapping[str, Any] = getattr(self.state, field)
        if prefix in held:
            self.change(**{field: {name: value for name, value in held.items() if name != prefix}})

    def add(self, field: str, prefix: str, value: Any = None) -> None:
        """Put a prefix into one of the state's mappings, at its end."""
        held: Mapping[str, Any] = getattr(self.state, field)
        if prefix not in held or held[prefix] != value:
            self.change(**{field: {**held, prefix: value}})

    # -- doing --------------------------------------------------------------------------------------------------------

    def ask(self, request: Request, *, is_own: bool = False) -> None:
        """Put a question."""
        number = self.state.numbers + 1
        asking = Asking(
            ask=number,
            request=request,
            is_own=is_own,
            asked_ms=self.now_ms,
            logs=self.state.logs,
            head=self.state.head,
        )
        self.change(numbers=number, asking=asking)
        self.actions.append(Ask(ask=number, request=request, is_own=is_own))

    def take(
        self,
        prefix: str,
        serial: int,
        envelopes: tuple[bytes, ...],
        *,
        cursor: int = -1,
        checkpoint: bytes = b"",
        page: int = -1,
        next_page: int = -1,
        is_mending: bool = False,
    ) -> None:
        """Have a page committed; ``serial`` is how far the log is taken then, ``cursor`` what is committed of that."""
        number = self.state.numbers + 1
        taking = Taking(
            take=number,
            session=self.state.logs[prefix].session,
            count=len(envelopes),
            serial=serial,
            page=next_page,
            is_mending=is_mending,
            taking_ms=self.now_ms,
        )
        self.change(numbers=number)
        self.add("taking", prefix, taking)
        self.actions.append(
            Take(
                take=number,
                prefix=prefix,
                session=self.state.logs[prefix].session,
                serial=serial if cursor < 0 else cursor,
                envelopes=envelopes,
                checkpoint=checkpoint,
                page=page,
            )
        )

    def blame(self, reason: Reason) -> None:
        """There is proof against the peer: say so, and ask nothing more of it."""
        if self.state.is_listening or self.state.opening_ms:
            self.actions.append(Hush())
        self.change(
            fault=reason, asking=None, comparing=None, is_listening=False, opening_ms=0, due={}, compares={}, pending={}
        )
        self.actions.append(Blame(reason=reason))

    def fail(self, reason: Reason) -> None:
        """The peer cannot be asked now: wait, longer each time."""
        state = self.state
        if state.is_listening or state.opening_ms:
            self.actions.append(Hush())
        most_ms = WAIT_MOST_MS if self.now_ms - state.heard_ms < LATELY_MS else WAIT_LONG_MS
        wait_ms = min(most_ms, WAIT_LEAST_MS << min(state.failures, 10))
        self.change(
            error=reason,
            failures=state.failures + 1,
            stumbles=0,
            wait_until_ms=self.now_ms + wait_ms,
            asking=None,
            comparing=None,
            is_listening=False,
            opening_ms=0,
            list_ms=self.now_ms,
            listing="",
        )

    def pause(self, prefix: str, reason: Reason, least_ms: int = PAUSE_LEAST_MS) -> None:
        """Let one log rest, longer each time; the others go on."""
        pauses = self.state.logs[prefix].pauses
        wait_ms = min(PAUSE_MOST_MS, least_ms << min(pauses, 12))
        self.put_log(prefix, pause=reason, pauses=pauses + 1, paused_until_ms=self.now_ms + wait_ms)
        self.drop("due", prefix)
        self.drop("pending", prefix)
        self.add("paused", prefix)
        self.change(error=reason)

    def resume(self, prefix: str) -> None:
        """A log has rested: it is behind."""
        self.drop("paused", prefix)
        self.add("due", prefix)

    def stumble(self, reason: Reason) -> None:
        """An answer was at fault; several in a row make a peer that cannot be asked."""
        self.change(asking=None, stumbles=self.state.stumbles + 1, error=reason)
        if self.state.stumbles >= STUMBLES:
            self.fail(reason)

    # -- hearing ------------------------------------------------------------------------------------------------------

    def hear(self, what: Input) -> None:
        """Let an input take effect."""
        if self.state.fault is not None and not isinstance(what, Cleared | Taken | NotTaken):
            return
        HEAR[type(what)](self, what)

    # -- what is done next --------------------------------------------------------------------------------------------

    def pursue(self) -> None:
        """Whatever can be done now."""
        state = self.state
        if state.fault is not None or self.now_ms < state.wait_until_ms:
            return
        if not state.is_listening and not state.opening_ms and self.now_ms >= state.listen_ms:
            self.change(opening_ms=self.now_ms)
            self.actions.append(Listen(kinds=state.kinds, prefixes=state.prefixes))
        if self.state.asking is not None or self.state.opening_ms:
            return  # the logs are listed once the tail is open, so that nothing falls between
        if comparison.pursue(self):
            return
        if self.state.listing or self.now_ms >= self.state.list_ms:
            self.ask(AskLogs(after=self.state.listing))
            return
        prefix = self._next_due()
        if prefix:
            self._ask_page(self.state.logs[prefix])
            return
        for prefix in self.state.compares:
            if prefix not in self.state.taking and prefix not in self.state.paused:
                self.drop("compares", prefix)
                comparison.start(self, prefix)
                return

    def _next_due(self) -> str:
        """The next log that is behind: none before those above it, and none of which a page is being taken."""
        due, taking = self.state.due, self.state.taking
        for prefix in due:
            if prefix in taking:
                continue
            above = prefix.rpartition(".")[0]
            while above and above not in due:
                above = above.rpartition(".")[0]
            if not above:
                return prefix
        return ""

    def _ask_page(self, log: Log) -> None:
        if log.is_new:
            self.drop("due", log.prefix)
            comparison.start(self, log.prefix)
        elif log.page >= 0:
            self.ask(AskSnapshot(prefix=log.prefix, page=log.page))
        else:
            request = AskRecords(prefix=log.prefix, after=log.serial, limit=MAX_PAGE_RECORDS, kinds=self.state.kinds)
            self.ask(request)

    def caught_up(self, prefix: str) -> None:
        """Look whether a log is still behind."""
        log = self.state.logs[prefix]
        self.drop("due", prefix)
        if (log.is_new or log.page >= 0 or log.serial < log.theirs) and prefix not in self.state.paused:
            self.add("due", prefix)


# -- one function per input -------------------------------------------------------------------------------------------


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
    turn.change(session=answer.session, head=answer.head)
    logs = dict(state.logs)
    behind: dict[str, None] = {}
    for line in answer.logs:
        if state.prefixes and not any(is_under(line.prefix, above) for above in state.prefixes):
            continue
        before = asking.logs.get(line.prefix)
        if before is not None and before.session == answer.session and line.serial < max(before.serial, before.theirs):
            known = max(before.serial, before.theirs)
            turn.blame(_rolled_back(line.prefix, line.serial, known))
            return
        if line.prefix not in logs and len(logs) >= MOST_LOGS:
            turn.change(error=Reason(code="logs_many", values={"limit": MOST_LOGS}))
            continue
        log = logs[line.prefix] = _listed(logs.get(line.prefix), line, answer.session)
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


def _listed(log: Log | None, line: LogLine, session: str) -> Log:
    """A log as it stands after the peer listed it."""
    if log is None or log.session != session:
        log = log or Log(prefix=line.prefix)
        page = 0 if line.has_checkpoint else -1
        return replace(
            log,
            session=session,
            serial=0,
            committed=0,
            theirs=line.serial,
            has_checkpoint=line.has_checkpoint,
            page=page,
            restarts=0,
            is_new=line.count >= comparison.COMPARED_LEAST,
        )
    theirs = max(log.theirs, line.serial)
    page = log.page
    if page < 0 and line.has_checkpoint and theirs - log.serial > FAR_BEHIND and not log.restarts:
        page = 0
    return replace(log, theirs=theirs, has_checkpoint=line.has_checkpoint, page=page)


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
    if state.prefixes and not any(is_under(line.prefix, above) for above in state.prefixes):
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
    kept = {
        prefix: log
        for prefix, log in logs.items()
        if not what.prefixes or any(is_under(prefix, above) for above in what.prefixes)
    }
    _begin_anew(turn, kept)
    turn.change(kinds=what.kinds, prefixes=what.prefixes)


def _cleared(turn: Turn, _: Cleared) -> None:
    if turn.state.fault is None:
        return
    _begin_anew(turn, {prefix: Log(prefix=prefix) for prefix in turn.state.logs})
    turn.change(fault=None, error=None, session="", head=0)


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
}
