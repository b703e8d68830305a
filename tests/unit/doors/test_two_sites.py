"""Two real site processes and an exchange on loopback: one opened its door, the other listens to nobody."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))
from api_world import World

from tieline.cli.main import tieline
from tieline.client.asynchronous import AsyncClient
from tieline.client.shell import opened_shell
from tieline.drivers.clock import SystemClock
from tieline.drivers.doors.through import relayed_door
from tieline.drivers.doors.visitor import Visitor
from tieline.drivers.http import HttpClient
from tieline.drivers.mover import Terms, move
from tieline.drivers.mover.doors import DoorSource, DoorTarget
from tieline.drivers.mover.files import FileSource, FileTarget
from tieline.drivers.siteprocess import join
from tieline.model.door import ChunkKept
from tieline.model.error import TielineError
from tieline.model.limits import Limits
from tieline.model.party import Role
from tieline.model.passing import PassView
from tieline.model.relay import Channel, RelayPage, ShellBody
from tieline.registry import Key

WAIT_S = 90.0
SERVE = """exec $TIELINE_PYTHON -u -c 'import socket
server = socket.create_server(("127.0.0.1", PORT))
print("up")
while True:
    there, _ = server.accept()
    there.sendall(b"hello " + there.recv(99))
    there.close()'"""
MARK = 100_000 + os.getpid()  # seconds, and a sign
POOLS = "pools: [{name: NAME-cores, cores: 2, memory: 1GB, price: 0, sandbox: optional}]\nengines: [process]\n"


class Place:
    """One site: its folder and, while it runs, its process."""

    def __init__(self, world, name, more):
        self.world, self.name = world, name
        self.folder = world.folder.parent / name
        answer = world.admin.post("/v1/tokens", json={"name": name, "roles": ["join"], "owner": f"cn.demo.{name}"})
        assert answer.status_code == 201, answer.text
        file = world.folder.parent / f"{name}.yaml"
        file.write_text(POOLS.replace("NAME", name) + more)
        self.id = join(answer.json()["secret"], self.folder, config=file, name=name).site
        self.process = None

    def start(self):
        with open(f"{self.folder}.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tieline.drivers.siteprocess", str(self.folder)], stdout=log, stderr=log
            )  # fmt: skip
        return self

    def kill(self, number=signal.SIGKILL):
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None

    def door(self):
        answer = self.world.admin.get(f"/v1/records/{self.id.replace('/', '~')}")
        return answer.json()["record"]["spec"].get("door", "") if answer.status_code == 200 else ""

    def listening(self):
        """Its sockets that anybody can reach."""
        pid = self.process.pid
        own = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
        found = []
        for kind in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
                fields = line.split()
                is_open = fields[3] == "0A" or (kind.startswith("udp") and fields[2].endswith(":0000"))
                if is_open and f"socket:[{fields[9]}]" in own:
                    found.append((kind, int(fields[1].rpartition(":")[2], 16)))
        return found


def until(holds, why):
    deadline = time.monotonic() + WAIT_S
    while not (found := holds()):
        assert time.monotonic() < deadline, why
        time.sleep(0.05)
    return found


@pytest.fixture
def world(tmp_path):
    folder = tmp_path / "world"
    folder.mkdir()
    limits = Limits(requests_per_s=1_000_000, requests_burst=1_000_000, relay_day_bytes=5_000_000)
    running = World(folder, clock=SystemClock(), tick_ms=50, limits=limits).start()
    yield running
    running.stop()


