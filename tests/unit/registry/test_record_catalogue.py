"""The catalogue: order does not matter, twice equals once, and it survives a restart."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from record_world import DAY_S, NOW_S, PAST_S, RecordWorld, delegated, delegation, honest, key_of, payload
from tieline.model.error import TielineError
from tieline.model.record import DelegatedKey, Root
from tieline.registry import Admission, Catalogue, Outcome, opened

A100 = "cn.demo.lab7/pool/a100"
WORLD = RecordWorld()
ROOTS = [Root(prefix="cn.demo", keys=(DelegatedKey(**delegated("cn.demo")),))]


def envelopes_of_a_tree() -> list[bytes]:
    """Delegations three levels deep and records below each, in the order in which they were written."""
    found = []
    for prefix in ("cn.demo", "cn.demo.a", "cn.demo.a.b", "cn.demo.c"):
        if prefix != "cn.demo":
            parent, _, name = prefix.rpartition(".")
            found.append(honest(f"{parent}/owner/{name}", spec=delegation(prefix, max_records=50)))
        found += [honest(f"{prefix}/pool/p{number}") for number in range(2)]
    return found


TREE = envelopes_of_a_tree()


@settings(max_examples=60, deadline=None)
@given(st.permutations(TREE))
def test_the_admitted_set_does_not_depend_on_the_order_of_arrival(order: list[bytes]) -> None:
    catalogue = Catalogue(ROOTS)
    for envelope in order:
        catalogue.admit(envelope, NOW_S)
    rows = sorted(catalogue.rows(), key=lambda row: row.id)
    straight = Catalogue(ROOTS)
    for envelope in TREE:
        assert straight.admit(envelope, NOW_S).outcome == "stored"
    assert rows == sorted(straight.rows(), key=lambda row: row.id)
    assert catalogue.waiting() == ()
    assert catalogue.count("cn.demo") == len(TREE)
    assert all(catalogue.standing(row.id, NOW_S) is None for row in rows)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(TREE), max_size=30))
def test_admitting_twice_equals_once(arrivals: list[bytes]) -> None:
    once, twice = Catalogue(ROOTS), Catalogue(ROOTS)
    for envelope in arrivals:
        once.admit(envelope, NOW_S)
        first = twice.admit(envelope, NOW_S)
        again = twice.admit(envelope, NOW_S)
        assert again.outcome == ("parked" if first.outcome == "parked" else "unchanged")
    assert list(once.rows()) == list(twice.rows())
    assert once.waiting() == twice.waiting()


def test_judging_changes_nothing_and_says_what_admitting_would() -> None:
    world = RecordWorld()
    before = world.state()
    envelope = honest("cn.demo.lab7/pool/new")
    judged = world.catalogue.judge(envelope, NOW_S)
    assert world.state() == before
    admitted = world.catalogue.admit(envelope, NOW_S)
    assert judged == admitted
    assert (judged.outcome, judged.head.id, judged.record.kind) == (Outcome.STORED, "cn.demo.lab7/pool/new", "pool")
    assert judged.head == world.catalogue.head("cn.demo.lab7/pool/new")


def test_what_waited_is_decided_when_its_delegation_arrives_through_several_levels() -> None:
    catalogue = Catalogue(ROOTS)
    pool = honest("cn.demo.a.b/pool/x")
    lower = honest("cn.demo.a/owner/b", spec=delegation("cn.demo.a.b", max_records=9))
    upper = honest("cn.demo/owner/a", spec=delegation("cn.demo.a", max_records=9))
    stranger = honest("cn.demo.a.b/pool/y", kid="cn.demo.a.b#k7")
    assert [catalogue.admit(each, NOW_S).outcome for each in (pool, stranger, lower)] == ["parked"] * 3
    assert catalogue.waiting() == ("cn.demo.a.b", "cn.demo.a")
    admission = catalogue.admit(upper, NOW_S)
    told = [(each.outcome.value, each.head.id) for each in admission.released]
    assert told == [
        ("stored", "cn.demo.a/owner/b"),
        ("stored", "cn.demo.a.b/pool/x"),
        ("refused", "cn.demo.a.b/pool/y"),
    ]
    assert [each.reason.code for each in admission.released if each.reason] == ["key_unknown"]
    assert catalogue.waiting() == ()


def test_what_waits_too_long_makes_room() -> None:
    catalogue = Catalogue(ROOTS)
    catalogue.admit(honest("cn.demo.old/pool/x"), NOW_S)
    catalogue.admit(honest("cn.demo.new/pool/x"), NOW_S + 2 * 3_600)
    assert catalogue.waiting() == ("cn.demo.new",)


def test_a_catalogue_comes_back_from_its_rows_whatever_their_order() -> None:
    store = {revision.partition("@")[0]: envelope for revision, envelope in WORLD.envelopes.items()}
    rows = list(WORLD.catalogue.rows())
    asked: list[str] = []

    def fetch(identifier: str) -> bytes | None:
        asked.append(identifier)
        return store.get(identifier)

    for order in (rows, rows[::-1]):
        again = Catalogue(ROOTS)
        again.load(order, fetch, WORLD.catalogue.proofs())
        assert sorted(again.rows(), key=lambda row: row.id) == sorted(rows, key=lambda row: row.id)
        for row in rows:
            assert again.standing(row.id, NOW_S) == WORLD.catalogue.standing(row.id, NOW_S), row.id
            assert again.count(row.prefix) == WORLD.catalogue.count(row.prefix)
        new = honest("cn.demo.lab7.team/pool/new")
        assert again.judge(new, NOW_S).head == WORLD.catalogue.judge(new, NOW_S).head
    assert {identifier.split("/")[1] for identifier in asked} == {"owner"}


def test_rows_whose_delegation_was_altered_in_the_store_are_not_loaded() -> None:
    other = honest("cn.demo/owner/lab7", spec=delegation("cn.demo.lab7", max_records=7))
    with pytest.raises(TielineError) as caught:
        Catalogue(ROOTS).load(WORLD.catalogue.rows(), lambda _: other)
    assert caught.value.reasons[0].code == "store_altered"


def test_replaying_the_log_of_admitted_envelopes_gives_the_same_catalogue_and_twice_equals_once() -> None:
    again = Catalogue(ROOTS)
    for _ in range(2):
        for envelope in WORLD.envelopes.values():
            again.restore(envelope)
        assert list(again.rows()) == list(WORLD.catalogue.rows())
    assert again.count("cn.demo") == WORLD.catalogue.count("cn.demo")


def test_envelopes_are_restored_in_any_order() -> None:
    store = {revision.partition("@")[0]: envelope for revision, envelope in WORLD.envelopes.items()}
    again = Catalogue(ROOTS)
    for name in sorted(store, reverse=True):
        again.restore(store[name])
    assert sorted(again.rows(), key=lambda row: row.id) == sorted(WORLD.catalogue.rows(), key=lambda row: row.id)
    assert again.count("cn.demo") == WORLD.catalogue.count("cn.demo")
    assert again.resolve(A100, NOW_S, store.get, is_verified_again=True).rev == 2
    for name in store:
        assert again.standing(name, NOW_S) == WORLD.catalogue.standing(name, NOW_S), name


def test_a_use_case_judges_then_restores_and_ends_where_admitting_would() -> None:
    world, other = RecordWorld(), RecordWorld()
    envelope = honest(A100, rev=3, prev=world.sha256(f"{A100}@2"))
    assert world.catalogue.judge(envelope, NOW_S).outcome == "stored"
    world.catalogue.restore(envelope)
    other.catalogue.admit(envelope, NOW_S)
    assert world.state() == other.state()


def test_resolve_gives_the_signed_bytes_and_their_record() -> None:
    envelope = WORLD.envelopes[f"{A100}@2"]
    for is_verified_again in (False, True):
        answer = WORLD.catalogue.resolve(A100, NOW_S, lambda _: envelope, is_verified_again=is_verified_again)
        assert (answer.id, answer.kind, answer.rev, answer.envelope) == (A100, "pool", 2, envelope)
        assert answer.record == opened(envelope).record
        assert answer.payload == opened(envelope).parts.payload


@pytest.mark.parametrize(
    ("identifier", "now_s", "rule"),
    [
        (A100, NOW_S + 90 * DAY_S, "lease_ended"),
        ("cn.demo.lab7/pool/gone", NOW_S, "withdrawn"),
        ("cn.demo.lab7/pool/fork", NOW_S + 61 * DAY_S, "lease_ended"),
    ],
)
def test_resolve_refuses_what_does_not_count_now(identifier: str, now_s: int, rule: str) -> None:
    with pytest.raises(TielineError) as caught:
        WORLD.catalogue.resolve(identifier, now_s, lambda _: b"never asked for")
    assert caught.value.reasons[0].code == rule


@pytest.mark.parametrize("revision", ["", f"{A100}@1", "cn.demo.lab7/pool/fork@1"])
def test_resolve_refuses_a_store_that_gives_other_bytes(revision: str) -> None:
    with pytest.raises(TielineError) as caught:
        WORLD.catalogue.resolve(A100, NOW_S, lambda _: WORLD.envelopes.get(revision))
    assert caught.value.reasons[0].code == "store_altered"


def test_a_changed_signature_in_the_store_is_seen_even_without_verifying_again() -> None:
    envelope = WORLD.envelopes[f"{A100}@2"]
    changed = envelope[:-20] + (b"A" if envelope[-20:-19] != b"A" else b"B") + envelope[-19:]
    with pytest.raises(TielineError):
        WORLD.catalogue.resolve(A100, NOW_S, lambda _: changed)


def test_resolving_or_judging_a_stranger_says_not_found() -> None:
    for ask in (
        lambda: WORLD.catalogue.resolve("cn.demo/pool/x", NOW_S, lambda _: None),
        lambda: WORLD.catalogue.standing("cn.demo/pool/x", NOW_S),
    ):
        with pytest.raises(TielineError) as caught:
            ask()
        assert caught.value.code == "not_found"
    assert WORLD.catalogue.head("cn.demo/pool/x") is None
    assert "cn.demo/pool/x" not in WORLD.catalogue
    assert A100 in WORLD.catalogue


def test_a_delegation_is_given_out_as_signed_and_a_root_has_none() -> None:
    catalogue = WORLD.catalogue
    assert catalogue.delegation("cn.demo.lab7") == WORLD.envelopes["cn.demo/owner/lab7@1"]
    assert catalogue.delegation("cn.demo") is None
    assert catalogue.delegation("cn.nobody") is None
    assert catalogue.chain("cn.demo") == ()
    assert catalogue.chain("cn.demo.lab7.team") == (
        WORLD.envelopes["cn.demo/owner/lab7@1"],
        WORLD.envelopes["cn.demo.lab7/owner/team@1"],
    )


def test_forgetting_a_delegation_makes_its_prefix_unknown_again() -> None:
    world = RecordWorld()
    world.catalogue.forget("cn.demo/owner/lab8")
    world.catalogue.forget("cn.demo/owner/never")
    assert "cn.demo/owner/lab8" not in world.catalogue
    assert world.catalogue.admit(honest("cn.demo.lab8/pool/x"), NOW_S).outcome == "parked"


def test_the_first_sight_of_an_identifier_may_be_any_revision() -> None:
    """Whoever joins late sees the newest revision only; from then on nothing may be skipped."""
    world = RecordWorld()
    late = honest("cn.demo.lab7/pool/late", rev=41, prev="ab" * 32)
    assert world.catalogue.admit(late, NOW_S).outcome == "stored"
    after = honest("cn.demo.lab7/pool/late", rev=42, prev=opened(late).sha256.hex())
    assert world.catalogue.admit(after, NOW_S).outcome == "stored"


def test_a_tombstone_needs_to_say_nothing_more() -> None:
    world = RecordWorld()
    gone = honest("cn.demo.lab7/dataset/d", status="withdrawn", exp=NOW_S + 60)
    assert world.catalogue.admit(gone, NOW_S).spec is None
    again = honest("cn.demo.lab7/dataset/d", rev=2, prev=opened(gone).sha256.hex())
    with pytest.raises(TielineError) as caught:
        world.catalogue.admit(again, NOW_S)
    assert caught.value.reasons[0].code == "withdrawn"


def test_a_tombstone_with_a_dotted_name_ends_nobody_elses_prefix() -> None:
    world = RecordWorld()
    world.catalogue.admit(honest("cn.demo/owner/lab7.team", status="withdrawn"), NOW_S)
    assert world.catalogue.admit(honest("cn.demo.lab7.team/pool/x"), NOW_S).outcome == "stored"


def test_an_admission_carries_what_an_index_needs() -> None:
    world = RecordWorld()
    envelope = honest("cn.demo.lab7/pool/new", spec={"core_count": 64, "site": "cn.demo.lab7/site/s1"})
    admission = world.catalogue.admit(envelope, NOW_S)
    assert isinstance(admission, Admission)
    assert admission.spec is not None
    assert msgspec.to_builtins(admission.spec) == {"core_count": 64, "site": "cn.demo.lab7/site/s1"}
    assert admission.envelope == envelope
    assert admission.head.public == key_of("cn.demo.lab7#k1").public


def test_an_annotation_by_a_neighbour_or_by_the_parent_is_welcome() -> None:
    world = RecordWorld()
    for prefix in ("cn.demo.lab8", "cn.demo"):
        spec = {"subject": A100, "says": "probe", "readings": {"rtt_us": 900}}
        assert world.catalogue.admit(honest(f"{prefix}/annotation/a", spec=spec), NOW_S).outcome == "stored"


def test_a_payload_is_what_the_forge_says() -> None:
    """The forge that every attack is made with makes valid records when it is not told otherwise."""
    assert opened(honest(A100)).record.id == payload(A100)["id"]
    assert opened(honest(A100, nb=PAST_S)).record.nb == PAST_S
