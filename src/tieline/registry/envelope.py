"""Envelope: a flattened JWS (RFC 7515, section 7.2.2), one algorithm, one form, for records and short statements.

::

    {"payload":P,"protected":H,"signature":S}     each base64url without padding, members in this order, no spaces
      H = {"alg":"Ed25519","kid":"<prefix>#<name>","typ":"cr+jws"}
      P = canonical JSON; the signature is over the text H "." P as it stands, never over anything written again

The type tells records (``cr+jws``) from statements (``site-beat+jws`` ...), so that one cannot be replayed as another.
Nothing in a header can name, carry or fetch a key.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from re import compile as pattern
from typing import Any, TypeVar

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import DOTTED, KIND
from tieline.model.record import MAX_RECORD_BYTES, Record
from tieline.registry.canonical import decoded, encoded
from tieline.registry.keys import (
    SIGNATURE_BYTES,
    Key,
    base64url,
    base64url_bytes,
    check_signature,
    check_strong,
    public_bytes,
)
from tieline.registry.rules import refused

ALGORITHM = "Ed25519"  # RFC 9864; no other is ever accepted
RECORD_TYPE = "cr"
MAX_STATEMENT_BYTES = 131_072
MAX_KID_BYTES = 264
HEADER_FIELDS = ("alg", "kid", "typ")
KEY_SOURCES = ("jku", "jwk", "jwks", "x5c", "x5t", "x5t#S256", "x5u")

T = TypeVar("T")
_PAYLOAD = b'{"payload":"'
_PROTECTED = b'","protected":"'
_SIGNATURE = b'","signature":"'
_SIGNATURE_DIGITS = 86
_HEADER = pattern(r'\{"alg":"Ed25519","kid":"([a-z0-9._/#-]{1,264})","typ":"([a-z0-9-]{1,32})\+jws"\}')
_KID = pattern(rf"{DOTTED}(?:/{KIND}/{DOTTED})?#{DOTTED}")
_TYPE = pattern(r"[a-z0-9]+(?:-[a-z0-9]+)*")


class Parts(msgspec.Struct, frozen=True, gc=False):
    """An envelope taken apart; nothing in it is believed yet."""

    kid: str
    payload: bytes
    signed: bytes  # the signature, followed by what it is over


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A record's envelope, decoded and bounded; its signature is not checked yet."""

    record: Record
    sha256: bytes  # of the payload bytes
    envelope_sha256: bytes
    parts: Parts


def sign(record: Record, key: Key, kid: str) -> bytes:
    """The envelope of ``record``. Raises `record_refused` when the record breaks a rule of form that readers hold."""
    payload = encoded(record, "payload")
    _record(decoded(payload, "payload"))
    return _sealed(payload, key, kid, RECORD_TYPE, MAX_RECORD_BYTES)


def opened(data: bytes) -> Opened:
    """Read a record's envelope with every bound; raises `record_refused`. The signature is the caller's next step."""
    parts = taken_apart(data, RECORD_TYPE, MAX_RECORD_BYTES)
    record = _record(decoded(parts.payload, "payload"))
    return Opened(record, sha256(parts.payload).digest(), sha256(data).digest(), parts)


def sign_statement(payload: Any, key: Key, kid: str, typ: str) -> bytes:
    """A short signed statement of type ``typ`` (a word), such as a heartbeat; times and nonces are its payload's."""
    assert typ != RECORD_TYPE, "records are signed by sign()"
    assert _TYPE.fullmatch(typ), typ
    return _sealed(encoded(payload, "payload"), key, kid, typ, MAX_STATEMENT_BYTES)


def open_statement(data: bytes, typ: str, shape: type[T]) -> tuple[T, str]:
    """What a statement says and the name of the key it claims, before any check of its signature.

    Raises TielineError `unauthenticated` with the rule that it breaks as reason.
    """
    try:
        parts = taken_apart(data, typ, MAX_STATEMENT_BYTES)
        tree = decoded(parts.payload, "payload")
    except TielineError as error:
        raise _not_proved(error) from None
    try:
        return msgspec.convert(tree, shape), parts.kid
    except msgspec.ValidationError as error:
        raise TielineError("unauthenticated", f"the `{typ}` statement has another shape: {error}") from None


def stated(data: bytes, public: str, typ: str, shape: type[T]) -> T:
    """What the holder of ``public`` stated, as ``shape``: `verify_statement` and `open_statement` in one reading."""
    tree = verify_statement(data, public, typ)
    try:
        return msgspec.convert(tree, shape)
    except msgspec.ValidationError as error:
        raise TielineError("unauthenticated", f"the `{typ}` statement has another shape: {error}") from None


def verify_statement(data: bytes, public: str, typ: str) -> Any:
    """What the holder of ``public`` (base64url) stated; raises TielineError `unauthenticated` when it did not."""
    try:
        parts = taken_apart(data, typ, MAX_STATEMENT_BYTES)
        key = public_bytes(public)
        check_strong(key, "public")
        check_signature(key, parts.signed, parts.kid)
        return decoded(parts.payload, "payload")
    except TielineError as error:
        raise _not_proved(error) from None


