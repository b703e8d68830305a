"""What the owner signs: only what changed, before its lease ends, and tombstones for what is gone."""

from __future__ import annotations

import msgspec
import pytest
from site_offers import OWNER, SITE

from tieline.model.error import TielineError
from tieline.model.record import Record, Status
from tieline.model.spec import PoolSpec, SiteSpec
from tieline.registry import Key, opened, sign
from tieline.site.configuration import FrontConfig
from tieline.site.fronted import MOST_ROWS, from_csv, from_json
from tieline.site.records import Head, Statement, due, front_statements, pool_statement, record_of, site_statement
from tieline.site.siteyaml import parse_site

NOW_S = 1_700_000_000
LEASE_S = 86_400
KEY = Key(b"k" * 32)
KID = f"{OWNER}#join"


def head_of(record: Record) -> Head:
    """What is remembered after signing."""
    parcel = opened(sign(record, KEY, KID))
    said = parcel.record
    sha256 = parcel.sha256.hex()
    return Head(id=said.id, rev=said.rev, sha256=sha256, exp=said.exp, spec=said.spec, status=said.status, kid=KID)


def site(**fields: object) -> Statement:
    config = parse_site(b"title: Lab 7\ntier: region\nregion: guangzhou\nplace: 23.13, -113.26\n")
    return site_statement(config, SITE, KEY.public, "A" * 43, {"cpu_single_bps": 5}, **fields)  # type: ignore[arg-type]


def test_the_site_s_record_says_its_keys_its_place_and_what_was_measured():
    spec = msgspec.convert(site().spec, SiteSpec)
    assert (spec.public, spec.tier, spec.region) == (KEY.public, "region", "guangzhou")
    assert (spec.latitude_udeg, spec.longitude_udeg) == (23_130_000, -113_260_000)
    assert spec.readings == {"cpu_single_bps": 5}
    assert spec.evidence == {"readings": "measured"}


def test_a_site_says_whether_it_lets_others_in_by_the_relay():
    assert "relay" not in site().spec  # what most say goes without saying
    shut = site_statement(parse_site(b"tier: edge\nrelay: false\n"), SITE, KEY.public, "A" * 43, {})
    assert msgspec.convert(shut.spec, SiteSpec).relay is False


def test_a_draining_site_says_so_in_its_record():
    assert site(is_draining=True).status is Status.DRAINING


def test_what_was_never_signed_is_signed_first():
    record = record_of(site(), None, NOW_S, LEASE_S)
    assert (record.rev, record.prev, record.exp) == (1, "", NOW_S + LEASE_S)
    assert head_of(record).rev == 1


