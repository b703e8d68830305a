"""Errors: a stable code, one sentence with value and unit, counted reasons, and hints that are commands.

::

    TielineError            every refusal that a caller can act on
      `code` decides the HTTP status, the exit code and whether a retry can help: one row each in CODES

Programmer errors are assertions, not messages. Wording: lower case, no full stop, backticks for literals.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tieline.model.reason import Reason


class Code(NamedTuple):
    """What one error code means in every channel."""

    status: int  # HTTP
    exit: int  # 1 failed, 2 usage, 3 no feasible answer, 4 not allowed
    transient: bool  # True: the same call may succeed later
    meaning: str


CODES: dict[str, Code] = {
    "invalid_request": Code(400, 2, False, "the request is malformed: what and where are in the message"),
    "invalid_task": Code(400, 2, False, "the task file cannot be read or says something impossible"),
    "invalid_expression": Code(400, 2, False, "the expression cannot be read or does not type-check"),
    "invalid_identifier": Code(400, 2, False, "the identifier breaks the grammar"),
    "invalid_cursor": Code(400, 2, False, "the stream cursor (`Last-Event-ID`, `after`) is not a position in the log"),
    "unauthenticated": Code(401, 4, False, "no token, or one that is not known, expired or revoked"),
    "forbidden": Code(403, 4, False, "the caller's role or ownership does not allow this"),
    "token_refused": Code(403, 4, False, "the join token is wrong, expired or used up"),
    "record_refused": Code(422, 4, False, "the record does not verify: the reason names the rule"),
    "page_refused": Code(422, 4, False, "the page of a peer's log breaks a rule: the reason names it"),
    "not_found": Code(404, 1, False, "there is no such thing here, or the caller may not see it"),
    "method_not_allowed": Code(405, 2, False, "the path exists, the method does not"),
    "conflict": Code(409, 1, False, "the thing is in a state that does not allow this"),
    "idempotency_conflict": Code(409, 1, False, "the idempotency key was used for another request"),
    "stale_epoch": Code(409, 1, False, "the run was fenced: a newer epoch exists"),
    "quote_expired": Code(410, 1, False, "the quote's time to live is over"),
    "too_large": Code(413, 2, False, "the body, the blob or the archive is over its limit"),
    "unsupported_media": Code(415, 2, False, "the content type is not one that this operation reads"),
    "range_not_satisfiable": Code(416, 2, False, "the range of bytes lies beyond the end"),
    "unplaceable": Code(422, 3, False, "nothing that exists here can ever run this"),
    "kind_not_offered": Code(422, 3, False, "no site here runs this kind of task"),
    "not_admitted": Code(422, 3, False, "the calendar cannot promise this: the reasons say why, with numbers"),
    "version_not_supported": Code(426, 1, False, "the two ends share no protocol version"),
    "rate_limited": Code(429, 1, True, "too many calls or bytes from this caller; retry after the stated time"),
    "internal": Code(500, 1, True, "a defect in Tieline; the request id finds it in the log"),
    "site_unreachable": Code(503, 1, True, "the owner's site is silent"),
    "storage_full": Code(507, 1, True, "the store cannot take more; what is acknowledged is kept"),
    "store_unreachable": Code(503, 1, True, "the database server of the exchange does not answer"),
    "not_leader": Code(503, 1, True, "another process has become the writer of this store"),
    "overloaded": Code(503, 1, True, "a bounded queue is full; retry after the stated time"),
    "exchange_unreachable": Code(503, 1, True, "the exchange does not answer"),
    "timeout": Code(504, 1, True, "no answer within the time allowed"),
    "address_refused": Code(403, 4, False, "the address is one that this exchange never calls"),
    "untrusted_pickle": Code(403, 4, False, "a pickled result came from an owner that is not trusted by name"),
    "circuit_refused": Code(502, 1, True, "a router did not do its part of a change: all of the change was undone"),
    "lab_refused": Code(501, 1, False, "this machine does not allow a laboratory: the message says what it refused"),
    "check_failed": Code(500, 1, False, "a verification did not hold"),
}


class TielineError(Exception):
    """A refusal with everything a person or a program needs to act on it."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        reasons: tuple[Reason, ...] = (),
        hints: tuple[str, ...] = (),
        where: str = "",
    ) -> None:
        assert code in CODES, code
        super().__init__(message)
        self.code = code
        self.message = message
        self.reasons = reasons
        self.hints = hints
        self.where = where

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later."""
        return CODES[self.code].transient

    @property
    def envelope(self) -> ErrorEnvelope:
        """The one shape in which every channel carries an error."""
        return ErrorEnvelope(
            code=self.code, message=self.message, where=self.where, reasons=self.reasons, hints=self.hints
        )


class ErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not a success."""

    code: str
    message: str
    where: str = ""
    reasons: tuple[Reason, ...] = ()
    hints: tuple[str, ...] = ()
    request_id: str = ""

    def raised(self) -> TielineError:
        """The same refusal as an exception, for the side that received it."""
        code = self.code if self.code in CODES else "internal"
        return TielineError(code, self.message, reasons=self.reasons, hints=self.hints, where=self.where)
