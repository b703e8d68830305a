"""Record: the owner's signed statement about one identifier (design, section 4).

The payload bytes are kept as they were signed and are never serialised again to verify. Inside are integers and
strings only (and lists and objects of them), so that sorted compact JSON is the canonical form (RFC 8785).
The envelope is a flattened JWS (RFC 7515, section 7.2.2) with Ed25519 (RFC 8037).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

MAX_RECORD_BYTES = 65_536
MAX_RECORD_DEPTH = 16


class Status(StrEnum):
    """What the writer says of its own record."""

    ACTIVE = "active"
    DRAINING = "draining"
    WITHDRAWN = "withdrawn"  # the tombstone


class Link(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A typed pointer to another identifier, optionally fixed to one revision by its payload hash."""

    rel: str  # trained-on, evaluated-by, part-of, served-at ...
    id: str
    sha256: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The decoded payload. ``rev`` counts from 1; ``prev`` is the sha256 of the previous payload bytes, in hex."""

    id: str
    kind: str
    rev: int
    nb: int  # not before, seconds since the epoch
    exp: int  # the lease ends, seconds since the epoch
    prev: str = ""
    status: Status = Status.ACTIVE
    spec: dict[str, Any] = {}
    links: tuple[Link, ...] = ()
    aka: tuple[str, ...] = ()


class Envelope(msgspec.Struct, frozen=True):
    """A flattened JWS; all three parts are base64url without padding."""

    payload: str
    protected: str
    signature: str


class DelegatedKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key of a prefix: Ed25519 public key (base64url) with its validity; ``revoked_from`` fences later signatures."""

    kid: str  # `<prefix>#<name>`
    public: str
    nb: int
    exp: int
    revoked_from: int = 0


class Delegation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The spec of an `owner` or `exchange` record: the parent prefix gives ``prefix`` away, with bounds."""

    prefix: str
    keys: tuple[DelegatedKey, ...]
    kinds: tuple[str, ...]
    max_records: int
    title: str = ""
    contact: str = ""

