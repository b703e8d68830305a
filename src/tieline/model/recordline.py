"""Record line: what a signed record says of itself, read without a check: whoever wrote the line has verified it."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import Any

import msgspec

from tieline.model.record import Envelope


class _Head(msgspec.Struct):
    """What a log says of a record beside its envelope."""

    id: str
    kind: str
    rev: int
    exp: int
    status: str = "active"


class _Signer(msgspec.Struct):
    kid: str


_envelope = msgspec.json.Decoder(Envelope).decode
_head = msgspec.json.Decoder(_Head).decode
_signer = msgspec.json.Decoder(_Signer).decode


def said_of(envelope: str) -> dict[str, Any]:
    """The fields of `event.RecordStored` for one line of a page of records."""
    parts = _envelope(envelope)
    payload = urlsafe_b64decode(parts.payload + "==")
    head = _head(payload)
    return {
        "id": head.id,
        "kind": head.kind,
        "rev": head.rev,
        "sha256": sha256(payload).hexdigest(),
        "exp": head.exp,
        "status": head.status,
        "kid": _signer(urlsafe_b64decode(parts.protected + "==")).kid,
        "envelope": envelope,
    }
