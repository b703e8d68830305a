"""Gangs over several sites, each in a network of its own: through doors, through the relay, killed, over circuits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tieline.cli.processes import Started, await_file, start_of
from tieline.drivers.lab.control import Laboratory

STORY = Path(__file__).with_name("gang_story.py")
TIELINE = (sys.executable, "-m", "tieline.cli")
PATIENCE_S = 180
SITES = ("east", "west", "north", "south")
DOORS = ("east", "west")
LIMITS = {
    "requests_per_s": 1_000_000, "requests_burst": 1_000_000, "lease_ms": 8_000, "offer_ttl_ms": 20_000, "beat_ms": 500,
    "tick_ms": 100,
}  # fmt: skip
ENTER = """import os, sys
from tieline.drivers.circuits.kernel.namespaces import join
join(int(sys.argv[1]), int(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])"""
SERVE = """import sys
from pathlib import Path
from tieline.drivers.siteprocess import join, run_site
folder, token, config = sys.argv[1:]
if token:
    join(token, folder, config=Path(config), name="main")
sys.exit(run_site(folder))"""
TOPOLOGY: dict[str, Any] = {
    "name": "gangs",
    "nodes": [{"name": name, "site": f"cn.lab.{name}/site/main"} for name in SITES],
    "links": [
        {"name": f"{a}-{b}", "a": a, "b": b, "capacity_bps": 100_000_000, "delay_us": 500}
        for a, b in (("east", "west"), ("west", "north"), ("north", "south"), ("south", "east"))
    ],
}


class World:
    """A laboratory, an exchange in its management network, a site with two cores in each of four networks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.envs = {**os.environ, "TIELINE_HOME": str(folder / "home"), "LANG": "C.UTF-8"}
        self.places: dict[str, tuple[int, int]] = {}
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def open(self) -> None:
        (self.folder / "lab.yaml").write_text(yaml.safe_dump(TOPOLOGY))
        done = self.tieline("lab", "up", str(self.folder / "lab.yaml"))
        if "no user namespace" in done.stderr or "/dev/net/tun" in done.stderr:
            pytest.skip(f"no laboratory here: {done.stderr.splitlines()[0]}")
        assert done.returncode == 0, done.stderr
        folder = self.folder / "home/labs/gangs"
        keeper = msgspec.json.decode((folder / "process.json").read_bytes(), type=Started)
        seen = asyncio.run(Laboratory(folder).show())
        self.places = {name: (keeper.pid, number) for name, number in (*seen.sites.items(), ("manager", seen.manager))}
        exchange = self.folder / "exchange"
        exchange.mkdir(mode=0o700)
        (exchange / "limits.json").write_bytes(msgspec.json.encode(LIMITS))
        listen = ["--prefix", "cn.lab", "--host", "fd03::ffff:1", "--insecure-bind"]
        made = self.start("exchange", "manager", *TIELINE, "exchange-process", str(exchange), *listen)
        started = Started(name="exchange", pid=made.pid, start=start_of(made.pid))
        await_file(exchange / "address", started, self.folder / "exchange.log")
        for number, (name, token) in enumerate(self.act("tokens").items(), 1):
            self.configure(name, f"fd00:0:{number}::1")
            self.serve(name, token)
        self.act("ready")

    def configure(self, name: str, address: str) -> None:
        pool = {"name": "cores", "cores": 2, "memory": "1GB", "price": 3_600, "sandbox": "optional"}
        config: dict[str, Any] = {"tier": "edge", "pools": [pool], "engines": ["process"]}
        if name in DOORS:
            config["door"] = {"listen": f"[{address}]:7000"}
        config["probe_inner"] = ["fd00::/8"]  # the networks of the laboratory
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(config))

    def serve(self, name: str, token: str = "") -> None:
        """A site's process in its own network; with a token it joins before."""
        words = (str(self.folder / name), token, str(self.folder / f"{name}.yaml"))
        made = self.start(name, f"cn.lab.{name}/site/main", sys.executable, "-c", SERVE, *words)
        (self.folder / f"{name}.pid").write_text(str(made.pid))

    def entering(self, place: str, command: Sequence[str]) -> list[str]:
        """What `tieline lab exec` does, for a place that is known."""
        pid, number = self.places[place]
        return [sys.executable, "-c", ENTER, str(pid), str(number), *command]

    def start(self, name: str, place: str, *command: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "ab") as log:
            made = subprocess.Popen(self.entering(place, command), env=self.envs, stdout=log, stderr=log)
        self.started[name] = made
        return made

    def act(self, name: str) -> Any:
        """One act of the story, in the management network."""
        command = self.entering("manager", (sys.executable, str(STORY), name, str(self.folder)))
        done = subprocess.run(command, env=self.envs, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, (name, done.stdout[-3_000:], done.stderr[-6_000:], self.logs())
        return json.loads(done.stdout)

    def tieline(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TIELINE, *words], env=self.envs, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )  # fmt: skip

    def logs(self) -> dict[str, str]:
        return {path.stem: path.read_text(errors="replace")[-2_000:] for path in self.folder.glob("*.log")}

    def close(self) -> None:
        for each in self.started.values():
            if each.poll() is None:
                each.send_signal(signal.SIGTERM)
        for each in self.started.values():
            try:
                each.wait(20)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
        self.tieline("lab", "down")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("gangs"))
    try:
        made.open()
        yield made
    finally:
        made.close()


