"""Usual: copies of one log that have the usual form, read and judged together, step by step for all of them.

One after the other the same rules cost twice as much: each copy finds the code and the tables of the one before out of
the processor's caches. Like `swift` this gives up (None) at anything unusual and never says why: `Intake` then looks at
that copy by itself, and either takes it or names the rule. So everything here only has to be sound: what it accepts,
the long way accepts, and both say the same (tested copy by copy on the attack corpus and on generated records).

Usual is a record that is new here or newer than what is held, of a kind that gives nothing away, and not withdrawn.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from re import compile as pattern
from typing import NamedTuple

import msgspec

from tieline.model.error import TielineError
from tieline.model.identifier import DOTTED, MAX_IDENTIFIER_BYTES, Identifier
from tieline.model.kinds import KINDS, Writer
from tieline.model.record import MAX_LEASE_S, MAX_RECORD_BYTES, Record, Status
from tieline.registry.admission import Judged, Outcome
from tieline.registry.authority import Authority, Held, TrustedKey
from tieline.registry.base64url import BASE64URL, decoded_all
from tieline.registry.envelope import RECORD_TYPE, header
from tieline.registry.keys import _STANDARD, SIGNATURE_BYTES
from tieline.registry.rules import SKEW_S
from tieline.registry.specs import check_spec
from tieline.registry.swift import Form, form_of, is_canonical, is_plain

_HEAD = b'{"payload":"'
_PROTECTED = b'","protected":"'
_SIGNATURE = b'","signature":"'
_HEAD_BYTES = len(_HEAD)
_SIGNATURE_DIGITS = 86
_END_BYTES = _SIGNATURE_DIGITS + 2  # the signature and what closes the envelope
_is_name = pattern(DOTTED).fullmatch
_WITHDRAWN = Status.WITHDRAWN
_DEFLECTED = (msgspec.MsgspecError, ValueError, RecursionError, TielineError)


class Ground(NamedTuple):
    """What copies of one log are judged on."""

    prefix: str
    held: Mapping[str, Held]
    authority: Authority
    key_of: Callable[[str, Record], TrustedKey]  # by name; raises `record_refused` where its chain does not hold now
    now_s: int


class Page(NamedTuple):
    """What the copies of a page come to by themselves, in their order; their signatures come next."""

    judged: list[Judged | None]  # None: it needs care
    signed: list[bytes]  # the signature of each, followed by what it is over; empty where nobody asks


def usual(envelopes: Sequence[bytes], ground: Ground, *, is_proved: bool) -> Page:
    """Judge ``envelopes`` by everything but their signatures, which are only read where they are needed."""
    judged: list[Judged | None] = [None] * len(envelopes)
    parts = _Parts(envelopes, is_proved)
    by_kind: dict[str, tuple[Form, list[int]]] = {}
    for at, payload in enumerate(parts.payloads):
        form = form_of(payload) if payload else None
        if form is not None:
            places = by_kind.get(form.kind)
            if places is None:
                places = by_kind[form.kind] = (form, [])
            places[1].append(at)
    for form, at_kind in by_kind.values():
        _judge(form, at_kind, envelopes, parts, ground, judged)
    return Page(judged, parts.signed)


class _Parts:
    """Envelopes taken apart; an empty payload stands for one that has to be taken apart with care."""

    def __init__(self, envelopes: Sequence[bytes], is_proved: bool) -> None:
        self.kids: list[str] = []
        self.signed: list[bytes] = [b""] * len(envelopes)
        bodies: list[bytes] = []
        middle, kid, end = b"", "", 0  # of the one before: the same for all records of one key
        for at, envelope in enumerate(envelopes):
            if not middle or not envelope.startswith(middle, end):
                middle, kid = _middle(envelope)
                end = -_END_BYTES - len(middle)
                protected = middle[len(_PROTECTED) : -len(_SIGNATURE)]
            body = envelope[_HEAD_BYTES:end]
            digits = envelope[-_END_BYTES:-2]
            if (
                not middle
                or len(envelope) > MAX_RECORD_BYTES
                or not envelope.startswith(_HEAD)
                or not envelope.endswith(b'"}')
                or digits[-1] not in b"AQgw"
                or digits.translate(None, BASE64URL)
            ):
                body = b""
            elif not is_proved:
                signature = a2b_base64(digits.translate(_STANDARD) + b"==")
                self.signed[at] = b"%b%b.%b" % (signature, protected, body)
            bodies.append(body)
            self.kids.append(kid)
        self.payloads = decoded_all(bodies)


def _middle(envelope: bytes) -> tuple[bytes, str]:
    """What stands between payload and signature, and the name of the key in it; empty for what is not usual."""
    at = envelope.find(_PROTECTED, _HEAD_BYTES)
    middle = envelope[at:-_END_BYTES]
    if at < 0 or not middle.endswith(_SIGNATURE):
        return b"", ""
    try:
        kid, typ = header(middle[len(_PROTECTED) : -len(_SIGNATURE)])
    except TielineError:
        return b"", ""
    return (middle, kid) if typ == RECORD_TYPE else (b"", "")


def _judge(
    form: Form,
    places: Sequence[int],
    envelopes: Sequence[bytes],
    parts: _Parts,
    ground: Ground,
    judged: list[Judged | None],
) -> None:
    """Judge the copies at ``places``, which are of one kind; what is usual is put into ``judged``."""
    decode, kind, row = form.decode, form.kind, KINDS[form.kind]
    prefix, authority, now_s = ground.prefix, ground.authority, ground.now_s
    begin = f"{prefix}/{kind}/"
    begin_count = len(begin)
    is_referring = bool(row.references or row.keys or row.writer is Writer.OBSERVER)
    kids, payloads, held_of = parts.kids, parts.payloads, ground.held.get
    kid, key = "", None  # of the one before
    for at in places:
        payload, envelope = payloads[at], envelopes[at]
        try:
            record = decode(payload)
            if not is_canonical(record, payload) or not is_plain(form, record, payload) or record.kind != kind:
                continue
            name, rev, nb, exp, status = record.id, record.rev, record.nb, record.exp, record.status
            if kids[at] != kid or key is None or key.revoked_from:  # then its dates matter
                kid, key = kids[at], ground.key_of(kids[at], record)
            held = held_of(name)
            if (
                not name.startswith(begin)
                or _is_name(name, begin_count) is None
                or len(name) > MAX_IDENTIFIER_BYTES
                or "xn--" in name
                or (rev == 1) is not (not record.prev)
                or not nb < exp <= nb + MAX_LEASE_S
                or not nb - SKEW_S <= now_s < exp + SKEW_S
                or status is _WITHDRAWN
                or (held is not None and (held.rev >= rev or held.status is _WITHDRAWN))
            ):
                continue
            if is_referring or record.links:
                check_spec(Identifier(prefix, kind, name[begin_count:]), record.links, record.spec, row)
        except _DEFLECTED:
            continue
        fresh = Held(
            rev, sha256(payload).digest(), sha256(envelope).digest(), nb, exp, status, kind, key, authority
        )  # fmt: skip
        judged[at] = Judged(Outcome.STORED, name, fresh, record, record.spec, envelope)


assert SIGNATURE_BYTES * 4 // 3 + 1 == _SIGNATURE_DIGITS
