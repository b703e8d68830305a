"""Lying: what a relay may do to the pages that it serves. Each fits its own count and hash; only its content lies."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import Any

import msgspec

from tieline.model.error import TielineError
from tieline.registry import opened, sign
from tieline.registry.pages import page_of
from tieline.registry.serving import LogsAnswer, PageAnswer, TailLine
from tieline.sim.owner import STRANGER

LIES = ("changed", "forged", "dropped", "reversed", "doubled", "foreign", "older", "ahead", "garbage", "cut")
MOST_KEPT = 200


class Liar:
    """One relay that lies: it remembers what it served, to serve it again where it does not belong."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def bend(self, answer: Any, pick: Random) -> tuple[Any, str]:
        """``answer`` as a liar gives it, and the name of the lie; empty where it is true."""
        if isinstance(answer, LogsAnswer):
            return self._logs(answer, pick)
        if not isinstance(answer, PageAnswer | TailLine) or not answer.body:
            return answer, ""
        lines = answer.body.split(b"\n")[:-1]
        before = list(self.seen)
        self.seen = (self.seen + lines)[-MOST_KEPT:]
        lie = pick.choice(LIES)
        if lie == "ahead":
            return msgspec.structs.replace(answer, serial=answer.serial + 1_000), lie
        if lie == "cut":
            return msgspec.structs.replace(answer, body=answer.body[: len(answer.body) // 2]), lie
        bent = self._lines(lie, lines, before, pick)
        if bent == lines:
            return answer, ""
        body = page_of(bent)
        digest = sha256(body).hexdigest()
        return msgspec.structs.replace(answer, body=body, count=len(bent), sha256=digest), lie

    def _lines(self, lie: str, lines: list[bytes], before: list[bytes], pick: Random) -> list[bytes]:
        place = pick.randrange(len(lines))
        line = lines[place]
        if lie == "changed":
            at = len(b'{"payload":"') + pick.randrange(40)
            other = b"A" if line[at : at + 1] != b"A" else b"B"
            return [*lines[:place], line[:at] + other + line[at + 1 :], *lines[place + 1 :]]
        if lie == "forged":
            return [*lines[:place], _forged(line), *lines[place + 1 :]]
        if lie == "dropped":
            return [*lines[:place], *lines[place + 1 :]]
        if lie == "reversed":
            return lines[::-1]
        if lie == "doubled":
            return [*lines, line]
        if lie == "garbage":
            return [*lines[:place], b'{"payload":"!!"}', *lines[place + 1 :]]
        return [*lines, pick.choice(before)] if before else lines  # of another log, or an older revision

    def _logs(self, answer: LogsAnswer, pick: Random) -> tuple[Any, str]:
        if pick.random() < 0.5 or not answer.logs:
            return answer, ""
        place = pick.randrange(len(answer.logs))
        line = answer.logs[place]
        bent = msgspec.structs.replace(line, serial=max(0, line.serial + pick.choice((-3, 5, 1_000))))
        return msgspec.structs.replace(answer, logs=(*answer.logs[:place], bent, *answer.logs[place + 1 :])), "serials"


def _forged(envelope: bytes) -> bytes:
    """The next revision, in the writer's name, by the relay's own hand."""
    try:
        parcel = opened(envelope)
    except TielineError:
        return envelope
    record = parcel.record
    forged = msgspec.structs.replace(record, rev=record.rev + 1, prev=parcel.sha256.hex(), exp=record.exp + 1)
    return sign(forged, STRANGER, parcel.parts.kid)