def whole(found: dict[str, Any], owners: set[str]) -> None:
    """It ended well at the first try, on two nodes of each owner, who are paid for their part."""
    view = found["view"]
    assert found["run"]["code"] == 0, found["run"]
    assert view["job"]["state"] == "succeeded", view
    runs = sorted(view["runs"], key=lambda run: run.get("rank", 0))
    assert {run["owner"] for run in runs} == owners
    assert [(run.get("rank", 0), run["nodes"], run["epoch"], run["state"]) for run in runs] == [
        (0, 2, 1, "succeeded"), (2, 2, 1, "succeeded"),
    ]  # fmt: skip
    assert {line["run"]: line["owner"] for line in found["usage"]} == {run["id"]: run["owner"] for run in runs}
    assert all(line["charge_micro_cny"] > 0 for line in found["usage"])
    assert view["job"]["charged_micro_cny"] == sum(line["charge_micro_cny"] for line in found["usage"])
    for rank in range(4):
        assert f"[{rank}] node {rank} of 4: learned, every weight within" in found["run"]["out"]
    assert [(output["path"], output.get("node", 0)) for output in view["job"]["outputs"]] == [("model.json", 0)]
    assert found["events"].count("run_confirmed") == 2


def relayed(found: dict[str, Any], *owners: str) -> int:
    """Bytes that went to sites of these owners over the relay meanwhile; sites without a door are measured so too."""
    before, after = found["relayed"]
    return sum(after.get(owner, 0) - before.get(owner, 0) for owner in owners)


def test_nodes_at_two_sites_learn_together_through_a_door(world):
    found = world.act("doors")
    whole(found, {"cn.lab.east", "cn.lab.west"})
    planned = " ".join(found["plan"]["err"].split())
    assert "a gang in 2 pools at 2 sites, all or nothing:" in planned
    ways = ("cn.lab.east/site/main cn.lab.west/site/main door", "cn.lab.west/site/main cn.lab.east/site/main door")
    assert any(each in planned for each in ways), planned
    assert "node 3 of 4: learned" in found["log"]
    assert relayed(found, "cn.lab.east", "cn.lab.west") == 0  # not a byte of it went through the exchange
    assert len(found["usage_said"]["out"].splitlines()) == 2


