"""Keys and sealed boxes."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.model.error import TielineError
from tieline.registry import Key, fingerprint, seal, sealing_public, unseal
from tieline.registry.keys import MAX_SEALED_BYTES, base64url, base64url_bytes, check_signature

SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")  # RFC 8032, 7.1, TEST 2


def test_the_vector_of_rfc_8032_is_reproduced() -> None:
    key = Key(SEED)
    assert key.public_bytes.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540")
    check_signature(key.public_bytes, key.sign(b"\x72") + b"\x72", "k")


def test_a_fingerprint_is_half_a_sha256_of_the_public_key() -> None:
    key = Key(SEED)
    assert key.fingerprint == hashlib.sha256(key.public_bytes).hexdigest()[:32]
    assert fingerprint(key.public) == key.fingerprint


def test_a_key_never_shows_its_seed() -> None:
    key = Key(SEED)
    assert SEED.hex() not in repr(key)
    assert key.fingerprint in repr(key)
    assert not hasattr(key, "__dict__")


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(TielineError):
        Key(b"short")


@given(st.binary(max_size=300))
def test_base64url_has_one_form(data: bytes) -> None:
    text = base64url(data)
    assert base64url_bytes(text.encode(), "x") == data


@given(st.text(alphabet="AQgw_-+/=\n z9", max_size=12))
def test_base64url_reads_what_it_would_write_and_nothing_else(text: str) -> None:
    try:
        outcome = base64url(base64url_bytes(text.encode(), "x"))
    except TielineError as error:
        outcome = error.reasons[0].code
    assert outcome == (text if is_one_form(text) else "base64_form")


def is_one_form(text: str) -> bool:
    """By the standard library: decode leniently, and see whether encoding gives the same text."""
    if not set(text) <= set("AQgwz9_-") or len(text) % 4 == 1:
        return False
    return base64url(urlsafe_b64decode(text + "=" * (-len(text) % 4))) == text


def test_what_is_sealed_opens_with_its_private_key_only() -> None:
    private, other = bytes(range(32)), bytes(range(1, 33))
    box = seal(sealing_public(private), b"secret")
    assert unseal(private, box) == b"secret"
    assert b"secret" not in box
    with pytest.raises(TielineError) as caught:
        unseal(other, box)
    assert caught.value.code == "check_failed"


@pytest.mark.parametrize("box", [b"", b"x" * 20, bytes(200)])
def test_what_was_never_sealed_does_not_open(box: bytes) -> None:
    with pytest.raises(TielineError):
        unseal(bytes(range(32)), box)


def test_sealing_is_bounded_and_needs_a_key() -> None:
    public = sealing_public(bytes(range(32)))
    with pytest.raises(TielineError) as caught:
        seal(public, bytes(MAX_SEALED_BYTES + 1))
    assert caught.value.code == "too_large"
    with pytest.raises(TielineError):
        seal("AAAA", b"x")
