"""Streams: nothing is lost, nothing is shown to whom it does not concern, and none of them keeps the process alive."""

import asyncio
import base64
import json
import threading
import time

import httpx
import pytest
from test_api_gate import refused
from test_api_jobs import HELLO, finish, run_of, short, submit

from tieline.api.call import Call
from tieline.api.stream import EventStream, frame
from tieline.model.limits import Limits
from tieline.model.party import Role


def frames(answer):
    """(id, event, data) of each event; comments and positions are (id, "", None)."""
    found = {}
    for line in answer.iter_lines():
        if not line:
            if found:
                yield found.get("id"), found.get("event", ""), found.get("data")
            found = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            found[name] = value.strip()


def taken(client, path, count, **options):
    """The first ``count`` events of a stream."""
    with client.stream("GET", path, **options) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream"
        got = []
        for frame in frames(answer):
            got.append(frame)
            if len(got) == count:
                return got
    return got


@pytest.fixture
def busy(fresh):
    world = fresh()
    world.gz = world.site("lab7", "gz1")
    world.alice = world.as_("alice", Role.USER)
    return world


def test_the_stream_gives_the_whole_log_and_goes_on_with_what_comes(busy):
    head = busy.writer.position[0]
    got = []

    def read():
        with busy.admin as client:
            got.extend(taken(client, "/v1/events/stream", head + 2))

    reader = threading.Thread(target=read)
    reader.start()
    while len(busy.platform.hub.waiters) == 0:
        time.sleep(0.005)
    (job,) = submit(busy.alice)
    reader.join(20)
    assert [int(frame[0]) for frame in got] == list(range(1, head + 3))
    last = json.loads(got[-2][2])
    assert (last["kind"], last["subject"]) == ("job_submitted", job["id"])


def test_a_stream_is_resumed_after_the_last_event_that_was_seen(busy):
    head = busy.writer.position[0]
    got = taken(busy.admin, "/v1/events/stream", 2, headers={"Last-Event-ID": str(head - 2)})
    assert [int(frame[0]) for frame in got] == [head - 1, head]
    got = taken(busy.admin, f"/v1/events/stream?after={head - 1}", 1)
    assert int(got[0][0]) == head


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "99999999", "9" * 40, "١"])
def test_a_cursor_that_is_no_position_is_refused(busy, cursor):
    refused(busy.admin.get("/v1/events/stream", params={"after": cursor}), "invalid_cursor", "after")
    refused(busy.admin.get("/v1/events/stream", headers={"Last-Event-ID": cursor.encode()}), "invalid_cursor", "after")
    refused(busy.gz.http.get("/v1/site/stream", params={"after": cursor}), "invalid_cursor", "after")


def test_no_entry_is_missed_or_doubled_while_others_write(busy):
    """The change from the log's pages to what comes new, under load, from many starting points."""
    total, results, admin = 60, {}, busy.admin
    first = busy.writer.position[0]
    done = threading.Event()

    def write():
        for _ in range(total):
            submit(busy.alice)
        done.set()

    def read(name, after):
        with httpx.Client(base_url=busy.url, headers=admin.headers, timeout=30) as client:
            results[name] = taken(client, f"/v1/events/stream?after={after}", total)

    readers = [threading.Thread(target=read, args=(index, max(0, first - index))) for index in range(6)]
    writer = threading.Thread(target=write)
    for reader in readers[:3]:
        reader.start()
    writer.start()
    for reader in readers[3:]:
        reader.start()
    for thread in (*readers, writer):
        thread.join(60)
    assert done.is_set()
    for name, got in results.items():
        begin = max(0, first - name)
        assert [int(frame[0]) for frame in got] == list(range(begin + 1, begin + total + 1))


def test_a_user_streams_what_concerns_it_and_the_position_moves_on(busy):
    submit(busy.as_("bob", Role.USER))
    (job,) = submit(busy.alice)
    finish(busy, job)
    got = taken(busy.alice, "/v1/events/stream", 8)
    seen = [json.loads(data) for _, _, data in got]
    private = [event for event in seen if event["kind"] not in ("record_stored", "equivocation_seen")]
    assert [event["kind"] for event in private][:4] == ["job_submitted", "run_offered", "run_accepted", "run_started"]
    assert all(short(job) in json.dumps(event) for event in private)
    page = busy.alice.get("/v1/events?limit=1000").json()
    assert "token_created" not in {event["kind"] for event in page["events"]}
    assert page["next_after"] == busy.writer.position[0]


