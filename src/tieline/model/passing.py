"""Passing: how somebody asks an exchange for a pass through the door of one of its sites."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.door import CHUNKS_MOST, PASS_MOST_MS, Public, Right, Sha256

MOST_BYTES = 2**40


class PassBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be done with which chunks, and with which key."""

    public: Annotated[Public, msgspec.Meta(min_length=1)]  # Ed25519 key of the caller, base64url; of a site its own
    rights: Annotated[tuple[Right, ...], msgspec.Meta(min_length=1, max_length=4)]
    chunks: Annotated[tuple[Sha256, ...], msgspec.Meta(max_length=CHUNKS_MOST)] = ()
    most_bytes: Annotated[int, msgspec.Meta(ge=0, le=MOST_BYTES)] = 2**30
    ttl_ms: Annotated[int, msgspec.Meta(ge=1_000, le=PASS_MOST_MS)] = 300_000
    run: Annotated[
        str, msgspec.Meta(max_length=200, description="of right `port`: the member of a gang to whose nodes it leads")
    ] = ""


class PassView(msgspec.Struct, frozen=True, kw_only=True):
    """A pass, and the door that it opens."""

    door_pass: str
    site: str
    url: str  # of the door; empty: there is none, and the relay leads to the site
    public: str  # key of the site: nobody else answers at its door
    until_ms: int
