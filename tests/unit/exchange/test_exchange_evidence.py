"""What a plan says that the rate of a way rests on: its links, readings, a laboratory, or nothing at all."""

import pytest
from exchange_world import ADMIN, PREFIX, World, task

from tieline.exchange.arrivals import WideArea
from tieline.exchange.commands import PlanTasks
from tieline.exchange.network import Network
from tieline.exchange.readings import Readings
from tieline.model.evidence import Evidence
from tieline.model.task import DataUse
from tieline.model.topology import Link, Node, Topology
from tieline.ports import ConstantDistances

A, B, C, OUT = (f"cn.x/site/{name}" for name in ("a", "b", "c", "out"))


class Held(Readings):
    """Readings of one way, of a laboratory or not."""

    is_emulated = False

    def rate_bps(self, source: str, target: str) -> int | None:
        return 10**9 if (source, target) == (A, OUT) else None


def wide(readings: Readings, *evidence: Evidence) -> WideArea:
    network = Network()
    if evidence:
        nodes = tuple(Node(name=name, site=site) for name, site in zip("abc", (A, B, C), strict=True))
        links = tuple(
            Link(name=a + b, a=a, b=b, capacity_bps=10**10, evidence=each)
            for (a, b), each in zip(("ab", "bc"), evidence, strict=True)
        )
        network.put_topology(Topology(name="t", nodes=nodes, links=links))
    return WideArea(network, readings)


def of(distances: WideArea, source: str, target: str) -> Evidence:
    found = distances.transit(source, target, 10**9, 1_800_000_000_000)
    assert found is not None
    return found.evidence


def test_a_rate_that_nobody_said_is_not_called_declared() -> None:
    assert of(wide(Held()), A, B) is Evidence.UNKNOWN
    assert ConstantDistances().rate_evidence(A, B) is Evidence.UNKNOWN


def test_a_reading_is_what_it_is() -> None:
    readings = Held()
    assert of(wide(readings), A, OUT) is Evidence.MEASURED
    readings.is_emulated = True
    assert of(wide(readings), A, OUT) is Evidence.EMULATED


@pytest.mark.parametrize(
    ("links", "target", "said"),
    [
        ((Evidence.MEASURED, Evidence.DECLARED), B, Evidence.MEASURED),
        ((Evidence.MEASURED, Evidence.DECLARED), C, Evidence.DECLARED),
        ((Evidence.SIMULATED, Evidence.MEASURED), C, Evidence.SIMULATED),
    ],
)
def test_a_way_is_as_good_as_its_weakest_link(links: tuple[Evidence, ...], target: str, said: Evidence) -> None:
    assert of(wide(Held(), *links), A, target) is said


def test_a_site_that_the_topology_does_not_have_is_read() -> None:
    assert of(wide(Held(), Evidence.DECLARED, Evidence.DECLARED), A, OUT) is Evidence.MEASURED


def test_links_that_are_declared_anew_are_read_anew() -> None:
    distances = wide(Held(), Evidence.SIMULATED, Evidence.SIMULATED)
    assert of(distances, A, C) is Evidence.SIMULATED
    anew = wide(Held(), Evidence.MEASURED, Evidence.MEASURED).network.topology
    assert anew is not None
    distances.network.put_topology(anew)
    assert of(distances, A, C) is Evidence.MEASURED


def test_a_plan_says_that_a_rate_is_assumed(world: World) -> None:
    size = {"core_count": 4, "memory_bytes": 8 * 10**9}
    world.join("lab7", "near", price_micro_cny_per_accelerator_hour=2_000_000, **size)
    world.register("lab7", "dataset/d", {"sites": [f"{PREFIX}.lab7/site/home"], "size_bytes": 10**9})
    asked = task("t", data=(DataUse(id=f"{PREFIX}.lab7/dataset/d", path="d"),))
    (plan,) = world.do(PlanTasks(actor=ADMIN, tasks=(asked,)))
    (trip,) = plan.candidates[0].transfers
    assert (trip.rate_bps, trip.links, trip.evidence) == (10**10, (), "unknown")
