"""Rekeying 换钥: an owner's prefix goes over to another key of the same owner."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.api import View
from tieline.model.identifier import DOTTED, MAX_IDENTIFIER_BYTES

REKEY = "owner-rekey"  # type of the statement

Prefix = Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER_BYTES, pattern=rf"\A{DOTTED}\Z")]
PublicKey = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]


class RekeyStatement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the owner signs with a key that is believed (type ``owner-rekey``): ``public`` is to speak for ``owner``."""

    owner: Prefix
    public: PublicKey
    is_revoking: bool  # nothing that the other keys sign from now on counts; else they end after an overlap
    nonce: Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class RekeyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An owner sends its ``statement``; an admin may name owner and key without one."""

    statement: Annotated[str, msgspec.Meta(max_length=65_536)] = ""
    owner: Annotated[str, msgspec.Meta(max_length=MAX_IDENTIFIER_BYTES, pattern=rf"\A({DOTTED})?\Z")] = ""
    public: Annotated[str, msgspec.Meta(pattern=r"\A([A-Za-z0-9_-]{43})?\Z")] = ""
    is_revoking: bool = False


class RekeyView(View, frozen=True, kw_only=True):
    """Under which name the key speaks for the prefix, and the delegation that says so."""

    owner: str
    kid: str
    rev: int
    delegation: str  # envelope
