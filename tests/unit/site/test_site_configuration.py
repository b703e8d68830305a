"""site.yaml: every field, every mistake with its place, and what a site offers without a file."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tieline.model.error import TielineError
from tieline.site.configuration import PoolConfig, SiteConfig
from tieline.site.found import Ability, Cards, Machine
from tieline.site.offering import Offered, offered
from tieline.site.pool import Counter
from tieline.site.siteyaml import FIELDS, json_schema, parse_site

EXAMPLES = sorted((Path(__file__).parents[3] / "examples" / "sites").glob("*.yaml"))
OWNER, SITE = "cn.demo.lab7", "cn.demo.lab7/site/gz1"
MACHINE = Machine(
    architecture="x86_64", core_count=64, memory_bytes=500 * 10**9, disk_bytes=10**12,
    cards=(Cards(kind="a100", vendor="nvidia", memory_bytes=80 * 10**9, devices=(0, 1, 2, 3)),),
)  # fmt: skip
PLAIN = Machine(architecture="x86_64", core_count=2, memory_bytes=8 * 10**9, disk_bytes=10**11)
BOXED = Ability(engines=("process",), sandbox="bubblewrap", networks=("host", "none"))
FULL = b"""
name: gz1
owner: lab7
title: \xe5\xb9\xbf\xe5\xb7\x9e\xe4\xb8\x80\xe5\x8f\xb7
tier: hub
region: guangzhou
labels: {team: vision}
engines: [process]
readable: [/opt/data]
offline: 25%
record_lease: 2d
proxy: http://proxy.lab7:3128
ca_file: /etc/lab7/ca.pem
pools:
  - name: gz1-a100
    title: Cards
    accelerator: NVIDIA A100-SXM4-80GB
    count: 2
    devices: [1, 3]
    vendor: nvidia
    cores: 16
    memory: 128GB
    disk: 2TB
    architecture: amd64
    class: super
    energy: hydro
    price: 18.50
    access: partner
    partners: [cn.demo.uni, alice]
    policy: duration < 2 h
    labels: {rack: r1}
    tags: [nvlink]
    networks: [none, host]
    sandbox: required
    counter: {price_floor: 15, max_duration: 2h, start_after: 5s, ttl: 30s}
    offline: 0%
fronts:
  - {name: cloud1, title: A cloud, tier: region, region: shanghai, url: "https://cloud.example/pools.json", every: 60s}
