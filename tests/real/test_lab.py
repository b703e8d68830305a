"""A laboratory on this kernel: circuits stand, are proven, moved, resized, cut, spared, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tieline.cli.main import tieline
from tieline.cli.processes import start_of
from tieline.drivers.circuits.kernel.traffic import goodput_bps
from tieline.drivers.lab.control import LabCircuits, Laboratory
from tieline.model.circuit import Circuit, CircuitOrder, Receipt, Route
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence

replace = msgspec.structs.replace
FILE = Path(__file__).parents[2] / "examples/network_lab/lab.yaml"
PATIENCE_S = 60
ABOVE = 1.5  # of a rate: what waited while the receiver was starved comes within the second; a port has 40 Mbit/s
NORTH = Route(
    nodes=("shanghai", "suzhou", "wuxi", "nanjing", "hefei"),
    links=("shanghai-suzhou", "suzhou-wuxi", "wuxi-nanjing", "nanjing-hefei"),
    delay_us=2_250,
)
SOUTH = Route(
    nodes=("shanghai", "jiaxing", "hangzhou", "hefei"),
    links=("shanghai-jiaxing", "jiaxing-hangzhou", "hangzhou-hefei"),
    delay_us=2_650,
)


def circuit(name: str, rate: int, route: Route, spare: Route | None = None, mtu: int = 1_400) -> Circuit:
    order = CircuitOrder(a="shanghai", b="hefei", rate_bps=rate, mtu_bytes=mtu)
    return Circuit(id=name, order=order, user="u", route=route, spare=spare, granted_bps=rate)


def said(*arguments: str) -> str:
    """What a verb says; its error as an exception."""
    result = CliRunner().invoke(tieline, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    before = os.environ.get("TIELINE_HOME")
    os.environ["TIELINE_HOME"] = str(home)
    try:
        result = CliRunner().invoke(tieline, ["lab", "up", str(FILE), "--json"])
        if "no user namespace" in result.output or "/dev/net/tun" in result.output:
            pytest.skip(f"no laboratory here: {result.output.splitlines()[0]}")
        assert result.exit_code == 0, result.output
        yield Laboratory(home / "labs/delta")
        said("lab", "down")
    finally:
        os.environ.pop("TIELINE_HOME")
        if before is not None:
            os.environ["TIELINE_HOME"] = before


@pytest.fixture(autouse=True)
def _empty(laboratory):
    """No circuit and no cut is left by a test."""
    yield
    seen = asyncio.run(laboratory.show())
    for each in seen.circuits:
        asyncio.run(laboratory.ask("withdraw", circuit=each.circuit.id))
    for link in seen.links:
        asyncio.run(laboratory.ask("restore", link=link.name))
    wait_for(laboratory, lambda seen: all(each.is_up for each in seen.links))


def proven(driver: LabCircuits, asked: Circuit, seq: int) -> Receipt:
    """The first receipt that proves a circuit; a machine that does much else may starve a test of a second."""
    deadline = time.monotonic() + PATIENCE_S
    while not (receipt := asyncio.run(driver.verify(asked, seq))).is_path_proven:
        assert time.monotonic() < deadline, receipt
    return receipt


def wait_for(laboratory: Laboratory, holds: Callable[[object], bool]):
    deadline = time.monotonic() + PATIENCE_S
    while not holds(seen := asyncio.run(laboratory.show())):
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    return seen


def happened(seen) -> set[tuple[str, str]]:
    """What the keeper told of: the laboratory is one for all tests, and they run in any order."""
    return {(each.what, each.subject) for each in seen.events}


def test_a_circuit_is_laid_proven_moved_cut_and_taken_down(laboratory):
    driver = LabCircuits(laboratory)
    asked = circuit("k-1", 8_000_000, NORTH, SOUTH)

    applied = asyncio.run(driver.apply([asked]))
    receipt = proven(driver, asked, 1)
    assert applied.circuits == ["k-1"]
    assert receipt.evidence is Evidence.MEASURED
    assert receipt.path == NORTH.links
    assert receipt.probe_bytes == 1_400
    assert receipt.min_rtt_us >= 2 * NORTH.delay_us
    assert receipt.computed_bps == goodput_bps(8_000_000, 1_400, 96)
    assert 0 < receipt.goodput_bps < receipt.computed_bps * ABOVE  # the class lets no more pass

    # another rate: the same ways, other classes
    wider = replace(asked, granted_bps=16_000_000)
    asyncio.run(driver.apply([wider]))
    receipt = proven(driver, wider, 2)
    assert receipt.goodput_bps < goodput_bps(16_000_000, 1_400, 96) * ABOVE

    # a cut: the keeper sees the light go and leads the circuit over its spare way, nobody asks it to
    said("lab", "cut", "wuxi-nanjing")
    seen = wait_for(laboratory, lambda seen: ("lost", "wuxi-nanjing") in happened(seen))
    assert ("to spare", "k-1") in happened(seen)
    assert seen.circuits[0].on == SOUTH.links
    assert [each.name for each in seen.links if not each.is_up] == ["wuxi-nanjing"]
    assert proven(driver, asked, 3).path == SOUTH.links

    # without any whole way its packets go as all others do, and the circuit says that nothing is proven
    said("lab", "cut", "hangzhou-hefei")
    wait_for(laboratory, lambda seen: seen.circuits[0].on == ())
    with pytest.raises(TielineError, match="as all others do"):
        asyncio.run(driver.verify(asked, 4))

    said("lab", "restore", "hangzhou-hefei")
    said("lab", "restore", "wuxi-nanjing")
    wait_for(laboratory, lambda seen: all(each.is_up for each in seen.links))
    asyncio.run(driver.apply([replace(asked, route=SOUTH, spare=None)]))
    assert proven(driver, asked, 5).path == SOUTH.links

    asyncio.run(driver.withdraw("k-1"))
    assert asyncio.run(laboratory.show()).circuits == ()


def test_what_does_not_fit_is_refused_whole(laboratory):
    driver = LabCircuits(laboratory)
    asyncio.run(driver.apply([circuit("k-2", 10_000_000, SOUTH)]))
    before = asyncio.run(laboratory.show()).circuits
    for wrong, said_why in (
        (circuit("k-3", 31_000_000, SOUTH), "41000000 bit/s of"),
        (circuit("k-3", 1_000_000, SOUTH, mtu=1_490), "wrapped ones have 1586"),
        (circuit("k-3", 1_000_000, replace(SOUTH, links=("shanghai-jiaxing", "x", "y"))), "no link `x`"),
    ):
        with pytest.raises(TielineError, match=said_why):
            asyncio.run(driver.apply([circuit("k-4", 1_000_000, NORTH), wrong]))
    assert asyncio.run(laboratory.show()).circuits == before
    for verb, given in (
        ("cut", {"link": "no-link"}),
        ("apply", {"circuits": [{}]}),
        ("fly", {}),
        ("verify", {}),
        ("verify", {"circuit": "k-2", "seq": "x"}),
    ):
        with pytest.raises(TielineError):
            asyncio.run(laboratory.ask(verb, **given))
    asyncio.run(driver.withdraw("k-2"))


def test_a_command_runs_inside_one_network_and_nowhere_else(laboratory, tmp_path):
    script = "import socket; print(*sorted(name for _, name in socket.if_nameindex()))"
    names = {
        place: subprocess.run(
            [sys.executable, "-m", "tieline.cli", "lab", "exec", place, "--", sys.executable, "-c", script],
            check=True, capture_output=True, text=True, timeout=PATIENCE_S,
        ).stdout.split()
        for place in ("jiaxing", "cn.lab.hefei/site/main", "manager")
    }  # fmt: skip
    assert names["jiaxing"] == ["anchor", "anchored", "l2", "l3", "l4", "lo"]
    assert names["cn.lab.hefei/site/main"] == ["lo", "manager", "router"]
    assert names["manager"] == ["lo", "s1", "s2", "s3", "s4"]


def outside() -> dict[str, str]:
    """The network of this machine itself: ports, routes, addresses, and settings that a laboratory makes its own of."""
    files = ("net/dev", "net/route", "net/ipv6_route", "net/if_inet6", "sys/net/ipv4/ip_forward")
    kept = {name: Path("/proc", name) for name in (*files, "sys/net/ipv6/conf/all/forwarding")}
    seen = {name: file.read_text() for name, file in kept.items() if file.exists()}
    seen["net/dev"] = " ".join(sorted(line.split(":")[0].strip() for line in seen["net/dev"].splitlines()[2:]))
    seen["net/ipv6_route"] = "\n".join(  # without counts of use
        sorted(f"{line[:32]} {line.split()[-1]}" for line in seen.get("net/ipv6_route", "").splitlines())
    )
    return seen


def networks_of(pids: list[int]) -> set[str]:
    """The networks that some processes stand in or hold open."""
    found = set()
    for pid in pids:
        for link in (Path(f"/proc/{pid}/ns/net"), *Path(f"/proc/{pid}/fd").iterdir()):
            with suppress(OSError):
                found.add(str(link.readlink()))
    return {each for each in found if each.startswith("net:[")} - {str(Path("/proc/self/ns/net").readlink())}


def held_networks() -> set[str]:
    """Every network that a process of this machine stands in or holds open."""
    found: set[str] = set()
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            with suppress(OSError):
                found |= networks_of([int(each.name)])
    return found


def gone(pids: list[int], networks: set[str]) -> bool:
    """Whether no process is left, and nobody holds one of the networks."""
    return not any(start_of(pid) for pid in pids) and networks.isdisjoint(held_networks())


@pytest.mark.parametrize("ending", ["down", "killed keeper"])
def test_ending_it_leaves_nothing(laboratory, tmp_path, monkeypatch, ending):
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path))
    before = outside()
    said("lab", "up", str(FILE), "--name", "second")
    pid = int(said("lab", "ls").split("\t")[1])
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    networks = networks_of(pids)
    assert networks <= held_networks()
    assert len(networks) == 7 + 4 + 1  # routers, sites, their own
    assert outside() == before
    refused = subprocess.run(  # a second keeper of one folder would be one that nobody finds again
        [sys.executable, "-m", "tieline.drivers.lab", str(tmp_path / "labs/second")],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (refused.returncode, "another process keeps" in refused.stderr) == (1, True)
    if ending == "down":
        left = inside("jiaxing", "import time; print('here', flush=True); time.sleep(600)")
        assert left.stdout is not None
        assert left.stdout.readline() == "here\n"
        said("lab", "down", "second")
        assert not start_of(left.pid)
        left.communicate()
    else:
        os.kill(pid, signal.SIGKILL)
        said("lab", "down", "second")
    deadline = time.monotonic() + PATIENCE_S
    while not gone(pids, networks):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert outside() == before
    assert said("lab", "ls", "--json").strip() == "[]"
    assert not (tmp_path / "labs/second").exists()
    with pytest.raises(TielineError, match="no laboratory is kept"):
        asyncio.run(Laboratory(tmp_path / "labs/second").show())


def test_what_an_exchange_booked_is_carried_and_proven_and_a_cut_is_told(laboratory, tmp_path, monkeypatch):
    from tieline.client.asynchronous import AsyncClient
    from tieline.client.context import chosen
    from tieline.model.booking_api import CircuitBody
    from tieline.model.circuit import Diversity

    said("up", str(tmp_path / "up"), "--no-site")
    try:
        said("network", "import", str(FILE))

        async def ordered() -> Circuit:
            order = CircuitOrder(a="shanghai", b="hefei", rate_bps=6_000_000, diversity=Diversity.LINK)
            async with AsyncClient.of(chosen("")) as client:
                return (await client.order_circuit(CircuitBody(order=order))).circuit

        async def now(name: str) -> Circuit:
            async with AsyncClient.of(chosen("")) as client:
                return await client.circuit(name)

        def followed(name: str, seq: int) -> Circuit:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                said("lab", "follow", "--once")
                found = asyncio.run(now(name))
                if found.receipt is not None and found.seq > seq and found.receipt.is_path_proven:
                    return found
                assert time.monotonic() < deadline, found

        made = asyncio.run(ordered())
        first = followed(made.id, 0)
        assert first.route is not None
        assert first.receipt is not None
        assert first.receipt.path == first.route.links
        said("lab", "cut", first.route.links[0])
        wait_for(laboratory, lambda seen: ("to spare", made.id) in happened(seen))
        second = followed(made.id, first.seq)  # tells of the cut, and lays what the exchange decides
        assert second.route is not None
        assert first.route.links[0] not in second.route.links
        assert second.receipt is not None
        assert second.receipt.path == second.route.links, second.receipt
        said("lab", "restore", first.route.links[0])
        said("circuit", "cancel", made.id, "-y")
        said("lab", "follow", "--once")
        assert asyncio.run(laboratory.show()).circuits == ()
        assert json.loads(said("network", "show", "--json"))["down"] == []
    finally:
        said("down", str(tmp_path / "up"))


UDP_ECHO = """
import socket, sys
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.bind((sys.argv[1], 7007))
made.settimeout(60)
print("ready", flush=True)
packet, source = made.recvfrom(2048)
made.sendto(packet, source)
"""
UDP_ASK = """
import socket, sys
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.bind((sys.argv[1], 0))
made.settimeout(1)
for _ in range(30):
    made.sendto(b"x" * 1200, (sys.argv[2], 7007))
    try:
        print(len(made.recv(2048)))
        break
    except TimeoutError:
        continue
