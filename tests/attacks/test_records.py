"""Every attack on records is refused by its own rule, and leaves nothing behind."""

from __future__ import annotations

from string import Formatter

import pytest
from record_corpus import A100, ATTACKS, KID, Attack, outcome

from record_world import DAY_S, NOW_S, RecordWorld, delegated, delegation, honest, key_of, weak_public
from tieline.model.error import TielineError
from tieline.model.reason import CATALOGUE
from tieline.model.record import DelegatedKey, Root
from tieline.model.rule import RULES
from tieline.registry import Catalogue, sign_statement, verify_statement
from tieline.registry.parking import MAX_PARKED_PER_PREFIX


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused_by_its_own_rule_and_changes_nothing(attack: Attack) -> None:
    assert outcome(attack) == attack.rule


def test_the_corpus_is_large_has_no_name_twice_and_uses_most_rules() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(names) == len(set(names)) >= 100
    unused = sorted(set(RULES) - {attack.rule for attack in ATTACKS})
    assert unused == ["chain_incomplete", "checkpoint_other", "log_foreign", "parking_full", "store_altered"]


def test_every_refusal_says_a_full_sentence_in_both_languages() -> None:
    world = RecordWorld()
    for attack in ATTACKS:
        envelope = attack.send(RecordWorld())
        with pytest.raises(TielineError) as caught:
            world.catalogue.admit(envelope, NOW_S)
        reason = caught.value.reasons[0]
        for sentence in CATALOGUE[reason.code]:
            needed = {name for _, name, _, _ in Formatter().parse(sentence) if name}
            assert needed <= set(reason.values), attack.name


def test_two_payloads_of_one_revision_are_kept_as_proof_and_the_first_one_stands() -> None:
    world = RecordWorld()
    before = world.catalogue.head("cn.demo.lab7/pool/fork")
    other = honest("cn.demo.lab7/pool/fork", spec={"core_count": 2})
    admission = world.catalogue.admit(other, NOW_S)
    assert admission.outcome == "equivocation"
    proof = world.catalogue.proof("cn.demo.lab7/pool/fork")
    assert proof is not None
    assert before is not None
    assert (proof.rev, proof.kept_sha256, proof.other_envelope) == (1, before.sha256, other)
    assert proof.other_sha256 == admission.other_sha256 != proof.kept_sha256
    assert world.catalogue.head("cn.demo.lab7/pool/fork") == before


def test_a_second_payload_without_a_signature_proves_nothing() -> None:
    world = RecordWorld()
    forgery = honest("cn.demo.lab7/pool/fork", spec={"core_count": 2})[:-6] + b'AAAA"}'
    with pytest.raises(TielineError):
        world.catalogue.admit(forgery, NOW_S)
    assert world.catalogue.proofs() == ()


def test_an_active_revision_beside_a_tombstone_is_equivocation_and_does_not_raise_the_dead() -> None:
    world = RecordWorld()
    again = honest("cn.demo.lab7/pool/gone", rev=2, prev=world.sha256("cn.demo.lab7/pool/gone@1"))
    assert world.catalogue.admit(again, NOW_S).outcome == "equivocation"
    reason = world.catalogue.standing("cn.demo.lab7/pool/gone", NOW_S)
    assert reason is not None
    assert reason.code == "withdrawn"


@pytest.mark.parametrize(
    ("rule", "public", "typ", "signer"),
    [
        ("header_type", key_of("site").public, "site-hello", "site"),  # a heartbeat replayed as a handshake
        ("signature_wrong", key_of("other").public, "site-beat", "site"),
        ("signature_wrong", key_of("site").public, "site-beat", "thief"),
        ("key_weak", weak_public(), "site-beat", "site"),
        ("base64_form", key_of("site").public + "=", "site-beat", "site"),
    ],
)
def test_a_statement_counts_for_its_type_and_its_key_only(rule: str, public: str, typ: str, signer: str) -> None:
    beat = sign_statement({"seq": 1}, key_of(signer), "cn.demo.lab7/site/s1#site", "site-beat")
    with pytest.raises(TielineError) as caught:
        verify_statement(beat, public, typ)
    assert (caught.value.code, caught.value.reasons[0].code) == ("unauthenticated", rule)


def test_a_record_replayed_as_a_statement_is_refused() -> None:
    with pytest.raises(TielineError) as caught:
        verify_statement(honest("cn.demo.lab7/pool/new"), key_of(KID).public, "site-beat")
    assert caught.value.reasons[0].code == "header_type"


def test_a_root_with_a_small_order_key_cannot_be_pinned() -> None:
    with pytest.raises(TielineError) as caught:
        Catalogue([Root(prefix="cn.x", keys=(DelegatedKey(**delegated("cn.x", public=weak_public())),))])
    assert caught.value.reasons[0].code == "key_weak"


def test_a_delegation_record_never_replaces_a_pinned_root() -> None:
    """The owner of cn names cn.demo's keys anew: those who pinned cn.demo themselves go on believing their own list."""
    roots = [Root(prefix=prefix, keys=(DelegatedKey(**delegated(prefix)),)) for prefix in ("cn", "cn.demo")]
    catalogue = Catalogue(roots)
    spec = delegation("cn.demo", keys=[delegated("cn.demo", "k2")])
    catalogue.admit(honest("cn/owner/demo", spec=spec), NOW_S)
    with pytest.raises(TielineError) as caught:
        catalogue.admit(honest("cn.demo/pool/a", "cn.demo#k2"), NOW_S)
    assert caught.value.reasons[0].code == "key_unknown"
    assert catalogue.admit(honest("cn.demo/pool/a"), NOW_S).outcome == "stored"


def test_what_waits_for_a_delegation_is_bounded_and_nothing_is_pushed_out() -> None:
    world = RecordWorld()
    first = honest("cn.demo.lab7.new0/pool/a0")
    assert world.catalogue.admit(first, NOW_S).outcome == "parked"
    for number in range(MAX_PARKED_PER_PREFIX - 1):
        world.catalogue.admit(honest(f"cn.demo.lab7.new0/pool/b{number}"), NOW_S)
    with pytest.raises(TielineError) as caught:
        world.catalogue.admit(honest("cn.demo.lab7.new0/pool/last"), NOW_S)
    assert caught.value.reasons[0].code == "parking_full"
    gift = honest("cn.demo.lab7/owner/new0", spec=delegation("cn.demo.lab7.new0", max_records=20))
    released = world.catalogue.admit(gift, NOW_S).released
    assert released[0].envelope == first
    assert [each.outcome for each in released].count("stored") == 20
    assert {each.reason.code for each in released if each.reason} == {"quota_full"}


def test_a_held_record_falls_with_each_step_of_its_chain() -> None:
    world = RecordWorld()
    catalogue = world.catalogue
    assert catalogue.standing(A100, NOW_S) is None
    late = catalogue.standing(A100, NOW_S + 90 * DAY_S)
    assert late is not None
    assert late.code == "lease_ended"
    world.register("cn.demo/owner/lab7", status="withdrawn", nb=NOW_S - 30 * DAY_S, exp=NOW_S + DAY_S)
    fallen = catalogue.standing(A100, NOW_S)
    assert fallen is not None
    assert fallen.code == "delegation_withdrawn"
