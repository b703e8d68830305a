"""Whatever an owner signs, and whichever way it comes: exchanges that saw the same keep the same."""

from __future__ import annotations

import hashlib
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from tieline.model.record import DelegatedKey, Record, Root, Status
from tieline.registry import Catalogue, Key, Outcome, opened, sign

NOW_S = 1_790_000_000
OWNER = Key(hashlib.sha256(b"fork").digest())
ROOT = Root(prefix="cn", keys=(DelegatedKey(kid="cn#exchange", public=OWNER.public, nb=0, exp=253_402_300_799),))
NAME = "cn/dataset/d"


@cache
def payload(rev: int, status: Status, size_bytes: int) -> bytes:
    """One thing that the owner signed of the same identifier; equal revisions with unequal payloads among them."""
    spec = {} if status is Status.WITHDRAWN else {"size_bytes": size_bytes}
    prev = "" if rev == 1 else f"{size_bytes:064x}"
    record = Record(
        id=NAME, kind="dataset", rev=rev, prev=prev, nb=NOW_S - 60, exp=NOW_S + 86_400, status=status, spec=spec
    )
    return sign(record, OWNER, "cn#exchange")


def follower() -> Catalogue:
    return Catalogue((ROOT,))


def take(catalogue: Catalogue, envelopes: list[bytes]) -> None:
    """One page, as an exchange takes it: what is kept of it is kept."""
    intake = catalogue.intake("cn", NOW_S)
    for judged in intake.judge_all(envelopes):
        if getattr(judged, "outcome", None) is Outcome.STORED or getattr(judged, "fresh", None) is not None:
            catalogue.keep(judged.envelope)


signed = st.builds(payload, st.integers(1, 4), st.sampled_from(Status), st.integers(0, 3))


@given(st.lists(signed, min_size=1, max_size=8), st.data())
def test_what_is_kept_does_not_rest_on_the_order_in_which_it_came(envelopes: list[bytes], data: st.DataObject) -> None:
    one, other = follower(), follower()
    take(one, envelopes)
    for envelope in data.draw(st.permutations(envelopes)):
        take(other, [envelope])
    assert one.head(NAME) == other.head(NAME)


@given(st.lists(signed, min_size=1, max_size=6), st.lists(signed, min_size=1, max_size=6))
def test_two_that_saw_different_payloads_agree_once_they_have_shown_each_other_what_they_kept(
    here: list[bytes], there: list[bytes]
) -> None:
    one, other = follower(), follower()
    take(one, here)
    take(other, there)
    kept = [_kept(one, here), _kept(other, there)]
    take(one, kept)
    take(other, kept)
    assert one.head(NAME) == other.head(NAME)


def _kept(catalogue: Catalogue, seen: list[bytes]) -> bytes:
    head = catalogue.head(NAME)
    assert head is not None
    return next(envelope for envelope in seen if opened(envelope).sha256.hex() == head.sha256)