limits: {disk: 20GB, log: 1MiB, cache: 1GB, outputs: 2GB, kept_runs: 3, stage: 90s}
"""


def wrong(text: str) -> TielineError:
    with pytest.raises(TielineError) as caught:
        parse_site(text.encode())
    assert caught.value.code == "invalid_request"
    return caught.value


def test_every_field_is_read():
    config = parse_site(FULL)
    (pool,) = config.pools
    (front,) = config.fronts
    assert (config.name, config.owner, config.title, config.tier) == ("gz1", "lab7", "广州一号", "hub")
    assert (config.offline_percent, config.record_lease_s) == (25, 172_800)
    assert (config.engines, config.readable) == (("process",), ("/opt/data",))
    assert (pool.accelerator, pool.accelerator_memory_bytes, pool.devices) == ("a100", 80 * 10**9, (1, 3))
    assert (pool.price_micro_cny, pool.architecture, pool.sandbox) == (18_500_000, "x86_64", "required")
    assert pool.counter == Counter(price_floor_micro_cny=15_000_000, max_duration_s=7_200, start_after_s=5, ttl_s=30)
    assert (front.url, front.every_s) == ("https://cloud.example/pools.json", 60)
    assert (config.limits.log_bytes, config.limits.kept_runs) == (2**20, 3)


def test_nothing_written_means_the_defaults():
    assert parse_site(b"") == parse_site(b"# nothing\n") == SiteConfig()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("nam: x", 1, "did you mean `name`"),
        ("name: x\nname: y", 2, "written twice"),
        ("name: Gz1", 1, "lower-case"),
        ("place: Shanghai", 1, "`LATITUDE,LONGITUDE` in degrees"),
        ("place: 91,0", 1, "`LATITUDE,LONGITUDE` in degrees"),
        ("tier: national", 1, "one of `hub`, `region`, `edge`"),
        ("readable: [data]", 1, "absolute path"),
        ("offline: 25", 1, "a share such as `25%`"),
        ("record_lease: 10s", 1, "between 5 minutes"),
        ("pools:\n- price: 3", 2, "is missing"),
        ("pools:\n- {name: a, price: 3 USD}", 2, "not a unit"),
        ("pools:\n- {name: a, price: -3}", 2, "not a number"),
        ("pools:\n- {name: a, price: 2000000}", 2, "more than 1,000,000"),
        ("pools:\n- {name: a, count: 3}", 2, "name its kind"),
        ("pools:\n- {name: a, accelerator: a100, count: 2, devices: [1]}", 2, "different devices"),
        ("pools:\n- {name: a, accelerator: a100, devices: [1, 1]}", 2, "different devices"),
        ("pools:\n- {name: a, accelerator: a100, count: 0}", 2, "at least 1 card"),
        ("pools:\n- {name: a, policy: 'durationn < 2h'}", 2, "not an attribute"),
        ("pools:\n- {name: a, policy: 'price <'}", 2, "policy"),
        ("pools:\n- {name: a, price: 1, counter: {price_floor: 2}}", 2, "above the pool"),
        ("fronts:\n- {name: a}", 2, "either a `file` or a `url`"),
        ("fronts:\n- {name: a, file: x.csv, url: 'http://y'}", 2, "either a `file` or a `url`"),
        ("limits: {disk: much}", 1, "limits.disk"),
        ("door: {listen: 7443, url: 'gz1.example:7443'}", 1, "is not an address"),
        ("door: {listen: 7443, url: 'http://a:7443/?x'}", 1, "http://HOST:PORT"),
        ("- a", 1, "mapping"),
        ("a: [b", 1, "not closed"),
        ("name: x\n---\nname: y", 3, "one document"),
    ],
)
def test_a_mistake_is_said_with_its_line(text: str, line: int, says: str):
    error = wrong(text)
    assert f"line {line}" in error.message
    assert says in error.message
    assert error.where.startswith("site.yaml:")


def test_all_mistakes_are_found_at_once():
    assert len(wrong("nam: x\ntier: z\noffline: 1").reasons) == 3


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_cleanly(noise: bytes):
    assert read(noise) in ("read", "invalid_request")


def read(text: bytes) -> str:
    try:
        parse_site(text)
    except TielineError as error:
        return error.code
    return "read"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_parse_and_fit_the_schema(path: Path):
    parse_site(path.read_bytes(), path.name)
    jsonschema.validate(yaml.safe_load(path.read_text()), json_schema())


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


def test_every_field_has_words_for_the_reference():
    assert all(field.becomes for field in FIELDS)


# -- what is offered ---------------------------------------------------------------------------------------------------


def offer(text: str = "", machine: Machine = PLAIN, ability: Ability = BOXED) -> tuple[Offered, ...]:
    return offered(parse_site(text.encode()), machine, ability, OWNER, SITE)


def test_without_a_file_the_machine_s_cores_are_offered_as_measured():
    (cores,) = offer()
    assert cores.pool.id == "cn.demo.lab7/pool/gz1-cores"
    assert (cores.spec.core_count, cores.spec.memory_bytes) == (2, 7_200_000_000)
    assert (cores.spec.sandbox, cores.spec.networks) == ("bubblewrap", ("host", "none"))
    assert set(cores.spec.evidence.values()) == {"measured"}
    assert set(cores.spec.evidence) == {"core_count", "memory_bytes", "disk_bytes", "architecture"}


def test_without_a_file_each_kind_of_card_is_a_pool_and_nothing_is_offered_twice():
    cards, cores = offer(machine=MACHINE)
    assert (cards.pool.id, cards.pool.devices) == ("cn.demo.lab7/pool/gz1-a100", (0, 1, 2, 3))
    assert cards.spec.evidence["accelerator_count"] == "measured"
    assert (cards.spec.accelerator_memory_bytes, cards.spec.vendor) == (80 * 10**9, "nvidia")
    assert cards.spec.core_count + cores.spec.core_count == 64
    assert cards.spec.memory_bytes + cores.spec.memory_bytes <= MACHINE.memory_bytes


def test_what_the_file_states_beyond_the_machine_is_declared():
    (pool,) = offer("pools: [{name: big, cores: 128, memory: 1GB}]")
    assert "core_count" not in pool.spec.evidence
    assert pool.spec.evidence["memory_bytes"] == "measured"


def test_cards_without_a_library_are_declared_and_counted_on_from_pool_to_pool():
    first, second = offer(
        "pools: [{name: a, accelerator: 昇腾910B, count: 8}, {name: b, accelerator: ascend-910b, count: 8}]"
    )
    assert (first.spec.accelerator, first.spec.vendor) == ("ascend-910b", "huawei")
    assert first.pool.devices == tuple(range(8))
    assert second.pool.devices == tuple(range(8, 16))
    assert "accelerator_count" not in first.spec.evidence


def test_emulated_cards_say_so():
    (pool,) = offer("pools: [{name: a, accelerator: a100, count: 8, emulated: true}]")
    assert pool.spec.is_emulated
    assert pool.pool.devices == tuple(range(8))
    assert pool.spec.evidence["accelerator"] == pool.spec.evidence["accelerator_count"] == "emulated"


def test_found_cards_are_split_over_pools():
    one, two = offer("pools: [{name: a, accelerator: a100, count: 1}, {name: b, accelerator: a100}]", MACHINE)
    assert (one.pool.devices, two.pool.devices) == ((0,), (1, 2, 3))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pools: [{name: a, accelerator: a100, count: 5}]", "4 `a100` are found here"),
        ("pools: [{name: a, accelerator: a100, devices: [7]}]", "4 `a100` are found here"),
        ("pools: [{name: a, accelerator: h100}]", "no `h100` is found here"),
        ("pools: [{name: a}, {name: a}]", "named twice"),
        ("pools: [{name: a, accelerator: a100, devices: [1]}, {name: b, accelerator: a100, devices: [1]}]", "device 1"),
    ],
)
def test_what_is_not_there_cannot_be_offered(text: str, says: str):
    with pytest.raises(TielineError, match=says):
        offer(text, MACHINE)


def test_an_offline_share_stays_with_the_owner():
    (pool,) = offer("offline: 50%\npools: [{name: a, accelerator: a100, count: 3, cores: 10, emulated: true}]", MACHINE)
    assert (pool.pool.devices, pool.pool.core_count) == ((0,), 5)
    (whole,) = offer("offline: 50%\npools: [{name: a, cores: 10, offline: 0%}]", MACHINE)
    assert whole.pool.core_count == 10


def test_networks_and_engines_are_those_that_work_here_and_the_owner_wants():
    bare = Ability(engines=("process",), sandbox="", networks=("host",))
    (pool,) = offer("pools: [{name: a, networks: [none, host]}]", ability=bare)
    assert (pool.spec.networks, pool.spec.sandbox) == (("host",), "")
    (closed,) = offer("pools: [{name: a, networks: [none]}]", ability=bare)
    assert closed.pool.networks == ()
    (no_containers,) = offer("engines: [container]\npools: [{name: a}]", ability=bare)
    assert no_containers.pool.engines == ()


def test_the_site_decides_by_what_its_record_says():
    (one,) = offer("pools: [{name: a, accelerator: a100, count: 2, price: 3, policy: nodes < 3, emulated: true}]")
    pool, spec = one
    assert len(pool.devices) == spec.accelerator_count
    for name in ("core_count", "memory_bytes", "disk_bytes", "policy", "access", "engines", "networks", "sandbox"):
        assert getattr(pool, name) == getattr(spec, name), name
    assert pool.price_micro_cny_per_unit_hour == spec.price_micro_cny_per_accelerator_hour


def test_a_pool_of_the_file_knows_its_line():
    assert parse_site(b"pools:\n\n- name: a\n").pools == (PoolConfig(name="a", line=3),)