def test_a_site_measures_the_way_to_a_door_and_runs_are_reached_without_one(world):
    places = []
    try:
        near = Place(world, "near", "door: {listen: 127.0.0.1:0}\n")
        far = Place(world, "far", "")
        places += [near, far]
        near.start()
        url = until(near.door, "the door is stated in the site's record")
        port = int(url.rpartition(":")[2])
        assert sorted(near.listening()) == [("tcp", port), ("udp", port)]
        far.start()

        def readings():
            page = world.admin.get("/v1/readings", params={"source": far.id, "target": near.id}).json()
            found = {each["reading"]["method"]: each["reading"] for each in page["readings"]}
            return found if {"udp", "tcp"} <= set(found) else None

        found = until(readings, "the site without a door measures the other")
        for method in ("udp", "tcp"):
            reading = found[method]
            assert 0 < reading["count"] <= reading["sent"], reading
            assert 0 < reading["min_us"] <= reading["p50_us"] <= reading["p99_us"], reading
        third = Place(world, "third", "").start()
        places.append(third)

        def relayed():
            page = world.admin.get("/v1/readings", params={"source": third.id, "target": far.id}).json()
            return next((each["reading"] for each in page["readings"] if each["reading"]["count"]), None)

        reading = until(relayed, "two sites without doors measure each other through the relay")
        assert (reading["method"], reading["one_way"]) == ("relay", "half")
        assert 0 < reading["min_us"] <= reading["p50_us"] <= reading["p99_us"], reading
        assert reading["moved_bytes"] <= 16_384
        (party,) = [each for each in world.admin.get("/v1/relay").json()["parties"] if each["party"] == third.id]
        assert 0 < party["bytes"] <= reading["moved_bytes"], "what it cost is in the relay's meter"
        way = world.admin.get("/v1/ways", params={"source": third.id, "target": far.id}).json()
        assert (way["rtt_us"], way["rtt_evidence"]) == (None, "unknown"), "an upper bound decides nothing"
        said = world.admin.post("/v1/circles", json={"place": far.id, "measure": {"within_us": 60_000_000}}).json()
        (why,) = [each["why"]["code"] for each in said["unknown"] if each["site"] == third.id]
        assert why == "circle_relayed"
        assert far.listening() == []  # it measured, and still nobody can reach it
        assert far.door() == ""

        asyncio.run(chunks(world, near, far))

        said = door_of("close", near.folder)  # the owner closes it
        assert (said["is_open"], said["site"]) == (False, near.id)
        until(lambda: not near.door(), "the record states no door any more")
        assert near.listening() == []
        assert door_of("open", near.folder)["is_open"]
        until(near.door, "it is open again")
        assert door_of("show", near.folder)["stated"] == near.door()
        done = CliRunner().invoke(tieline, ["site", "door", "open", str(far.folder)])
        assert (done.exit_code, "names no door" in done.output) == (1, True), done.output

        shells(world, far)
    finally:
        for place in places:
            place.kill()
            end_runs(place.folder)


