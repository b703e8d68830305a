"""What find says: offers in order, counted reasons, the nearest change."""

from __future__ import annotations

import numpy as np
import pytest

from tieline.find import Index, find, prepare
from tieline.language import Context
from tieline.model.error import TielineError
from tieline.model.reason import CATALOGUE, sentence
from tieline.model.spec import AgentSpec, DatasetSpec, LinkSpec, ModelSpec, PartySpec, PoolSpec, SiteSpec

RTT = {"cn.a/site/s": 400, "cn.b/site/s": 6_800}


def readings(function, point, sites):
    values = np.array([RTT.get(site, 0) if function == "rtt" else 0 for site in sites])
    return values, values > 0


CONTEXT = Context(sets={"partners": ["cn.a", "cn.b"]}, readings=readings)


@pytest.fixture
def index():
    made = Index()
    for owner, tier in (("cn.a", "hub"), ("cn.b", "edge"), ("cn.c", "edge")):
        made.put_record(f"{owner}/site/s", SiteSpec(tier=tier, region="sh"), updated_ms=1)
    for name, owner, accelerator, price, tags in (
        ("one", "cn.a", "a100", 12, ("green",)),
        ("two", "cn.a", "h20", 8, ()),
        ("three", "cn.b", "a100", 10, ("green",)),
        ("four", "cn.c", "ascend-910b", 6, ()),
        ("five", "cn.c", "", 1, ()),
    ):
        spec = PoolSpec(
            site=f"{owner}/site/s",
            title=f"pool {name}",
            accelerator=accelerator,
            accelerator_count=8 if accelerator else 0,
            core_count=64,
            memory_bytes=10**12,
            price_micro_cny_per_accelerator_hour=price * 10**6,
            tags=tags,
            evidence={"core_count": "measured"},
        )
        made.put_record(f"{owner}/pool/{name}", spec, updated_ms=price)
    made.set_free(["cn.a/pool/one", "cn.a/pool/two", "cn.b/pool/three"], free=[2, 8, 4], cores_free=[1, 2, 3])
    return made


def names(answer):
    return [offer.id.rsplit("/", 1)[-1] for offer in answer.offers]


def said(answer):
    return [(reason.count, sentence(reason)) for reason in answer.reasons]


def test_the_cheapest_comes_first_and_every_loser_is_counted_with_its_reason(index):
    answer = find(index, "gpu >= 1 and rtt(shanghai) < 7ms and price < 12 and free >= 4", context=CONTEXT, as_of_ms=77)
    assert names(answer) == ["two", "three"]
    assert (answer.considered, answer.matched, answer.as_of_ms, answer.nearest) == (5, 2, 77, None)
    assert said(answer) == [
        (2, "`gpu >= 1` does not hold (nearest: 0)"),
        (1, "`price < 12` does not hold (nearest: 12.00 CNY)"),
    ]


def test_unknown_never_matches_and_is_counted_apart(index):
    answer = find(index, "rtt(shanghai) < 1ms and cores >= 1", context=CONTEXT)
    assert names(answer) == ["two", "one"]
    assert said(answer) == [
        (1, "`rtt(shanghai) < 1ms` does not hold (nearest: 6.8 ms)"),
        (2, "`rtt(shanghai) < 1ms` is unknown: no reading"),
    ]
    answer = find(index, "not rtt(shanghai) < 1ms", kind="pool", context=CONTEXT)
    assert names(answer) == ["three"]


def test_the_accelerator_is_counted_without_looking_at_the_others_and_names_what_there_is(index):
    answer = find(index, "price < 11 and accelerator == A100")
    assert names(answer) == ["three"]
    assert said(answer) == [
        (3, "`accelerator == A100` does not hold (nearest: ascend-910b, h20, none)"),
        (1, "`price < 11` does not hold (nearest: 12.00 CNY)"),
    ]


def test_texts_are_answered_with_what_most_of_the_others_say(index):
    answer = find(index, "tier == region", kind="pool")
    assert said(answer) == [(5, "`tier == region` does not hold (nearest: edge, hub)")]
    assert answer.nearest is not None
    assert (answer.nearest.term, answer.nearest.asked, answer.nearest.needed) == ("tier", "region", "edge")
    assert answer.nearest.admits == 3