"""


MTU = """
import fcntl, socket, struct, sys
made = socket.socket()
fcntl.ioctl(made, 0x8922, struct.pack("16si12x", sys.argv[1].encode(), int(sys.argv[2])))
"""


def inside(place: str, script: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tieline.cli", "lab", "exec", place, "--", sys.executable, "-c", script, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_ipv4_goes_through_a_circuit_and_a_black_hole_is_found(laboratory):
    driver = LabCircuits(laboratory)
    asked = circuit("k-7", 8_000_000, SOUTH)
    asyncio.run(driver.apply([asked]))
    number = asyncio.run(laboratory.show()).circuits[0].ends[0].split(":")[3]
    near, far = (f"10.0.{int(number, 16)}.{node}" for node in (1, 4))
    echo = inside("cn.lab.hefei/site/main", UDP_ECHO, far)
    try:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        before = {each.name: each.sent_bytes for each in asyncio.run(laboratory.show()).links}
        told, _ = inside("cn.lab.shanghai/site/main", UDP_ASK, near, far).communicate(timeout=PATIENCE_S)
        assert told == "1200\n"
        after = {each.name: each.sent_bytes for each in asyncio.run(laboratory.show()).links}
        assert all(after[link] - before[link] >= 1_200 for link in SOUTH.links)
    finally:
        echo.kill()
        echo.communicate()
    # a link that carries less than it says: small packets pass, those of full size are lost, and nothing is proven
    inside("jiaxing", MTU, "l3", "1400").communicate(timeout=PATIENCE_S)
    try:
        receipt = asyncio.run(driver.verify(asked, 1))
    finally:
        inside("jiaxing", MTU, "l3", "1500").communicate(timeout=PATIENCE_S)
    assert (receipt.probe_bytes, receipt.lost_ppm, receipt.is_path_proven) == (0, 1_000_000, False)
    asyncio.run(driver.withdraw("k-7"))


def test_a_laboratory_ends_when_nobody_carries_its_packets(laboratory, tmp_path, monkeypatch):
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path))
    said("lab", "up", str(FILE), "--name", "third")
    pid = int(said("lab", "ls").split("\t")[1])
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while said("lab", "ls", "--json").strip() != "[]":
        assert time.monotonic() < deadline
        time.sleep(0.05)
