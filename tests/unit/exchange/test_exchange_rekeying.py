"""An owner's prefix goes over to another key: by the owner's own word, or by an admin's where that word is gone."""

from __future__ import annotations

import msgspec
import pytest
from exchange_world import ADMIN, ALICE, PREFIX, World, seed

from tieline.exchange.commands import Rekey, StoreRecord
from tieline.exchange.rekeying import MOST_KEYS, OVERLAP_S
from tieline.model.error import TielineError
from tieline.model.party import Actor, Role
from tieline.model.record import Delegation, Record, Status
from tieline.model.rekeying import REKEY, RekeyStatement, RekeyView
from tieline.registry import Key, opened, sign, sign_statement

LAB = f"{PREFIX}.lab7"
OLD, NEW, THIRD = Key(seed("lab7")), Key(seed("lab7 new")), Key(seed("lab7 third"))
SITE = Actor(name=f"{LAB}/site/gz1", roles=(Role.SITE,), owner=LAB)
SMALL = {"core_count": 4, "price_micro_cny_per_accelerator_hour": 3_600_000}


@pytest.fixture
def lab(world: World) -> World:
    world.join("lab7", "gz1", **SMALL)
    return world


def asked(world: World, key: Key = OLD, kid: str = f"{LAB}#k1", kind: str = REKEY, **fields: object) -> bytes:
    said = RekeyStatement(
        **{
            "owner": LAB, "public": NEW.public, "is_revoking": False, "nonce": world.nonce(),
            "at_ms": world.clock.now_ms(), **fields,
        }
    )  # fmt: skip
    return sign_statement(said, key, kid, kind)


def keys(world: World) -> dict[str, tuple[int, int]]:
    """End and revocation by name."""
    envelope = world.view.catalogue.delegation(LAB)
    assert envelope is not None
    spec = msgspec.convert(opened(envelope).record.spec, Delegation)
    return {key.kid: (key.exp, key.revoked_from) for key in spec.keys}


def published(world: World, name: str, key: Key, kid: str) -> str:
    now_s = world.clock.now_ms() // 1000
    identifier = f"{LAB}/dataset/{name}"
    record = Record(id=identifier, kind="dataset", rev=1, nb=now_s - 10, exp=now_s + 999, spec={"size_bytes": 1})
    world.do(StoreRecord(actor=ADMIN, envelope=sign(record, key, kid)))
    return identifier


def test_an_owner_changes_its_key_and_both_speak_for_it_in_the_overlap(lab: World) -> None:
    view: RekeyView = lab.do(Rekey(actor=SITE, statement=asked(lab)))
    now_s = lab.clock.now_ms() // 1000
    assert (view.owner, view.kid, view.rev) == (LAB, f"{LAB}#k2", 2)
    assert keys(lab)[f"{LAB}#k1"] == (now_s + OVERLAP_S, 0)
    published(lab, "a", OLD, f"{LAB}#k1")
    published(lab, "b", NEW, view.kid)
    lab.clock.advance((OVERLAP_S + 3_600) * 1000)
    with pytest.raises(TielineError, match="expired"):
        published(lab, "c", OLD, f"{LAB}#k1")
    published(lab, "d", NEW, view.kid)


def test_asked_twice_it_happens_once(lab: World) -> None:
    first = lab.do(Rekey(actor=SITE, statement=asked(lab)))
    count = len(lab.events)
    lab.clock.advance(86_400_000)
    assert lab.do(Rekey(actor=SITE, statement=asked(lab, key=NEW, kid=first.kid))) == first
    assert len(lab.events) == count


def test_a_stolen_key_says_nothing_any_more_and_what_it_said_before_goes_on_counting(lab: World) -> None:
    before = published(lab, "a", OLD, f"{LAB}#k1")
    lab.clock.advance(60_000)
    view = lab.do(Rekey(actor=ADMIN, owner=LAB, public=NEW.public, is_revoking=True))
    now_s = lab.clock.now_ms() // 1000
    assert keys(lab)[f"{LAB}#k1"][1] == now_s
    assert lab.view.catalogue.standing(before, now_s) is None
    for refused in (lambda: published(lab, "b", OLD, f"{LAB}#k1"), lambda: lab.do(Rekey(statement=asked(lab)))):
        with pytest.raises(TielineError) as caught:
            refused()
        assert caught.value.code in ("record_refused", "forbidden")
    published(lab, "b", NEW, view.kid)
    with pytest.raises(TielineError, match="was revoked, and stays so"):
        lab.do(Rekey(actor=ADMIN, owner=LAB, public=OLD.public))


