"""Keys: Ed25519 to sign (RFC 8032), X25519 sealed boxes for secrets (libsodium). Seeds come from the caller.

A public key in text is base64url without padding; its fingerprint is the first 32 hex digits of its sha256.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from functools import lru_cache

from nacl._sodium import ffi, lib  # type: ignore[import-not-found]
from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from tieline.model.error import TielineError
from tieline.registry.rules import refused

SEED_BYTES = 32
SIGNATURE_BYTES = 64
MAX_SEALED_BYTES = 1_048_576
GROUP_ORDER = 2**252 + 27_742_317_777_372_353_535_851_937_790_883_648_493  # L of RFC 8032, section 5.1
_ORDER_TOP = GROUP_ORDER >> 248  # its highest byte: a scalar that is below in it is below altogether

_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")  # what is not of the URL alphabet becomes what no reader takes
_PADDING = (b"", b"", b"==", b"=")
_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")  # by length modulo 4: digits whose unused low bits are zero


class Key:
    """An Ed25519 signing key. It never shows its seed."""

    __slots__ = ("_secret", "public_bytes")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise TielineError("invalid_request", f"a key's seed is {SEED_BYTES} bytes, not {len(seed)}")
        self.public_bytes, self._secret = crypto_sign_seed_keypair(seed)

    @property
    def public(self) -> str:
        """The public key, base64url without padding."""
        return base64url(self.public_bytes)

    @property
    def fingerprint(self) -> str:
        """What people compare."""
        return fingerprint(self.public_bytes)

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"Key({self.fingerprint})"


def base64url(data: bytes) -> str:
    """Base64url without padding (RFC 4648, section 5)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def base64url_bytes(text: bytes, part: str) -> bytes:
    """Decode the one canonical form; raises `record_refused` (base64_form) for padding, spaces and stray bits."""
    tail = len(text) & 3
    if tail and text[-1] not in _LAST[tail]:
        raise refused("base64_form", part=part)
    try:
        return a2b_base64(text.translate(_STANDARD) + _PADDING[tail], strict_mode=True)
    except Base64Error:
        raise refused("base64_form", part=part) from None


def public_bytes(text: str, field: str = "public") -> bytes:
    """The 32 bytes of a public key; raises `record_refused` (base64_form, key_weak) when there are not 32."""
    data = base64url_bytes(text.encode("utf-8", "replace"), field)
    if len(data) != SEED_BYTES:
        raise refused("key_weak", field=f"`{field}`")
    return data


def fingerprint(public: bytes | str) -> str:
    """First 32 hex digits of the sha256 of the public key's bytes."""
    data = public_bytes(public) if isinstance(public, str) else public
    return hashlib.sha256(data).hexdigest()[:32]


def check_strong(public: bytes, field: str, where: str = "") -> None:
    """Refuse what is no point of the main subgroup: under a small-order key one signature fits many messages."""
    if not _is_strong(public):
        raise refused("key_weak", where, field=f"`{field}`")


@lru_cache(maxsize=16_384)  # twice the cost of a verification, and asked of the same few thousand sites for ever
def _is_strong(public: bytes) -> bool:
    return bool(crypto_core_ed25519_is_valid_point(public))


def check_signature(public: bytes, signed: bytes, kid: str, where: str = "") -> None:
    """Verify ``signed``, a signature followed by what it is over, as RFC 8032 5.1.7 says, strictly.

    Raises `record_refused`: signature_malleable, signature_wrong.
    """
    if signed[SIGNATURE_BYTES - 1] >= _ORDER_TOP and (
        int.from_bytes(signed[SIGNATURE_BYTES // 2 : SIGNATURE_BYTES], "little") >= GROUP_ORDER
    ):
        raise refused("signature_malleable", where)
    # libsodium itself and not `nacl.bindings.crypto_sign_open`, which copies out twice what it was over.
    if len(public) != SEED_BYTES or lib.crypto_sign_open(ffi.NULL, ffi.NULL, signed, len(signed), public):
        raise refused("signature_wrong", where, kid=kid)


def sealing_public(private: bytes) -> str:
    """The X25519 public key, base64url, of 32 private bytes."""
    return base64url(crypto_scalarmult_base(private))


def seal(public: str, data: bytes) -> bytes:
    """Seal ``data`` so that only the holder of the X25519 private key can open it.

    libsodium draws the one-time key; it decides nothing, so that replaying a decision needs no copy of it.
    """
    if len(data) > MAX_SEALED_BYTES:
        raise TielineError("too_large", f"{len(data):,} bytes to seal are over the limit of {MAX_SEALED_BYTES:,}")
    return SealedBox(PublicKey(public_bytes(public, "sealing"))).encrypt(data)


def unseal(private: bytes, data: bytes) -> bytes:
    """Open what was sealed to the public half of ``private``; raises TielineError `check_failed` otherwise."""
    try:
        return SealedBox(PrivateKey(private)).decrypt(data)
    except (CryptoError, TypeError, ValueError):
        raise TielineError("check_failed", "the sealed bytes do not open with this site's key") from None
