"""Envelopes: one form, read strictly, verified on the bytes as signed, and verifiable by another library."""

from __future__ import annotations

import json
import warnings
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OKPKey

from record_world import NOW_S, PAST_S, RecordWorld, honest, key_of
from tieline.model.error import TielineError
from tieline.model.record import Link, Record, Status
from tieline.registry import open_statement, opened, sign, sign_statement, verify_statement
from tieline.registry.canonical import decoded, encoded

A100 = "cn.demo.lab7/pool/a100"
KID = "cn.demo.lab7#k1"
RECORD = Record(
    id=A100,
    kind="pool",
    rev=1,
    nb=NOW_S,
    exp=NOW_S + 60,
    status=Status.DRAINING,
    spec={"title": '算力 \u2028 \x7f "quoted" \\ 𝄞', "core_count": 8, "is_emulated": True},
    links=(Link(rel="part-of", id="cn.demo.lab7/site/s1"),),
)

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
VALUES = st.recursive(
    st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def test_a_record_comes_back_as_it_was_signed() -> None:
    parcel = opened(sign(RECORD, key_of(KID), KID))
    assert parcel.record == RECORD
    assert parcel.parts.kid == KID
    assert parcel.parts.payload == encoded(RECORD, "payload")


def test_another_library_verifies_the_same_bytes() -> None:
    envelope = json.loads(sign(RECORD, key_of(KID), KID))
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": key_of(KID).public})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verified = jws.deserialize_json(envelope, key, algorithms=["Ed25519"])
    assert verified.payload == encoded(RECORD, "payload")


@given(VALUES)
@settings(max_examples=200)
def test_canonical_json_is_what_the_standard_library_calls_sorted_and_compact(value: Any) -> None:
    data = encoded(value, "payload")
    assert decoded(data, "payload") == value
    assert data == json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_by_a_named_rule(data: bytes) -> None:
    rule = "json_"
    try:
        decoded(data, "payload")
    except TielineError as error:
        rule = error.reasons[0].code
    assert rule.startswith("json_")


@settings(max_examples=400)
@given(st.data())
def test_any_changed_byte_of_an_envelope_is_refused(data: st.DataObject) -> None:
    envelope = honest("cn.demo.lab7/pool/new", spec={"title": "推理"})
    at = data.draw(st.integers(0, len(envelope) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != envelope[at]))
    changed = envelope[:at] + bytes([byte]) + envelope[at + 1 :]
    catalogue = WORLD.catalogue
    with pytest.raises(TielineError) as caught:
        catalogue.admit(changed, NOW_S)
    assert caught.value.code == "record_refused"
    assert WORLD.state() == STATE


@settings(max_examples=100)
@given(st.data())
def test_an_envelope_cut_or_lengthened_anywhere_is_refused(data: st.DataObject) -> None:
    envelope = honest("cn.demo.lab7/pool/new")
    at = data.draw(st.integers(0, len(envelope) - 1))
    extra = data.draw(st.binary(min_size=1, max_size=3))
    for changed in (envelope[:at], envelope[:at] + extra + envelope[at:]):
        with pytest.raises(TielineError):
            WORLD.catalogue.admit(changed, NOW_S)


WORLD = RecordWorld()
STATE = WORLD.state()


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ({"core_count": 1.5}, "json_float"),
        ({"core_count": 2**53}, "json_integer"),
        ({"title": None}, "json_null"),
        ({"価": 1}, "json_name"),
        ({"title": "a\0"}, "json_nul"),
        ({"title": "x" * 60_000}, "envelope_size"),
        ({"title": object()}, "json_syntax"),
    ],
)
def test_a_writer_cannot_sign_what_readers_would_refuse(spec: dict[str, Any], rule: str) -> None:
    with pytest.raises(TielineError) as caught:
        sign(msgspec.structs.replace(RECORD, spec=spec), key_of(KID), KID)
    assert caught.value.reasons[0].code == rule


@pytest.mark.parametrize("kid", ["", "k1", "cn.demo#", "CN#k", "cn.demo#k#k", "a" * 300 + "#k"])
def test_a_key_name_has_a_form(kid: str) -> None:
    with pytest.raises(TielineError) as caught:
        sign(RECORD, key_of(KID), kid)
    assert caught.value.reasons[0].code == "header_kid"


class Beat(msgspec.Struct):
    """A heartbeat, as a test needs it."""

    seq: int
    load_millionths: int = 0


def test_a_statement_is_opened_by_its_type_and_verified_by_its_key() -> None:
    data = sign_statement(Beat(seq=7), key_of("site"), "cn.demo.lab7/site/s1#site", "site-beat")
    beat, kid = open_statement(data, "site-beat", Beat)
    assert (beat.seq, kid) == (7, "cn.demo.lab7/site/s1#site")
    assert verify_statement(data, key_of("site").public, "site-beat") == {"seq": 7, "load_millionths": 0}


def test_a_statement_of_another_shape_is_refused_where_it_is_opened() -> None:
    data = sign_statement({"seq": "7"}, key_of("site"), "cn.demo#site", "site-beat")
    with pytest.raises(TielineError) as caught:
        open_statement(data, "site-beat", Beat)
    assert caught.value.code == "unauthenticated"
    assert "$.seq" in caught.value.message


def test_a_refusal_of_a_statement_keeps_its_reason() -> None:
    with pytest.raises(TielineError) as caught:
        open_statement(b"[]", "site-beat", Beat)
    assert (caught.value.code, caught.value.reasons[0].code) == ("unauthenticated", "envelope_member")


def test_statements_are_bounded() -> None:
    with pytest.raises(TielineError) as caught:
        sign_statement({"runs": ["x" * 100] * 2_000}, key_of("site"), "cn.demo#site", "site-beat")
    assert caught.value.reasons[0].code == "envelope_size"


def test_the_time_that_a_record_states_is_not_the_time_it_is_read() -> None:
    """Opening needs no clock: only admission does."""
    assert opened(honest("cn.demo.lab7/pool/old", nb=PAST_S, exp=PAST_S + 1)).record.exp == PAST_S + 1


@pytest.mark.parametrize(("levels", "rule"), [(16, ""), (17, "json_depth")])
def test_sixteen_levels_are_read_and_seventeen_are_not(levels: int, rule: str) -> None:
    data = b"[" * levels + b"]" * levels
    seen = ""
    try:
        decoded(data, "payload")
    except TielineError as error:
        seen = error.reasons[0].code
    assert seen == rule


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (2**53 - 1, ""),
        (-(2**53) + 1, ""),
        (2**53, "json_integer"),
        (-(2**53), "json_integer"),
        (["\\u0000"], ""),  # a backslash and five characters, not the character U+0000
        (["\\\\u0000", "算力"], ""),
        (["\\\0"], "json_nul"),
        ([{"a": [{"価": 1}]}], "json_name"),
        (None, "json_null"),
    ],
)
def test_the_bounds_of_values_are_exact(value: Any, rule: str) -> None:
    seen = ""
    try:
        encoded(value, "payload")
    except TielineError as error:
        seen = error.reasons[0].code
    assert seen == rule
