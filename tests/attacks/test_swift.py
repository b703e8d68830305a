"""The swift reader is sound: whatever it accepts, the careful one accepts too, and both say the same."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from record_corpus import ATTACKS, Attack

from record_world import NOW_S, RecordWorld, base64url, compact, header
from tieline.model.error import TielineError
from tieline.registry import opened
from tieline.registry.authority import GIVING
from tieline.registry.swift import read

KID = "cn.demo.lab7#k1"
SPECS: dict[str, dict[str, Any]] = {
    "pool": {"site": "cn.demo.lab7/site/s1", "core_count": 8, "title": "算力", "evidence": {"core_count": "measured"}},
    "site": {"tier": "hub", "readings": {"rtt_us": 12}, "labels": {"rack": "9"}},
    "dataset": {"size_bytes": 2**40, "sha256": "ab" * 32, "sites": ["cn.demo.lab7/site/s1"], "tags": ["图像", "x"]},
    "model": {"metrics_millionths": {"accuracy": 970_000}, "framework": "π"},
    "annotation": {"subject": "cn.demo.lab8/site/s1", "says": "probe", "readings": {"rtt_us": -5}},
    "user": {"public": "", "properties": {"a": [1, {"b": "c"}]}},
    "agent": {"skills": ["a", "b"]},
    "checkpoint": {"count": 1, "pages": [{"count": 1, "first": "pool/a", "sha256": "0" * 64}]},
}


def enveloped(body: bytes) -> bytes:
    """An envelope of the usual form around any payload; its signature is of no concern here."""
    texts = {"payload": base64url(body), "protected": base64url(compact(header(KID))), "signature": "A" * 86}
    return compact(texts)


def body_of(kind: str, **changes: Any) -> bytes:
    fields = {
        "id": f"cn.demo.lab7/{kind}/x",
        "kind": kind,
        "rev": 1,
        "nb": NOW_S,
        "exp": NOW_S + 9,
        "spec": SPECS[kind],
    }
    return compact(fields | changes)


def check(envelope: bytes) -> bool:
    """Both readers agree as far as the swift one goes; whether it went."""
    found = read(envelope)
    if found is None:
        return False
    parcel = opened(envelope)
    assert (found.sha256, found.envelope_sha256) == (parcel.sha256, parcel.envelope_sha256)
    assert (found.kid, found.signed) == (parcel.parts.kid, parcel.parts.signed)
    swift, careful = msgspec.to_builtins(found.record), msgspec.to_builtins(parcel.record)
    assert swift == careful or msgspec.convert(careful["spec"], type(found.spec)) == found.spec
    assert {**swift, "spec": 0} == {**careful, "spec": 0}
    return True


@pytest.mark.parametrize("kind", SPECS)
def test_the_usual_form_is_read_swiftly(kind: str) -> None:
    assert check(enveloped(body_of(kind))) == (kind != "user")  # what may hold anything is read with care
    empty = body_of(kind, spec=SPECS[kind] | {"properties": {}})  # a default that is written out
    assert check(enveloped(empty)) == (kind == "user")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_attack_on_records_gets_past_it(attack: Attack) -> None:
    envelope = attack.send(RecordWorld())
    try:
        opened(envelope)
    except TielineError:
        assert read(envelope) is None
    else:
        check(envelope)


def test_delegations_and_tombstones_are_read_with_care() -> None:
    world = RecordWorld()
    for name, envelope in world.envelopes.items():
        record = opened(envelope).record
        is_careful = record.kind in GIVING or record.status == "withdrawn" or not record.spec
        assert check(envelope) == (not is_careful), name


EXTRA = some.sampled_from(
    [
        b" ", b",", b'"', b"\\", b"\\u0000", b"1.0", b"null", b"9007199254740993", b"-0", b"1e3", b"\xff",
        b'"spec":{},', b'"kind":"site",',
        b'"\xe7\xae\x97":1,', b'\\"kind\\":\\"pool\\"', b"\\/", b"\\u0041", b"[[[[[[[", b"true",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(kind=some.sampled_from(sorted(SPECS)), extra=EXTRA, cut=some.integers(0, 3), data=some.data())
def test_what_was_tampered_with_is_accepted_by_both_or_by_the_careful_one_alone(
    kind: str, extra: bytes, cut: int, data: Any
) -> None:
    body = body_of(kind)
    at = data.draw(some.integers(0, len(body)))
    check(enveloped(body[:at] + extra + body[at + cut :]))


NAMES = some.text(some.sampled_from("ab算é\u2028"), min_size=1, max_size=3)


@settings(max_examples=200, deadline=None)
@given(labels=some.dictionaries(NAMES, some.text(max_size=5), max_size=3), numbers=some.integers(-(2**60), 2**60))
def test_names_and_numbers_are_bounded_alike(labels: dict[str, str], numbers: int) -> None:
    spec = SPECS["site"] | {"labels": labels, "readings": {"rtt_us": numbers}}
    body = body_of("site", spec=spec)
    assert json.loads(body)
    envelope = enveloped(body)
    try:
        opened(envelope)
    except TielineError:
        assert read(envelope) is None
    else:
        check(envelope)
