"""Truth: what the world knows of every key and every card, kept apart from what any exchange believes.

Signatures are checked with the library itself: nothing of the product's registry is used to judge the registry.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Any

import msgspec
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from tieline.model.record import Envelope


class Truth:
    """Every key that speaks for a prefix, by name, and what was signed by thieves."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}  # kid -> public key
        self.by_thieves: dict[str, str] = {}  # envelope -> kid of the stolen key
        self._judged: dict[str, str] = {}

    def flaw(self, envelope: str, identifier: str) -> str:
        """What is wrong with ``envelope`` as a statement about ``identifier``; empty when its true owner signed it."""
        found = self._judged.get(envelope)
        if found is None:
            found = self._judged[envelope] = self._flaw(envelope, identifier)
        return found

    def _flaw(self, envelope: str, identifier: str) -> str:
        parts = msgspec.json.decode(envelope, type=Envelope)
        header = msgspec.json.decode(_bytes(parts.protected))
        payload = msgspec.json.decode(_bytes(parts.payload))
        if payload["id"] != identifier:
            return f"it speaks of {payload['id']}"
        kid = str(header["kid"])
        if kid.partition("#")[0] != identifier.partition("/")[0]:
            return f"{kid} does not speak for it"
        public = self.keys.get(kid)
        if public is None:
            return f"nobody gave {kid} a key"
        try:
            crypto_sign_open(_bytes(parts.signature) + f"{parts.protected}.{parts.payload}".encode(), public)
        except BadSignatureError:
            return f"{kid} did not sign it"
        return ""


def payload_of(envelope: str) -> dict[str, Any]:
    """What an envelope says, unverified."""
    parts = msgspec.json.decode(envelope, type=Envelope)
    payload: dict[str, Any] = msgspec.json.decode(_bytes(parts.payload))
    return payload


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
