"""Swift: an envelope read in one pass where it has the usual form, at a third of the cost of reading it step by step.

It gives up (None) at anything unusual, and never says why: `envelope.opened` then reads it again, slowly, and either
accepts it or names the rule. So everything here only has to be sound: what it accepts, the slow way accepts, and both
say the same (tested on the attack corpus and on generated records).

The payload is decoded straight into the struct of its kind and encoded again: only the canonical form comes out equal.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from tieline.model.error import TielineError
from tieline.model.kinds import KINDS
from tieline.model.quantity import MAX_INTEGER
from tieline.model.record import MAX_RECORD_BYTES, Record, Status
from tieline.model.spec import Spec
from tieline.registry.authority import GIVING
from tieline.registry.canonical import decoded
from tieline.registry.envelope import RECORD_TYPE, header, opened
from tieline.registry.keys import _LAST, _PADDING, _STANDARD

_PAYLOAD = b'{"payload":"'
_PROTECTED = b'","protected":"'
_SIGNATURE = b'","signature":"'
_SIGNATURE_DIGITS = 86
_PAYLOAD_BYTES, _PROTECTED_BYTES, _SIGNATURE_BYTES = len(_PAYLOAD), len(_PROTECTED), len(_SIGNATURE)
_SIGNATURE_LAST = b"AQgw"
_KIND = b'"kind":"'  # in canonical JSON nothing before the record's own kind can look so
_WITHDRAWN = Status.WITHDRAWN
DEFLECTED = (msgspec.MsgspecError, ValueError, RecursionError, TielineError, Base64Error)


class Read(msgspec.Struct, frozen=True, gc=False):
    """What an envelope says; its signature is not checked yet."""

    record: Record
    spec: Spec | None  # typed, where it was read so; then ``record.spec`` is the same
    kid: str
    sha256: bytes  # of the payload
    envelope_sha256: bytes
    signed: bytes  # the signature, followed by what it is over


class Form(NamedTuple):
    """How the records of one kind are read: a decoder, and fields of the spec that the decoder alone does not bound."""

    kind: str
    decode: Any
    anything: tuple[str, ...]  # must be empty here
    maps: Callable[[Spec], Iterable[dict[str, Any]]]  # of them the names must be ASCII


_encode = msgspec.json.Encoder(order="sorted").encode


def read(envelope: bytes) -> Read | None:
    """What ``envelope`` says, or None where it has to be read with care."""
    header_at = envelope.find(_PROTECTED, _PAYLOAD_BYTES)
    signature_at = len(envelope) - _SIGNATURE_DIGITS - 2
    protected = envelope[header_at + _PROTECTED_BYTES : signature_at - _SIGNATURE_BYTES]
    body = envelope[_PAYLOAD_BYTES:header_at]
    tail = len(body) & 3
    if (
        not 0 < header_at < signature_at
        or len(envelope) > MAX_RECORD_BYTES
        or not envelope.startswith(_PAYLOAD)
        or not envelope.endswith(b'"}')
        or not envelope.startswith(_SIGNATURE, signature_at - _SIGNATURE_BYTES)
        or not body
        or (tail and body[-1] not in _LAST[tail])
        or envelope[-3] not in _SIGNATURE_LAST
    ):
        return None
    try:
        payload = a2b_base64(body.translate(_STANDARD) + _PADDING[tail], strict_mode=True)
        signature = a2b_base64(envelope[signature_at:-2].translate(_STANDARD) + b"==", strict_mode=True)
        kid, typ = header(protected)
        form = form_of(payload)
        if form is None:
            return None
        record = form.decode(payload)
        is_usual = typ == RECORD_TYPE and record.kind == form.kind and is_canonical(record, payload)
    except DEFLECTED:
        return None
    if not is_usual or record.status is _WITHDRAWN or not is_plain(form, record, payload):
        return None
    return Read(
        record,
        record.spec,
        kid,
        sha256(payload).digest(),
        sha256(envelope).digest(),
        b"".join((signature, protected, b".", body)),
    )


def read_anyhow(envelope: bytes) -> Read:
    """The same of an envelope of any form; raises `record_refused` with the rule that it breaks."""
    found = read(envelope)
    if found is not None:
        return found
    parcel = opened(envelope)
    return Read(parcel.record, None, parcel.parts.kid, parcel.sha256, parcel.envelope_sha256, parcel.parts.signed)


def form_of(payload: bytes) -> Form | None:
    """How a payload is read, by the kind that it seems to have; None: with care."""
    at = payload.find(_KIND) + len(_KIND)
    return _forms().get(payload[at : payload.find(b'"', at)])


def is_canonical(record: Record, payload: bytes) -> bool:
    """Whether ``payload`` is the one form of what was read from it; raises `record_refused` where it is no one's.

    Defaults that are written out are canonical too, and cost a second reading.
    """
    return _encode(record) == payload or decoded(payload, "payload") is not None


def is_plain(form: Form, record: Any, payload: bytes) -> bool:
    """Whether nothing in the spec needs a closer look."""
    if b"\\" in payload and b"\\u0000" in payload:
        return False
    spec = record.spec
    for field in form.anything:
        if getattr(spec, field):
            return False
    return payload.isascii() or "".join(chain(*form.maps(spec))).isascii()


@lru_cache(maxsize=1)
def _forms() -> dict[bytes, Form]:
    """How the records of each kind are read, from the types of its spec's fields; delegations always take care."""
    return {name.encode(): _form(name) for name in KINDS if name not in GIVING}


def _form(kind: str) -> Form:
    shape = KINDS[kind].spec
    info = msgspec.inspect.type_info(shape)
    assert isinstance(info, msgspec.inspect.StructType)
    anything, maps = [], []
    for field in info.fields:
        if not _is_bounded(field.type):
            anything.append(field.name)
        elif isinstance(_bare(field.type), msgspec.inspect.DictType):
            maps.append(field.name)
    record = msgspec.defstruct(
        f"{shape.__name__}Record",
        [("spec", shape)],
        bases=(Record,),
        frozen=True,
        kw_only=True,
        omit_defaults=True,
        forbid_unknown_fields=True,
    )
    return Form(kind, msgspec.json.Decoder(record).decode, tuple(anything), attrgetter(*maps))


def _bare(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    return kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind


def _is_bounded(kind: msgspec.inspect.Type) -> bool:
    """Whether it takes only texts, truths, integers that are exact everywhere, and flat lists and maps of them."""
    kind = _bare(kind)
    if isinstance(kind, msgspec.inspect.StrType | msgspec.inspect.BoolType):
        return True
    if isinstance(kind, msgspec.inspect.IntType):
        return kind.ge is not None and kind.le is not None and -MAX_INTEGER <= kind.ge <= kind.le <= MAX_INTEGER
    if isinstance(kind, msgspec.inspect.VarTupleType):
        inner = _bare(kind.item_type)
        if isinstance(inner, msgspec.inspect.StructType):
            return all(_is_bounded(field.type) and not _is_map(field.type) for field in inner.fields)
        return not _is_map(inner) and _is_bounded(inner)
    if isinstance(kind, msgspec.inspect.DictType):
        return (
            isinstance(_bare(kind.key_type), msgspec.inspect.StrType)
            and not _is_map(kind.value_type)
            and (_is_bounded(kind.value_type))
        )
    return False


def _is_map(kind: msgspec.inspect.Type) -> bool:
    return isinstance(_bare(kind), msgspec.inspect.DictType)
