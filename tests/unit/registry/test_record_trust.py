"""The chain of trust over time: rotation, revocation, lost keys, narrowing, many levels."""

from __future__ import annotations

from typing import Any

import pytest

from record_world import DAY_S, NOW_S, delegated, delegation, forged, header, key_of, payload
from tieline.model.error import TielineError
from tieline.model.record import DelegatedKey, Root
from tieline.registry import SKEW_S, Catalogue

ROOT = Root(prefix="cn", keys=(DelegatedKey(**delegated("cn")),))


class Story:
    """A catalogue and the writers around it; every write is the next revision of its identifier."""

    def __init__(self) -> None:
        self.catalogue = Catalogue([ROOT])
        self.now_s = NOW_S

    def write(self, identifier: str, key_name: str = "k1", **changes: Any) -> str:
        """The outcome, or the rule that refused."""
        held = self.catalogue.head(identifier)
        if held is not None:
            changes = {"rev": held.rev + 1, "prev": held.sha256} | changes
        kid = f"{identifier.partition('/')[0]}#{key_name}"
        body = payload(identifier, **({"nb": self.now_s, "exp": self.now_s + 90 * DAY_S} | changes))
        try:
            return self.catalogue.admit(forged(body, header(kid), key_of(kid)), self.now_s).outcome
        except TielineError as error:
            return error.reasons[0].code

    def give(self, identifier: str, *keys: dict[str, Any], **changes: Any) -> str:
        """Delegate the prefix that ``identifier`` gives away."""
        prefix, _, name = identifier.split("/")
        spec = delegation(f"{prefix}.{name}", **changes)
        if keys:
            spec["keys"] = list(keys)
        return self.write(identifier, spec=spec)

    def standing(self, identifier: str) -> str:
        reason = self.catalogue.standing(identifier, self.now_s)
        return "counts" if reason is None else reason.code


def test_keys_rotate_with_an_overlap_and_nothing_falls_in_between() -> None:
    story = Story()
    old, new = delegated("cn.lab", "k1", exp=NOW_S + 10 * DAY_S), delegated("cn.lab", "k2")
    assert story.give("cn/owner/lab", old) == "stored"
    assert story.write("cn.lab/pool/a") == "stored"
    assert story.write("cn.lab/pool/b") == "stored"
    story.now_s += 5 * DAY_S
    assert story.give("cn/owner/lab", old, new) == "stored"
    assert story.write("cn.lab/pool/a", "k2") == "stored"  # signed again in the overlap
    assert (story.standing("cn.lab/pool/a"), story.standing("cn.lab/pool/b")) == ("counts", "counts")
    story.now_s += 6 * DAY_S
    assert (story.standing("cn.lab/pool/a"), story.standing("cn.lab/pool/b")) == ("counts", "key_expired")
    assert story.write("cn.lab/pool/b", "k1") == "key_expired"
    assert story.write("cn.lab/pool/b", "k2") == "stored"
    assert story.standing("cn.lab/pool/b") == "counts"


def test_an_owner_who_lost_its_key_goes_on_with_a_new_one_from_its_parent() -> None:
    story = Story()
    story.give("cn/owner/lab")
    story.write("cn.lab/pool/a")
    assert story.write("cn.lab/pool/a", "k2") == "key_unknown"
    assert story.give("cn/owner/lab", delegated("cn.lab", "k2")) == "stored"
    assert story.standing("cn.lab/pool/a") == "key_unknown"  # until it is signed again
    assert story.write("cn.lab/pool/a", "k2") == "stored"
    assert story.standing("cn.lab/pool/a") == "counts"
    head = story.catalogue.head("cn.lab/pool/a")
    assert head is not None
    assert (head.rev, head.kid) == (2, "cn.lab#k2")


