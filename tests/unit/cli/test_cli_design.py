"""`tieline network design`: from a request to files that the laboratory, the planner and routers read."""

import csv
import json
import re
from ipaddress import IPv6Interface, IPv6Network
from types import SimpleNamespace

import msgspec
import pytest

from tieline.cli.design import _bill
from tieline.drivers.circuits.kernel.addressing import Addressing, prefix, site_address
from tieline.model.topology import Topology

REQUEST = """\
name: trio
nodes:
  - {name: east, site: cn.lab.east/site/main, price: 100}
  - {name: west, price: 100}
  - {name: hub, price: 100}
modules:
  - {name: 1G, capacity: 1Gbit/s, price: 10, price_per_km: 1}
  - {name: 10G, capacity: 10Gbit/s, price: 60, price_per_km: 2}
links:
  - {a: east, b: west, length_km: 100, price: 50}
  - {a: east, b: hub, length_km: 80}
  - {a: hub, b: west, length_km: 80}
demands:
  - {from: east, to: west, rate: 1800Mbit/s, latency: 1ms}
"""


@pytest.fixture
def request_file(tmp_path):
    (tmp_path / "trio.yaml").write_text(REQUEST)
    return tmp_path / "trio.yaml"


def test_a_request_becomes_a_network_with_proof_bill_and_configuration(call, request_file, tmp_path):
    folder = tmp_path / "made"
    done = call("network", "design", request_file, "--out", folder, "--json")
    assert done.exit_code == 0, done.stderr
    made = json.loads(done.stdout)
    # Each way round has to carry all of it alone: two of 1G on 100 km, and on 80 km twice.
    assert made["price_micro_cny"] == (300 + 50 + 2 * 110 + 2 * 2 * 90) * 10**6
    assert made["least_micro_cny"] <= made["price_micro_cny"] <= 1.001 * made["least_micro_cny"]
    assert [proof["cut"] for proof in made["proofs"]] == [[], ["east-west"], ["east-hub"], ["hub-west"]]
    assert all(proof["carried_bps"] == 3_600_000_000 for proof in made["proofs"])
    assert made["proofs"][1]["slowest_us"] == 2 * 392
    rows = list(csv.DictReader((folder / "bill.csv").read_text().splitlines()))
    assert rows[-1]["total_cny"] == "930.00"
    assert sum(float(row["total_cny"]) for row in rows[:-1]) == pytest.approx(930)
    for cut in ("east-west", "hub-west"):
        planned = call("network", "plan", "--demands", folder / "demands.json", "--topology", folder / "topology.json",
                       "--cut", cut, "--json")  # fmt: skip
        assert json.loads(planned.stdout)["cut"]["replanned_bps"] >= 3_599_990_000
    assert call("network", "check", folder / "topology.json").exit_code == 0
    again = call("network", "design", request_file, "--out", folder)
    assert (again.exit_code, "nothing is written over" in again.stderr) == (1, True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["made", "trio.yaml"]  # nothing half written
    (tmp_path / "file").touch()
    for beside in (tmp_path / "file", tmp_path / "file/below"):
        refused = call("network", "design", request_file, "--out", beside)
        assert (refused.exit_code, refused.exception.__class__) in ((1, SystemExit), (2, SystemExit)), refused.output


def test_the_addresses_are_those_of_the_kernel_driver_and_frr_has_the_same(call, request_file, tmp_path):
    folder = tmp_path / "made"
    assert call("network", "design", request_file, "--out", folder).exit_code == 0
    topology = msgspec.json.decode((folder / "topology.json").read_bytes(), type=Topology)
    theirs = Addressing(topology)
    ours = json.loads((folder / "addresses.json").read_text())
    links = {link.name: link for link in topology.links}
    for node in ours:
        name = node["node"]
        assert IPv6Network(node["locator"]) == IPv6Network(theirs.locators[name] + "::/48")
        assert node["prefix"] == prefix(theirs.numbers[name])
        if name in theirs.sites:
            assert IPv6Interface(node["site_address"]) == IPv6Interface(site_address(theirs.numbers[name]))
        text = next((folder / "frr").glob(f"{node['number']:02d}-*.conf")).read_text()
        assert f"    prefix {node['locator']} block-len 32 node-len 16 func-bits 16\n" in text
        assert f" net 49.0001.0000.0000.{node['number']:04x}.00\n" in text
        said = dict(re.findall(r"interface (l\d+)\n description .*\n ipv6 address (\S+)\n", text))
        assert said == {port["port"]: port["address"] for port in node["ports"]}
        for port in node["ports"]:
            link = links[port["link"]]
            assert port["port"] == theirs.port(link)
            assert port["address"] == theirs.port_address(link, name) + "/64"
            assert port["neighbour_address"] == theirs.port_address(link, port["neighbour"])
    every = [port["address"] for node in ours for port in node["ports"]]
    assert len(set(every)) == len(every) == 6


@pytest.mark.parametrize(
    ("changed", "code", "said"),
    [
        ("budget: 930\n", 0, "930.00 CNY; nothing that does this costs less than"),
        ("budget: 900\n", 3, "no network of these links can do this for 900.00 CNY"),
        (
            "latency: 500us",
            3,
            "over everything that may be built the quickest way takes 784 us after the loss of east-west",
        ),
        (
            "rate: 90Gbit/s",
            3,
            "everything that may be built carries 152000000000 of 180000000000 bit/s after the loss of",
        ),
        ("colour: red\n", 2, "object contains unknown field `colour`"),
        ("most_filled_percent: 0\n", 2, "at `most_filled_percent`"),
    ],
)
def test_over_budget_and_impossible_say_by_how_much(call, tmp_path, changed, code, said):
    name = changed.partition(":")[0]
    pattern = re.compile(rf"\b{name}: [^,}}]+")
    text = pattern.sub(changed, REQUEST) if pattern.search(REQUEST) else REQUEST + changed
    done = call("network", "design", "-", "--out", tmp_path / "made", text=text)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
    if code == 2:
        assert not (tmp_path / "made").exists()


def test_no_name_in_a_bill_is_a_formula_to_who_opens_it():
    names = ("=1+1", "+1", "-1", "@sum", "\tx", "plain", "a=1")
    items = [
        SimpleNamespace(what="link", name=name, where="-x", count=-1, price_micro_cny=10, total_micro_cny=10)
        for name in names
    ]
    rows = list(csv.DictReader(_bill(SimpleNamespace(items=items, price_micro_cny=-70)).decode().splitlines()))
    assert [row["name"] for row in rows[:-1]] == ["'=1+1", "'+1", "'-1", "'@sum", "'\tx", "plain", "a=1"]
    assert {(row["where"], row["count"]) for row in rows[:-1]} == {("'-x", "-1")}  # numbers are ours, and stay numbers
