"""Judging a page together is sound: what it takes, the long way takes too, and both keep the same of every copy."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from record_corpus import ATTACKS, Attack
from test_swift import EXTRA, SPECS, body_of

from record_world import DAY_S, NOW_S, RecordWorld, compact, forged, header, honest, key_of, payload
from tieline.model.error import TielineError
from tieline.model.identifier import Identifier
from tieline.registry import intake, opened, usual

LOG = "cn.demo.lab7"
KID = f"{LOG}#k1"
WORLD = RecordWorld()


def signed(body: bytes, kid: str = KID) -> bytes:
    """An envelope around any payload, signed by the key that it names."""
    return forged(body, header(kid), key_of(kid))


def careful(envelopes: Sequence[bytes], *_: Any, **__: Any) -> usual.Page:
    """Nothing is usual."""
    return usual.Page([None] * len(envelopes), [b""] * len(envelopes))


def came_to(prefix: str, envelopes: Sequence[bytes], *, is_together: bool, is_proved: bool = False) -> list[Any]:
    """What became of each copy, and what would be kept."""
    log = WORLD.catalogue.intake(prefix, NOW_S)
    together = usual.usual
    if not is_together:
        intake.usual = careful
    try:
        decided = log.judge_all(envelopes, is_proved=is_proved)
    finally:
        intake.usual = together
    told: list[Any] = [
        each.reasons if isinstance(each, TielineError)
        else (each.outcome, each.id, each.held, each.record, each.spec, each.envelope, each.fresh)
        for each in decided
    ]  # fmt: skip
    return [told, [(name, judged.held) for name, judged in log.fresh.items()]]


def check(envelopes: Sequence[bytes], prefix: str = LOG) -> None:
    for is_proved in (False, True):
        together = came_to(prefix, envelopes, is_together=True, is_proved=is_proved)
        assert together == came_to(prefix, envelopes, is_together=False, is_proved=is_proved)


def is_usual(envelope: bytes) -> bool:
    """Whether it is judged together with others, after one of its kind."""
    page = (signed(body_of("pool")), signed(body_of("site")), envelope)
    ground = WORLD.catalogue.intake(LOG, NOW_S)._ground()
    return usual.usual(page, ground, is_proved=True).judged[-1] is not None


@pytest.mark.parametrize("kind", SPECS)
def test_what_is_new_and_of_the_usual_form_is_judged_together(kind: str) -> None:
    spec = SPECS[kind] if kind != "user" else {}
    assert is_usual(signed(body_of(kind, spec=spec)))
    assert not is_usual(signed(body_of(kind, spec=spec, status="withdrawn")))
    assert not is_usual(signed(body_of(kind, spec=spec, exp=NOW_S - DAY_S)))
    assert not is_usual(signed(body_of(kind, spec=spec), "cn.demo.lab8#k1"))
    assert not is_usual(signed(body_of(kind, spec=spec, id=f"cn.demo.lab8/{kind}/x")))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_on_a_record_comes_to_the_same_in_a_page(attack: Attack) -> None:
    envelope = attack.send(WORLD)
    check((honest(f"{LOG}/pool/before"), envelope, honest(f"{LOG}/pool/after"), envelope))
    prefixes = {LOG, "cn.demo.lab8", "cn.demo.stolen", "cn.demo.late", "cn.demo.small"}
    for prefix in sorted(prefixes):
        if not WORLD.catalogue.intake(prefix, NOW_S).is_waiting:
            check((envelope,), prefix)


def test_what_comes_twice_or_in_two_revisions_is_judged_beside_the_first() -> None:
    last = "0" * 64
    page = [
        honest(f"{LOG}/pool/twice"),
        honest(f"{LOG}/pool/twice"),
        honest(f"{LOG}/dataset/grown", rev=7, prev=last),
        honest(f"{LOG}/dataset/grown", rev=5, prev=last),
        honest(f"{LOG}/dataset/grown", rev=9, prev=last),
        honest(f"{LOG}/dataset/forked", spec={"size_bytes": 1}),
        honest(f"{LOG}/dataset/forked", spec={"size_bytes": 2}),
        honest(f"{LOG}/pool/a100", rev=3, prev=last),
        honest(f"{LOG}/pool/a100", rev=1),
        honest(f"{LOG}/pool/gone", rev=9, prev=last),
        *[honest(f"{LOG}/dataset/d{number}") for number in range(120)],  # more than may be held
    ]
    check(page)
    random.Random(7).shuffle(page)
    check(page)


@settings(max_examples=200, deadline=None)
@given(kind=some.sampled_from(sorted(SPECS)), extra=EXTRA, cut=some.integers(0, 3), data=some.data())
def test_a_payload_that_was_tampered_with_and_signed_comes_to_the_same(
    kind: str, extra: bytes, cut: int, data: Any
) -> None:
    body = body_of(kind)
    at = data.draw(some.integers(0, len(body)))
    check((signed(body), signed(body[:at] + extra + body[at + cut :])))


@settings(max_examples=200, deadline=None)
@given(at=some.floats(0, 1), extra=some.binary(max_size=2), cut=some.integers(0, 2))
def test_an_envelope_that_was_tampered_with_comes_to_the_same(at: float, extra: bytes, cut: int) -> None:
    whole = signed(body_of("pool"))
    place = round(at * len(whole))
    check((whole, whole[:place] + extra + whole[place + cut :], signed(body_of("site"))))


FIELDS: dict[str, Any] = {
    "id": some.sampled_from([f"{LOG}/site/{name}" for name in ("a", "a.b", "xn--a", "A", "a-", "", "a" * 200, "a/b")]),
    "kind": some.sampled_from(["site", "pool", "owner", "nothing"]),
    "rev": some.sampled_from([0, 1, 2, 2**53 - 1, 2**53]),
    "prev": some.sampled_from(["", "0" * 64, "0" * 63]),
    "nb": some.sampled_from([0, NOW_S - DAY_S, NOW_S + 299, NOW_S + 301]),
    "exp": some.sampled_from([0, NOW_S - 301, NOW_S - 299, NOW_S + 1, NOW_S + 500 * DAY_S]),
    "status": some.sampled_from(["active", "draining", "withdrawn", "other"]),
    "links": some.sampled_from([[], [{"id": f"{LOG}/app/a", "rel": "part-of"}], [{"id": "nothing", "rel": "x"}]]),
    "spec": some.sampled_from([{}, {"tier": "hub"}, {"tier": "none"}, {"public": "A" * 43}, {"readings": {"é": 1}}]),
}


@settings(max_examples=300, deadline=None)
@given(changes=some.fixed_dictionaries({}, optional=FIELDS))
def test_heads_and_leases_are_bounded_alike(changes: dict[str, Any]) -> None:
    check((signed(compact(payload(f"{LOG}/site/new") | changes)),))


BUGS: dict[str, tuple[Any, str, Any, bytes]] = {
    "the form is not proved": (usual, "is_canonical", lambda *_: True, signed(body_of("pool").replace(b",", b" ,", 1))),
    "names are not bounded": (usual, "is_plain", lambda *_: True, signed(body_of("site", spec={"labels": {"é": "x"}}))),
    "references are not read": (
        usual,
        "check_spec",
        lambda *_: None,
        signed(body_of("pool", spec={"site": "cn.demo.lab8/site/s1"})),
    ),
    "any name will do": (usual, "_is_name", lambda *_: True, signed(body_of("pool", id=f"{LOG}/pool/A"))),
    "leases may be of any length": (usual, "MAX_LEASE_S", 2**53, signed(body_of("pool", exp=NOW_S + 999 * DAY_S))),
    "clocks may differ by years": (usual, "SKEW_S", 2**53, signed(body_of("pool", exp=NOW_S - 900, nb=NOW_S - 999))),
    "records may be of any size": (
        usual,
        "MAX_RECORD_BYTES",
        2**53,
        signed(body_of("pool", spec={"tags": ["x" * 390] * 64, "partners": ["y" * 390] * 99})),
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_check_that_is_taken_out_is_missed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, replacement, envelope = BUGS[bug]
    check((envelope,))
    assert not is_usual(envelope)
    monkeypatch.setattr(module, name, replacement)
    assert is_usual(envelope)


def test_the_hashes_are_those_of_the_bytes() -> None:
    envelope = honest(f"{LOG}/pool/hashed")
    judged = WORLD.catalogue.intake(LOG, NOW_S).judge(envelope)
    assert judged.held.sha256 == opened(envelope).sha256
    assert judged.held.envelope_sha256 == hashlib.sha256(envelope).digest()
    assert Identifier.parse(judged.id).kind == judged.held.kind
