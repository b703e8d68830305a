"""Pools: never oversold, whatever records, heartbeats and bookings say in whatever order."""

import pytest
from place_world import GB, a_demand, a_pool, chosen, cores, counts

from tieline.place import OPEN_SITE, Amount, Placement, Pools, SiteFlags

ONE = "cn.lab/pool/one"


def test_what_is_held_is_not_free_and_what_is_released_is():
    pools = Pools([a_pool("one")])
    pools.hold(ONE, Amount(3, 4, 5))
    assert pools.free(ONE) == Amount(5, 60, 512 * GB - 5)
    assert pools.held(ONE) == Amount(3, 4, 5)
    pools.release(ONE, Amount(3, 4, 5))
    assert pools.free(ONE) == Amount(8, 64, 512 * GB)


def test_holding_more_than_is_free_is_a_defect():
    pools = Pools([a_pool("one")])
    pools.hold(ONE, Amount(accelerators=8))
    with pytest.raises(AssertionError):
        pools.hold(ONE, Amount(accelerators=1))


def test_releasing_more_than_is_held_is_a_defect():
    pools = Pools([a_pool("one")])
    pools.hold(ONE, Amount(accelerators=1))
    with pytest.raises(AssertionError):
        pools.release(ONE, Amount(accelerators=2))


def test_a_heartbeat_bounds_what_is_free_and_never_raises_it_over_the_record():
    pools = Pools([a_pool("one")])
    pools.hold(ONE, Amount(accelerators=2))
    pools.set_available(ONE, Amount(5, 64, 512 * GB))
    assert pools.free(ONE).accelerators == 3
    pools.set_available(ONE, Amount(50, 640, 5_120 * GB))
    assert pools.free(ONE) == Amount(6, 64, 512 * GB)


def test_a_pool_that_its_owner_shrank_below_its_holds_offers_nothing_and_keeps_them():
    pools = Pools([a_pool("one")])
    pools.hold(ONE, Amount(accelerators=6))
    pools.put(a_pool("one", accelerator_count=4))
    assert pools.free(ONE).accelerators == 0
    assert pools.held(ONE).accelerators == 6
    pools.release(ONE, Amount(accelerators=6))
    assert pools.free(ONE).accelerators == 4


def test_what_was_booked_before_a_restart_is_held_although_the_pool_shrank():
    pools = Pools([a_pool("one", accelerator_count=4)])
    assert pools.hold_again(ONE, Amount(accelerators=6))
    assert pools.free(ONE).accelerators == 0
    pools.release(ONE, Amount(accelerators=3))
    assert pools.free(ONE).accelerators == 1
    assert not pools.hold_again("cn.lab/pool/gone", Amount(accelerators=1))


def test_a_withdrawn_pool_keeps_its_holds_until_they_are_released_and_comes_back_with_them():
    pools = Pools([a_pool("one")])
    pools.hold(ONE, Amount(accelerators=6))
    pools.remove(ONE)
    assert pools.get(ONE) is None
    assert len(pools) == 0
    assert pools.held(ONE).accelerators == 6
    pools.put(a_pool("one"))
    assert pools.free(ONE).accelerators == 2
    pools.remove(ONE)
    pools.release(ONE, Amount(accelerators=6))
    assert pools.held(ONE) == Amount()
    pools.put(a_pool("one"))
    assert pools.free(ONE).accelerators == 8


def test_rows_are_used_again_without_traces_of_the_pool_before():
    pools = Pools([a_pool("one", policy="user == bob", partners=("cn.x",), access="partner")])
    row = pools.index(ONE)
    pools.remove(ONE)
    assert pools.put(cores("two")) == row
    assert pools.policies == 0
    assert pools.posting("a100").rows.tolist() == []
    assert isinstance(chosen(a_demand({"core_count": 1}), _open(pools)), Placement)


def test_a_posting_is_in_order_of_price_and_then_of_identifier_after_every_change():
    pools = Pools([a_pool("b", price=5), a_pool("a", price=5), a_pool("c", price=4), cores("d", price=1)])
    assert _names(pools, "a100") == ["c", "a", "b"]
    assert _names(pools, "gpu") == _names(pools, "any") == ["c", "a", "b"]
    assert _names(pools, "") == ["d"]
    assert _names(pools, "npu") == []
    pools.set_price("cn.lab/pool/b", 3_000_000)
    assert _names(pools, "a100") == ["b", "c", "a"]
    assert pools.get("cn.lab/pool/b").price_micro_cny_per_unit_hour == 3_000_000
    pools.put(a_pool("b", accelerator="ascend-910b"))
    assert _names(pools, "a100") == ["c", "a"]
    assert _names(pools, "npu") == ["b"]


def test_a_hundred_pools_grow_every_column():
    pools = Pools(a_pool(f"p{at:03}", price=at) for at in range(100))
    assert len(pools) == 100
    assert _names(pools, "any")[:2] == ["p000", "p001"]
    assert pools.free("cn.lab/pool/p099").accelerators == 8


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (SiteFlags(), "site_not_admitted"),
        (SiteFlags(is_admitted=True, is_draining=True), "site_draining"),
        (SiteFlags(is_admitted=True, is_silent=True), "site_silent"),
    ],
)
def test_a_site_that_is_not_open_takes_nothing_and_says_why(flags, code):
    pools = Pools([a_pool("one")])
    pools.set_site("cn.lab/site/one", flags)
    refusal = chosen(a_demand(), pools)
    assert counts(refusal) == {code: 1}
    assert refusal.is_possible
    pools.set_site("cn.lab/site/one", OPEN_SITE)
    assert isinstance(chosen(a_demand(), pools), Placement)
    pools.forget_site("cn.lab/site/one")
    assert counts(chosen(a_demand(), pools)) == {"site_not_admitted": 1}


def test_a_site_may_be_known_before_its_pools():
    pools = Pools()
    pools.set_site("cn.lab/site/one", OPEN_SITE)
    pools.put(a_pool("one"))
    assert isinstance(chosen(a_demand(), pools), Placement)
    assert [row.id for row in pools.site_pools("cn.lab/site/one")] == [ONE]


def test_queries_read_what_is_free_after_holds():
    pools = Pools([a_pool("one")])
    asked = a_demand({"accelerator": "a100", "accelerator_count": 1, "where": "free >= 6 and cores_free > 60"})
    assert isinstance(chosen(asked, pools), Placement)
    pools.hold(ONE, Amount(accelerators=3))
    assert counts(chosen(asked, pools)) == {"query_not_met": 1}


def test_a_size_that_the_owner_did_not_state_is_unknown_to_a_query():
    pools = Pools([a_pool("one", memory_bytes=0)])
    asked = a_demand({"accelerator": "a100", "accelerator_count": 1, "where": "memory < 1TB"})
    assert counts(chosen(asked, pools)) == {"query_unknown": 1}


def _open(pools):
    for row in pools.live:
        pools.set_site(pools.at(int(row)).site, OPEN_SITE)
    return pools


def _names(pools, asked):
    return [pools.at(int(row)).id.rsplit("/", 1)[-1] for row in pools.posting(asked).rows]


@pytest.mark.parametrize(
    "row",
    [a_pool("a"), a_pool("a", is_emulated=True), a_pool("a", evidence={"accelerator_count": "measured"}),
     cores("a", is_emulated=True), cores("a", evidence={"cores": "measured"})],
)  # fmt: skip
def test_the_evidence_of_a_pool_is_that_of_what_it_sells(row):
    name = "count" if row.sells_accelerators else "cores"
    assert row.evidence == row.values()["evidence"][name]
