"""The network shown on one machine: measured, planned, booked, carried, cut, healed and billed.

Everything runs inside a laboratory of namespaces and below one folder, and is ended and removed at the end. Exit code 0
only when every check held; ``--json`` gives the checks instead of the story.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tieline.drivers.lab.control import Laboratory
from tieline.drivers.lab.wording import Seen

HERE = Path(__file__).parent
TIELINE = (sys.executable, "-m", "tieline.cli")
CITIES = ("shanghai", "suzhou", "hangzhou", "hefei")
SLOT_S = 10
LINE_BPS = 20_000_000  # half of what the file says: two cores carry it beside everything else
SOLD = (17, 20)  # of each line: the rest is for headers, and for those who are late
PATIENCE_S = 90
SIZE = 25_000_000
ORDERS = 6
BY_S = 30
READY_S = 40
PORT = 8_000
TARIFF = {
    "deadline_micro_cny_per_gb": 500_000,
    "best_effort_micro_cny_per_gb": 200_000,
    "circuit_micro_cny_per_gbps_hour": 60_000_000,
}


class WrongError(Exception):
    """Something did not happen."""


class Lab:
    """The laboratory, an exchange in its management network, a site in each city."""

    def __init__(self, folder: Path, is_quiet: bool) -> None:
        self.folder = folder
        self.is_quiet = is_quiet
        self.started: list[subprocess.Popen[bytes]] = []
        self.checks: list[dict[str, Any]] = []

    def say(self, line: str = "") -> None:
        """A line of the story."""
        if not self.is_quiet:
            print(line, flush=True)

    def check(self, holds: bool, what: str) -> None:
        """Something that must be so."""
        self.checks.append({"what": what, "holds": holds})
        self.say(f"  {'ok' if holds else 'WRONG'}  {what}")

    def tieline(self, *words: str, place: str = "manager", show: bool = False, may_fail: bool = False) -> str:
        """A verb, inside one of the networks (empty: outside of all)."""
        command = [*TIELINE, "lab", "exec", place, "--", *TIELINE, *words] if place else [*TIELINE, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        if done.returncode and not may_fail:
            raise WrongError(f"tieline {' '.join(words)}: {done.stderr.strip()}")
        if show:
            self.say(f"  $ tieline {' '.join(words)}")
            for line in (done.stdout + (done.stderr if may_fail else "")).rstrip().splitlines():
                self.say(f"    {line}")
        return done.stdout

    def data(self, *words: str, place: str = "manager") -> Any:
        """The same as data."""
        return json.loads(self.tieline(*words, "--json", place=place))

    def seen(self) -> Seen:
        """The laboratory as it is now, counters of ports and all."""
        return asyncio.run(Laboratory(self.folder / "home/labs/delta").show())

    def start(self, place: str, *command: str) -> subprocess.Popen[bytes]:
        """A process of its own inside one of the networks."""
        log = (self.folder / f"{len(self.started)}.log").open("wb")
        made = subprocess.Popen([*TIELINE, "lab", "exec", place, "--", *command], stdout=log, stderr=log)
        log.close()
        self.started.append(made)
        return made

    def await_that(self, look: Any, what: str, patience_s: float = PATIENCE_S) -> Any:
        """What ``look`` finds, once it finds something."""
        deadline = time.monotonic() + patience_s
        while not (found := look()):
            if time.monotonic() > deadline:
                raise WrongError(f"{what} did not happen within {patience_s:.0f} s")
            time.sleep(0.2)
        return found

    def close(self) -> None:
        """End everything, the laboratory last."""
        for each in self.started:
            if each.poll() is None:
                each.send_signal(signal.SIGTERM)
        for each in self.started:
            try:
                each.wait(10)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
        for file in self.folder.glob("site-*/site.pid"):
            _end(int(file.read_text()))
        self.tieline("down", str(self.folder / "up"), may_fail=True)
        self.tieline("lab", "down", place="", may_fail=True)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def site(city: str) -> str:
    """The identifier of a city's site."""
    return f"cn.lab.{city}/site/main"


