"""Passes: who may go through which door, signed by an exchange, and the knock with which the holder uses one.

`checked_knock` is all that a door decides by; it keeps no state. That a knock counts once is the door's own memory.
"""

from __future__ import annotations

from tieline.model.door import KNOCK, PASS, PASS_MOST_MS, Knock, Pass, Right
from tieline.model.error import TielineError
from tieline.registry.envelope import open_statement, sign_statement, stated
from tieline.registry.keys import Key

SKEW_MS = 60_000  # how far the clocks of holder, door and exchange may differ


def issued(given: Pass, key: Key, kid: str) -> str:
    """The pass as its holder carries it. Raises TielineError `invalid_request` for one that lives too long."""
    if not 0 < given.until_ms - given.from_ms <= PASS_MOST_MS:
        raise TielineError("invalid_request", f"a pass holds for at most {PASS_MOST_MS // 1000} s")
    return sign_statement(given, key, kid, PASS).decode()


def pass_said(text: str) -> Pass:
    """What a pass says, for its holder; whether it is to be believed is the door's question."""
    return open_statement(text.encode(), PASS, Pass)[0]


def knocked(knock: Knock, key: Key, kid: str) -> str:
    """The knock as it is sent beside the pass."""
    return sign_statement(knock, key, kid, KNOCK).decode()


def checked_pass(text: str, public: str, door: str, right: Right | None, now_ms: int) -> Pass:
    """The pass, if the holder of ``public`` (the exchange) gave it for this door, right (None: any) and moment.

    Raises TielineError `unauthenticated` for what is not signed so, `forbidden` for what it does not allow.
    """
    given = stated(text.encode(), public, PASS, Pass)
    if given.door != door:
        raise TielineError("forbidden", f"the pass opens the door of `{given.door}`, this is `{door}`")
    if given.until_ms - given.from_ms > PASS_MOST_MS or now_ms >= given.until_ms:
        ago_ms = now_ms - given.until_ms
        raise TielineError("forbidden", f"the pass ended {ago_ms:,} ms ago" if ago_ms >= 0 else "the pass is too long")
    if now_ms < given.from_ms - SKEW_MS:
        raise TielineError("forbidden", f"the pass begins in {given.from_ms - now_ms:,} ms")
    if right is not None and right not in given.rights:
        raise TielineError("forbidden", f"the pass does not allow `{right}`")
    return given


def checked_knock(text: str, given: Pass, method: str, path: str, now_ms: int) -> Knock:
    """The knock, if the holder of the pass made it for this request, now. Raises TielineError as `checked_pass`."""
    knock = stated(text.encode(), given.public, KNOCK, Knock)
    if (knock.id, knock.door) != (given.id, given.door):
        raise TielineError("forbidden", "the knock belongs to another pass")
    if (knock.method, knock.path) != (method, path):
        raise TielineError("forbidden", f"the knock is for `{knock.method} {knock.path}`")
    if abs(now_ms - knock.at_ms) > SKEW_MS:
        raise TielineError("forbidden", f"the knock's time is {abs(now_ms - knock.at_ms):,} ms away from this clock")
    return knock
