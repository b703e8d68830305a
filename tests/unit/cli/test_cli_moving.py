"""`transfer run` and `follow`: bytes move at the rate that the calendar gave them, and receipts say so."""

import asyncio
import hashlib
import json
import random
import threading
import time

import pytest

SLOT_MS = 300_000
BYTES = random.Random(3).randbytes(1_500_000)
DIGEST = hashlib.sha256(BYTES).hexdigest()
TOPOLOGY = {
    "name": "pair",
    "nodes": [{"name": "here", "site": "cn.demo.lab7/site/gz1"}, {"name": "there"}],
    "links": [{"name": "th", "a": "there", "b": "here", "capacity_bps": 10**9, "delay_us": 1_000}],
}


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    """An exchange whose clock stands three seconds before the end of a slot of the calendar: bookings end soon."""
    from api_world import World
    from toy_site import ToySite

    from tieline.model.party import Role
    from tieline.ports import FakeClock

    at_ms = (int(time.time() * 1000) // SLOT_MS + 1) * SLOT_MS - 3_000
    world = World(tmp_path_factory.mktemp("exchange"), clock=FakeClock(at_ms=at_ms)).start()
    world.toy = ToySite(world)
    operator = world.as_("oscar", Role.OPERATOR)
    assert operator.post("/v1/network/topology", json={"topology": TOPOLOGY}).status_code == 200
    tariff = {"deadline_micro_cny_per_gb": 1_000_000}
    assert operator.post("/v1/tariff", json={"tariff": tariff}).status_code == 200
    yield world
    world.toy.stop()
    world.stop()


@pytest.fixture
def at_its_time(exchange, monkeypatch):
    """The mover's clock begins at the exchange's, which stands, when it is first looked at."""
    began_s = []

    def clock():
        began_s.append(time.monotonic())
        return lambda: exchange.clock.at_ms / 1000 + time.monotonic() - began_s[0]

    monkeypatch.setattr("tieline.drivers.mover.pacing.LATE_S", 60.0)  # a loaded machine is late
    monkeypatch.setattr("tieline.drivers.mover.pacing.steady_clock", clock)
    monkeypatch.setattr("tieline.drivers.mover.booked.steady_clock", clock)


def booked(exchange, size=1_500_000, **more):
    order = {"source": "there", "target": "here", "size_bytes": size, **more}
    order.setdefault("deadline_ms", exchange.clock.at_ms + 3_600_000)
    made = exchange.admin.post("/v1/transfers", json={"order": order})
    assert made.status_code == 201, made.text
    return made.json()["transfer"]


def test_bytes_move_at_the_booked_rate_and_are_charged_by_the_receipt(exchange, admin, at_its_time, tmp_path):
    transfer = booked(exchange)
    (segment,) = transfer["segments"]
    assert segment["until_ms"] - segment["from_ms"] == 3_000
    (tmp_path / "from").write_bytes(BYTES)
    words = ("--from", tmp_path / "from", "--to", tmp_path / "to", "--transfer", transfer["id"])
    began = time.monotonic()
    done = admin("transfer", "run", *words, "--json")
    assert done.exit_code == 0, done.stderr
    assert time.monotonic() - began > 2.5, "four megabits each second carry it in three"
    moved = json.loads(done.stdout)
    assert (tmp_path / "to").read_bytes() == BYTES
    assert moved["paths"] == [{"path": ["th"], "moved_bytes": len(BYTES), "is_bound": False}]
    now = exchange.admin.get(f"/v1/transfers/{transfer['id']}").json()["transfer"]
    assert (now["state"], now["moved_bytes"], now["charged_micro_cny"]) == ("arrived", len(BYTES), 1_500)
    (receipt,) = exchange.admin.get(f"/v1/receipts/{transfer['id']}").json()["receipts"]
    assert (receipt["sha256"], receipt["moved_bytes"]) == (DIGEST, len(BYTES))
    followed = admin("transfer", "follow", transfer["id"])
    assert followed.stdout == f"{transfer['id']} is arrived\n"
    again = admin("transfer", "run", *words, "--replace")
    assert again.exit_code == 1
    assert "is arrived" in again.stderr


def test_a_try_that_was_killed_is_made_up_for_in_the_last_receipt(exchange, admin, at_its_time, tmp_path):
    transfer = booked(exchange)
    (tmp_path / "from").write_bytes(BYTES)
    words = ("--from", tmp_path / "from", "--to", tmp_path / "to")
    half = admin("transfer", "run", *words, "--sha256", "0" * 64, "--rate", "1kbit/s", "--stall-s", "0")
    assert half.exit_code == 2, "a stall of no time is no sense"

    from tieline.drivers.mover import Terms, move
    from tieline.drivers.mover.files import FileSource, FileTarget
    from tieline.model.error import TielineError

    class Dying(FileTarget):
        async def put(self, index, chunk, sha256):
            if index == 3:
                raise TielineError("internal", "killed")
            await super().put(index, chunk, sha256)

    dying = move(FileSource(str(tmp_path / "from")), Dying(str(tmp_path / "to")), Terms(streams=1))
    with pytest.raises(TielineError, match="killed"):
        asyncio.run(dying)
    done = admin("transfer", "run", *words, "--transfer", transfer["id"], "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["resumed_bytes"] == 3 * 2**18
    now = exchange.admin.get(f"/v1/transfers/{transfer['id']}").json()["transfer"]
    assert (now["state"], now["moved_bytes"]) == ("arrived", len(BYTES))


def test_a_booking_that_was_cancelled_moves_nothing(exchange, admin, at_its_time, tmp_path, monkeypatch):
    monkeypatch.setattr("tieline.drivers.mover.booked.REPORT_S", 0.1)
    transfer = booked(exchange)
    (tmp_path / "from").write_bytes(BYTES)
    words = ("--from", tmp_path / "from", "--to", tmp_path / "to", "--transfer", transfer["id"])
    real, looks = exchange.platform.store.transfer, []

    def look(name):
        looks.append(name)
        if len(looks) == 3:  # while it moves
            assert exchange.admin.post(f"/v1/transfers/{transfer['id']}/cancel").status_code == 200
        return real(name)

    monkeypatch.setattr(exchange.platform.store, "transfer", look)
    done = admin("transfer", "run", *words)
    assert done.exit_code == 1
    assert "cancelled" in done.stderr or "booked no more" in done.stderr
    assert not (tmp_path / "to").exists()
    gone = admin("transfer", "run", "--from", tmp_path / "from", "--to", tmp_path / "to", "--transfer", "t-nothing")
    assert gone.exit_code == 1


def test_more_bytes_than_were_booked_do_not_move(exchange, admin, at_its_time, tmp_path):
    transfer = booked(exchange, size=len(BYTES) - 1)
    (tmp_path / "from").write_bytes(BYTES)
    words = ("--from", tmp_path / "from", "--to", tmp_path / "to", "--transfer", transfer["id"])
    done = admin("transfer", "run", *words)
    assert done.exit_code == 2
    assert "over 1,499,999" in done.stderr
    assert not (tmp_path / "to").exists()


def test_blobs_of_the_exchange_are_sources_and_targets(exchange, admin, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    up = admin("transfer", "run", "--from", tmp_path / "from", "--to", "blob:")
    assert (up.exit_code, up.stdout) == (0, f"blob:{DIGEST}\n"), up.stderr
    wrong = admin("transfer", "run", "--from", tmp_path / "from", "--to", "blob:", "--sha256", "0" * 64)
    assert wrong.exit_code == 1
    down = admin("transfer", "run", "--from", f"blob:{DIGEST}", "--to", tmp_path / "to", "--json")
    assert json.loads(down.stdout)["sha256"] == DIGEST
    assert (tmp_path / "to").read_bytes() == BYTES
    none = admin("transfer", "run", "--from", f"blob:{'0' * 64}", "--to", tmp_path / "none")
    assert none.exit_code == 1
    assert "there is no blob" in none.stderr


@pytest.fixture
def door(exchange, tmp_path):
    """The door of the toy site, in a thread of its own, and stated in the site's record."""
    import msgspec

    from tieline.drivers.clock import SystemClock
    from tieline.drivers.doors.door import Door, chunks_of
    from tieline.model.spec import SiteSpec
    from tieline.site.configuration import DoorConfig

    site, config = exchange.toy.site, DoorConfig()
    is_over, opened = threading.Event(), threading.Event()
    made = Door(config, site.id, site.key, exchange.keys.key.public, SystemClock(), chunks_of(tmp_path / "s", config))

    async def serve():
        await made.open()
        opened.set()
        await asyncio.to_thread(is_over.wait)
        await made.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert opened.wait(30)
    specs = exchange.platform.view.supply.site_specs
    before = specs.get(site.id)
    specs[site.id] = msgspec.structs.replace(before or SiteSpec(), door=made.url)
    clock, exchange.clock.at_ms = exchange.clock.at_ms, int(time.time() * 1000)  # passes are of this moment
    yield made
    exchange.clock.at_ms = clock
    specs[site.id] = before
    is_over.set()
    thread.join(30)


def test_chunks_go_in_and_out_at_the_door_of_a_site(exchange, admin, door, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    admin("transfer", "run", "--from", tmp_path / "from", "--to", "blob:")  # so that the exchange knows who may read it
    up = admin("transfer", "run", "--from", tmp_path / "from", "--to", f"door:{exchange.toy.id}")
    assert (up.exit_code, up.stdout) == (0, f"door:{exchange.toy.id}#{DIGEST}\n"), up.stderr
    assert (tmp_path / "s" / "chunks" / DIGEST).read_bytes() == BYTES
    down = admin("transfer", "run", "--from", up.stdout.strip(), "--to", tmp_path / "to", "--json")
    assert json.loads(down.stdout)["sha256"] == DIGEST, down.stderr
    assert (tmp_path / "to").read_bytes() == BYTES
    nothing = admin("transfer", "run", "--from", f"door:{exchange.toy.id}#{'0' * 64}", "--to", tmp_path / "none")
    assert nothing.exit_code == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "ftp://x/y", "--to", "z"), "no kind of address"),
        (("--from", "https://me:secret@x/y", "--to", "z"), "a login"),
        (("--from", "https://x/y?X-Amz-Signature=secret", "--to", "z"), "env:SOURCE"),
        (("--from", "env:NOT_THERE", "--to", "z"), "NOT_THERE"),
        (("--from", "s3://bucket", "--to", "z"), "s3://bucket/key"),
        (("--from", "blob:", "--to", "z"), "sha256"),
        (("--from", "door:elsewhere", "--to", "z"), "named by its site"),
        (("--from", "door:cn.demo.lab7/site/gz1", "--to", "z"), "needs #"),
        (("--from", "x", "--to", "blob:" + "0" * 64), "--sha256"),
        (("--from", "x", "--to", "z", "--rate", "fast"), "--rate"),
        (("--from", "x", "--to", "z", "--rate", "1Mbit/s", "--transfer", "t-1"), "exclude"),
        (("--from", "x", "--to", "z", "--bind", "127.0.0.2"), "--transfer"),
        (("--from", "x", "--to", "z", "--sha256", "abc"), "64 letters"),
        (("--from", "file://elsewhere/x", "--to", "z"), "on this machine"),
        (("--from", "https://x:99999/y", "--to", "z"), "no https address"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(call, words, said):
    done = call("transfer", "run", *words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "secret" not in done.output


def test_an_address_with_a_signature_comes_by_the_environment_and_is_not_shown(call, monkeypatch, tmp_path):
    monkeypatch.setenv("SOURCE", "http://127.0.0.1:9/x?X-Amz-Signature=secret")
    monkeypatch.setattr("tieline.drivers.http.backoff.Backoff.next_s", lambda self: 0.0)
    done = call("transfer", "run", "--from", "env:SOURCE", "--to", tmp_path / "to")
    assert done.exit_code == 1
    assert "http://127.0.0.1:9/x?..." in done.stderr
    assert "secret" not in done.output


def test_the_bytes_of_a_job_come_as_they_were_booked_for_it(exchange, at_its_time, tmp_path):
    from tieline.drivers.http import HttpClient
    from tieline.drivers.siteprocess.cache import Cache

    assert exchange.admin.post("/v1/blobs", content=BYTES, headers={"Content-Type": "application/octet-stream"})
    task = {
        "run": "sleep 300",
        "mounts": [{"path": "it", "sha256": DIGEST, "size_bytes": len(BYTES)}],
        "resources": [{}],
    }
    (job,) = exchange.admin.post("/v1/jobs", json={"tasks": [task]}).json()["jobs"]
    transfer = booked(exchange, job=job["id"])

    async def staged():
        async with HttpClient(exchange.url, bearer=exchange.toy.site.welcome.bearer) as client:
            cache = Cache(tmp_path / "cache", client, 10**9)
            cache.prepare()
            async with cache.blob(DIGEST, len(BYTES), job["id"]) as path:
                return path.read_bytes()

    began = time.monotonic()
    assert asyncio.run(staged()) == BYTES
    assert time.monotonic() - began > 2.5, "its booked rate is kept"
    now = exchange.admin.get(f"/v1/transfers/{transfer['id']}").json()["transfer"]
    assert (now["state"], now["moved_bytes"]) == ("arrived", len(BYTES))
    (receipt,) = exchange.admin.get(f"/v1/receipts/{transfer['id']}").json()["receipts"]
    assert receipt.get("evidence", "measured") == "measured", "a site's word is more than a user's"
    exchange.admin.post(f"/v1/jobs/{job['id']}/stop")
