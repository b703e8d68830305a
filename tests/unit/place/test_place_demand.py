"""Demand: what a task asks, summed over its nodes, and what an owner's policy may read of it."""

import pytest
from place_world import ALICE, GB, a_demand, a_task

from tieline.language.attributes import TABLES
from tieline.model.error import TielineError
from tieline.model.spec import DataPlace, DatasetSpec
from tieline.model.task import DataUse
from tieline.place import Amount, DataFact, demand_values

DIGITS = "cn.lab/dataset/digits"


def fact(**spec):
    return {DIGITS: DataFact(owner="cn.lab", spec=DatasetSpec(**spec))}


def test_amounts_are_over_all_nodes_and_units_are_accelerators():
    need = a_demand(
        {"accelerator": "a100", "accelerator_count": 8, "core_count": 4, "memory_bytes": GB}, nodes=3
    ).needs[0]
    assert need.amount == Amount(24, 12, 3 * GB)
    assert (need.unit, need.unit_count, need.per_node) == ("accelerator", 24, 8)


def test_an_accelerator_that_is_named_without_a_count_is_one():
    assert a_demand({"accelerator": "h100"}).needs[0].amount == Amount(1, 0, 0)


def test_a_count_without_a_name_asks_for_any_accelerator():
    assert a_demand({"accelerator_count": 2}).needs[0].asked == "any"


def test_a_task_that_asks_nothing_takes_one_core_for_each_node():
    need = a_demand({}, nodes=4).needs[0]
    assert need.amount == Amount(0, 4, 0)
    assert (need.unit, need.unit_count, need.asked) == ("core", 4, "")


def test_each_alternative_is_a_need():
    demand = a_demand({"accelerator": "h100"}, {"accelerator": "a100"}, {"core_count": 8}, is_ordered=True)
    assert [need.asked for need in demand.needs] == ["h100", "a100", ""]
    assert [need.index for need in demand.needs] == [0, 1, 2]
    assert demand.is_ordered


def test_the_stricter_residency_of_use_and_record_binds():
    use = DataUse(id=DIGITS, residency="owner")
    assert a_demand(data=(use,), data_facts=fact(residency="site")).data[0].residency == "site"
    assert a_demand(data=(use,), data_facts=fact(residency="exchange")).data[0].residency == "owner"


def test_copies_and_sizes_come_from_the_use_and_from_the_record():
    use = DataUse(id=DIGITS, site="cn.b/site/b")
    term = a_demand(data=(use,), data_facts=fact(sites=("cn.a/site/a",), size_bytes=7)).data[0]
    assert (term.sites, term.size_bytes, term.owner) == (("cn.b/site/b", "cn.a/site/a"), 7, "cn.lab")


@pytest.mark.parametrize("path", ["", "in/digits"])
@pytest.mark.parametrize("residency", ["anywhere", "site"])
def test_a_task_does_not_talk_data_smaller_or_nearer_than_its_owner_says(path: str, residency: str):
    """What a site lays is charged whole, and data that is to stay stays."""
    places = (DataPlace(url="https://a.example/x", site="cn.a/site/a"),)
    use = DataUse(id=DIGITS, path=path, site="cn.b/site/b", size_bytes=1)
    facts = fact(places=places, size_bytes=7, sha256="0" * 64, residency=residency)
    term = a_demand(data=(use,), data_facts=facts).data[0]
    assert (term.is_laid, term.size_bytes) == ((True, 7) if path else (False, 1))
    assert ("cn.b/site/b" in term.sites) == (not path and residency == "anywhere")


def test_a_dataset_without_a_record_is_told_apart():
    assert a_demand(data=(DataUse(id="cn.lab/dataset/nowhere"),)).unknown_data == ("cn.lab/dataset/nowhere",)


def test_what_earlier_runs_cost_is_taken_from_the_budget():
    assert a_demand(budget_micro_cny=100, spent_micro_cny=30).budget_micro_cny == 70
    assert a_demand(budget_micro_cny=100, spent_micro_cny=130).budget_micro_cny == 0
    assert a_demand().budget_micro_cny is None


def test_a_deadline_counts_from_submission():
    assert a_demand(deadline_s=60, submitted_ms=5_000).deadline_ms == 65_000
    assert a_demand(submitted_ms=5_000).deadline_ms == 0


def test_a_query_that_does_not_compile_is_refused_with_its_place():
    with pytest.raises(TielineError) as refused:
        a_demand({"where": "price <"})
    assert refused.value.code == "invalid_expression"


def test_a_policy_reads_exactly_the_attributes_of_the_demand_table():
    values = demand_values(a_task(), 0, ALICE)
    assert set(values) == set(TABLES["demand"])


def test_what_was_not_said_is_unknown_to_a_policy():
    values = demand_values(a_task(), 0, ALICE)
    assert [values[name] for name in ("duration", "deadline", "price", "budget")] == [None] * 4
    assert values["network"] == "any"


def test_a_policy_reads_amounts_over_all_nodes_and_the_classes_of_the_data():
    task = a_task(
        {"accelerator": "a100", "accelerator_count": 2, "max_price_micro_cny": 5}, nodes=3, data=(DataUse(id=DIGITS),),
        max_duration_s=60, budget_micro_cny=9, labels={"team": "vision"}, secrets=("KEY",),
    )  # fmt: skip
    values = demand_values(task, 0, ALICE, facts=fact(data_class="core", residency="site"))
    assert (values["accelerators"], values["accelerators_per_node"], values["nodes"]) == (6, 2, 3)
    assert (values["data_class"], values["residency"]) == (("core",), ("site",))
    assert (values["duration"], values["budget"], values["price"]) == (60_000_000, 9, 5)
    assert (values["label"], values["has_secrets"], values["role"]) == ({"team": "vision"}, True, "user")
    assert demand_values(task, 0, ALICE, price_micro_cny=4)["price"] == 4


def test_a_quoted_alternative_is_the_only_one_and_keeps_its_number_and_values():
    demand = a_demand({"accelerator": "h100"}, {"core_count": 8}, alternative=1)
    assert [need.index for need in demand.needs] == [1]
    assert demand.values[demand.needs[0].index]["cores"] == 8


def test_kinds_and_architectures_are_compared_in_one_spelling():
    need = a_demand({"accelerator": "910b", "architecture": "amd64"}).needs[0]
    assert (need.asked, need.architecture) == ("ascend-910b", "x86_64")