def test_revocation_fences_what_was_signed_later_and_spares_what_was_held_before() -> None:
    story = Story()
    story.give("cn/owner/lab")
    story.write("cn.lab/pool/before")
    theft_s = story.now_s + DAY_S
    story.now_s += 2 * DAY_S
    story.write("cn.lab/pool/after")
    assert story.standing("cn.lab/pool/after") == "counts"
    revoked = delegated("cn.lab", "k1", revoked_from=theft_s)
    assert story.give("cn/owner/lab", revoked, delegated("cn.lab", "k2")) == "stored"
    assert story.standing("cn.lab/pool/before") == "counts"
    assert story.standing("cn.lab/pool/after") == "key_revoked"
    assert story.write("cn.lab/pool/new") == "key_revoked"
    assert story.write("cn.lab/pool/new", nb=theft_s - DAY_S) == "key_revoked"  # a thief can write any date
    assert story.write("cn.lab/pool/after", "k2") == "stored"
    assert story.standing("cn.lab/pool/after") == "counts"


def test_revoking_a_middle_key_fences_all_that_it_delegated_later() -> None:
    story = Story()
    story.give("cn/exchange/sh")
    story.give("cn.sh/owner/early")
    story.now_s += 2 * DAY_S
    story.give("cn.sh/owner/late")
    for name in ("early", "late"):
        assert story.write(f"cn.sh.{name}/pool/a") == "stored"
    revoked = delegated("cn.sh", "k1", revoked_from=story.now_s - DAY_S)
    story.give("cn/exchange/sh", revoked, delegated("cn.sh", "k2"))
    assert story.standing("cn.sh.early/pool/a") == "counts"
    assert story.standing("cn.sh.late/pool/a") == "key_revoked"
    assert story.write("cn.sh.late/pool/b") == "key_revoked"
    assert story.write("cn.sh.early/pool/b") == "stored"


def test_a_revocation_in_the_future_changes_nothing_until_then() -> None:
    story = Story()
    story.give("cn/owner/lab", delegated("cn.lab", "k1", revoked_from=NOW_S + DAY_S))
    assert story.write("cn.lab/pool/a") == "stored"
    story.now_s += 2 * DAY_S
    assert story.standing("cn.lab/pool/a") == "counts"
    assert story.write("cn.lab/pool/b") == "key_revoked"


def test_a_withdrawn_delegation_ends_everything_below_it() -> None:
    story = Story()
    story.give("cn/exchange/sh")
    story.give("cn.sh/owner/lab")
    story.write("cn.sh.lab/pool/a")
    assert story.write("cn/exchange/sh", status="withdrawn") == "stored"
    assert story.standing("cn.sh.lab/pool/a") == "delegation_withdrawn"
    assert story.write("cn.sh.lab/pool/b") == "delegation_withdrawn"
    assert story.give("cn/exchange/sh") == "withdrawn"  # the identifier is never reused


def test_a_withdrawn_prefix_may_go_to_another_record_and_its_old_records_do_not_follow() -> None:
    story = Story()
    story.give("cn/owner/lab")
    story.write("cn.lab/pool/a")
    story.write("cn/owner/lab", status="withdrawn")
    assert story.give("cn/exchange/lab", delegated("cn.lab", "k2")) == "stored"
    assert story.standing("cn.lab/pool/a") == "key_unknown"
    assert story.write("cn.lab/pool/b", "k2") == "stored"


def test_an_expired_delegation_ends_everything_below_it_until_it_is_renewed() -> None:
    story = Story()
    story.write("cn/owner/lab", spec=delegation("cn.lab"), exp=NOW_S + DAY_S)
    story.write("cn.lab/pool/a")
    story.now_s += DAY_S + SKEW_S - 1
    assert story.standing("cn.lab/pool/a") == "counts"
    story.now_s += 1
    assert story.standing("cn.lab/pool/a") == "delegation_expired"
    assert story.write("cn.lab/pool/b") == "delegation_expired"
    story.give("cn/owner/lab")
    assert story.standing("cn.lab/pool/a") == "counts"


def test_narrowing_a_delegation_narrows_everything_below_it_at_once() -> None:
    story = Story()
    story.give("cn/exchange/sh")
    story.give("cn.sh/owner/lab")
    story.write("cn.sh.lab/pool/a")
    story.write("cn.sh.lab/model/m")
    story.give("cn/exchange/sh", kinds=["owner", "model"])
    assert story.standing("cn.sh.lab/pool/a") == "kind_not_given"
    assert story.standing("cn.sh.lab/model/m") == "counts"
    assert story.write("cn.sh.lab/pool/b") == "kind_not_given"
    story.give("cn/exchange/sh", kinds=["pool", "model"])
    assert story.standing("cn.sh.lab/model/m") == "kind_not_given"  # cn.sh may not delegate any more


