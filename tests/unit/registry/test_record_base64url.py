"""Many base64url texts decoded at once come to what each comes to by itself."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as some

from tieline.model.error import TielineError
from tieline.registry.base64url import BASE64URL, decoded_all
from tieline.registry.keys import base64url, base64url_bytes


def alone(text: bytes) -> bytes:
    """What the careful reader makes of one; none of what it refuses."""
    try:
        return base64url_bytes(text, "payload")
    except TielineError:
        return b""


DIGITS = some.lists(some.sampled_from(BASE64URL), max_size=9).map(bytes)  # half of them with stray bits or one too many


@given(some.lists(some.binary(max_size=40), max_size=20))
def test_what_was_encoded_comes_back(data: Sequence[bytes]) -> None:
    assert decoded_all([base64url(each).encode() for each in data]) == list(data)


@given(some.lists(DIGITS, max_size=20))
def test_only_the_one_form_is_taken_of_digits(texts: Sequence[bytes]) -> None:
    assert decoded_all(texts) == [alone(text) for text in texts]


@given(
    some.lists(DIGITS | some.binary(max_size=6) | some.sampled_from([b"AA==", b"+A", b"/w", b"A\n", b"A"]), max_size=8)
)
def test_bytes_that_are_no_digits_spoil_their_own_text_alone(texts: Sequence[bytes]) -> None:
    assert decoded_all(texts) == [alone(text) for text in texts]
