"""Resolution: stored bytes as an answer, proved to be the bytes that were verified."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from tieline.model.record import Record
from tieline.registry.authority import Held, verifying_key
from tieline.registry.envelope import payload_of, signed_of
from tieline.registry.keys import check_signature
from tieline.registry.rules import refused

_DECODER = msgspec.json.Decoder(Record)


class Resolved(msgspec.Struct, frozen=True, gc=False):
    """The answer to a resolve: the envelope as signed, and what is known of it without reading it."""

    id: str
    kind: str
    rev: int
    exp: int
    sha256: bytes  # of the payload
    envelope: bytes

    @property
    def payload(self) -> bytes:
        """The payload's bytes, as signed."""
        return payload_of(self.envelope)

    @property
    def record(self) -> Record:
        """The payload decoded."""
        return _DECODER.decode(self.payload)


def resolved(identifier: str, held: Held, envelope: bytes, *, is_verified_again: bool = False) -> Resolved:
    """``envelope`` as the answer for ``held``; raises `record_refused` (store_altered) when it is not what was held."""
    if sha256(envelope).digest() != held.envelope_sha256:
        raise refused("store_altered", identifier, id=identifier)
    if is_verified_again:
        check_signature(verifying_key(held).public, signed_of(envelope), held.key.kid, identifier)
    return Resolved(identifier, held.kind, held.rev, held.exp, held.sha256, envelope)
