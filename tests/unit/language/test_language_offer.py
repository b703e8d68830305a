"""Records as queries read them."""

from __future__ import annotations

import re

import pytest

from tieline.language.family import family
from tieline.language.offer import offer_values
from tieline.language.types import Type, read_instant, read_number, show, write_instant, write_number
from tieline.model.spec import AgentSpec, DatasetSpec, LinkSpec, ModelSpec, PoolSpec, SiteSpec


def test_a_pool_states_its_family_its_site_and_what_each_value_rests_on():
    spec = PoolSpec(
        site="cn.a/site/s",
        accelerator="ascend-910b",
        accelerator_count=8,
        core_count=64,
        price_micro_cny_per_accelerator_hour=0,
        architecture="aarch64",
        evidence={"core_count": "measured"},
        is_emulated=True,
    )
    values = offer_values(
        "cn.a/pool/p", spec, site=SiteSpec(tier="hub", region="sh", door="https://door"), updated_ms=5
    )
    assert {name: values[name] for name in ("id", "kind", "owner", "name", "status", "updated")} == {
        "id": "cn.a/pool/p",
        "kind": "pool",
        "owner": "cn.a",
        "name": "p",
        "status": "active",
        "updated": 5,
    }
    assert (values["npu"], values["gpu"], values["count"], values["cores"]) == (8, 0, 8, 64)
    assert (values["tier"], values["region"], values["has_door"], values["declared_by"]) == ("hub", "sh", True, None)
    assert (values["price"], values["memory"], values["disk"], values["sandbox"]) == (0, None, None, "none")
    evidence = values["evidence"]
    assert (evidence["cores"], evidence["count"], evidence["price"]) == ("measured", "emulated", "declared")


def test_a_pool_without_accelerators_has_none_and_one_without_a_known_site_has_no_tier():
    values = offer_values("cn.a/pool/p", PoolSpec(site="cn.a/site/s", core_count=4))
    assert (values["accelerator"], values["npu"], values["gpu"]) == ("none", 0, 0)
    assert "tier" not in values


@pytest.mark.parametrize(("said", "kept"), [("a100-80gb", "a100"), ("910b", "ascend-910b"), ("novel-9", "novel-9")])
def test_accelerators_have_one_spelling(said, kept):
    values = offer_values("cn.a/pool/p", PoolSpec(accelerator=said, accelerator_count=1, architecture="arm64"))
    assert (values["accelerator"], values["architecture"]) == (kept, "aarch64")


def test_the_other_kinds_state_their_own():
    values = offer_values("cn.a/site/s", SiteSpec(tier="region"))
    assert (values["site"], values["tier"]) == ("cn.a/site/s", "region")
    values = offer_values("cn.a/dataset/d", DatasetSpec(size_bytes=9, sites=("cn.a/site/s",), licence="MIT"))
    assert (values["size"], values["sites"], values["licence"], values["residency"]) == (
        9,
        ("cn.a/site/s",),
        "MIT",
        "anywhere",
    )
    values = offer_values("cn.a/model/m", ModelSpec(metrics_millionths={"accuracy": 970_000}))
    assert (values["metric"], values["size"]) == ({"accuracy": 970_000}, None)
    values = offer_values("cn.a/agent/a", AgentSpec(url="https://a", skills=("plan",)))
    assert (values["url"], values["skills"]) == ("https://a", ("plan",))
    values = offer_values("cn.a/link/l", LinkSpec(rate_bps=10**9, rtt_us=0, ends=("x", "y")))
    assert (values["link_rate"], values["link_rtt"], values["ends"]) == (10**9, None, ("x", "y"))


@pytest.mark.parametrize(
    ("accelerator", "vendor", "expected"),
    [
        ("", "", ""),
        ("a100", "", "gpu"),
        ("h20", "nvidia", "gpu"),
        ("dcu-k100", "", "gpu"),
        ("ascend-910c", "", "npu"),
        ("mlu590", "", "npu"),
        ("kunlun-p800", "", "npu"),
        ("tpu-v5e", "", "npu"),
        ("unheard-of", "", "gpu"),
        ("unheard-of", "cambricon", "npu"),
        ("npu-x", "", "npu"),
    ],
)
def test_each_accelerator_is_of_one_family(accelerator, vendor, expected):
    assert family(accelerator, vendor) == expected


@pytest.mark.parametrize(
    ("kind", "number", "unit", "value"),
    [
        (Type.COUNT, "8", "", 8),
        (Type.COUNT, "-8", "", -8),
        (Type.MONEY, "3.2", "", 3_200_000),
        (Type.MONEY, "320", "分", 3_200_000),
        (Type.SIZE, "24", "gb", 24 * 10**9),
        (Type.SIZE, "0", "", 0),
        (Type.DURATION, "1.5", "ms", 1_500),
        (Type.DURATION, "2", "h", 7_200_000_000),
        (Type.RATE, "10", "Gbps", 10**10),
        (Type.SHARE, "0.97", "", 970_000),
    ],
)
def test_numbers_are_read_into_base_units_and_written_back_exactly(kind, number, unit, value):
    assert read_number(kind, number, unit) == value
    match = re.fullmatch(r"(-?[0-9.]+) ?(.*)", write_number(kind, value))
    assert match is not None
    assert read_number(kind, match[1], match[2]) == value


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31T10:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31T10:00:00.250+08:00", "2026-01-31T02:00:00.250Z"),
    ],
)
def test_instants_are_written_as_short_as_they_are_exact(text, short):
    assert write_instant(read_instant(text)) == short
    assert read_instant(short) == read_instant(text)


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (Type.MONEY, 3_200_000, "3.20 CNY"),
        (Type.SIZE, 24 * 10**9, "24 GB"),
        (Type.DURATION, 1_500, "1.5 ms"),
        (Type.RATE, 10**10, "10Gbps"),
        (Type.COUNT, 12_000, "12,000"),
        (Type.SHARE, 970_000, "0.97"),
        (Type.FLAG, True, "true"),
        (Type.WORDS, ("a", "b"), "a, b"),
        (Type.TEXT, "hub", "hub"),
        (Type.INSTANT, 0, "1970-01-01"),
    ],
)
def test_values_are_shown_as_people_read_them(kind, value, shown):
    assert show(kind, value) == shown
