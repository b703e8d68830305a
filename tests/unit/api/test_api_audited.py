"""Every change, by every operation that can make one: the log says who, what, from where, under which right."""

import re
import sys
import time
from pathlib import Path

import httpx
import pytest
from api_world import World
from test_api_jobs import HELLO

from tieline.api.app import OPERATIONS
from tieline.api.roles import ROLES
from tieline.api.topology import EXAMPLE as TOPOLOGY
from tieline.exchange.commands import BlamePeer
from tieline.model.party import SYSTEM, Role
from tieline.ports import FakeClock
from tieline.registry import Key

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from peer_world import Exchange, until

SOURCE = re.compile(r"127\.0\.0\.1 (token t-\S+|session|peer \S+|key \S+|token t-\S+, key \S+)")
ALWAYS = ("GET", "HEAD")
NO_ENTRY = {  # what is no change of the exchange's state, and so has no entry in its log
    "find": "a question",
    "plan": "a question",
    "delegate_token": "a signed word, kept nowhere; whoever acts with it is logged with its name",
    "open_stream": "under a pass, at the site's own door, which counts what it was used for",
    "ask_pass": "a signed word, kept nowhere; the door counts what it was used for",
    "read_log_buckets": "a question",
    "read_coverage": "a question",
    "read_circle": "a question",
    "fetch_log_records": "a question",
    "store_blob": "bytes under their own hash; what uses them is logged",
    "store_run_log": "the run's own output",
    "beat": "last value only",
    "take_readings": "last value only",
}
# what only peers call is shown where two exchanges run something for each other: tests/unit/peers/test_use_remote.py
ELSEWHERE = {name for name, roles in ROLES.items() if roles == (Role.PEER,)}


class Story:
    """Does one operation after the other, and keeps what each left in the log."""

    def __init__(self, world):
        self.world = world
        self.entries = {}

    def __call__(self, operation, act):
        """``act`` is the one request; whatever the log has more afterwards came of it."""
        before = self.world.writer.position[0]
        answer = act()
        if isinstance(answer, httpx.Response):
            assert answer.status_code < 300, (operation, answer.text)
        rows = self.world.store.log_rows(before, 100)
        said = [row for row in rows if row.actor != SYSTEM.name or row.source]  # not what the exchange's rules then do
        assert said, f"{operation} left no entry of who did it"
        for row in said:
            assert row.actor not in ("", "anonymous"), (operation, row)
            assert row.kind, (operation, row)
            assert SOURCE.fullmatch(row.source or ""), (operation, row)
        self.entries[operation] = said
        return answer


@pytest.fixture
def world(tmp_path):
    folder = tmp_path / "world"
    folder.mkdir()
    running = World(folder, clock=FakeClock(at_ms=int(time.time() * 1000))).start()
    yield running
    running.stop()


@pytest.fixture
def other(tmp_path):
    running = Exchange(tmp_path / "other", "cn.gd", makers=()).start()
    yield running
    running.stop()


