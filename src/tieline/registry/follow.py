"""Follow: one peer's logs, pulled: ``step(state, input, now_ms) -> (state, actions)``, pure and synchronous.

::

    Listen ----------> tail open -----------------------------------------------.
    AskLogs ---------> session, serials: which logs are behind                  | TailSaid: taken at once when it
      | new here or renumbered:    AskDigest first, much of it may be here      | follows on, else the log is behind
      | far behind, checkpoint:    AskSnapshot page by page, then on            |
      | behind:                    AskRecords from our cursor on                |
      | now and then:              AskDigest, AskBuckets, AskEnvelopes          v
      '--> Take (a page; committed with its cursor) --> Taken: stored, parked, refused by rule

The shell (HTTP, or a simulator) carries actions out and feeds back what happened; every input may come late, twice or
never. At most one question is open at a time, and one page of each log is being taken. A peer that fails is asked again
after a bounded wait; a log whose pages break a rule is paused and the others go on; a peer that is proved to lie gets a
`Blame`, and nothing is asked of it until an admin clears it. Logs of parents are taken before those below them, so that
delegations come before what rests on them.

Cost: a step copies what it changes, so it is linear in the logs followed (20 us for a thousand), never in records.
"""

from __future__ import annotations

from collections.abc import Iterable

from tieline.model.error import TielineError
from tieline.model.peer import Cursor
from tieline.model.reason import Reason
from tieline.registry.hearing import hear
from tieline.registry.pulling import (
    Action,
    Answered,
    Ask,
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
    Standing,
    TailEnded,
    TailOpened,
    TailSaid,
    Take,
    Taken,
    Ticked,
    Trusted,
    Woken,
    is_wanted,
)
from tieline.registry.turn import (
    ASK_MOST_MS,
    GONE,
    OPEN_MOST_MS,
    TAKE_MOST_MS,
    Turn,
)

__all__ = [
    "Action",
    "Answered",
    "Ask",
    "Blame",
    "Cleared",
    "Failed",
    "Filtered",
    "FollowState",
    "Hush",
    "Input",
    "Listen",
    "Log",
    "NotTaken",
    "Standing",
    "TailEnded",
    "TailOpened",
    "TailSaid",
    "Take",
    "Taken",
    "Ticked",
    "Trusted",
    "Woken",
    "begin",
    "next_ms",
    "reason_of",
    "standing",
    "step",
]

MOST_SHOWN = 20
BEFORE = 1  # compared long ago: what was taken in an earlier life is compared soon


def begin(
    peer: str,
    cursors: Iterable[Cursor],
    now_ms: int,
    *,
    kinds: tuple[str, ...] = (),
    prefixes: tuple[str, ...] = (),
    fault: Reason | None = None,
) -> tuple[FollowState, list[Action]]:
    """Begin, or begin again after a restart, from the committed ``cursors`` of this peer."""
    logs = {
        cursor.prefix: Log(
            prefix=cursor.prefix,
            session=cursor.session,
            serial=cursor.serial,
            committed=cursor.serial,
            theirs=cursor.serial,
            taken_ms=cursor.taken_ms,
            compared_ms=BEFORE,
        )
        for cursor in cursors
        if is_wanted(prefixes, cursor.prefix)
    }
    state = FollowState(
        peer=peer, kinds=kinds, prefixes=prefixes, logs=logs, heard_ms=now_ms, list_ms=now_ms, fault=fault
    )
    return step(state, Ticked(), now_ms)


def step(state: FollowState, what: Input, now_ms: int) -> tuple[FollowState, list[Action]]:
    """What follows from ``what`` at ``now_ms``. ``state`` stays as it was."""
    turn = Turn(state, now_ms)
    hear(turn, what)
    turn.pursue()
    return turn.state, turn.actions


def next_ms(state: FollowState) -> int | None:
    """When `Ticked` next has something to do; None: not before something else happens."""
    if state.fault is not None:
        return None
    times = [taking.taking_ms + TAKE_MOST_MS for taking in state.taking.values()]
    times += [state.logs[prefix].paused_until_ms for prefix in state.paused]
    if state.opening_ms:
        times.append(state.opening_ms + OPEN_MOST_MS)
    elif not state.is_listening:
        times.append(max(state.listen_ms, state.wait_until_ms))
    if state.asking is not None:
        times.append(state.asking.asked_ms + ASK_MOST_MS)
    elif not state.opening_ms and (state.comparing is None or state.comparing.prefix not in state.taking):
        times.append(max(state.wait_until_ms, state.list_ms))
    return min(times, default=None)


def reason_of(error: TielineError) -> Reason:
    """What to say of a question that was answered by an error: the input of `Failed`, `NotTaken` and `TailEnded`."""
    if error.code == "not_found":
        return Reason(code=GONE)
    if error.reasons:
        return error.reasons[0]
    return Reason(code="peer_error", values={"error": error.code, "why": error.message[:200]})


def standing(state: FollowState) -> Standing:
    """How it stands."""
    refused: dict[str, int] = {}
    for log in state.logs.values():
        for rule, count in log.refused.items():
            refused[rule] = refused.get(rule, 0) + count
    logs = state.logs.values()
    return Standing(
        peer=state.peer,
        is_listening=state.is_listening,
        logs=len(state.logs),
        serial=sum(log.serial for log in logs),
        lag=sum(max(0, log.theirs - log.serial) for log in logs),
        paused=tuple(sorted(state.paused)[:MOST_SHOWN]),
        stored=sum(log.stored for log in logs),
        parked=sum(log.parked for log in logs),
        equivocations=sum(log.equivocations for log in logs),
        refused=dict(sorted(refused.items())),
        heard_ms=state.heard_ms,
        error=state.error or next((log.pause for log in logs if log.pause is not None), None),
        fault=state.fault,
    )
