"""Record: the owner's signed statement about one identifier (design, section 4).

The payload bytes are kept as they were signed and are never serialised again to verify. Inside are integers and
strings only (with true, false, and lists and objects of them), so that sorted compact JSON is the canonical form
(RFC 8785). The envelope is a flattened JWS (RFC 7515, section 7.2.2) with Ed25519 (RFC 8037; its name is RFC 9864's).

::

    Root ---------- pinned by the verifier: prefix cn.demo and its keys
      Delegation -- record cn.demo/owner/lab7, signed by a key of cn.demo, gives cn.demo.lab7 to the keys it names
        Record ---- cn.demo.lab7/pool/a100, signed by a key of cn.demo.lab7
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from tieline.model.identifier import DOTTED, MAX_IDENTIFIER_BYTES
from tieline.model.spec import Spec, Title, Word

MAX_RECORD_BYTES = 65_536
MAX_RECORD_DEPTH = 16
MAX_LEASE_S = 400 * 86_400
MAX_QUOTA = 10_000_000

Seconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]  # since the epoch, to the end of year 9999
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
Id = Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER_BYTES)]
Kid = Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER_BYTES + 65, pattern=rf"\A{DOTTED}#{DOTTED}\Z")]
Public = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]  # 32 bytes, base64url without padding


class Status(StrEnum):
    """What the writer says of its own record."""

    ACTIVE = "active"
    DRAINING = "draining"
    WITHDRAWN = "withdrawn"  # the tombstone


class Link(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A typed pointer to another identifier, optionally fixed to one revision by its payload hash."""

    rel: Word  # trained-on, evaluated-by, part-of, served-at ...
    id: Id
    sha256: Sha256 = ""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The decoded payload. ``rev`` counts from 1; ``prev`` is the sha256 of the previous payload bytes, in hex."""

    id: str
    kind: str
    rev: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    nb: Seconds  # not before
    exp: Seconds  # the lease ends
    prev: Sha256 = ""
    status: Status = Status.ACTIVE
    spec: dict[str, Any] = {}
    links: Annotated[tuple[Link, ...], msgspec.Meta(max_length=256)] = ()
    aka: Annotated[tuple[Title, ...], msgspec.Meta(max_length=16)] = ()  # names in other schemes, by this writer's word


class Envelope(msgspec.Struct, frozen=True):
    """A flattened JWS; all three parts are base64url without padding."""

    payload: str
    protected: str
    signature: str


class DelegatedKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key of a prefix: Ed25519 public key (base64url), its validity; ``revoked_from`` fences later signatures."""

    kid: Kid  # `<prefix>#<name>`
    public: Public
    nb: Seconds
    exp: Seconds
    revoked_from: Seconds = 0  # 0: not revoked


class Delegation(Spec, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The spec of an `owner` or `exchange` record: the parent prefix gives ``prefix`` away, with bounds.

    Record ``cn.demo/owner/lab7`` gives ``cn.demo.lab7`` and nothing else, so that each prefix has one place to look.
    ``max_records`` bounds the identifiers at and below the prefix, withdrawn ones included.
    """

    prefix: Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER_BYTES, pattern=rf"\A{DOTTED}\Z")]
    keys: Annotated[tuple[DelegatedKey, ...], msgspec.Meta(min_length=1, max_length=16)]
    kinds: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]
    max_records: Annotated[int, msgspec.Meta(ge=0, le=MAX_QUOTA)]
    contact: Title = ""
    scope: Annotated[str, msgspec.Meta(pattern=r"\A(national|regional|industry|enterprise)?\Z")] = ""  # of an exchange
    url: Title = ""  # where an exchange answers


class Root(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a verifier pins: a prefix and the keys that speak for it. No record can add or change one."""

    prefix: Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER_BYTES, pattern=rf"\A{DOTTED}\Z")]
    keys: Annotated[tuple[DelegatedKey, ...], msgspec.Meta(min_length=1, max_length=16)]
    kinds: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)] = ()  # empty: every kind
    max_records: Annotated[int, msgspec.Meta(ge=0, le=MAX_QUOTA)] = MAX_QUOTA
