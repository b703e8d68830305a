"""Wire: answers of `registry/serving.py` as bytes: one line of JSON that says what follows, then the body as it is."""

from __future__ import annotations

import msgspec

from tieline.model.error import TielineError
from tieline.registry.serving import Answer, LogsAnswer, TailLine

MOST_HEAD_BYTES = 262_144  # a checkpoint is a record of at most 64 KB, and may stand in the first line
_head = msgspec.json.Decoder(Answer).decode
_line = msgspec.json.Decoder(TailLine).decode


def framed(answer: Answer) -> bytes:
    """The bytes of an answer that carries a body."""
    assert not isinstance(answer, LogsAnswer)
    return msgspec.json.encode(msgspec.structs.replace(answer, body=b"")) + b"\n" + answer.body


def unframed(data: bytes, what: str) -> Answer:
    """The answer that `framed` made bytes of. Raises TielineError `check_failed` for anything else."""
    end = data.find(b"\n", 0, MOST_HEAD_BYTES)
    if end < 0:
        raise TielineError("check_failed", f"{what}: the first line of the answer does not end")
    try:
        head = _head(data[:end])
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise TielineError(
            "check_failed", f"{what}: the answer is not what this version understands: {error}"
        ) from None
    if isinstance(head, LogsAnswer):
        raise TielineError("check_failed", f"{what}: the answer is a list of logs")
    whole: Answer = msgspec.structs.replace(head, body=data[end + 1 :])
    return whole


def tail_line_of(data: bytes) -> TailLine:
    """One event of a tail. Raises TielineError `check_failed`."""
    try:
        return _line(data)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise TielineError("check_failed", f"the tail said what this version does not understand: {error}") from None
