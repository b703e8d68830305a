"""A designed network in the laboratory: every line of its proof at its rate, on its path, with every link cut once."""

from __future__ import annotations

import json

import msgspec
import pytest
from click.testing import CliRunner

from tieline.cli.main import tieline

REQUEST = """\
name: trio
nodes:
  - {name: east, site: cn.lab.east/site/main}
  - {name: west, site: cn.lab.west/site/main}
  - {name: hub}
modules:
  - {name: 1G, capacity: 1Gbit/s, price: 10}
links:
  - {a: east, b: west, delay: 1ms}
  - {a: east, b: hub, delay: 1ms}
  - {a: hub, b: west, delay: 1ms}
demands:
  - {from: east, to: west, rate: 900Mbit/s, latency: 3ms}
"""


def call(*words, text=None):
    return CliRunner().invoke(tieline, [str(each) for each in words], input=text)


@pytest.fixture
def standing(tmp_path, monkeypatch):
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "made"
    made = call("network", "design", "-", "--out", folder, text=REQUEST)
    assert made.exit_code == 0, made.output
    built = call("lab", "up", folder / "lab.json")
    if "no user namespace" in built.output or "/dev/net/tun" in built.output:
        pytest.skip(f"no laboratory here: {built.output.splitlines()[0]}")
    assert built.exit_code == 0, built.output
    yield folder
    assert call("lab", "down").exit_code == 0


@pytest.mark.slow
def test_a_designed_network_holds_in_the_laboratory_and_a_wrong_one_does_not(standing):
    done = call("network", "prove", standing, "--json")
    assert done.exit_code == 0, done.output
    seen = json.loads(done.stdout)
    assert {tuple(each["cut"]) for each in seen} == {(), ("east-west",), ("east-hub",), ("hub-west",)}
    for each in seen:
        assert each["is_path_proven"]
        assert each["goodput_bps"] >= 0.95 * each["computed_bps"] > 0
        assert each["one_way_us"] >= 1_000 * (len(each["nodes"]) - 1)
    # A proof that names a path over the link that is cut cannot be seen to hold.
    design = json.loads((standing / "design.json").read_text())
    proof = next(proof for proof in design["proofs"] if proof["cut"] == ["east-west"])
    proof["lines"] = design["proofs"][0]["lines"]
    assert all(line["links"] == ["east-west"] for line in proof["lines"])
    design["proofs"] = [proof]
    (standing / "design.json").write_bytes(msgspec.json.encode(design))
    wrong = call("network", "prove", standing, "--json")
    assert wrong.exit_code == 1, wrong.output
    # Nor is another laboratory asked.
    design["topology"]["links"][0]["capacity_bps"] //= 2
    (standing / "design.json").write_bytes(msgspec.json.encode(design))
    other = call("network", "prove", standing)
    assert (other.exit_code, "is not that of `trio`" in other.output) == (1, True)