def door_of(what, folder):
    done = CliRunner().invoke(tieline, ["site", "door", what, str(folder), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


async def chunks(world, near, far):
    """Bytes go through the door under passes that the exchange gives, each for what its holder may."""
    content = os.urandom(200_000)
    name = hashlib.sha256(content).hexdigest()
    path, key = f"/v1/chunks/{name}", Key(os.urandom(32))
    alice = world.as_("alice", Role.USER)

    def asked(caller, site=near.id, **body):
        body = {"public": key.public, "rights": ["read"], "chunks": [name], **body}
        return caller.post(f"/v1/sites/{site.replace('/', '~')}/passes", json=body)

    assert asked(alice).status_code == 404  # there is no such blob for her
    assert asked(alice, rights=["write"]).status_code == 403
    assert asked(world.admin, rights=["echo"]).status_code == 403
    assert asked(world.admin, "cn.demo.near/site/none").status_code == 404
    assert asked(world.admin, public="AAAA").status_code == 422
    given = msgspec.json.decode(asked(world.admin, rights=["write", "read"]).content, type=PassView)
    guest = Visitor(given.url, given.door_pass, given.public, key, "cn.demo#holder", SystemClock())
    kept = await guest.client.call(
        "PUT", path, ChunkKept, body=content, headers=guest.headers("PUT", path), key=None
    )  # fmt: skip
    assert kept.size_bytes == len(content)
    assert await guest.client.raw("GET", path, headers=guest.headers("GET", path)) == content
    await guest.close()
    await through(world, far, asked)
    blob = alice.post("/v1/blobs", content=content, headers={"content-type": "application/octet-stream"})
    assert blob.json()["sha256"] == name
    assert asked(alice).status_code == 201  # what she brought herself she may read there too


async def moved_through(exchange, far, folder):
    """The mover goes the same way, in as many parts as it likes."""

    async def ask(site, body):
        return await exchange.call("POST", f"/v1/sites/{site.replace('/', '~')}/passes", PassView, body=body)

    (folder / "up").write_bytes(os.urandom(1_500_000))
    target = DoorTarget(far.id, ask, SystemClock(), relay=exchange)
    up = await move(FileSource(str(folder / "up")), target, Terms())
    assert (far.folder / "chunks" / up.sha256).exists()
    source = DoorSource(far.id, up.sha256, ask, SystemClock(), relay=exchange)
    await move(source, FileTarget(str(folder / "down")), Terms(streams=3))
    assert (folder / "down").read_bytes() == (folder / "up").read_bytes()


async def through(world, far, asked):
    """The same at a site that listens to nobody: the relay leads to its door."""
    content = os.urandom(300_000)
    name = hashlib.sha256(content).hexdigest()
    path, key = f"/v1/chunks/{name}", Key(os.urandom(32))
    answer = asked(world.admin, far.id, public=key.public, rights=["write", "read"], chunks=[name])
    given = msgspec.json.decode(answer.content, type=PassView)
    assert given.url == ""
    async with (
        HttpClient(world.url, bearer=world.admin.headers["authorization"].partition(" ")[2]) as exchange,
        HttpClient(world.url, bearer=world.token("eve", Role.USER)) as stranger,
    ):
        async with relayed_door(exchange, far.id, given.door_pass) as client:
            guest = Visitor("", given.door_pass, given.public, key, "cn.demo#holder", SystemClock(), client)
            headers = guest.headers("PUT", path)
            kept = await client.call("PUT", path, ChunkKept, body=content, headers=headers, key=None)
            assert kept.size_bytes == len(content)
            assert await client.raw("GET", path, headers=guest.headers("GET", path)) == content
            with pytest.raises(TielineError) as caught:  # a knock counts once there too
                await client.raw("PUT", path, body=content, headers=headers, key=None)
            assert caught.value.code == "unauthenticated"
        await moved_through(exchange, far, world.folder.parent)
        async with relayed_door(stranger, far.id, given.door_pass) as client:
            with pytest.raises(TielineError) as caught:  # a stolen pass does not even open a stream
                await client.raw("GET", path, headers=guest.headers("GET", path))
            assert caught.value.code == "exchange_unreachable"
    assert far.listening() == []
    assert (far.folder / "chunks" / name).read_bytes() == content


def shells(world, far):
    """A run at the site that listens to nobody is reached through the relay."""
    alice = world.as_("alice", Role.USER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = SERVE.replace("PORT", str(port))
    task = {"name": "t", "run": serve, "resources": [{"core_count": 1}], "owners": ["cn.demo.far"]}
    answer = alice.post("/v1/jobs", json={"tasks": [task]})
    assert answer.status_code == 201, answer.text
    job = answer.json()["jobs"][0]["id"]
    until(lambda: alice.get(f"/v1/jobs/{job.replace('/', '~')}").json()["job"]["state"] == "running", "it runs")

    command_line(world, alice, job, port)

    async def story():
        async with (
            AsyncClient(world.url, alice.headers["authorization"].partition(" ")[2]) as client,
            AsyncClient(world.url, world.token("bob", Role.USER)) as stranger,
        ):
            async with opened_shell(
                client, job, ShellBody(command=("/bin/sh", "-c", "cat; echo no >&2; exit 3"))
            ) as it:
                await it.write(b"typed")
                await it.end_input()
                said = {}
                async for channel, data in it.output():
                    said[channel] = said.get(channel, b"") + data
                assert (said, it.exit_code) == ({Channel.OUTPUT: b"typed", Channel.ERRORS: b"no\n"}, 3)
            with pytest.raises(TielineError) as caught:  # of somebody else there is no such job
                async with opened_shell(stranger, job, ShellBody()):
                    pass
            assert caught.value.code == "not_found"
            with pytest.raises(TielineError) as caught:
                async with opened_shell(client, job, ShellBody(node=1)):
                    pass
            assert caught.value.code == "invalid_request"
            page = await client.http.call("GET", "/v1/relay", RelayPage)
            assert [each.party for each in page.parties] == ["alice"]  # one's own
            assert 5 <= page.parties[0].bytes < 1_000

            async with opened_shell(
                client, job, ShellBody(command=("/bin/sh", "-c", f"echo there; exec sleep {MARK}"))
            ) as it:
                output = it.output()
                assert (await anext(output))[1] == b"there\n"
                await asyncio.to_thread(until, are_there, "it runs beside")
                far.kill()  # kill -9 of one end: the other hears of it, and the run goes on
                with pytest.raises(TielineError) as caught:
                    await asyncio.wait_for(anext(output), WAIT_S)
                assert caught.value.code == "site_unreachable"
                await asyncio.to_thread(until, lambda: not are_there(), "what ran beside ended with its site")
            with pytest.raises(TielineError) as caught:
                async with opened_shell(client, job, ShellBody()):
                    pass
            assert caught.value.code == "site_unreachable"
            far.start()
            await asyncio.to_thread(until, lambda: reached(world, alice, job), "the run is reached again")

            async with opened_shell(client, job, ShellBody(command=("/bin/cat", "/dev/zero"))) as it:
                with pytest.raises(TielineError) as caught:  # what the owner's sites may use the relay for in a day
                    await size_of(it)
            assert caught.value.code == "site_unreachable"
            with pytest.raises(TielineError) as caught:
                async with opened_shell(client, job, ShellBody()):
                    pass
            assert caught.value.code == "rate_limited"

    asyncio.run(story())
    path = f"/v1/jobs/{job.replace('/', '~')}"
    alice.post(f"{path}/stop", json={})
    until(lambda: alice.get(path).json()["job"]["state"] == "cancelled", "it is stopped, with all that runs in it")
    events = [
        each for each in world.admin.get("/v1/events?limit=1000").json()["events"] if each["kind"] == "shell_opened"
    ]
    assert {each["actor"] for each in events} == {"alice"}
    assert events[0]["subject"] == job


def command_line(world, alice, job, port):
    """What people type: `exec` with its exit code, `attach` with a port of the run on this machine."""
    words = (sys.executable, "-m", "tieline.cli")
    secret = alice.headers["authorization"].partition(" ")[2]
    envs = {**os.environ, "TIELINE_EXCHANGE": world.url, "TIELINE_TOKEN": secret, "LANG": "C.UTF-8"}
    script = ("sh", "-c", "cat; echo no >&2; exit 4")
    done = subprocess.run(
        [*words, "exec", job, "--", *script], input=b"typed", env=envs, capture_output=True, timeout=WAIT_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (4, b"typed", b"no\n")
    attached = subprocess.Popen(
        [*words, "attach", job, "--port", f"0:{port}"], env=envs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert attached.stdout.readline() == b"up\n"
        local = int(re.match(rb"127\.0\.0\.1:(\d+) ", attached.stderr.readline())[1])
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", local), WAIT_S) as there:
                there.sendall(b"there")
                assert b"".join(iter(lambda: there.recv(99), b"")) == b"hello there"
    finally:
        attached.kill()
        attached.communicate()


def are_there():
    """Whether what was started beside the run lives, inside whatever sandbox."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes() == f"sleep\0{MARK}\0".encode())
    return any(found)


async def size_of(it):
    return sum([len(data) async for _, data in it.output()])


def reached(world, alice, job):
    answer = alice.post(f"/v1/jobs/{job.replace('/', '~')}/shells", json={"command": ["true"]})
    return answer.status_code == 201


def end_runs(folder):
    for path in folder.rglob("identity"):
        match = re.search(r'"pid":(\d+)', path.read_text(errors="replace"))
        if match:
            try:
                os.killpg(int(match[1]), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
