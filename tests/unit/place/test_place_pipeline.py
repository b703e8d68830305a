"""The pipeline: every step drops what it should, says why in numbers, and says which change would help."""

import pytest
from place_world import ALICE, GB, NOW_MS, a_demand, a_pool, a_task, chosen, cores, counts, planned

from tieline.model.reason import CATALOGUE, Reason, sentence
from tieline.model.spec import DatasetSpec, SiteSpec
from tieline.model.task import DataUse
from tieline.place import Caller, DataFact, Placement, Pools, demand_of, is_possible
from tieline.place.pipeline import FIRST_PASSING, STEPS
from tieline.ports import ConstantDistances

A100 = {"accelerator": "a100", "accelerator_count": 1}
DIGITS = "cn.lab/dataset/digits"
HOME = ConstantDistances(readings_us={("shanghai", "cn.lab/site/one"): 4_000, ("shanghai", "cn.lab/site/two"): 2_000})


def digits(**spec):
    return {"data": (DataUse(id=DIGITS),), "data_facts": {DIGITS: DataFact(owner="cn.lab", spec=DatasetSpec(**spec))}}


# (what is told, pool, demand, reason, term of the relaxation)
CASES = [
    ("type", a_pool("one"), a_demand(type="service"), Reason(code="kind_not_offered", values={"asked": "service"}), ""),
    ("kind", a_pool("one", accelerator="h100"), a_demand(A100),
     Reason(code="accelerator_kind", values={"asked": "a100"}), "accelerator a100 h100 1"),
    ("cores for accelerators", cores("one"), a_demand({"accelerator_count": 2}),
     Reason(code="accelerator_kind", values={"asked": "any"}), ""),
    ("accelerators for cores", a_pool("one"), a_demand({}), Reason(code="cores_not_sold"), ""),
    ("architecture", a_pool("one"), a_demand(A100 | {"architecture": "aarch64"}),
     Reason(code="architecture", values={"asked": "aarch64"}), "architecture aarch64 any 1"),
    ("accelerator memory", a_pool("one"), a_demand(A100 | {"accelerator_memory_bytes": 80 * GB}),
     Reason(code="accelerator_memory", values={"asked_bytes": 80 * GB, "most_bytes": 40 * GB}),
     "accelerator_memory 80 GB 40 GB 1"),
    ("accelerator memory over", a_pool("one"), a_demand(A100 | {"accelerator_memory_most_bytes": 24 * GB}),
     Reason(code="accelerator_memory_over", values={"asked_bytes": 24 * GB, "least_bytes": 40 * GB}),
     "accelerator_memory 24 GB 40 GB 1"),
    ("accelerator memory not stated", a_pool("one", accelerator_memory_bytes=0),
     a_demand(A100 | {"accelerator_memory_most_bytes": 24 * GB}),
     Reason(code="accelerator_memory", values={"asked_bytes": 1, "most_bytes": 0}), ""),
    ("accelerators", a_pool("one"), a_demand({"accelerator": "a100", "accelerator_count": 16}),
     Reason(code="accelerators_total", values={"asked": 16, "most": 8}), "accelerators 16 8 1"),
    ("a gang", a_pool("one"), a_demand({"accelerator": "a100", "accelerator_count": 4}, nodes=3),
     Reason(code="accelerators_total", values={"asked": 12, "most": 8}), "accelerators 4 2 1"),
    ("a gang of many nodes", a_pool("one"), a_demand({"accelerator": "a100", "accelerator_count": 1}, nodes=9),
     Reason(code="accelerators_total", values={"asked": 9, "most": 8}), "nodes 9 8 1"),
    ("cores", cores("one"), a_demand({"core_count": 65}),
     Reason(code="cores_total", values={"asked": 65, "most": 64}), "cores 65 64 1"),
    ("memory", a_pool("one"), a_demand(A100 | {"memory_bytes": 600 * GB}),
     Reason(code="memory_total", values={"asked_bytes": 600 * GB, "most_bytes": 512 * GB}), "memory 600 GB 512 GB 1"),
    ("disk", a_pool("one"), a_demand(A100 | {"disk_bytes": 2_000 * GB}),
     Reason(code="disk_total", values={"asked_bytes": 2_000 * GB, "most_bytes": 1_000 * GB}), "disk 2 TB 1 TB 1"),
    ("image", a_pool("one"), a_demand(A100 | {"image": "pytorch:2"}),
     Reason(code="image_not_offered", values={"asked": "pytorch:2"}), "image pytorch:2 none 1"),
    ("no image", a_pool("one", engines=("podman",)), a_demand(A100), Reason(code="image_required"),
     "image none an image 1"),
    ("network", a_pool("one", networks=("host",)), a_demand(A100, network="none"),
     Reason(code="network_not_offered", values={"asked": "none"}), "network none any 1"),
    ("sandbox", a_pool("one", sandbox=""), a_demand(A100), Reason(code="sandbox_missing"), ""),
    ("trusted without the owner's word", a_pool("one", sandbox="", policy="accelerators < 9"),
     a_demand(A100, is_trusted=True), Reason(code="sandbox_missing"), ""),
    ("private", a_pool("one", access="private"), a_demand(A100), Reason(code="access_private"), ""),
    ("partner", a_pool("one", access="partner", partners=("cn.bob",)), a_demand(A100), Reason(code="access_partner"),
     ""),
    ("owners", a_pool("one"), a_demand(A100, owners=("cn.x", "cn.y")),
     Reason(code="owner_not_asked", values={"asked": "cn.x, cn.y"}), "owners cn.x, cn.y cn.lab 1"),
    ("a cloud", a_pool("one"), a_demand(A100 | {"infra": "aws"}),
     Reason(code="infra_not_here", values={"asked": "aws"}), "infra aws any 1"),
    ("price", a_pool("one"), a_demand(A100 | {"max_price_micro_cny": 9_000_000}),
     Reason(code="price_above", values={"limit_micro_cny": 9_000_000, "lowest_micro_cny": 10_000_000}),
     "max_price 9.00 10.00 1"),
    ("where", a_pool("one"), a_demand(A100 | {"where": "count >= 8 and price < 5"}),
     Reason(code="query_not_met", values={"term": "price < 5", "nearest": "10.00 CNY"}), "price 5.00 CNY 10.00 CNY 1"),
    ("where without numbers", a_pool("one"), a_demand(A100 | {"where": "region == shanghai or region == beijing"}),
     Reason(code="query_unknown", values={"term": "region == shanghai or region == beijing"}), ""),
    ("where of words", a_pool("one"), a_demand(A100 | {"where": "vendor == x or access == private"}),
     Reason(code="query_unknown", values={"term": "vendor == x or access == private"}), ""),
    ("where of one word", a_pool("one"), a_demand(A100 | {"where": "access == private"}),
     Reason(code="query_not_met", values={"term": "access == private", "nearest": "-"}),
     "access == private access == private without it 1"),
    ("where that is unknown", a_pool("one"), a_demand(A100 | {"where": "rtt(mars) < 1ms"}),
     Reason(code="query_unknown", values={"term": "rtt(mars) < 1ms"}), ""),
    ("policy", a_pool("one", policy='user != "alice" and accelerators < 9'), a_demand(A100),
     Reason(code="policy_not_met", values={"term": 'user != "alice"'}), ""),
    ("policy that is unknown", a_pool("one", policy="duration < 1h"), a_demand(A100),
     Reason(code="policy_unknown", values={"term": "duration < 1h"}), ""),
    ("policy that does not compile", a_pool("one", policy="duration <"), a_demand(A100),
     Reason(code="policy_unknown", values={"term": "(unreadable)"}), ""),
    ("data without a record", a_pool("one"), a_demand(A100, data=(DataUse(id=DIGITS),)),
     Reason(code="data_unknown", values={"data": DIGITS}), ""),
    ("residency at a site", a_pool("one"), a_demand(A100, **digits(residency="site", sites=("cn.x/site/s",))),
     Reason(code="residency", values={"data": DIGITS, "scope": "site"}), ""),
    ("residency at an owner", a_pool("one", owner="cn.other"), a_demand(A100, **digits(residency="owner")),
     Reason(code="residency", values={"data": DIGITS, "scope": "owner"}), ""),
    ("budget", a_pool("one"), a_demand(A100, budget_micro_cny=10_000),
     Reason(code="budget_below",
            values={"budget_micro_cny": 10_000, "lowest_micro_cny": 19_444, "least_us": 7_000_000}),
     "budget 0.01 0.019444 1"),
    ("deadline", a_pool("one"), a_demand(A100, deadline_s=60, max_duration_s=90),
     Reason(code="deadline_missed", values={"earliest_us": 30_000_000}), "deadline as stated 30 s later 1"),
    ("expired record", a_pool("one", expires_ms=NOW_MS), a_demand(A100), Reason(code="record_expired"), ""),
    ("draining pool", a_pool("one", status="draining"), a_demand(A100), Reason(code="pool_draining"), ""),
    ("refused before", a_pool("one"), a_demand(A100, refused={"cn.lab/pool/one": "no"}),
     Reason(code="refused_by_owner", values={"why": "no"}), ""),
    ("another pool quoted", a_pool("one"), a_demand(A100, pool="cn.lab/pool/two"),
     Reason(code="pool_not_asked", values={"asked": "cn.lab/pool/two"}), ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pool", "demand", "reason", "relaxed"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_pool_that_does_not_fit_is_dropped_with_its_reason_and_the_change_that_helps(pool, demand, reason, relaxed):
    refusal = chosen(demand, [pool])
    assert refusal.reasons == (reason,)
    plan = planned(demand, [pool])
    assert plan.reasons == (reason,)
    assert plan.candidates == ()
    nearest = plan.nearest
    told = f"{nearest.term} {nearest.asked} {nearest.needed} {nearest.admits}" if nearest else ""
    assert told == relaxed


@pytest.mark.parametrize("reason", [case[3] for case in CASES], ids=[case[0] for case in CASES])
def test_every_reason_has_a_sentence_in_both_languages_with_all_of_its_numbers(reason):
    assert reason.code in CATALOGUE
    for lang in ("en", "zh"):
        said = sentence(reason, lang)
        assert "{" not in said
        nearest_is_unknown = reason.values.get("nearest") == "-"
        assert nearest_is_unknown or not said.endswith(" -")


@pytest.mark.parametrize(
    ("name", "is_lasting"),
    [(case[0], case[0] not in {"expired record", "draining pool", "refused before"}) for case in CASES],
)
def test_what_passes_by_itself_leaves_a_demand_possible(name, is_lasting):
    _, pool, demand, _, _ = next(case for case in CASES if case[0] == name)
    assert chosen(demand, [pool]).is_possible is not is_lasting
    assert planned(demand, [pool]).is_possible is not is_lasting


def test_lasting_steps_come_before_passing_ones_and_what_is_free_comes_last():
    assert all(step.is_lasting for step in STEPS[:FIRST_PASSING])
    assert not any(step.is_lasting for step in STEPS[FIRST_PASSING:])
    assert type(STEPS[-1]).__name__ == "Free"


def test_busy_is_told_from_never():
    pools = [cores("one"), cores("two", core_count=4)]
    everything = a_demand({"core_count": 64}, id="j-1")
    one, two = chosen([everything, a_demand({"core_count": 64}, id="j-2")], pools)
    assert isinstance(one, Placement)
    assert two.reasons == (
        Reason(code="cores_free", values={"asked": 64, "most": 0}),
        Reason(code="cores_total", values={"asked": 64, "most": 4}),
    )
    assert two.is_possible
    assert not chosen(a_demand({"core_count": 65}), pools).is_possible


def test_nothing_offered_at_all_is_a_reason_too():
    refusal = chosen(a_demand(), [])
    assert refusal.reasons == (Reason(code="no_pools", count=0, values={"asked": "task"}),)
    assert not refusal.is_possible
    assert chosen(a_demand(type="fleet"), []).reasons[0].code == "kind_not_offered"


def test_every_pool_is_counted_once_nearest_misses_first():
    pools = [
        a_pool("h", accelerator="h100"),
        a_pool("dear", price=30),
        a_pool("small", accelerator_count=1),
        cores("c"),
    ]
    refusal = chosen(
        a_demand({"accelerator": "a100", "accelerator_count": 2, "max_price_micro_cny": 20_000_000}), pools
    )
    assert [(reason.code, reason.count) for reason in refusal.reasons] == [
        ("price_above", 1), ("accelerators_total", 1), ("accelerator_kind", 2),
    ]  # fmt: skip
    assert refusal.considered == 4


def test_over_alternatives_a_pool_is_counted_where_it_came_furthest():
    pools = [a_pool("one", price=30)]
    demand = a_demand({"accelerator": "h100"}, A100 | {"max_price_micro_cny": 1_000_000})
    assert counts(chosen(demand, pools)) == {"price_above": 1}


def test_a_family_and_any_ask_for_more_than_one_kind():
    pools = [a_pool("n", accelerator="ascend-910b", price=1), a_pool("g", accelerator="h100", price=2)]
    assert chosen(a_demand({"accelerator": "npu"}), pools).candidate.pool == "cn.lab/pool/n"
    assert chosen(a_demand({"accelerator": "gpu"}), pools).candidate.pool == "cn.lab/pool/g"
    assert chosen(a_demand({"accelerator_count": 8}), pools).candidate.pool == "cn.lab/pool/n"


def test_an_image_runs_where_a_container_engine_is_and_is_its_own_sandbox():
    placed = chosen(a_demand(A100 | {"image": "pytorch:2"}), [a_pool("one", engines=("process", "podman"), sandbox="")])
    assert placed.candidate.sandbox == "container"


def test_an_owner_runs_its_own_work_bare_and_others_work_only_by_its_word():
    bare = a_pool("one", sandbox="")
    mine = a_demand(A100, caller=Caller(name="bob", owner="cn.lab"))
    assert chosen(mine, [bare]).candidate.sandbox == "none"
    trusting = a_pool("one", sandbox="", policy="is_trusted and user == alice")
    assert isinstance(chosen(a_demand(A100, is_trusted=True), [trusting]), Placement)
    assert counts(chosen(a_demand(A100), [trusting])) == {"sandbox_missing": 1}


def test_each_pool_of_a_stride_is_asked_by_itself():
    mine = a_demand(A100, caller=Caller(name="bob", owner="cn.bob"))
    for special in ({"sandbox": ""}, {"access": "private"}):
        pools = [
            a_pool("dear", price=20),
            a_pool("mine", owner="cn.bob", **special),
            a_pool("theirs", price=1, **special),
        ]
        assert chosen(mine, pools).candidate.pool == "cn.bob/pool/mine"


def test_partners_and_the_owner_may_use_what_others_may_not():
    partner = a_pool("one", access="partner", partners=("cn.alice", "carol"))
    assert isinstance(chosen(a_demand(A100), [partner]), Placement)
    assert isinstance(chosen(a_demand(A100, caller=Caller(name="carol")), [partner]), Placement)
    assert isinstance(chosen(a_demand(A100, caller=Caller(name="x", owner="cn.lab")), [partner]), Placement)
    assert counts(chosen(a_demand(A100, caller=Caller(name="x")), [partner])) == {"access_partner": 1}
    private = a_pool("one", access="private")
    assert isinstance(chosen(a_demand(A100, caller=Caller(name="x", owner="cn.lab")), [private]), Placement)


def test_a_policy_reads_the_owners_partners():
    pool = a_pool("one", policy="user_owner in partners", partners=("cn.alice",))
    assert isinstance(chosen(a_demand(A100), [pool]), Placement)
    assert counts(chosen(a_demand(A100, caller=Caller(name="x", owner="cn.x")), [pool])) == {"policy_not_met": 1}


def test_a_query_reads_the_askers_partners_and_readings():
    pools = [a_pool("one"), a_pool("two", price=20), a_pool("three", owner="cn.other")]
    near = a_demand(
        A100 | {"where": "owner in partners and rtt(shanghai) < 3ms"}, caller=Caller(name="alice", partners=("cn.lab",))
    )
    assert chosen(near, pools, HOME).candidate.pool == "cn.lab/pool/two"
    refusal = chosen(a_demand(A100 | {"where": "rtt(shanghai) < 1ms"}), pools, HOME)
    assert counts(refusal) == {"query_not_met": 2, "query_unknown": 1}
    assert refusal.reasons[0].values == {"term": "rtt(shanghai) < 1ms", "nearest": "2 ms"}
    nearest = planned(a_demand(A100 | {"where": "rtt(shanghai) < 1ms"}), pools, HOME).nearest
    assert (nearest.term, nearest.asked, nearest.needed, nearest.admits) == ("rtt(shanghai)", "1 ms", "2 ms", 1)


def test_an_expression_over_a_way_that_may_be_measured_waits_for_it_and_no_other_does():
    class Coming(ConstantDistances):
        def may_read(self, function, point, site):
            return (function, point) == ("rtt", "shanghai") and site != "cn.lab/site/far"

    def asked(where, pools, **readings):
        distances = Coming(readings_us={("shanghai", f"cn.lab/site/{name}"): us for name, us in readings.items()})
        demand = a_demand(A100 | {"where": where})
        refusal = chosen(demand, pools, distances)
        assert is_possible(demand, Pools(pools), distances, now_ms=NOW_MS) == refusal.is_possible
        return counts(refusal), refusal.is_possible

    one, far = a_pool("one"), a_pool("far")
    assert asked("rtt(shanghai) < 1ms", [one]) == ({"query_unmeasured": 1}, True)
    assert asked("rtt(shanghai) < 1ms", [one, far]) == ({"query_unmeasured": 1, "query_unknown": 1}, True)
    assert asked("rtt(shanghai) < 1ms", [far]) == ({"query_unknown": 1}, False)
    assert asked("rtt(shanghai) < 1ms", [one], one=2_000) == ({"query_not_met": 1}, False)
    assert asked("rtt(shanghai) < 1ms and price < 5", [one]) == ({"query_not_met": 1}, False)
    assert asked("rtt(shanghai) < 1ms and vendor == x", [one]) == ({"query_unknown": 1}, False)
    assert asked("vendor == x or not rtt(shanghai) < 1ms", [one]) == ({"query_unmeasured": 1}, True)
    assert asked("vendor == x or rtt(shanghai) < 1ms", [one], one=2_000) == ({"query_unknown": 1}, False)
    assert asked("rtt(mars) < 1ms and rtt(shanghai) < 1ms", [one]) == ({"query_unknown": 1}, False)
    assert asked("bandwidth(shanghai) > 1Mbps", [one]) == ({"query_unknown": 1}, False)
    dear = planned(a_demand(A100 | {"where": "rtt(shanghai) < 1ms", "max_price_micro_cny": 1}), [one], Coming())
    assert (dear.is_possible, [each.code for each in dear.reasons]) == (False, ["price_above"])


@pytest.mark.parametrize("infra", ["cn.lab/site/one", "ONE", "east"])
def test_infra_names_a_site_or_a_region(infra):
    pools = [a_pool("one", price=9, site_spec=SiteSpec(region="east")), a_pool("two", price=1)]
    assert chosen(a_demand(A100 | {"infra": infra}), pools).candidate.pool == "cn.lab/pool/one"
    busy = chosen([a_demand({"accelerator": "a100", "accelerator_count": 8, "infra": infra})] * 2, pools)[1]
    assert counts(busy) == {"accelerators_free": 1, "site_not_asked": 1}


def test_data_bound_to_its_owner_or_site_runs_there_although_it_is_dearer():
    pools = [a_pool("one", price=50), a_pool("two", owner="cn.cheap", price=1)]
    for residency in ("owner", "site"):
        demand = a_demand(A100, **digits(residency=residency, sites=("cn.lab/site/one",), size_bytes=1))
        assert chosen(demand, pools).candidate.pool == "cn.lab/pool/one"


def test_bytes_without_a_record_belong_to_the_owner_of_the_site_where_they_are():
    pools = [a_pool("one"), a_pool("two"), a_pool("three", owner="cn.other", price=1)]
    use = DataUse(site="cn.lab/site/one", size_bytes=10, residency="owner", path="in")
    plan = planned(a_demand(A100, data=(use,)), pools)
    assert [each.pool for each in plan.candidates] == ["cn.lab/pool/one", "cn.lab/pool/two"]


def test_an_unknown_rate_is_no_rate_and_may_become_known():
    class Unknown(ConstantDistances):
        def rate_bps(self, source, target):
            return None

    demand = a_demand(A100, **digits(size_bytes=GB, sites=("cn.x/site/s",)))
    refusal = chosen(demand, [a_pool("one")], Unknown())
    assert refusal.reasons == (Reason(code="data_rate_unknown", values={"data": DIGITS}),)
    assert refusal.is_possible
    here = a_demand(A100, **digits(size_bytes=GB, sites=("cn.lab/site/one",)))
    assert isinstance(chosen(here, [a_pool("one")], Unknown()), Placement)


def test_a_site_that_states_no_core_sells_none():
    assert counts(chosen(a_demand({}), [cores("one", core_count=0)])) == {"cores_total": 1}


def test_absurd_amounts_are_refused_and_overflow_nothing():
    huge = a_task({"accelerator": "a100", "accelerator_count": 10**7, "memory_bytes": 2**53 - 1}, nodes=100_000)
    refusal = chosen(demand_of(huge, ALICE, submitted_ms=NOW_MS), [a_pool("one")])
    assert counts(refusal) == {"accelerators_total": 1}
    assert planned(demand_of(huge, ALICE, submitted_ms=NOW_MS), [a_pool("one")]).is_possible is False
    dear = a_pool("dear", accelerator_count=10**7, price=10**6)
    placed = chosen(a_demand({"accelerator": "a100", "accelerator_count": 10**7}), [dear])
    assert placed.candidate.cost_micro_cny_per_hour > 0