def built(lab: Lab) -> None:
    """Laboratory, exchange, sites."""
    lab.say("1. a laboratory: seven routers, four sites, an exchange beside them")
    lines = yaml.safe_load((HERE / "lab.yaml").read_text())
    lines["links"] = [{**each, "capacity_bps": LINE_BPS} for each in lines["links"]]
    (lab.folder / "lines.yaml").write_text(yaml.safe_dump(lines))
    lab.tieline("lab", "up", str(lab.folder / "lines.yaml"), place="")
    begun = time.monotonic()
    up = ["up", str(lab.folder / "up"), "--no-site", "--host", "fd03::ffff:1", "--prefix", "cn.lab", "--insecure-bind"]
    lab.tieline(*up)
    for number, city in enumerate(CITIES, 1):
        config = {
            "tier": "edge", "region": "cn-east", "door": {"listen": f"[fd00:0:{number}::1]:7000"},
            "probe_inner": ["fd00::/32"],
            "pools": [{"name": "cores", "cores": 1, "memory": "256MB", "price": 0.1}],
        }  # fmt: skip
        file = lab.folder / f"{city}.yaml"
        file.write_text(yaml.safe_dump(config))
        token = lab.tieline("token", "create", city, "--role", "join", "--owner", city).strip()
        home = str(lab.folder / f"site-{city}")
        asked = ["site", "join", token, home, "--config", str(file), "--owner", city, "--name", "main", "--no-start"]
        lab.tieline(*asked, place=site(city))
        lab.start(site(city), sys.executable, "-m", "tieline.drivers.siteprocess", home)
    ready = lab.await_that(lambda: len(lab.data("site", "ls")) == len(CITIES), "four sites")
    lab.check(bool(ready), f"four sites joined over the management network ({time.monotonic() - begun:.0f} s)")
    _declare(lab)
    lab.start("manager", *TIELINE, "lab", "follow")


def _declare(lab: Lab) -> None:
    """The network as it is sold, and what it costs."""
    sold = yaml.safe_load((lab.folder / "lines.yaml").read_text())
    for link in sold["links"]:
        link["capacity_bps"] = LINE_BPS * SOLD[0] // SOLD[1]
    sold["slot_s"] = SLOT_S
    network, tariff = lab.folder / "sold.yaml", lab.folder / "tariff.json"
    network.write_text(yaml.safe_dump(sold))
    tariff.write_text(json.dumps(TARIFF))
    lab.tieline("network", "import", str(network))
    lab.tieline("network", "tariff", "set", str(tariff))


def measured(lab: Lab) -> None:
    """Sites measure each other; a circle."""
    lab.say("2. measured: which sites are within 4 ms of Shanghai, round trip")
    asked = ["circle", "--of", site("shanghai"), "--within", "4ms"]

    def seen() -> Any:
        found = lab.data(*asked)
        is_far = site("hefei") in {each["site"] for each in found["outside"]}
        return found if is_far and all(each["readings"] for each in _near(found)) else None

    circle = lab.await_that(seen, "readings of all three ways from Shanghai")
    lab.tieline(*asked, show=True)
    lab.check(site("hefei") not in {each["site"] for each in circle["inside"]}, "the fibre to Hefei alone takes longer")
    lab.check(all(each["evidence"] == "measured" for each in _near(circle)), "everything is measured by the sites")


def _near(circle: Any) -> list[Any]:
    return [each for each in (*circle["inside"], *circle["unknown"]) if each["site"] != site("shanghai")]


