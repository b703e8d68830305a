"""What happens inside the laboratory's own network: `gang_story.py ACT FOLDER`. What came of it goes to stdout as JSON.

``FOLDER`` holds the exchange's folder, a folder for each site, and the topology. Every act submits the example.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from tieline.client import AsyncClient
from tieline.model.booking_api import TariffBody
from tieline.model.party import Role
from tieline.model.relay import RelayPage
from tieline.model.tariff import Tariff
from tieline.network.topologyfile import read

EXAMPLE = Path(__file__).parents[2] / "examples/tasks/gang_sites/gang.yaml"
TIELINE = (sys.executable, "-m", "tieline.cli")
PATIENCE_S = 120
STEP_S = "0.05"
LONG_STEPS = 240
CIRCUIT_MICRO_CNY = 36_000_000_000  # for 1 Gbit/s an hour: seconds are seen on a bill


class Inside:
    """The exchange as its admin and as Ada see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = (folder / "exchange/address").read_text().strip()
        self.admin = AsyncClient(self.url, (folder / "exchange/admin.token").read_text().strip())
        self.ada = self.admin

    async def __aenter__(self) -> Self:
        kept = self.folder / "ada.token"
        if not kept.exists():
            kept.write_text((await self.admin.create_token("ada", [Role.USER])).secret)
        self.ada = AsyncClient(self.url, kept.read_text())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.ada.close()
        await self.admin.close()

    def tieline(self, *words: str, token: str = "") -> subprocess.Popen[str]:
        """A verb of Ada's, in a process of its own."""
        token = token or (self.folder / "ada.token").read_text()
        envs = {**os.environ, "TIELINE_EXCHANGE": self.url, "TIELINE_TOKEN": token}
        envs["COLUMNS"] = "400"
        return subprocess.Popen(
            [*TIELINE, *words], env=envs, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    async def said(self, *words: str) -> dict[str, Any]:
        """What a verb says, to its end."""
        return await ended(self.tieline(*words))

    async def operated(self, *words: str) -> dict[str, Any]:
        """The same as whoever runs the network."""
        return await ended(self.tieline(*words, token=(self.folder / "exchange/admin.token").read_text().strip()))

    def task(self, owners: list[str], span: str = "") -> str:
        """The example with these owners, and more in its span."""
        file = EXAMPLE.read_text() + f"owners: [{', '.join(owners)}]\ntrusted: true\n"
        file = file.replace("span: {", f"span: {{{span}")
        made = self.folder / "gang.yaml"
        made.write_text(re.sub(r"^workdir: \.$", f"workdir: {EXAMPLE.parent}", file, flags=re.MULTILINE))
        return str(made)

    async def relayed(self) -> dict[str, int]:
        """Bytes at the relay, by who they are counted for, once no stream is open that may still count."""

        async def seen() -> Any:
            page = await self.admin.http.call("GET", "/v1/relay", RelayPage)
            return page if not page.streams else None

        page = await until(seen, "the relay to be at rest")
        return {each.party: each.bytes for each in page.parties}

    async def facts(self, name: str) -> dict[str, Any]:
        """A job, its runs, usage lines and events."""
        view = await self.ada.job(name)
        usage = await self.ada.usage(name)
        events = await self.admin.history(name)
        circuits = (await self.admin.circuits()).circuits
        made = {
            "view": view, "usage": usage.lines, "events": [each.kind for each in events],
            "circuits": [each for each in circuits if each.job == view.job.id],
        }  # fmt: skip
        found: dict[str, Any] = msgspec.to_builtins(made)
        return found


async def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Exit code, output and errors of a process, once it is over."""
    out, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
    return {"code": process.returncode, "out": out, "err": err}


async def until(look: Callable[[], Any], what: str) -> Any:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := await look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {PATIENCE_S} s")
        await asyncio.sleep(0.1)
    return found


async def tokens(it: Inside) -> Any:
    """A token for each owner to join with."""
    return {
        name: (await it.admin.create_token(name, [Role.JOIN], owner=name, uses=1)).secret
        for name in ("east", "west", "north", "south")
    }


async def ready(it: Inside) -> Any:
    """All four sites are heard with their pools, two doors are stated, and the network is declared."""

    async def seen() -> Any:
        sites = [each for each in await it.admin.sites() if each.pools and not each.is_silent]
        records = [(await it.admin.resolve(each.id)).record for each in sites] if len(sites) == 4 else []
        doors = [json.loads(bytes(each))["spec"].get("door") for each in records]
        return sorted(filter(None, doors)) if len(list(filter(None, doors))) == 2 else None

    found = await until(seen, "four sites, two doors")
    file = it.folder / "lab.yaml"
    await it.admin.change_topology(read(file.read_bytes(), file.name).topology)
    await it.admin.change_tariff(TariffBody(tariff=Tariff(circuit_micro_cny_per_gbps_hour=CIRCUIT_MICRO_CNY)))
    return found


async def newest(it: Inside) -> Any:
    page = await it.ada.jobs(limit=1)
    return page.jobs[0] if page.jobs else None


async def begun(it: Inside, process: subprocess.Popen[str], before: str, step: int = 3) -> str:
    """The name of the job that ``process`` follows, once its last node has taken some steps."""

    async def seen() -> Any:
        assert process.poll() is None, process.communicate()
        job = await newest(it)
        if job is None or job.id == before or job.state != "running":
            return None
        return job.id if f"step {step}," in (await it.ada.log(job.id, 3)).decode() else None

    name: str = await until(seen, "the nodes to learn")
    return name


async def doors(it: Inside) -> Any:
    """Two sites with open doors; from the plan to the bill."""
    file = it.task(["cn.lab.east", "cn.lab.west"])
    before = await it.relayed()
    made = {"plan": await it.said("plan", file), "run": await it.said("run", "-y", file)}
    job = await newest(it)
    return {
        **made, **await it.facts(job.id), "relayed": [before, await it.relayed()],
        "log": (await it.ada.log(job.id, 3)).decode(), "usage_said": await it.said("usage", job.id),
    }  # fmt: skip


async def relay(it: Inside) -> Any:
    """Two sites that listen to nobody; commands beside nodes of both."""
    file = it.task(["cn.lab.north", "cn.lab.south"])
    before, last = await it.relayed(), await newest(it)
    process = it.tieline("run", "-y", "--env", f"PAUSE_S={STEP_S}", "--env", f"STEPS={LONG_STEPS}", file)
    name = await begun(it, process, last.id if last else "")
    script = "echo $TIELINE_NODE_RANK of $TIELINE_NUM_NODES at $(pwd)"
    *beside, stood, why = await asyncio.gather(  # while it runs, on a busy machine too
        *(it.said("exec", name, "--node", str(rank), "--", "sh", "-c", script) for rank in (0, 3)),
        it.said("ps"),
        it.said("why", name),
    )
    made = {"run": await ended(process), "beside": beside, "ps": stood, "why": why, **await it.facts(name)}
    return {**made, "relayed": [before, await it.relayed()]}


async def killed(it: Inside) -> Any:
    """One site's process and its nodes die in the middle: the gang breaks, and begins anew elsewhere."""
    file = it.task(["cn.lab.east", "cn.lab.west", "cn.lab.north"])
    last = await newest(it)
    process = it.tieline("run", "-y", "--env", f"PAUSE_S={STEP_S}", file)
    name = await begun(it, process, last.id if last else "")

    async def kept() -> Any:
        return (await it.ada.job(name)).job.checkpoint

    await until(kept, "a checkpoint")
    runs = (await it.ada.job(name)).runs
    victim = next(each for each in runs if each.rank)
    home = it.folder / victim.site.partition("/")[0].rpartition(".")[2]
    os.kill(int((it.folder / f"{home.name}.pid").read_text()), signal.SIGKILL)
    for path in home.rglob("identity"):
        if match := re.search(r'"pid":(\d+)', path.read_text(errors="replace")):
            end_group(int(match[1]))
    made = {"victim": victim.site, "run": await ended(process), **await it.facts(name)}
    made["model"] = json.loads(await it.ada.read_blob(made["view"]["job"]["outputs"][0]["sha256"]))
    return {**made, "why": await it.said("why", name)}


async def circuits(it: Inside) -> Any:
    """A rate between the sites is booked with the cards, laid, proven, and given back when the job is stopped."""
    owners = ["cn.lab.east", "cn.lab.west"]
    refused = await it.said("plan", it.task(owners, "rate: 1Gbit/s, "))
    file = it.task(owners, "rate: 5Mbit/s, rtt: 20ms, ")
    last = await newest(it)
    planned = await it.said("plan", "--json", file)
    process = it.tieline("run", "-y", "--env", f"PAUSE_S={STEP_S}", "--env", "STEPS=100000", file)
    name = await begun(it, process, last.id if last else "")
    laid = []

    async def proven() -> Any:
        laid.append(await it.operated("lab", "follow", "--once"))
        return any(each.get("meter", {}).get("proven_ms") for each in (await it.facts(name))["circuits"])

    await until(proven, "some seconds of the circuit to be proven")
    during = (await it.facts(name))["circuits"]
    shown = [await it.said("circuit", "show", each["id"]) for each in during]
    made = {"laid": laid, "plan": json.loads(planned["out"]), "during": during, "shown": shown, "refused": refused}
    stopped = await it.said("stop", "-y", name)
    return {**made, "stopped": stopped, "run": await ended(process), **await it.facts(name)}


def end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


async def main(act: str, folder: Path) -> None:
    acts = {each.__name__: each for each in (tokens, ready, doors, relay, killed, circuits)}
    async with Inside(folder) as it:
        print(json.dumps(await acts[act](it)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