def test_sites_that_listen_to_nobody_meet_by_the_relay_and_every_node_is_reached(world):
    found = world.act("relay")
    whole(found, {"cn.lab.north", "cn.lab.south"})
    for rank, beside in zip((0, 3), found["beside"], strict=True):
        assert beside["code"] == 0, beside
        assert beside["out"].startswith(f"{rank} of 4 at /"), beside
    assert "relay" in found["run"]["err"]
    assert "its gang runs on 2 pools at 2 sites" in found["why"]["out"]
    assert found["view"]["job"]["run"] in found["ps"]["out"]
    assert relayed(found, "cn.lab.north", "cn.lab.south") > 20_000


def test_a_gang_whose_site_dies_ends_as_a_whole_and_begins_anew_elsewhere(world):
    found = world.act("killed")
    victim = found["victim"]
    try:
        view = found["view"]
        assert found["run"]["code"] == 0, found["run"]
        assert "gang_broken" in found["events"]
        lost = next(run for run in view["runs"] if (run["site"], run["state"]) == (victim, "lost"))
        first = [run["state"] for run in view["runs"] if run["epoch"] == lost["epoch"] and run is not lost]
        assert set(first) <= {"stopped", "failed"}, first  # its nodes have nobody to talk to any more
        last = [run for run in view["runs"] if run["epoch"] == view["job"]["epoch"]]
        assert [run["state"] for run in last] == ["succeeded", "succeeded"]
        assert victim not in {run["site"] for run in last}
        billed = {line["run"] for line in found["usage"]}
        assert {run["id"] for run in last} <= billed
        assert lost["id"] not in billed
        assert view["job"]["losses"] >= 1
        assert view["job"].get("attempts", 0) == 0  # no failure of its nodes is held against it
        assert found["model"]["from"] > 0  # every node went on from what the first had kept
    finally:
        name = victim.partition("/")[0].rpartition(".")[2]
        world.started[name].wait(60)
        world.serve(name)
        world.act("ready")


def test_a_rate_between_the_sites_is_booked_with_the_cards_and_given_back(world):
    found = world.act("circuits")
    (plan,) = found["plan"]
    (way,) = plan["gang"]["ways"]
    hour_micro_cny = 36_000_000_000 // 200
    assert (way["rate_bps"], way["rtt_us"], way["links"]) == (5_000_000, 1_000, ["east-west"])
    assert (way["meets"], way["price_micro_cny_per_hour"]) == ("door", hour_micro_cny)
    assert plan["gang"]["cost_micro_cny_per_hour"] == 4 * 3_600_000_000 + hour_micro_cny
    assert found["refused"]["code"] == 3  # ten times what any line carries
    assert "1,000,000,000 bit/s" in found["refused"]["err"] or "1000000000 bit/s" in found["refused"]["err"]

    (circuit,) = found["during"]  # real routers carry it
    assert {each["code"] for each in found["laid"]} == {0}, found["laid"]
    assert circuit["state"] in ("up", "degraded"), found["laid"]  # cores that others take carry less
    assert circuit["receipt"]["path"] == ["east-west"]
    assert (circuit["order"]["rate_bps"], circuit["run"]) == (5_000_000, found["view"]["job"]["run"])
    assert f"joins the gang of\t{found['view']['job']['id']}" in found["shown"][0]["out"]

    assert (found["stopped"]["code"], found["run"]["code"]) == (0, 1)
    view = found["view"]
    assert view["job"]["state"] == "cancelled", view
    assert [run["state"] for run in view["runs"]] == ["stopped", "stopped"]
    (ended,) = found["circuits"]
    assert (ended["id"], ended["state"]) == (circuit["id"], "ended")
    bill = {line["owner"]: line for line in found["usage"]}
    assert set(bill) == {"cn.lab.east", "cn.lab.west", "cn.lab"}  # two owners, and whoever runs the network
    assert bill["cn.lab"]["unit"] == "circuit"
    assert all(line["charge_micro_cny"] > 0 for line in found["usage"])
