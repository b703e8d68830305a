"""Pools behind another exchange: what may go there, and who decides about them."""

import pytest
from place_world import GB, a_demand, a_pool, chosen, counts

from tieline.model.spec import DatasetSpec, SiteSpec
from tieline.model.task import DataUse
from tieline.place import OPEN_SITE, DataFact, Placement, Pools

AWAY = OPEN_SITE._replace(is_remote=True)
SITE = "cn.lab/site/one"


def remote(**spec):
    pools = Pools([a_pool("one", **spec)])
    pools.set_site(SITE, AWAY)
    return pools


def test_a_pool_behind_another_exchange_is_placed_on_like_any_other():
    assert isinstance(chosen(a_demand(), remote()), Placement)


@pytest.mark.parametrize("residency", ["exchange", "owner", "site"])
def test_bound_data_does_not_leave_the_exchange(residency):
    use = DataUse(id="cn.x/dataset/d", residency=residency)
    fact = DataFact(owner="cn.x", spec=DatasetSpec(size_bytes=GB, sites=("cn.x/site/s",)))
    demand = a_demand(data=(use,), data_facts={"cn.x/dataset/d": fact})
    assert counts(chosen(demand, remote())) == {"residency": 1}
    if residency == "exchange":
        assert isinstance(chosen(demand, Pools([a_pool("one")])), Placement)


@pytest.mark.parametrize("given", [{"secrets": ("TOKEN",)}, {"token": ("read:job",)}])
def test_secrets_go_to_another_exchange_only_where_they_can_be_sealed_to_the_site(given):
    demand = a_demand(**given)
    assert counts(chosen(demand, remote())) == {"sealing_unknown": 1}
    assert isinstance(chosen(demand, remote(site_spec=SiteSpec(sealing="k"))), Placement)
    assert isinstance(chosen(demand, Pools([a_pool("one")])), Placement)


@pytest.mark.parametrize("spec", [{"access": "private"}, {"access": "partner"}, {"policy": "user = 'nobody'"}])
def test_who_may_use_it_is_asked_over_there_and_asked_here_once_it_is_ours(spec):
    pools = remote(**spec)
    assert isinstance(chosen(a_demand(), pools), Placement)
    pools.set_site(SITE, OPEN_SITE)
    assert not isinstance(chosen(a_demand(), pools), Placement)
    pools.set_site(SITE, AWAY)
    assert isinstance(chosen(a_demand(), pools), Placement)


def test_what_may_go_there_is_asked_again_when_the_site_turns_out_to_be_away():
    pools = Pools([a_pool("one")])
    before = pools.version
    pools.set_site(SITE, AWAY)
    assert pools.version > before
    pools.set_site(SITE, AWAY._replace(is_silent=True))
    assert counts(chosen(a_demand(), pools)) == {"site_silent": 1}
    before = pools.version
    pools.forget_site(SITE)
    assert pools.version > before
    assert counts(chosen(a_demand(), pools)) == {"site_not_admitted": 1}


def test_a_record_that_comes_again_changes_nothing_of_that():
    pools = remote(access="private")
    pools.put(a_pool("one", access="private", price=3.0, policy="user = 'nobody'"))
    assert isinstance(chosen(a_demand(), pools), Placement)
