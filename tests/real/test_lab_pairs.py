"""A laboratory without `/dev/net/tun`, as an ordinary user often has it: everything as ever, over pairs of ports."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tieline.drivers.circuits.kernel.traffic import goodput_bps
from tieline.drivers.lab.control import LabCircuits, Laboratory
from tieline.model.circuit import Circuit, CircuitOrder, Route
from tieline.model.topology import Link, Node, Topology

PATIENCE_S = 90
RATE_BPS = 8_000_000
KEEPER = """
import sys
from pathlib import Path
from tieline.drivers.lab import fibre, keeper
fibre.TUN = "/dev/null"  # what may be opened and is no TAP
keeper.main(Path(sys.argv[1]))
"""
TOPOLOGY = Topology(
    name="ring",
    nodes=tuple(Node(name=name, site=f"cn.lab.{name}/site/main") for name in "abc"),
    links=tuple(
        Link(name=ends, a=ends[0], b=ends[1], capacity_bps=40_000_000, delay_us=1_000, mtu_bytes=2_000)
        for ends in ("ab", "bc", "ac")
    ),
)
STRAIGHT = Route(nodes=("a", "b"), links=("ab",), delay_us=1_000)
ROUND = Route(nodes=("a", "c", "b"), links=("ac", "bc"), delay_us=2_000)


@pytest.fixture
def folder():
    made = Path("/tmp") / f"tieline-pairs-{time.monotonic_ns()}"  # a socket's path is short
    made.mkdir(mode=0o700)
    (made / "topology.json").write_bytes(msgspec.json.encode(TOPOLOGY))
    with (made / "log").open("wb") as log:
        keeper = subprocess.Popen([sys.executable, "-c", KEEPER, str(made)], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not (made / "ready").exists():
                if keeper.poll() is not None and "no user namespace" in (made / "refused.json").read_text():
                    pytest.skip(f"no laboratory here: {json.loads((made / 'refused.json').read_text())['message']}")
                assert keeper.poll() is None, (made / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield made
        finally:
            keeper.terminate()
            keeper.wait(PATIENCE_S)
            shutil.rmtree(made)


def test_a_circuit_is_carried_proven_cut_and_spared_over_pairs_of_ports(folder):
    laboratory = Laboratory(folder)
    driver = LabCircuits(laboratory)
    order = CircuitOrder(a="a", b="b", rate_bps=RATE_BPS, mtu_bytes=1_400)
    asked = Circuit(id="k-1", order=order, user="u", route=STRAIGHT, spare=ROUND, granted_bps=RATE_BPS)
    assert asyncio.run(laboratory.show()).fibre == "pair"
    asyncio.run(driver.apply([asked]))
    deadline = time.monotonic() + PATIENCE_S
    while not (receipt := asyncio.run(driver.verify(asked, 1))).is_path_proven:
        assert time.monotonic() < deadline, receipt
    assert receipt.path == ("ab",)
    assert receipt.probe_bytes == 1_400
    assert receipt.min_rtt_us >= 2_000
    assert 0 < receipt.goodput_bps < 1.5 * goodput_bps(RATE_BPS, 1_400, 96)
    asyncio.run(laboratory.ask("cut", link="ab"))
    while ("to spare", "k-1") not in {(each.what, each.subject) for each in asyncio.run(laboratory.show()).events}:
        assert time.monotonic() < deadline + PATIENCE_S
        time.sleep(0.05)
    while not (receipt := asyncio.run(driver.verify(asked, 2))).min_rtt_us >= 4_000:
        assert time.monotonic() < deadline + 2 * PATIENCE_S, receipt
    asyncio.run(laboratory.ask("restore", link="ab"))
    while not all(link.is_up for link in asyncio.run(laboratory.show()).links):
        assert time.monotonic() < deadline + 3 * PATIENCE_S
        time.sleep(0.05)
