"""A laboratory for benchmarks, and traffic of our own inside it.

`python -m bench.lab_world PID TASK` enters the laboratory that the process PID keeps and does one task there: the
benchmark and its traffic share no interpreter.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tieline.drivers.circuits.kernel.traffic import End, rate_bps
from tieline.drivers.lab.control import LabCircuits, Laboratory
from tieline.drivers.lab.wording import Seen
from tieline.model.circuit import Circuit, CircuitOrder, Route
from tieline.model.topology import Topology
from tieline.network.topologyfile import read

FILE = Path(__file__).parents[1] / "examples/network_lab/lab.yaml"
NORTH = Route(
    nodes=("shanghai", "suzhou", "wuxi", "hangzhou"),
    links=("shanghai-suzhou", "suzhou-wuxi", "wuxi-hangzhou"),
    delay_us=1_450,
)
SOUTH = Route(nodes=("shanghai", "jiaxing", "hangzhou"), links=("shanghai-jiaxing", "jiaxing-hangzhou"), delay_us=950)
READY_S = 30.0
GAP_S = 0.002


@dataclass
class Lab:
    """One laboratory and the process that keeps it."""

    pid: int
    laboratory: Laboratory
    circuits: LabCircuits

    def show(self) -> Seen:
        """What is to be seen."""
        return asyncio.run(self.laboratory.show())

    def ask(self, verb: str, **given: Any) -> Any:
        """One question."""
        return asyncio.run(self.laboratory.ask(verb, **given))

    def start(self, task: str, near: tuple[str, str], far: tuple[str, str], seconds: float) -> subprocess.Popen[str]:
        """Traffic between two ends, each a site and an address."""
        sites = self.show().sites
        given = {"near": (sites[near[0]], near[1]), "far": (sites[far[0]], far[1]), "seconds": seconds}
        command = [sys.executable, "-m", "bench.lab_world", str(self.pid), task, json.dumps(given)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def ends(self, circuit: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """The sites and addresses of a circuit's ends."""
        found = next(each for each in self.show().circuits if each.circuit.id == circuit)
        order = found.circuit.order
        return (site(order.a), found.ends[0]), (site(order.b), found.ends[1])


def site(node: str) -> str:
    """The site behind a node of the shipped laboratory."""
    return f"cn.lab.{node}/site/main"


def circuit(name: str, rate: int, route: Route, spare: Route | None = None, most: int = 0) -> Circuit:
    """A circuit between the ends of a route."""
    order = CircuitOrder(a=route.nodes[0], b=route.nodes[-1], rate_bps=rate, most_bps=most)
    return Circuit(id=name, order=order, user="bench", route=route, spare=spare, granted_bps=rate)


@contextmanager
def laboratory(topology: Topology | None = None) -> Iterator[Lab]:
    """The shipped laboratory, or another, kept while the block runs."""
    topology = topology or read(FILE.read_bytes(), str(FILE)).topology
    with tempfile.TemporaryDirectory(prefix="lab") as folder:
        Path(folder, "topology.json").write_bytes(msgspec.json.encode(topology))
        process = subprocess.Popen([sys.executable, "-m", "tieline.drivers.lab", folder], stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + READY_S
            while not Path(folder, "ready").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(_why(Path(folder)))
                time.sleep(0.01)
            made = Laboratory(Path(folder))
            yield Lab(process.pid, made, LabCircuits(made))
        finally:
            process.terminate()
            process.wait()


def _why(folder: Path) -> str:
    refused = folder / "refused.json"
    return refused.read_text() if refused.exists() else "the laboratory did not come up"


def _entered(pid: int, near: list[Any], far: list[Any]) -> tuple[End, End]:
    from tieline.drivers.circuits.kernel.namespaces import join

    join(pid, near[0])
    handles = [os.open(f"/proc/{pid}/fd/{each[0]}", os.O_RDONLY) for each in (near, far)]
    return End(handles[0], near[1]), End(handles[1], far[1])


def _ping(near: End, far: End, seconds: float) -> list[tuple[float, float]]:
    """A packet every two milliseconds; when each that came back was sent and came, by the monotonic clock."""
    from tieline.drivers.circuits.kernel.namespaces import inside

    made = []
    for end in (near, far):
        with inside(end.network):
            made.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        made[-1].bind((end.address, 0))
        made[-1].setblocking(False)
    here, there = made
    target = there.getsockname()
    seen: list[tuple[float, float]] = []
    begun = next_s = time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        if now >= next_s:
            here.sendto(repr(now).encode(), target)
            next_s = max(next_s + GAP_S, now)
        readable, _, _ = select.select(made, (), (), max(0.0, next_s - time.monotonic()))
        if there in readable:
            packet, source = there.recvfrom(2_048)
            there.sendto(packet, source)
        if here in readable:
            seen.append((float(here.recv(2_048)), time.monotonic()))
    return seen


def main() -> None:
    """One task inside a laboratory."""
    pid, task, given = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    near, far = _entered(pid, given["near"], given["far"])
    if task == "rate":
        print(json.dumps(rate_bps(near, far, given["seconds"])))
    else:
        print("ready", flush=True)
        print(json.dumps(_ping(near, far, given["seconds"])))


if __name__ == "__main__":
    main()