@pytest.mark.parametrize(
    ("query", "nearest"),
    [
        ("accelerator == a100 and price < 9", ("price", "< 9.00 CNY", "<= 10.00 CNY", 1)),
        ("gpu >= 1 and price < 20 and free >= 9", ("free", ">= 9", ">= 8", 1)),
        ("rtt(shanghai) < 100us and gpu >= 1", ("rtt(shanghai)", "< 100 us", "<= 400 us", 2)),
        ("count == 7", ("count", "== 7", "== 8", 4)),
        ("count in [7, 9] and gpu >= 1", ("count in [7, 9]", "count in [7, 9]", "without it", 3)),
        ("accelerator == mlu590 and price < 7", ("accelerator", "mlu590", "ascend-910b", 1)),
        ("owner in partners and npu >= 1", ("owner in partners", "owner in partners", "without it", 1)),
        ("has(purple) and tier == hub and gpu >= 1", ("has(purple)", "has(purple)", "without it", 2)),
        ("price < 20 and disk > 1TB", ("disk > 1TB", "disk > 1TB", "without it", 5)),
    ],
)
def test_the_nearest_change_is_one_term_moved_to_a_value_that_is_there(index, query, nearest):
    answer = find(index, query, context=CONTEXT)
    assert answer.matched == 0
    found = answer.nearest
    assert found is not None
    assert (found.term, found.asked, found.needed, found.admits) == nearest


def test_the_change_that_is_proposed_does_admit_as_many_as_it_says(index):
    assert find(index, "accelerator == a100 and price <= 10").matched == 1
    assert find(index, "gpu >= 1 and price < 20 and free >= 8").matched == 1
    assert find(index, "rtt(shanghai) <= 400us and gpu >= 1", context=CONTEXT).matched == 2


def test_nothing_is_proposed_when_one_change_is_not_enough(index):
    assert find(index, "price < 0.1 and free >= 99 and npu >= 99").nearest is None
    assert find(Index(), "price < 1").nearest is None


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("price", ["five", "four", "two", "three", "one"]),
        ("", ["five", "four", "two", "three", "one"]),
        ("newest", ["one", "three", "two", "four", "five"]),
        ("name", ["five", "four", "one", "three", "two"]),
        ("free", ["two", "three", "one"]),
        ("-price", ["one", "three", "two", "four", "five"]),
        ("price + 1000 * rtt(shanghai)", ["two", "one", "three"]),
        ("price - 2 * free", ["two", "three", "one"]),
    ],
)
def test_answers_stand_in_the_order_that_was_asked_and_unknown_comes_last(index, order, expected):
    answer = find(index, kind="pool", order=order, context=CONTEXT)
    assert names(answer)[: len(expected)] == expected
    assert len(answer.offers) == 5
    again = find(index, kind="pool", order=order, limit=2, context=CONTEXT)
    assert again.offers == answer.offers[:2]
    assert again.matched == 5


def test_a_ranking_scores_its_offers_and_an_order_does_not(index):
    answer = find(index, "accelerator == a100", order="price + 10 * rtt(shanghai)", context=CONTEXT)
    assert [offer.score for offer in answer.offers] == [pytest.approx(16.0), pytest.approx(78.0)]
    assert [offer.score for offer in find(index, "accelerator == a100").offers] == [0.0, 0.0]


