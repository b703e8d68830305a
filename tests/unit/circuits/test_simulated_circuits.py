"""The simulated driver and the fake keep the same promises as the real one, without routers."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from fabric_world import circuit, fabric_of, route

from tieline.drivers.circuits.simulated import SimulatedCircuits
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.ports import Circuits, FakeCircuits

replace = msgspec.structs.replace


def simulated() -> SimulatedCircuits:
    return SimulatedCircuits(fabric_of([0]).topology, lambda: 1_000)


def test_a_receipt_says_that_it_was_reckoned():
    driver: Circuits = simulated()
    asked = circuit(spare="ad")

    async def story():
        await driver.apply([asked])
        return await driver.verify(asked, 3), await driver.counters()

    receipt, counters = asyncio.run(story())
    assert (receipt.subject, receipt.seq, receipt.evidence) == ("k-1", 3, Evidence.SIMULATED)
    assert receipt.is_path_proven
    assert receipt.path == ("ab", "bc", "cd")
    assert receipt.goodput_bps == 10_000_000 * 1328 // 1510
    assert receipt.min_rtt_us == 6_000
    assert {(each.node, each.link) for each in counters if each.sent_bytes} == {("a", "ab"), ("b", "bc"), ("c", "cd")}


def test_over_a_cut_link_nothing_is_carried():
    driver = simulated()

    async def story():
        await driver.apply([circuit()])
        driver.down["bc"] = None
        cut = await driver.verify(circuit(), 1)
        await driver.apply([circuit(path="abed")])
        return cut, await driver.verify(circuit(path="abed"), 2)

    cut, moved = asyncio.run(story())
    assert (cut.is_path_proven, cut.goodput_bps, cut.lost_ppm) == (False, 0, 1_000_000)
    assert moved.path == ("ab", "be", "ed")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (circuit("k-2", rate=95_000_000), "105000000 bit/s of `ab`"),
        (circuit("k-2", mtu_bytes=1_450), "1546 when wrapped"),
        (replace(circuit("k-2"), route=None), "no route"),
        (replace(circuit("k-2"), route=replace(route("abcd"), links=("ab", "ed", "cd"))), "no link `ed`"),
        (replace(circuit("k-2"), route=replace(route("abcd"), links=("ab",))), "one more is needed"),
    ],
)
def test_what_cannot_stand_is_refused_whole(wrong, said):
    driver = simulated()
    asyncio.run(driver.apply([circuit()]))
    with pytest.raises(TielineError, match=said):
        asyncio.run(driver.apply([circuit("k-3", "ad"), wrong]))
    assert list(driver.standing) == ["k-1"]
    asyncio.run(driver.withdraw("k-1"))
    asyncio.run(driver.withdraw("k-1"))
    with pytest.raises(TielineError, match="does not stand"):
        asyncio.run(driver.verify(circuit(), 1))


def test_the_fake_refuses_when_told():
    driver = FakeCircuits(refused=2)
    with pytest.raises(TielineError) as caught:
        asyncio.run(driver.apply([circuit("k-1"), circuit("k-2")]))
    assert caught.value.code == "circuit_refused"
    assert caught.value.transient
    assert driver.standing == {}
    asyncio.run(driver.apply([circuit("k-1")]))
    assert asyncio.run(driver.verify(circuit("k-1"), 1)).is_path_proven
    assert not asyncio.run(driver.verify(circuit("k-1", "ad"), 2)).is_path_proven