def test_what_has_not_changed_is_signed_again_only_when_half_its_lease_is_over():
    head = head_of(record_of(site(), None, NOW_S, LEASE_S))
    heads = {head.id: head}
    assert due([site()], heads, NOW_S + LEASE_S // 2 - 1, LEASE_S, KID) == ()
    assert due([site()], heads, NOW_S + LEASE_S // 2 + 1, LEASE_S, KID) == (site(),)


def test_a_change_is_signed_at_once_and_follows_its_predecessor():
    first = pool_statement(f"{OWNER}/pool/a", PoolSpec(core_count=4))
    head = head_of(record_of(first, None, NOW_S, LEASE_S))
    changed = pool_statement(f"{OWNER}/pool/a", PoolSpec(core_count=5))
    (said,) = due([changed], {head.id: head}, NOW_S, LEASE_S, KID)
    record = record_of(said, head, NOW_S, LEASE_S)
    assert (record.rev, record.prev) == (2, head.sha256)


def test_what_is_not_offered_any_more_is_withdrawn_once():
    gone = pool_statement(f"{OWNER}/pool/a", PoolSpec(core_count=4))
    head = head_of(record_of(gone, None, NOW_S, LEASE_S))
    own = head_of(record_of(site(), None, NOW_S, LEASE_S))
    (said,) = due([site()], {head.id: head, SITE: own}, NOW_S, LEASE_S, KID)
    assert (said.id, said.kind, said.status) == (gone.id, "pool", Status.WITHDRAWN)
    tombstone = head_of(record_of(said, head, NOW_S, LEASE_S))
    assert tombstone.rev == 2
    assert due([], {tombstone.id: tombstone}, NOW_S, LEASE_S, KID) == ()


def test_what_another_key_signed_is_signed_again_tombstones_too():
    gone = pool_statement(f"{OWNER}/pool/a", PoolSpec(core_count=4))
    head = head_of(record_of(gone, None, NOW_S, LEASE_S))
    tombstone = msgspec.structs.replace(head, rev=2, status=Status.WITHDRAWN)
    own = head_of(record_of(site(), None, NOW_S, LEASE_S))
    heads = {tombstone.id: tombstone, SITE: own}
    assert due([site()], heads, NOW_S, LEASE_S, KID) == ()
    again, over = due([site()], heads, NOW_S, LEASE_S, f"{OWNER}#k2")
    assert again == site()
    assert (over.id, over.status) == (gone.id, Status.WITHDRAWN)
    assert record_of(over, tombstone, NOW_S, LEASE_S).rev == 3


# -- fronting ----------------------------------------------------------------------------------------------------------

CSV = """name,accelerator,count,accelerator_memory,cores,memory,price,tags,title
big,Ascend 910B,16,64GB,128,512GB,12.5,ib;fast,大
small,,,,8,32GB,0.1,,
"""
PLACE = "cn.demo.lab7/site/cloud1"


def test_a_csv_file_becomes_pools_that_are_declared():
    specs = from_csv(CSV.encode(), "cloud.csv", PLACE)
    big = specs["big"]
    assert (big.accelerator, big.accelerator_count, big.memory_bytes) == ("ascend-910b", 16, 512 * 10**9)
    assert (big.price_micro_cny_per_accelerator_hour, big.tags, big.title) == (12_500_000, ("ib", "fast"), "大")
    assert (specs["small"].core_count, specs["small"].compute_class) == (8, "general")
    assert all(spec.evidence == {} and spec.engines == () and spec.site == PLACE for spec in specs.values())


def test_a_json_list_says_the_same():
    rows = [{"name": "small", "cores": 8, "memory": "32GB", "price": 0.1, "title": None}]
    specs = from_json(msgspec.json.encode(rows), "url", PLACE)
    assert specs["small"] == from_csv(CSV.encode(), "cloud.csv", PLACE)["small"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no header"),
        ("name,colour\n", "`colour` is unknown"),
        ("name,name\n", "there twice"),
        ("name,cores\nA,3", "line 2: `name`"),
        ("name,cores\na,-3", "not a number"),
        ("name,cores\na,", "needs `cores`"),
        ("name,accelerator,cores\na,a100,3", "and `count`"),
        ("name,cores\na,1\na,1", "there twice"),
        ("name,cores\na,1,2,3", "4 cells"),
        ("name,cores,memory\na,1,lots", "`memory`"),
        ('name,cores\n"a,1', "not CSV"),
        ("name,cores\n" + "\n".join(f"p{n},1" for n in range(MOST_ROWS + 1)), "more than 1,000 pools"),
    ],
)
def test_a_mistake_in_a_list_is_said_with_its_line(text: str, says: str):
    with pytest.raises(TielineError, match=says):
        from_csv(text.encode(), "cloud.csv", PLACE)


@pytest.mark.parametrize("text", ["{}", "[1]", "[", '[{"nome": "a"}]', "[[[[[[", '[{"name": {"a": 1}}]'])
def test_a_json_answer_that_is_no_list_of_pools_is_refused(text: str):
    with pytest.raises(TielineError):
        from_json(text.encode(), "url", PLACE)


def test_a_list_that_is_too_long_or_not_text_is_refused():
    with pytest.raises(TielineError, match="are read"):
        from_csv(b"x" * (2**20 + 1), "cloud.csv", PLACE)
    with pytest.raises(TielineError, match="line 2: this is not UTF-8"):
        from_csv(b"name,cores\n\xff", "cloud.csv", PLACE)


def test_a_fronted_place_names_who_declares_it():
    specs = from_csv(CSV.encode(), "cloud.csv", PLACE)
    own, *pools = front_statements(FrontConfig(name="cloud1", region="shanghai"), OWNER, OWNER, specs)
    assert own.id == PLACE
    assert own.spec["declared_by"] == OWNER
    assert [said.id for said in pools] == ["cn.demo.lab7/pool/cloud1-big", "cn.demo.lab7/pool/cloud1-small"]
    for said in (own, *pools):
        head_of(record_of(said, None, NOW_S, LEASE_S))