def taken_apart(data: bytes, typ: str, limit_bytes: int) -> Parts:
    """Split an envelope of type ``typ``; raises `record_refused` with the first rule that it breaks."""
    if len(data) > limit_bytes:
        raise refused("envelope_size", size_bytes=len(data), limit_bytes=limit_bytes)
    header_at = data.find(_PROTECTED)
    signature_at = len(data) - _SIGNATURE_DIGITS - 2
    if not (
        data.startswith(_PAYLOAD)
        and data.endswith(b'"}')
        and len(_PAYLOAD) < header_at
        and data.startswith(_SIGNATURE, signature_at - len(_SIGNATURE))
    ):
        raise _envelope_flaw(data)
    protected = data[header_at + len(_PROTECTED) : signature_at - len(_SIGNATURE)]
    body = data[len(_PAYLOAD) : header_at]
    try:
        payload = base64url_bytes(body, "payload")
        signature = base64url_bytes(data[signature_at:-2], "signature")
        kid, seen = header(protected)
    except TielineError as error:
        raise _envelope_flaw(data, error) from None
    if seen != typ:
        raise refused("header_type", seen=f"{seen}+jws", asked=f"{typ}+jws")
    return Parts(kid, payload, b"".join((signature, protected, b".", body)))


def signed_of(data: bytes) -> bytes:
    """The signature of an envelope that was admitted before, followed by what it is over."""
    header_at = data.find(_PROTECTED)
    signature_at = len(data) - _SIGNATURE_DIGITS - 2
    protected = data[header_at + len(_PROTECTED) : signature_at - len(_SIGNATURE)]
    signature = base64url_bytes(data[signature_at:-2], "signature")
    return b"".join((signature, protected, b".", data[len(_PAYLOAD) : header_at]))


def payload_of(data: bytes) -> bytes:
    """The payload of an envelope that was admitted before; raises `record_refused` when it is none."""
    if not data.startswith(_PAYLOAD):
        raise _envelope_flaw(data)
    return base64url_bytes(data[len(_PAYLOAD) : data.find(b'"', len(_PAYLOAD))], "payload")


@lru_cache(maxsize=8_192)  # a header is the same for every record of one key
def header(protected: bytes) -> tuple[str, str]:
    """The key's name and the type of a protected header; raises `record_refused`."""
    data = base64url_bytes(protected, "protected header")
    try:
        match = _HEADER.fullmatch(data.decode())
    except UnicodeDecodeError:
        match = None
    if match is None:
        check_header(data)
        raise refused("json_form", part="protected header")
    if not _KID.fullmatch(match[1]):
        raise refused("header_kid", kid=match[1])
    return match[1], match[2]


def check_header(data: bytes) -> None:
    """Say why a header is not the one form: the alarming causes first."""
    tree = decoded(data, "protected header")
    if type(tree) is not dict:
        raise refused("json_syntax", part="protected header", why="it is not an object")
    for field in KEY_SOURCES:
        if field in tree:
            raise refused("header_key_source", field=field)
    if "crit" in tree:
        raise refused("header_critical")
    for field in [*HEADER_FIELDS, *sorted(tree)]:
        if (field in tree) != (field in HEADER_FIELDS):
            raise refused("header_field", field=field[:64])
    if tree["alg"] != ALGORITHM:
        raise refused("header_algorithm", asked=str(tree["alg"])[:64])
    kid = str(tree["kid"])
    if len(kid) > MAX_KID_BYTES or not _KID.fullmatch(kid):
        raise refused("header_kid", kid=kid[:MAX_KID_BYTES])
    raise refused("header_type", seen=str(tree["typ"])[:64], asked=f"{RECORD_TYPE}+jws")


def _envelope_flaw(data: bytes, found: TielineError | None = None) -> TielineError:
    """What is wrong with the envelope as a whole, or else what was ``found`` in one of its parts."""
    try:
        tree = decoded(data, "envelope")
    except TielineError as error:
        return error
    if type(tree) is not dict or any(type(value) is not str for value in tree.values()):
        return refused("envelope_member", why="it is not an object of texts")
    for name in sorted({"payload", "protected", "signature"} ^ set(tree)):
        return refused("envelope_member", why=f"`{name[:64]}` is {'unknown' if name in tree else 'missing'}")
    for part in ("payload", "protected", "signature"):
        try:
            base64url_bytes(tree[part].encode(), part)
        except TielineError as error:
            return error
    try:
        header(tree["protected"].encode())
    except TielineError as error:
        return error
    why = f"the signature is not {SIGNATURE_BYTES} bytes" if tree["payload"] else "the payload is empty"
    return found or refused("envelope_member", why=why)


def _record(tree: Any) -> Record:
    try:
        return msgspec.convert(tree, Record)
    except msgspec.ValidationError as error:
        raise refused("record_form", why=str(error)) from None


def _sealed(payload: bytes, key: Key, kid: str, typ: str, limit_bytes: int) -> bytes:
    if len(kid) > MAX_KID_BYTES or not _KID.fullmatch(kid):
        raise refused("header_kid", kid=kid[:MAX_KID_BYTES])
    protected = base64url(encoded({"alg": ALGORITHM, "kid": kid, "typ": f"{typ}+jws"}, "protected header"))
    body = base64url(payload)
    signature = base64url(key.sign(f"{protected}.{body}".encode()))
    data = f'{{"payload":"{body}","protected":"{protected}","signature":"{signature}"}}'.encode()
    if len(data) > limit_bytes:
        raise refused("envelope_size", size_bytes=len(data), limit_bytes=limit_bytes)
    return data


def _not_proved(error: TielineError) -> TielineError:
    return TielineError("unauthenticated", f"the statement does not verify: {error.message}", reasons=error.reasons)