def ordered(lab: Lab) -> str:
    """A circuit, proven."""
    lab.say("4. a circuit: 6 Mbit/s from Shanghai to Hefei with a spare route")
    begun = time.monotonic()
    made = lab.data("circuit", "order", site("shanghai"), site("hefei"), "6Mbit/s", "--diversity", "link")
    name: str = made["circuit"]["id"]
    lab.await_that(lambda: _circuit(lab, name).get("receipt"), "a receipt of the circuit")
    took_s = time.monotonic() - begun
    now = lab.await_that(lambda: _up(lab, name), "the circuit to carry all of its rate")
    receipt = now["receipt"]
    lab.tieline("circuit", "show", name, show=True)
    lab.check(receipt["is_path_proven"], "its path is proven by the counters of the ports")
    share = receipt["goodput_bps"] / receipt["computed_bps"]
    lab.check(share > 0.9, f"it carries {share:.1%} of what rate and headers allow; ordered to proven {took_s:.1f} s")
    return name


def _up(lab: Lab, name: str) -> Any:
    found = _circuit(lab, name)
    return found if found["state"] == "up" else None


def _circuit(lab: Lab, name: str) -> Any:
    found = lab.data("circuit", "show", name)
    return found.get("circuit", found)


def carried(lab: Lab) -> None:
    """More transfers than there is room for; those that are admitted arrive in time, and the lines are full."""
    lab.say(f"3. transfers: {ORDERS} times {SIZE // 10**6} MB from Shanghai to Hangzhou within {BY_S} s")
    folder = lab.folder / "data"
    folder.mkdir()
    (folder / "data.bin").write_bytes(os.urandom(SIZE))
    lab.start(site("shanghai"), sys.executable, str(HERE / "files.py"), str(folder), str(PORT))
    begin_s = (time.time() + READY_S) // SLOT_S * SLOT_S  # when a slot begins: until then everybody is ready
    times = ["--earliest", _stamp(begin_s), "--by", _stamp(begin_s + BY_S)]
    admitted = []
    for _ in range(ORDERS):
        asked = [
            "transfer",
            "order",
            site("shanghai"),
            site("hangzhou"),
            f"{SIZE}B",
            *times,
            "--one-path",
            "--json",
        ]
        said = lab.tieline(*asked, may_fail=True)
        if said:
            admitted.append(json.loads(said)["transfer"])
    lab.check(
        0 < len(admitted) < ORDERS, f"{len(admitted)} are admitted, {ORDERS - len(admitted)} refused with the bound"
    )
    moving = {each["id"]: _moved(lab, each["id"]) for each in admitted}
    counts: list[tuple[float, dict[str, int]]] = []
    while any(each.poll() is None for each in moving.values()):
        counts.append((time.time(), _sent(lab)))
        time.sleep(0.3)
    ends = {name: lab.data("transfer", "show", name) for name in moving}
    late = [name for name, each in ends.items() if each["state"] != "arrived"]
    lab.check(not late, f"{len(ends) - len(late)} of {len(ends)} arrived whole and hashed")
    _full(lab, counts, list(ends.values()))