def test_an_owner_sees_what_happens_at_its_sites(busy):
    (job,) = submit(busy.alice)
    finish(busy, job)
    theirs = busy.as_("lab7-people", Role.OWNER, owner="lab7").get("/v1/events?limit=1000").json()["events"]
    kinds = {event["kind"] for event in theirs}
    assert {"site_joined", "session_opened", "run_offered", "run_ended"} <= kinds
    assert not {"job_submitted", "job_ended", "token_created"} & kinds
    others = busy.as_("lab8-people", Role.OWNER, owner="lab8").get("/v1/events?limit=1000").json()["events"]
    assert {event["kind"] for event in others} == {"record_stored"}


def test_the_chain_of_the_log_is_verified_for_those_who_watch(busy):
    found = busy.admin.get("/v1/events/verify").json()
    assert found["is_verified"] is True
    assert found["head"] == busy.admin.get("/v1/status").json()["head"]


def test_streams_of_one_caller_and_of_all_are_bounded_and_given_back(fresh):
    world = fresh(limits=Limits(streams=3, streams_per_caller=2))
    alice, bob, admin = world.as_("alice", Role.USER), world.as_("bob", Role.USER), world.admin
    with alice.stream("GET", "/v1/events/stream") as one, alice.stream("GET", "/v1/events/stream") as two:
        assert one.status_code == two.status_code == 200
        refused(alice.get("/v1/events/stream"), "rate_limited")
        with bob.stream("GET", "/v1/events/stream") as three:
            assert three.status_code == 200
            refused(admin.get("/v1/events/stream"), "rate_limited")
    deadline = time.monotonic() + 10
    while world.platform.rates.streams and time.monotonic() < deadline:
        time.sleep(0.01)
    assert world.platform.rates.streams == 0
    assert world.platform.hub.waiters == {}


def test_open_streams_and_waits_do_not_keep_the_exchange_alive(fresh):
    world = fresh()
    gz = world.site("lab7", "gz1")
    alice = world.as_("alice", Role.USER)
    (job,) = submit(alice, HELLO)
    ended = []

    def follow(client, path):
        with client.stream("GET", path) as answer:
            ended.append((path, list(frames(answer))))

    paths = [
        (world.admin, "/v1/events/stream"),
        (alice, f"/v1/jobs/{short(job)}/log/stream"),
        (gz.http, f"/v1/site/stream?after={gz.welcome.cursor}"),
        (world.as_("alice", Role.USER), f"/v1/jobs/{short(job)}?wait_s=60"),
    ]
    threads = [threading.Thread(target=follow, args=each) for each in paths]
    for thread in threads:
        thread.start()
    while len(world.platform.hub.waiters) < 3:
        time.sleep(0.005)
    world.server.should_exit = True
    for thread in threads:
        thread.join(30)  # before the last of them has waited its 60 s
    world._thread.join(30)
    assert not world._thread.is_alive()
    assert len(ended) == len(paths)
    orders = next(got for path, got in ended if path.startswith("/v1/site"))
    assert json.loads(orders[-1][2])["order"] == "resync"


def test_a_log_is_followed_over_runs_until_the_job_has_ended(busy):
    (job,) = submit(busy.alice)
    run = run_of(busy, job)
    busy.gz.report({"report": "accepted", "run": run["id"], "epoch": run["epoch"]})
    got = []

    def follow():
        with (
            busy.as_("alice", Role.USER) as client,
            client.stream("GET", f"/v1/jobs/{short(job)}/log/stream") as answer,
        ):
            got.extend(frames(answer))

    reader = threading.Thread(target=follow)
    reader.start()
    for offset, text in ((0, b"one\n"), (4, b"two\n\xe4\xbd"), (10, b"\xa0\n")):
        kept = busy.gz.http.post(
            f"/v1/site/runs/{run['id']}/log?offset={offset}",
            content=text,
            headers={"Content-Type": "application/octet-stream"},
        )
        assert kept.json() == {"offset": offset + len(text), "is_full": False}
    busy.gz.report(
        {"report": "ended", "run": run["id"], "epoch": run["epoch"], "state": "succeeded", "exit_codes": [0]}
    )
    reader.join(20)
    assert got[-1][1] == "end"
    assert json.loads(got[-1][2]) == {"state": "succeeded"}
    content = b"".join(base64.b64decode(data) for _, event, data in got if event == "log")
    assert content == "one\ntwo\n你\n".encode()
    assert got[-2][0] == f"1.{len(content)}"
    whole = busy.alice.get(f"/v1/jobs/{short(job)}/log")
    assert whole.content == content
    assert whole.headers["tieline-log-run"] == run["id"]
    assert whole.headers["tieline-log-next"] == str(len(content))
    assert busy.alice.get(f"/v1/jobs/{short(job)}/log?offset=4&run={run['id']}").content == content[4:]
    assert busy.alice.get(f"/v1/jobs/{short(job)}/log?offset=999").content == b""
    refused(busy.alice.get(f"/v1/jobs/{short(job)}/log?run=j-x.1"), "not_found")
    resumed = taken(busy.alice, f"/v1/jobs/{short(job)}/log/stream?after=1.4", 2)
    assert base64.b64decode(resumed[0][2]) == content[4:]
    for cursor in ("x", "0.1", "9.0", "1.-1"):
        refused(busy.alice.get(f"/v1/jobs/{short(job)}/log/stream?after={cursor}"), "invalid_cursor", "after")


