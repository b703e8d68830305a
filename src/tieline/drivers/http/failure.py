"""What a failed call means: every answer that is no success, and every broken connection, becomes a TielineError."""

from __future__ import annotations

import msgspec

from tieline.model.error import CODES, ErrorEnvelope, TielineError

ENVELOPE_BYTES = 1_048_576  # of an error's body; more is not read
BY_STATUS = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    407: "exchange_unreachable",
    408: "timeout",
    409: "conflict",
    410: "not_found",
    413: "too_large",
    415: "unsupported_media",
    416: "range_not_satisfiable",
    422: "invalid_request",
    426: "version_not_supported",
    429: "rate_limited",
    502: "exchange_unreachable",
    503: "exchange_unreachable",
    504: "exchange_unreachable",
    507: "storage_full",
}


def refused(status: int, body: bytes, what: str) -> TielineError:
    """The error that an answer with ``status`` carries; a proxy's page or another server's words go by their status."""
    try:
        envelope = msgspec.json.decode(body, type=ErrorEnvelope)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        envelope = None
    if envelope is not None and envelope.code in CODES:
        return envelope.raised()
    if status == 407:
        return TielineError("exchange_unreachable", f"{what}: the proxy asks for a login", hints=("unset HTTPS_PROXY",))
    if 300 <= status < 400:
        return TielineError("exchange_unreachable", f"{what}: redirected ({status}); give the address it points to")
    code = BY_STATUS.get(status, "internal" if status >= 500 else "invalid_request")
    return TielineError(code, f"{what}: answered {status} without an explanation")


def unreachable(base_url: str, error: BaseException) -> TielineError:
    """A connection that could not be made, or broke."""
    words = str(error) or type(error).__name__
    return TielineError(
        "exchange_unreachable",
        f"`{base_url}` does not answer: {words[:300]}",
        hints=("tieline status  # is it up, and is this its address?",),
    )
