"""Verifying offline: envelopes and pinned roots are enough, and nothing less is."""

from __future__ import annotations

from itertools import permutations

import pytest

from record_world import DAY_S, NOW_S, PAST_S, RecordWorld, delegated, honest, key_of
from tieline.model.error import TielineError
from tieline.model.record import DelegatedKey, Root
from tieline.registry import verify_chain

WORLD = RecordWorld()
ROOT = Root(prefix="cn.demo", keys=(DelegatedKey(**delegated("cn.demo")),))
POOL = honest("cn.demo.lab7.team/pool/x")
GIFTS = WORLD.catalogue.chain("cn.demo.lab7.team")


def test_a_record_is_verified_with_every_signature_it_rests_on_in_any_order() -> None:
    for order in permutations(GIFTS):
        verified = verify_chain([*order, POOL], [ROOT], NOW_S)
        assert verified.record.id == "cn.demo.lab7.team/pool/x"
        assert verified.root == "cn.demo"
        assert [step.kid for step in verified.steps] == ["cn.demo#k1", "cn.demo.lab7#k1", "cn.demo.lab7.team#k1"]
        assert verified.steps[-1].fingerprint == key_of("cn.demo.lab7.team#k1").fingerprint


def test_a_nearer_root_needs_fewer_envelopes() -> None:
    near = Root(prefix="cn.demo.lab7.team", keys=(DelegatedKey(**delegated("cn.demo.lab7.team")),))
    verified = verify_chain([POOL], [ROOT, near], NOW_S)
    assert (verified.root, len(verified.steps)) == ("cn.demo.lab7.team", 1)


@pytest.mark.parametrize(
    ("envelopes", "roots", "now_s", "rule"),
    [
        ([GIFTS[0], POOL], [ROOT], NOW_S, "chain_incomplete"),
        ([*GIFTS, POOL], [], NOW_S, "root_unknown"),
        ([*GIFTS, POOL], [ROOT], NOW_S + 200 * DAY_S, "lease_ended"),
        ([*GIFTS, POOL], [ROOT], PAST_S, "lease_ahead"),
        ([*GIFTS, honest("cn.demo.lab7.team/pool/x", kid="cn.demo.lab7#k1")], [ROOT], NOW_S, "kid_prefix"),
        ([POOL.replace(b'"signature":"', b'"signature":"AAAA', 1)[:-6] + b'"}', *GIFTS], [ROOT], NOW_S, "base64_form"),
    ],
)
def test_a_chain_that_does_not_hold_is_refused_by_its_rule(
    envelopes: list[bytes], roots: list[Root], now_s: int, rule: str
) -> None:
    with pytest.raises(TielineError) as caught:
        verify_chain(envelopes, roots, now_s)
    assert caught.value.reasons[0].code == rule


def test_a_forged_record_that_had_to_wait_is_refused_too() -> None:
    forged = honest("cn.demo.lab7.team/pool/x", kid="cn.demo.lab7.team#k9")
    with pytest.raises(TielineError) as caught:
        verify_chain([forged, *GIFTS], [ROOT], NOW_S)
    assert caught.value.reasons[0].code == "key_unknown"


def test_two_payloads_of_one_revision_are_not_verified() -> None:
    other = honest("cn.demo.lab7.team/pool/x", spec={"core_count": 1})
    with pytest.raises(TielineError) as caught:
        verify_chain([*GIFTS, POOL, other], [ROOT], NOW_S)
    assert caught.value.code == "conflict"


@pytest.mark.parametrize("count", [0, 1_001])
def test_the_number_of_envelopes_is_bounded(count: int) -> None:
    with pytest.raises(TielineError) as caught:
        verify_chain([POOL] * count, [ROOT], NOW_S)
    assert caught.value.code == "invalid_request"
