"""The index follows what happens, and its postings stay in order."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tieline.find import Index, find, posting, prepare
from tieline.find.posting import TIE_BITS, UNPRICED, tie
from tieline.language import Context
from tieline.model.record import Delegation
from tieline.model.spec import PoolSpec, SiteSpec


def ids(index, query="", **keywords):
    return [offer.id for offer in find(index, query, limit=1_000, **keywords).offers]


def pool(price, accelerator="a100", **fields):
    return PoolSpec(
        accelerator=accelerator, accelerator_count=8, price_micro_cny_per_accelerator_hour=price * 10**6, **fields
    )


def test_a_record_replaces_the_one_before_and_keeps_what_is_free():
    index = Index()
    index.put_record("cn.a/pool/p", pool(5))
    index.set_free(["cn.a/pool/p", "cn.a/pool/not-here"], free=[3, 9])
    index.put_record("cn.a/pool/p", pool(4, "h20", title="moved"))
    (offer,) = find(index, "free == 3").offers
    assert (offer.attributes["accelerator"], offer.attributes["price_micro_cny"], offer.title) == (
        "h20",
        4_000_000,
        "moved",
    )
    assert ids(index, "accelerator == a100") == []
    assert len(index) == 1
    assert "cn.a/pool/p" in index


def test_a_pool_is_joined_with_its_site_whichever_comes_first():
    index = Index()
    index.put_record("cn.a/pool/p", pool(5, site="cn.a/site/s"))
    assert ids(index, "tier == hub") == []
    index.put_record("cn.a/site/s", SiteSpec(tier="hub", region="sh"))
    index.put_record("cn.a/pool/q", pool(6, site="cn.a/site/s"))
    assert ids(index, "tier == hub", kind="pool") == ["cn.a/pool/p", "cn.a/pool/q"]
    index.put_record("cn.a/site/s", SiteSpec(tier="region"))
    assert ids(index, "tier == region and not (region == sh)", kind="pool") == []
    assert ids(index, "tier == region", kind="pool") == ["cn.a/pool/p", "cn.a/pool/q"]


def test_a_silent_site_shows_as_such_and_what_is_free_there_is_unknown():
    index = Index()
    index.put_record("cn.a/site/s", SiteSpec())
    index.put_record("cn.a/pool/p", pool(5, site="cn.a/site/s"))
    index.set_free(["cn.a/pool/p"], free=[8])
    index.set_status("cn.a/site/s", "silent", is_heard=False)
    assert ids(index, "status == silent", kind="pool") == ["cn.a/pool/p"]
    assert find(index, "free >= 1").reasons[0].code == "query_unknown"
    index.set_status("cn.a/site/s", "active")
    index.set_free(["cn.a/pool/p"], free=[8])
    assert ids(index, "status == active and free >= 1") == ["cn.a/pool/p"]


def test_a_record_that_is_renewed_does_not_wake_a_silent_site_nor_end_a_drain():
    index = Index()
    index.put_record("cn.a/site/s", SiteSpec())
    index.set_status("cn.a/site/s", "silent", is_heard=False)
    index.put_record("cn.a/pool/p", pool(5, site="cn.a/site/s"), status="draining")
    assert sorted(ids(index, "status == silent")) == ["cn.a/pool/p", "cn.a/site/s"]
    index.set_free(["cn.a/pool/p"], free=[8])
    index.put_record("cn.a/pool/p", pool(5, site="cn.a/site/s"), status="draining")
    assert find(index, "free >= 1").reasons[0].code == "query_unknown"
    index.set_status("cn.a/site/s", "active")
    assert ids(index, "status == draining") == ["cn.a/pool/p"]
    index.set_status("cn.a/site/s", "draining")
    index.put_record("cn.a/pool/p", pool(5, site="cn.a/site/s"))
    assert len(ids(index, "status == draining")) == 2
    index.set_status("cn.a/site/s", "active")
    assert ids(index, "status == active", kind="pool") == ["cn.a/pool/p"]


def test_removed_and_expired_things_are_found_no_more():
    index = Index()
    for number in range(4):
        index.put_record(f"cn.a/pool/p{number}", pool(number), expires_ms=number * 100)
    assert index.expire(99) == ()
    assert index.expire(200) == ("cn.a/pool/p1", "cn.a/pool/p2")
    assert index.remove("cn.a/pool/p3")
    assert not index.remove("cn.a/pool/p3")
    assert ids(index, "price >= 0") == ["cn.a/pool/p0"]
    index.put_record("cn.a/pool/p0", pool(1), expires_ms=50)
    index.put_record("cn.a/pool/p0", pool(1), expires_ms=900)  # renewed
    assert index.expire(100) == ()
    assert index.expire(900) == ("cn.a/pool/p0",)
    assert len(index) == 0
    assert index.postings == {}


def test_an_owner_is_findable_too():
    index = Index()
    spec = Delegation(prefix="cn.a", keys=(), kinds=("pool", "model"), max_records=10, title="Lab A 实验室")
    index.put_record("cn/owner/a", spec)
    assert ids(index, "kind == owner and prefix == cn.a and pool in may_register") == ["cn/owner/a"]
    assert ids(index, words="实验室") == ["cn/owner/a"]


def test_equal_prices_stand_in_an_order_that_no_name_decides():
    index = Index()
    for number in range(200):
        index.put_record(f"cn.a/pool/p{number:03d}", pool(5))
    found = ids(index, "gpu >= 1")
    assert found == sorted(found, key=tie)
    assert found != sorted(found)
    assert prepare(index, "gpu >= 1").ids(7) == found[:7]


def test_postings_stay_sorted_through_merges_and_gaps(monkeypatch):
    monkeypatch.setattr(posting, "MAX_TAIL", 16)
    chance, index, prices = random.Random(7), Index(), {}
    for turn in range(1_500):
        key = f"cn.a/pool/p{chance.randrange(120)}"
        if chance.random() < 0.25:
            assert index.remove(key) == (prices.pop(key, None) is not None)
        else:
            prices[key] = chance.randrange(50)
            index.put_record(key, pool(prices[key], chance.choice(["a100", "h20"])))
        if turn % 100 == 0:
            for one in index.postings.values():
                assert (np.diff(one.keys) >= 0).all()
                assert len(one) == len(one.live_rows())
            expected = sorted(prices, key=lambda key: (prices[key], tie(key)))
            assert ids(index, "gpu >= 1") == expected
            assert prepare(index, "gpu >= 1").ids(1_000) == expected


def test_heartbeats_reach_what_a_prepared_query_reads(monkeypatch):
    monkeypatch.setattr(posting, "MAX_TAIL", 2)
    index = Index()
    keys = [f"cn.a/pool/p{number}" for number in range(8)]
    for number, key in enumerate(keys):
        index.put_record(key, pool(number))
    prepared = prepare(index, "accelerator == a100 and free >= 4")
    assert prepared.ids(5) == []
    index.set_free(keys[:6], free=[1, 2, 3, 4, 5, 6])
    assert prepared.ids(5) == keys[3:6]
    assert prepared.ids(2) == keys[3:5]
    index.set_free(keys[3:4], free=[0])
    assert prepared.ids(5) == keys[4:6]
    index.update(keys[4], {"free": None})
    assert prepared.ids(5) == keys[5:6]
    index.set_free(keys, free=[9] * 8)
    assert prepared.ids(8) == keys
    index.update(keys[0], {"free": None})  # all were known: now one is not
    assert prepared.ids(8) == keys[1:]
    assert find(index, "accelerator == a100 and free >= 4").reasons[0].count == 1


def test_new_words_reach_a_prepared_query(monkeypatch):
    monkeypatch.setattr(posting, "MAX_TAIL", 1)
    index = Index()
    sites = {"cn.a/site/s0": 100}
    context = Context(
        sets={"partners": ["cn.a", "cn.b"]},
        readings=lambda _f, _p, names: (
            np.array([sites.get(name, 0) for name in names]),
            np.array([name in sites for name in names]),
        ),
    )
    index.put_record("cn.a/pool/p0", pool(0, site="cn.a/site/s0"))
    prepared = prepare(
        index, "owner in partners and rtt(here) < 1ms and tags_ in tags or rtt(here) < 1ms", context=context
    )
    assert prepared.ids(9) == ["cn.a/pool/p0"]
    for number in range(1, 6):
        sites[f"cn.b/site/s{number}"] = 100
        index.put_record(f"cn.b/pool/p{number}", pool(number, site=f"cn.b/site/s{number}", tags=(f"t{number}",)))
        assert len(prepared.ids(9)) == number + 1
    assert prepare(index, "t5 in tags").ids(9) == ["cn.b/pool/p5"]


def test_many_rows_from_a_snapshot_answer_as_the_same_rows_one_by_one():
    chance = random.Random(3)
    rows = [
        {
            "id": f"cn.o{number % 7}/pool/p{number}",
            "kind": "pool",
            "owner": f"cn.o{number % 7}",
            "site": f"cn.o{number % 7}/site/s",
            "accelerator": chance.choice(["a100", "h20", None]),
            "price": chance.choice([None, *range(9)]),
            "free": chance.randrange(9),
        }
        for number in range(300)
    ]
    slow, fast = Index(), Index()
    for row in rows:
        slow.put(row)
    names = [name for name in rows[0] if name != "id"]
    fast.extend([row["id"] for row in rows], {name: [row[name] for row in rows] for name in names})
    for query in ("", "accelerator == a100 and free >= 4", "price < 0.000005", "accelerator != h20"):
        assert find(slow, query).offers == find(fast, query).offers
        assert find(slow, query).reasons == find(fast, query).reasons
    fast.set_status("cn.o1/site/s", "silent", is_heard=False)
    assert find(fast, "status == silent").matched == sum(row["owner"] == "cn.o1" for row in rows)
    with pytest.raises(ValueError, match="twice"):
        fast.extend([rows[0]["id"]], {"kind": ["pool"]})


def test_a_price_beyond_every_bound_is_still_a_price():
    index = Index()
    index.put({"id": "cn.a/pool/p", "kind": "pool", "price": 10**12})
    index.put({"id": "cn.a/pool/q", "kind": "pool"})
    assert (UNPRICED << TIE_BITS) + (1 << TIE_BITS) <= 2**63
    assert prepare(index, "price >= 1").ids(5) == ["cn.a/pool/p"]
    assert prepare(index, "price < 9007199254 CNY").ids(5) == ["cn.a/pool/p"]
    assert prepare(index, "price > -1").ids(5) == ["cn.a/pool/p"]
    assert prepare(index, "price < -1").ids(5) == []
    assert prepare(index, "").ids(5) == ["cn.a/pool/p", "cn.a/pool/q"]


def test_hostile_variety_of_accelerators_leaves_nothing_behind():
    index = Index()
    for number in range(300):
        index.put_record("cn.a/pool/p", pool(1, f"kind-{number}"))
    assert len(index.postings) == 1


def test_what_stays_after_its_lease_is_told_apart_and_judged_again():
    index = Index()
    for number in range(3):
        index.put_record(f"cn.a/pool/p{number}", pool(number), expires_ms=100 + number)
    assert index.expire(101, lambda key: key.endswith("p0")) == ("cn.a/pool/p1",)
    assert ids(index, "price >= 0") == ["cn.a/pool/p0", "cn.a/pool/p2"]
    assert [index.is_over(f"cn.a/pool/p{number}") for number in range(3)] == [True, False, False]
    assert index.expire(102, lambda key: True) == ()
    index.put_record("cn.a/pool/p2", pool(2), expires_ms=900)  # renewed while nobody could tell
    assert not index.is_over("cn.a/pool/p2")
    index.judge_again()
    assert index.expire(200) == ("cn.a/pool/p0",)
    assert ids(index, "price >= 0") == ["cn.a/pool/p2"]