def test_a_site_joins_again_with_the_key_of_now(lab: World) -> None:
    lab.do(Rekey(actor=ADMIN, owner=LAB, public=NEW.public, is_revoking=True))
    from tieline.exchange.commands import JoinSite
    from tieline.model.api import JoinStatement

    def join(key: Key) -> object:
        said = JoinStatement(
            owner="lab7", owner_public=key.public, site="gz2", site_public=key.public, sealing=key.public,
            nonce=lab.nonce(), at_ms=lab.clock.now_ms(),
        )  # fmt: skip
        signed = sign_statement(said, key, f"{LAB}#join", "site-join")  # it knows no other name
        return lab.do(JoinSite(statement=signed, token_sha256=lab.token("lab7")))

    assert join(NEW).site == f"{LAB}/site/gz2"  # type: ignore[attr-defined]
    for key in (OLD, THIRD):
        with pytest.raises(TielineError, match="known here under other keys"):
            join(key)


def test_whoever_is_neither_owner_nor_admin_changes_nothing(lab: World) -> None:
    lab.join("lab8", "gz1", **SMALL)
    other = Actor(name=f"{PREFIX}.lab8/site/gz1", roles=(Role.SITE,), owner=f"{PREFIX}.lab8")
    auditor = Actor(name="eve", roles=(Role.AUDITOR,))
    stranger = Key(seed("stranger"))
    stale = asked(lab, at_ms=lab.clock.now_ms() - 3_600_000)
    used = asked(lab, is_revoking=False)
    lab.do(Rekey(actor=SITE, statement=used))
    before, count = keys(lab), len(lab.events)
    for command, code in (
        (Rekey(actor=ALICE, statement=asked(lab)), "forbidden"),
        (Rekey(actor=auditor, owner=LAB, public=THIRD.public), "forbidden"),
        (Rekey(actor=SITE, owner=LAB, public=THIRD.public), "forbidden"),
        (Rekey(actor=other, statement=asked(lab)), "not_found"),
        (Rekey(actor=SITE, statement=asked(lab, key=stranger)), "unauthenticated"),
        (Rekey(actor=SITE, statement=asked(lab, kind="site-hello")), "unauthenticated"),
        (Rekey(actor=SITE, statement=asked(lab, key=stranger, kid=f"{LAB}#k9")), "forbidden"),
        (Rekey(actor=SITE, statement=asked(lab, kid=f"{PREFIX}.lab8#k1")), "forbidden"),
        (Rekey(actor=SITE, statement=stale), "unauthenticated"),
        (Rekey(actor=SITE, statement=used), "unauthenticated"),
        (Rekey(actor=ADMIN), "invalid_request"),
        (Rekey(actor=ADMIN, owner=PREFIX, public=THIRD.public), "not_found"),
        (Rekey(actor=ADMIN, owner=f"{LAB}.deeper", public=THIRD.public), "not_found"),
        (Rekey(actor=ADMIN, owner=LAB, public="A" * 43), "record_refused"),  # a weak point
    ):
        with pytest.raises(TielineError) as caught:
            lab.do(command)
        assert caught.value.code == code, command
    assert (keys(lab), len(lab.events)) == (before, count)


def test_keys_are_bounded_and_their_names_are_never_used_again(lab: World) -> None:
    names: dict[str, None] = {}
    for number in range(MOST_KEYS + 4):
        lab.clock.advance(1_000)
        view = lab.do(Rekey(actor=ADMIN, owner=LAB, public=Key(seed(f"k{number}")).public, is_revoking=True))
        assert view.kid not in names
        names[view.kid] = None
    assert len(keys(lab)) == MOST_KEYS
    assert [revoked for _, revoked in keys(lab).values()].count(0) == 1


def test_a_prefix_that_was_taken_back_gets_no_key(lab: World) -> None:
    envelope = lab.view.catalogue.delegation(LAB)
    assert envelope is not None
    parcel = opened(envelope)
    over = msgspec.structs.replace(
        parcel.record, rev=2, prev=parcel.sha256.hex(), status=Status.WITHDRAWN, spec=parcel.record.spec
    )
    lab.do(StoreRecord(actor=ADMIN, envelope=sign(over, lab.keys.key, lab.keys.kid)))
    with pytest.raises(TielineError, match="was withdrawn"):
        lab.do(Rekey(actor=ADMIN, owner=LAB, public=NEW.public))