def test_a_quota_counts_all_that_lies_below() -> None:
    story = Story()
    story.give("cn/exchange/sh", max_records=4)
    assert story.give("cn.sh/owner/a", max_records=4) == "stored"
    assert story.give("cn.sh/owner/b", max_records=4) == "stored"
    assert story.write("cn.sh.a/pool/x") == "stored"
    assert story.write("cn.sh.b/pool/x") == "stored"
    assert story.write("cn.sh.a/pool/y") == "quota_full"
    assert story.catalogue.count("cn.sh") == 4
    assert story.write("cn.sh.a/pool/x", status="withdrawn") == "stored"  # no new identifier
    assert story.write("cn.sh.a/pool/y") == "quota_full"  # a tombstone keeps its place
    story.catalogue.forget("cn.sh.a/pool/x")
    assert story.write("cn.sh.a/pool/y") == "stored"


def test_eight_delegations_deep_is_the_end() -> None:
    story = Story()
    prefix = "cn"
    for step in range(8):
        assert story.give(f"{prefix}/owner/d{step}") == "stored"
        prefix += f".d{step}"
    assert story.write(f"{prefix}/pool/a") == "stored"
    assert story.give(f"{prefix}/owner/d8") == "chain_depth"
    assert len(story.catalogue.chain(prefix)) == 8


def test_a_key_is_told_while_its_chain_holds() -> None:
    story = Story()
    story.give("cn/owner/lab")
    kid = "cn.lab#k1"
    assert story.catalogue.key(kid, NOW_S) == key_of(kid).public
    assert story.catalogue.key("cn#k1", NOW_S) == key_of("cn#k1").public
    assert story.catalogue.key("cn.lab#k2", NOW_S) is None
    assert story.catalogue.key("cn.nobody#k1", NOW_S) is None
    assert story.catalogue.key(kid, NOW_S + 200 * DAY_S) is None
    story.write("cn/owner/lab", status="withdrawn")
    assert story.catalogue.key(kid, NOW_S) is None


def test_pinning_a_root_again_replaces_its_keys() -> None:
    story = Story()
    story.give("cn/owner/lab")
    story.write("cn.lab/pool/a")
    story.catalogue.pin(Root(prefix="cn", keys=(DelegatedKey(**delegated("cn", "k2")),)))
    assert story.standing("cn.lab/pool/a") == "key_unknown"
    assert story.write("cn/owner/lab", "k2", spec=delegation("cn.lab")) == "stored"
    assert story.standing("cn.lab/pool/a") == "counts"


@pytest.mark.parametrize(("ahead_s", "outcome"), [(SKEW_S, "stored"), (SKEW_S + 1, "lease_ahead")])
def test_a_writer_whose_clock_runs_ahead_is_borne_within_the_window(ahead_s: int, outcome: str) -> None:
    story = Story()
    story.give("cn/owner/lab")
    assert story.write("cn.lab/pool/a", nb=NOW_S + ahead_s) == outcome


def test_a_root_that_is_no_longer_pinned_speaks_for_nothing() -> None:
    story = Story()
    story.catalogue.pin(Root(prefix="org.lab", keys=(DelegatedKey(**delegated("org.lab")),)))
    assert story.write("org.lab/pool/a") == "stored"
    story.catalogue.unpin("org.lab")
    assert story.standing("org.lab/pool/a") != "counts"
    assert story.write("org.lab/pool/b") == "root_unknown"
    assert story.give("cn/owner/lab") == "stored"


def test_unpinning_leaves_what_a_record_gave_away() -> None:
    story = Story()
    assert story.give("cn/owner/lab") == "stored"
    story.catalogue.pin(Root(prefix="cn.lab", keys=(DelegatedKey(**delegated("cn.lab", "own")),)))
    assert story.write("cn.lab/pool/a") == "key_unknown"
    assert story.write("cn.lab/pool/b", "own") == "stored"
    story.catalogue.unpin("cn.lab")
    story.catalogue.unpin("cn.lab")
    assert story.write("cn.lab/pool/a") == "stored"
    assert story.standing("cn.lab/pool/b") == "key_unknown"
