"""Turn: one step of the puller of a peer's logs (`follow.py`): what an input changes, and what is done next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from tieline.model.reason import Reason
from tieline.registry import comparison
from tieline.registry.pages import MAX_PAGE_RECORDS
from tieline.registry.pulling import (
    Action,
    Ask,
    Asking,
    Blame,
    FollowState,
    Hush,
    Listen,
    Log,
    Take,
    Taking,
    kinds_of,
)
from tieline.registry.serving import (
    AskLogs,
    AskRecords,
    AskSnapshot,
    Request,
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
MOST_RENUMBERS = 3  # in an hour, before the peer is asked less and less
RENUMBER_MS = 3_600_000
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
            request = AskRecords(
                prefix=log.prefix, after=log.serial, limit=MAX_PAGE_RECORDS, kinds=kinds_of(self.state, log.prefix)
            )
            self.ask(request)

    def caught_up(self, prefix: str) -> None:
        """Look whether a log is still behind."""
        log = self.state.logs[prefix]
        self.drop("due", prefix)
        if (log.is_new or log.page >= 0 or log.serial < log.theirs) and prefix not in self.state.paused:
            self.add("due", prefix)
