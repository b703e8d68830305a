"""The owner's word at the site: who is taken, how the work is kept apart, and every reason for a no."""

from __future__ import annotations

from typing import Any

import pytest
from site_offers import OWNER, ask, core_offer, cores, offer, pool, state

from tieline.model.protocol import Offer
from tieline.model.reason import CATALOGUE, Reason
from tieline.model.task import DataUse, Resources, Task
from tieline.place.demand import Caller
from tieline.place.demand import demand_values as placed_values
from tieline.site import Pool
from tieline.site.admission import Admission, Isolation, admit, isolate
from tieline.site.policy import demand_values, policy_refusal
from tieline.site.pool import Counter


def refusal(offered: Offer, *pools: Pool, **fields: Any) -> Reason:
    reason = admit(state(*pools, **fields), offered)
    assert isinstance(reason, Reason), reason
    assert reason.code in CATALOGUE
    return reason


def isolation(at: Pool, **task: Any) -> Isolation:
    offered = core_offer(**task) if at.is_sold_by_core else offer(**task)
    admission = admit(state(at), offered)
    assert isinstance(admission, Admission), admission
    return admission.isolation


@pytest.mark.parametrize(
    ("offered", "code"),
    [
        (offer(pool=f"{OWNER}/pool/other"), "pool_not_here"),
        (offer(alternative=1), "offer_wrong"),
        (offer(alternative=-1), "offer_wrong"),
        (offer(accelerator_count=0), "offer_wrong"),
        (offer(accelerator_count=-4), "offer_wrong"),
        (offer(nodes=2, accelerator_count=3), "offer_wrong"),
        (offer(nodes=5, accelerator_count=4), "offer_wrong"),
        (offer(memory_bytes=-1), "offer_wrong"),
        (offer(run="../../etc.1"), "offer_wrong"),
        (offer(run="a b.1"), "offer_wrong"),
        (offer(run="é.1"), "offer_wrong"),
        (offer(type="service"), "kind_not_offered"),
        (offer(accelerator_count=5), "accelerators_total"),
        (offer(core_count=9), "cores_total"),
        (offer(memory_bytes=65 * 10**9), "memory_total"),
        (offer(resources=(Resources(accelerator="a100", disk_bytes=2 * 10**12),)), "disk_total"),
        (offer(price_micro_cny_per_unit_hour=19_999_999), "price_above"),
        (offer(resources=(Resources(accelerator="a100", image="ubuntu"),)), "image_not_offered"),
        (offer(epoch=-1), "offer_wrong"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_reason(offered: Offer, code: str):
    assert refusal(offered).code == code


def test_a_core_pool_refuses_an_offer_that_asks_for_no_core():
    assert refusal(core_offer(core_count=0), cores()).code == "offer_wrong"


def test_access_is_the_owner_s_to_give():
    private, partner = pool(access="private"), pool(access="partner", partners=("cn.demo.uni",))
    assert refusal(offer(), private).code == "access_private"
    assert isinstance(admit(state(private), offer(user_owner=OWNER)), Admission)
    assert isinstance(admit(state(partner), offer()), Admission)
    assert refusal(offer(user_owner="cn.demo.other"), partner).code == "access_partner"
    assert isinstance(admit(state(pool(access="partner", partners=("alice",))), offer(user_owner="")), Admission)


def test_less_than_the_listed_price_is_taken_down_to_the_floor_only():
    with_floor = pool(counter=Counter(price_floor_micro_cny=15_000_000))
    assert isinstance(admit(state(with_floor), offer(price_micro_cny_per_unit_hour=15_000_000)), Admission)
    reason = refusal(offer(price_micro_cny_per_unit_hour=14_999_999), with_floor)
    assert reason.values == {"limit_micro_cny": 14_999_999, "lowest_micro_cny": 15_000_000}


# -- isolation ---------------------------------------------------------------------------------------------------------


def test_work_is_put_into_the_sandbox_wherever_there_is_one():
    assert isolation(pool()) == Isolation("process", "bubblewrap", "host")
    assert isolation(pool(), is_trusted=True) == Isolation("process", "bubblewrap", "host")
    assert isolation(pool(sandbox_rule="optional"), is_trusted=True) == Isolation("process", "none", "host")
    assert isolation(pool(sandbox_rule="optional")) == Isolation("process", "bubblewrap", "host")


def test_without_a_sandbox_only_work_that_asks_for_none_is_taken_and_never_where_the_owner_wants_one():
    assert isolation(cores()) == Isolation("process", "none", "host")
    assert refusal(core_offer(is_trusted=False), cores()).code == "sandbox_missing"
    assert refusal(core_offer(), cores(sandbox_rule="required")).code == "sandbox_missing"


def test_the_network_is_what_the_task_requires_or_the_owner_s_first_choice():
    assert isolation(pool(networks=("none", "host"))).network == "none"
    assert isolation(pool(networks=("none", "host")), network="host").network == "host"
    assert isolation(pool(), network="none").network == "none"
    assert refusal(offer(network="none"), pool(networks=("host",))).code == "network_not_offered"
    assert refusal(offer(), pool(networks=())).code == "network_not_offered"


def test_a_gang_needs_a_network_to_meet_on():
    assert isolation(pool(networks=("none", "host")), nodes=2).network == "host"
    assert refusal(offer(nodes=2), pool(networks=("none",))).values == {"asked": "host"}


def test_no_network_without_a_sandbox():
    assert refusal(core_offer(network="none"), cores()).code == "network_not_offered"


def test_an_image_needs_a_container_engine_and_a_script_a_process_engine():
    image = (Resources(accelerator="a100", image="ubuntu"),)
    both = pool(engines=("process", "container"))
    assert isolation(both, resources=image) == Isolation("container", "container", "host")
    assert refusal(offer(), pool(engines=("container",))).code == "kind_not_offered"
    assert isinstance(isolate(pool(engines=()), Task(), 0), Reason)


# -- policy ------------------------------------------------------------------------------------------------------------


def test_the_owner_s_policy_is_decided_once_more_here():
    short = pool(policy="duration < 2 h and not has_secrets")
    assert isinstance(admit(state(short), offer(max_duration_s=3_600)), Admission)
    assert refusal(offer(max_duration_s=9_000), short) == Reason(
        code="policy_not_met", values={"term": "duration < 2 h"}
    )
    assert refusal(offer(), short) == Reason(code="policy_unknown", values={"term": "duration < 2 h"})


def test_partners_are_a_set_of_the_owner():
    friends = pool(policy="user_owner in partners", partners=("cn.demo.uni",))
    assert isinstance(admit(state(friends), offer()), Admission)
    assert refusal(offer(user_owner="cn.demo.x"), friends).code == "policy_not_met"


def test_a_policy_that_cannot_be_read_admits_nobody():
    assert refusal(offer(), pool(policy="duration <")).values == {"term": "(unreadable)"}


def test_an_empty_policy_admits_everybody():
    assert policy_refusal("  ", (), {}) is None


@pytest.mark.parametrize(
    "task",
    [
        Task(name="t", run="x"),
        Task(
            name="gang", nodes=3, is_trusted=True, network="host", priority=7, deadline_s=60, budget_micro_cny=5,
            max_duration_s=90, secrets=("A",), labels={"team": "x"}, data=(DataUse(site="s", residency="owner"),),
            resources=(Resources(accelerator="A100-80GB", accelerator_count=2, core_count=4, memory_bytes=9,
            disk_bytes=3, image="i", max_price_micro_cny=30_000_000),),
        ),
        Task(run="x", resources=(Resources(accelerator_count=2),)),
        Task(run="x", nodes=2, resources=(Resources(core_count=4),)),
        Task(run="x", resources=(Resources(accelerator="my card!"),)),
    ],
)  # fmt: skip
def test_a_policy_reads_the_same_values_here_as_where_the_exchange_places(task: Task):
    price = task.resources[0].max_price_micro_cny
    placed = placed_values(
        task, 0, Caller(name="alice", owner="cn.demo.uni", roles=("user",)), price_micro_cny=price or 20_000_000
    )
    assert demand_values(_offer_of(task)) == placed


def _offer_of(task: Task) -> Offer:
    return Offer(
        run="j-1.1", job="j-1", epoch=1, pool="p", task=task, alternative=0, user="alice", user_owner="cn.demo.uni",
        price_micro_cny_per_unit_hour=20_000_000,
    )  # fmt: skip


def test_what_the_exchange_knows_of_the_data_reaches_the_policy():
    careful = pool(policy='not "secret" in data_class')
    assert refusal(offer(data_class=("secret",)), careful).code == "policy_not_met"
    assert isinstance(admit(state(careful), offer(data_class=("open",))), Admission)


def test_a_question_reads_the_price_that_is_asked():
    assert demand_values(ask(asked_price_micro_cny_per_unit_hour=7))["price"] == 7
    assert demand_values(ask())["price"] is None