def test_a_site_hears_its_orders_and_a_broken_stream_goes_on_where_it_was(busy):
    cursor = busy.gz.welcome.cursor
    (first,) = submit(busy.alice)
    got = taken(busy.gz.http, f"/v1/site/stream?after={cursor}", 1)
    order = json.loads(got[0][2])
    assert (order["order"], order["job"]) == ("offer", first["id"])
    (second,) = submit(busy.alice)
    got = taken(busy.gz.http, "/v1/site/stream", 1, headers={"Last-Event-ID": got[0][0]})
    assert json.loads(got[0][2])["job"] == second["id"]


def test_a_new_session_ends_the_older_one_with_resync(busy):
    got = []

    def listen():
        with (
            httpx.Client(base_url=busy.url, headers=busy.gz.http.headers, timeout=30) as client,
            client.stream("GET", f"/v1/site/stream?after={busy.gz.welcome.cursor}") as answer,
        ):
            got.extend(frames(answer))

    listener = threading.Thread(target=listen)
    listener.start()
    while busy.platform.hub.line(busy.gz.id).mailbox is None:
        time.sleep(0.005)
    older = busy.gz.http
    busy.gz.open()
    listener.join(30)
    assert json.loads(got[-1][2])["order"] == "resync"
    refused(older.get("/v1/site/stream"), "unauthenticated")


def test_a_welcome_brings_the_live_runs_and_the_stream_what_comes_after(busy):
    (job,) = submit(busy.alice)
    busy.gz.open()
    assert [order.job for order in busy.gz.welcome.orders] == [job["id"]]
    (other,) = submit(busy.alice)
    got = taken(busy.gz.http, f"/v1/site/stream?after={busy.gz.welcome.cursor}", 1)
    assert json.loads(got[0][2])["job"] == other["id"]


def test_a_site_may_not_write_the_log_of_another_sites_run(busy):
    (job,) = submit(busy.alice)
    run = run_of(busy, job)
    other = busy.site("lab8", "sh1")
    answer = other.http.post(
        f"/v1/site/runs/{run['id']}/log", content=b"x", headers={"Content-Type": "application/octet-stream"}
    )
    refused(answer, "not_found")


def test_a_quiet_stream_says_that_it_lives_and_moves_its_cursor_past_what_is_not_shown(fresh, monkeypatch):
    monkeypatch.setattr("tieline.api.log.PING_S", 0.05)
    world = fresh()
    world.token("x", Role.USER)
    head = world.writer.position[0] + 1  # the token of bob below, which bob may not see
    with world.as_("bob", Role.USER).stream("GET", "/v1/events/stream") as answer:
        raw = b""
        for piece in answer.iter_raw():
            raw += piece
            if raw.count(b":\n\n") >= 2:
                break
    assert raw.startswith(f"id: {head}\n\n".encode())
    assert b"data:" not in raw


def test_a_reader_that_takes_nothing_is_let_go(world, monkeypatch):
    monkeypatch.setattr("tieline.api.stream.SEND_S", 0.05)

    async def story():
        sent, gone = [], asyncio.Event()

        async def send(message):
            sent.append(message)
            if len(sent) > 3:
                await asyncio.sleep(60)

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        async def endless():
            while True:
                yield frame(b"{}")

        call = Call(world.platform, {"headers": [], "client": None})
        call.meter = world.platform.rates.meter("slow")
        await asyncio.wait_for(EventStream(call, endless)({}, receive, send), 30)
        assert len(sent) == 4
        assert (call.meter.streams, world.platform.rates.streams) == (0, 0)

    asyncio.run(story())