def test_an_offer_holds_its_attributes_in_base_units_with_what_they_rest_on(index):
    (offer,) = find(index, "accelerator == a100 and tier == hub and rtt(shanghai) < 1ms", context=CONTEXT).offers
    assert (offer.id, offer.kind, offer.owner, offer.title) == ("cn.a/pool/one", "pool", "cn.a", "pool one")
    values = offer.attributes
    assert (values["price_micro_cny"], values["memory_bytes"], values["free"], values["gpu"]) == (
        12_000_000,
        10**12,
        2,
        8,
    )
    assert (values["tier"], values["region"], values["tags"], values["updated_ms"]) == ("hub", "sh", ("green",), 12)
    assert (values["rtt(shanghai)_us"], offer.evidence["rtt(shanghai)_us"]) == (400, "measured")
    assert (offer.evidence["cores"], offer.evidence["price_micro_cny"], offer.evidence["free"]) == (
        "measured",
        "declared",
        "declared",
    )
    (other,) = find(index, "npu >= 1 and not rtt(shanghai) < 1ms or npu >= 1", context=CONTEXT).offers
    assert "rtt(shanghai)_us" not in other.attributes
    assert other.evidence["rtt(shanghai)_us"] == "unknown"


@pytest.mark.parametrize(
    ("kind", "spec", "query"),
    [
        (
            "dataset",
            DatasetSpec(title="digits", size_bytes=10**9, residency="site"),
            "size <= 1GB and residency == site",
        ),
        ("model", ModelSpec(title="m", metrics_millionths={"accuracy": 971_000}), "metric(accuracy) > 0.97"),
        ("agent", AgentSpec(title="a", skills=("plan",), protocols=("a2a",)), "plan in skills and a2a in protocols"),
        ("link", LinkSpec(ends=("x", "y"), rate_bps=10**10), "link_rate >= 10Gbps and x in ends"),
        ("app", PartySpec(title="app", url="https://app"), "url == 'https://app'"),
        ("endpoint", PartySpec(url="https://e"), "kind == endpoint and url != x"),
        (
            "site",
            SiteSpec(tier="region", declared_by="cn.x"),
            "kind == site and tier == region and declared_by == cn.x",
        ),
    ],
)
def test_every_kind_is_findable_by_what_it_states(index, kind, spec, query):
    index.put_record(f"cn.z/{kind}/it", spec)
    answer = find(index, query)
    assert [offer.id for offer in answer.offers] == [f"cn.z/{kind}/it"]
    assert f"cn.z/{kind}/it" in [offer.id for offer in find(index, kind=kind).offers]


def test_a_query_that_no_kind_can_meet_says_which_attributes_do_not_go_together(index):
    answer = find(index, "npu >= 1 and size > 1GB")
    assert (answer.considered, answer.matched) == (0, 0)
    assert [sentence(reason) for reason in answer.reasons] == [
        "no kind of offer has all of these attributes: `npu` (pool), `size` (dataset, model)"
    ]


@pytest.mark.parametrize(
    ("keywords", "code", "words"),
    [
        ({"query": "prise < 3"}, "invalid_expression", "did you mean"),
        ({"query": "owner in strangers"}, "invalid_expression", "`strangers` is not a named set here"),
        ({"kind": "spaceship"}, "invalid_request", "`spaceship` is no kind"),
        ({"kind": "annotation"}, "invalid_request", "is no kind that can be found"),
        ({"limit": 0}, "invalid_request", "limit 0 is not between 1 and 1,000"),
        ({"limit": 1_001}, "invalid_request", "limit 1001"),
        ({"order": "owner"}, "invalid_expression", "ranked by numbers"),
        ({"order": "cheapest"}, "invalid_expression", "is not an attribute"),
    ],
)
def test_a_bad_request_is_refused_whole(index, keywords, code, words):
    with pytest.raises(TielineError) as refusal:
        find(index, context=CONTEXT, **keywords)
    assert refusal.value.code == code
    assert words in refusal.value.message + " ".join(refusal.value.hints)


def test_a_prepared_query_refuses_as_find_does(index):
    with pytest.raises(TielineError, match="not a named set"):
        prepare(index, "owner in strangers")
    with pytest.raises(TielineError, match="no kind that can be found"):
        prepare(index, "price < 3", kind="spaceship")


def test_every_reason_has_its_sentence_in_both_languages(index):
    for query in ("price < 0", "rtt(x) < 1ms", "npu >= 1 and size > 1GB"):
        for reason in find(index, query).reasons:
            assert reason.code in CATALOGUE
            assert sentence(reason, "zh") != sentence(reason, "en")