def _stamp(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def _moved(lab: Lab, name: str) -> subprocess.Popen[bytes]:
    """Start to move the bytes of a transfer as soon as its way has an address."""

    def address() -> str:
        return next((each.ends[0] for each in lab.seen().circuits if each.circuit.id == f"{name}.1"), "")

    source = lab.await_that(address, f"a way for {name}")
    run = ["transfer", "run", "--transfer", name, "--streams", "2", "--from", f"http://[{source}]:{PORT}/data.bin"]
    return lab.start(site("hangzhou"), *TIELINE, *run, "--to", str(lab.folder / f"{name}.bin"))


def _sent(lab: Lab) -> dict[str, int]:
    return {each.name: each.sent_bytes for each in lab.seen().links}


def _full(lab: Lab, counts: list[tuple[float, dict[str, int]]], transfers: list[Any]) -> None:
    """How full the booked lines were, by the counters of their ports, in slots that were sold out."""
    booked: dict[tuple[str, int], int] = {}
    for transfer in transfers:
        for segment in transfer["segments"]:
            for slot in range(segment["from_ms"] // (SLOT_S * 1_000), -(-segment["until_ms"] // (SLOT_S * 1_000))):
                for link in segment["path"]:
                    booked[link, slot] = booked.get((link, slot), 0) + segment["rate_bps"]
    seen = []
    for (link, slot), rate in booked.items():
        inside = [(at, sent[link]) for at, sent in counts if slot * SLOT_S + 1 <= at <= (slot + 1) * SLOT_S]
        if rate < 0.95 * LINE_BPS * SOLD[0] / SOLD[1] or len(inside) < 5:
            continue
        (first_s, first), (last_s, last) = inside[0], inside[-1]
        share = (last - first) * 8 / (last_s - first_s) / LINE_BPS
        lab.say(f"      {link}: {rate / LINE_BPS:.0%} of the line booked for bytes, {share:.1%} sent in frames")
        seen.append(share)
    over = [each for each in booked.items() if each[1] > LINE_BPS * SOLD[0] // SOLD[1]]
    lab.check(not over, f"nothing is oversubscribed: {len(booked)} directions of links by slots of {SLOT_S} s")
    if seen:
        mean = sum(seen) / len(seen)
        lab.check(mean >= 0.9, f"sold-out slots: ports sent {mean:.1%} of their line rate ({len(seen)} link slots)")
    else:
        lab.check(False, "no slot was sold out")


def healed(lab: Lab, name: str) -> None:
    """A cut under traffic."""
    before = _circuit(lab, name)
    link = before["route"]["links"][0]
    lab.say(f"5. a cut: {link} loses its light while the circuit carries")
    seq = before.get("seq", 0)
    lab.tieline("lab", "cut", link, place="")
    lab.await_that(lambda: link in str(lab.data("network", "show")["down"]), "the exchange to know of the cut")
    after = lab.await_that(lambda: _proven_since(lab, name, seq), "the circuit to be proven on another route")
    spared = [each for each in lab.seen().events if each.what == "to spare" and each.subject == name]
    lab.check(bool(spared), f"it was on its spare way {spared[0].took_us / 1_000:.1f} ms after the light was missed")
    lab.check(link not in after["receipt"]["path"], f"proven again over {', '.join(after['receipt']['path'])}")
    lab.tieline("lab", "restore", link, place="")
    lab.await_that(lambda: not lab.data("network", "show")["down"], "the exchange to know of the repair")


def _proven_since(lab: Lab, name: str, seq: int) -> Any:
    found = _circuit(lab, name)
    receipt = found.get("receipt") or {}
    return found if found.get("seq", 0) > seq and receipt.get("is_path_proven") else None


def billed(lab: Lab, name: str) -> None:
    """What it cost, from receipts."""
    lab.say("6. the bill")
    lab.tieline("circuit", "cancel", name, "-y")
    lab.tieline("bill", show=True)
    lab.check(
        _circuit(lab, name).get("charged_micro_cny", 0) > 0, "the circuit is charged for the time that was proven"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="The network shown on one machine, in about two minutes.")
    parser.add_argument("--json", action="store_true", help="the checks as JSON, without the story")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tieline-network-"))
    os.environ["TIELINE_HOME"] = str(folder / "home")
    lab = Lab(folder, options.json)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun = time.monotonic()
    try:
        built(lab)
        measured(lab)
        carried(lab)
        name = ordered(lab)
        healed(lab, name)
        billed(lab, name)
    except (WrongError, subprocess.TimeoutExpired) as error:
        lab.check(False, str(error))
    finally:
        lab.close()
        shutil.rmtree(folder, ignore_errors=True)
    wrong = [each["what"] for each in lab.checks if not each["holds"]]
    if options.json:
        print(json.dumps({"checks": lab.checks, "seconds": round(time.monotonic() - begun, 1)}, indent=2))
    else:
        lab.say(f"FAILED: {'; '.join(wrong)}" if wrong else f"all {len(lab.checks)} checks held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