def test_every_operation_that_changes_something_is_in_the_log_with_who_what_where_and_by_which_right(world, other):
    does, admin = Story(world), world.admin
    alice = world.as_("alice", Role.USER)

    def posted(client, path, body=None):
        return lambda: client.post(path, json=body if body is not None else {})

    # sites, records, keys
    gz = world.site("lab7", "gz1")
    late = type(gz)(world, "lab8", "gz2")
    does("join_site", lambda: late.join(token=""))
    name = late.id.replace("/", "~")
    does("accept_site", posted(admin, f"/v1/sites/{name}/accept"))
    does("open_session", late.open)
    does("store_record", lambda: late.record("dataset", "d", {"size_bytes": 1}))
    does("drain_site", posted(admin, f"/v1/sites/{name}/drain"))
    does("undrain_site", posted(late.http, f"/v1/sites/{name}/undrain"))
    new = Key(b"n" * 32).public
    does("rekey_owner", posted(admin, "/v1/keys", {"owner": late.prefix, "public": new, "is_revoking": True}))
    does("leave_site", posted(late.http, f"/v1/sites/{name}/leave"))

    # tokens
    made = does("create_token", posted(admin, "/v1/tokens", {"name": "eve", "roles": ["user"]})).json()
    does("revoke_token", lambda: admin.delete(f"/v1/tokens/{made['id']}"))

    # jobs and quotes
    job = does("submit_jobs", posted(alice, "/v1/jobs", HELLO)).json()["jobs"][0]["id"].rpartition("/")[2]
    run = alice.get(f"/v1/jobs/{job}").json()["runs"][-1]
    does("report", lambda: gz.report({"report": "accepted", "run": run["id"], "epoch": run["epoch"]}))
    gz.report({"report": "started", "run": run["id"], "epoch": run["epoch"]})
    with gz.http.stream("GET", "/v1/site/stream", params={"after": gz.welcome.cursor}) as orders:
        reading = orders.iter_raw()  # held: letting go of it would close the stream
        assert next(reading)
        does("open_shell", posted(alice, f"/v1/jobs/{job}/shells", {"command": ["true"]}))
    does("stop_job", posted(alice, f"/v1/jobs/{job}/stop"))
    quote = does("ask_quote", posted(alice, "/v1/quotes", {"task": HELLO["tasks"][0], "duration_s": 60})).json()["id"]
    gz.report({"report": "quoted", "quote": quote, "price_micro_cny_per_unit_hour": 900_000, "ttl_s": 60})
    does("accept_quote", posted(alice, f"/v1/quotes/{quote}/accept"))

    # projects
    does("create_project", posted(admin, "/v1/projects", {"id": "vision"}))
    does("set_project", posted(admin, "/v1/projects/vision/set", {"weight": 2}))
    does("change_members", posted(admin, "/v1/projects/vision/members", {"put": [{"name": "bob"}]}))
    does("close_project", posted(admin, "/v1/projects/vision/close"))
    does("reopen_project", posted(admin, "/v1/projects/vision/reopen"))

    # the network
    owen = world.as_("owen", Role.OPERATOR)
    does("change_topology", posted(owen, "/v1/network/topology", TOPOLOGY))
    does("change_links", posted(owen, "/v1/network/links", {"down": ["east-west"]}))
    owen.post("/v1/network/links", json={"up": ["east-west"]})
    does("change_tariff", posted(owen, "/v1/tariff", {"tariff": {"deadline_micro_cny_per_gb": 20_000}}))
    order = {"source": "east", "target": "west", "size_bytes": 10**9, "deadline_ms": world.clock.now_ms() + 3_600_000}
    moving = does("order_transfer", posted(alice, "/v1/transfers", {"order": order})).json()["transfer"]["id"]
    now_ms = world.clock.now_ms()
    seen = {"subject": moving, "seq": 1, "begun_ms": now_ms, "ended_ms": now_ms, "moved_bytes": 10**8}
    does("take_receipt", posted(owen, "/v1/receipts", {"receipt": seen}))
    does("cancel_transfer", posted(alice, f"/v1/transfers/{moving}/cancel"))
    does("book_night", posted(alice, "/v1/nights", {"orders": [order]}))
    line = {"order": {"a": "east", "b": "west", "rate_bps": 10**9}}
    circuit = does("order_circuit", posted(alice, "/v1/circuits", line)).json()["circuit"]["id"]
    does("resize_circuit", posted(alice, f"/v1/circuits/{circuit}/resize", {"rate_bps": 10**8}))
    does("cancel_circuit", posted(alice, f"/v1/circuits/{circuit}/cancel"))
    does("change_points", posted(owen, "/v1/points", {"put": [{"name": "shanghai"}]}))

    # roots that are believed without a peer
    does("add_root", posted(admin, "/v1/roots", {"prefix": "cn.far", "public": Key(b"f" * 32).public}))
    does("remove_root", lambda: admin.delete("/v1/roots/cn.far"))

    # peers
    there = other.id.replace("/", "~")
    does("request_peering", lambda: other.http.post("/v1/peers", json={"url": world.url, "role": "peer"}))
    does("accept_peer", posted(admin, f"/v1/peers/{there}/accept"))
    does("grant_peer", posted(admin, f"/v1/peers/{there}/grant", {"may_use": True}))
    world.do(BlamePeer(peer=other.id, code="log_forked", values={"known": 1, "seen": 2}))
    does("clear_peer", posted(admin, f"/v1/peers/{there}/clear"))
    does("remove_peer", lambda: admin.delete(f"/v1/peers/{there}"))
    until(lambda: other.view.peers)
    does("add_peer", posted(admin, "/v1/peers", {"url": other.url, "role": "peer"}))

    changing = {each.id for each in OPERATIONS if each.method not in ALWAYS}
    assert set(does.entries) | set(NO_ENTRY) == changing - ELSEWHERE, "say here how it is called, or why not"
    assert not {each.id for each in OPERATIONS if each.method in ALWAYS and each.is_change}
    told = {name: (rows[0].actor, rows[0].source.partition(" ")[2]) for name, rows in does.entries.items()}
    assert told["join_site"] == ("cn.demo.lab8", "key cn.demo.lab8#join")
    assert told["open_session"] == (late.id, "key cn.demo.lab8#site")
    assert told["leave_site"] == (late.id, "session")
    assert told["report"] == (gz.id, "session")
    assert told["request_peering"] == (other.id, f"key {other.keys.key.fingerprint}")
    assert told["submit_jobs"][0] == "alice"
    holder = world.writer.view.tokens
    rights = {f"token {token.id}": token.name for token in holder.values()}
    assert rights[told["submit_jobs"][1]] == "alice"
    assert rights[told["create_token"][1]] == told["create_token"][0]


def test_a_site_that_comes_with_a_token_is_logged_with_the_token(world):
    site = world.site("lab9", "gz9")
    (row,) = [row for row in world.store.log_rows(0, 1_000) if row.kind == "site_joined"]
    (token,) = [each for each in world.writer.view.tokens.values() if each.name == "join-lab9"]
    assert (row.actor, row.source) == (site.prefix, f"127.0.0.1 token {token.id}, key {site.prefix}#join")
