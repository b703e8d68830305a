"""Who answers, what is found, who joined, and what the machines that watch are told."""

import json

import pytest
from api_world import ADMIN, EXCHANGE, Site
from test_api_gate import refused
from test_api_jobs import submit

from tieline.model.jointoken import JoinToken
from tieline.model.limits import Limits
from tieline.model.party import Role
from tieline.model.record import DelegatedKey, Record, Root
from tieline.registry import Key, sign, verify_chain


@pytest.fixture
def busy(fresh):
    world = fresh()
    world.gz = world.site("lab7", "gz1")
    world.alice = world.as_("alice", Role.USER)
    return world


def test_anybody_may_know_who_answers(world):
    found = world.http.get("/v1/exchange").json()
    assert found["id"] == EXCHANGE
    assert found["fingerprint"] == world.keys.key.fingerprint
    assert found["protocols"] == [3, 2]
    me = world.admin.get("/v1/me").json()
    assert (me["name"], me["roles"], me["owner"], me["groups"]) == ("admin", ["admin", "user"], "", [])


def test_the_status_counts_and_states_every_limit(busy):
    submit(busy.alice)
    found = busy.alice.get("/v1/status").json()
    assert found["jobs"]["booked"] == 1
    assert found["sites"] == {"admitted": 1, "waiting": 0, "silent": 0, "draining": 0}
    assert (found["pools"], found["records"]) == (1, 3)
    assert set(found["limits"]) == set(Limits.__struct_fields__)
    assert {"database_bytes", "free_bytes", "blobs_bytes", "logs_bytes"} <= set(found["store"])
    assert found["is_writable"] is True


def test_a_regulator_sees_sums_and_no_name(busy):
    submit(busy.alice)
    watching = busy.as_("watch", Role.REGULATOR)
    situation = watching.get("/v1/situation")
    assert situation.json()["supply"]["cores"] == {"total": 8, "free": 7, "pools": 1}
    for named in ("alice", "lab7", "gz1", "j-"):
        assert named not in situation.text
        assert named not in watching.get("/v1/status").text
    refused(watching.get("/v1/jobs"), "forbidden")
    refused(watching.get("/v1/sites"), "forbidden")


def test_records_are_kept_as_signed_and_come_with_the_chain_that_proves_them(busy):
    found = busy.alice.get(f"/v1/records/{busy.gz.pool.replace('/', '~')}").json()
    assert (found["is_valid"], found["why_not"], found["kind"]) == (True, "", "pool")
    assert found["record"]["spec"]["core_count"] == 8
    chain = busy.alice.get(f"/v1/chain/{busy.gz.pool.replace('/', '~')}").json()
    verified = verify_chain(
        [envelope.encode() for envelope in chain["envelopes"]], [busy.keys.root()], busy.clock.now_ms() // 1000
    )
    assert verified.record.id == busy.gz.pool
    busy.clock.advance(2 * 86_400_000)
    stale = busy.alice.get(f"/v1/records/{busy.gz.pool.replace('/', '~')}").json()
    assert stale["is_valid"] is False
    assert "lease" in stale["why_not"]


def test_a_record_below_another_pinned_root_comes_with_that_root(fresh):
    world, key = fresh(), Key(b"f" * 32)
    assert world.admin.post("/v1/roots", json={"prefix": "org.far", "public": key.public}).status_code == 201
    now_s = world.clock.now_ms() // 1_000
    record = Record(
        id="org.far/dataset/d", kind="dataset", rev=1, nb=now_s - 10, exp=now_s + 60, spec={"size_bytes": 1}
    )
    envelope = sign(record, key, "org.far#exchange").decode()
    assert world.admin.post("/v1/records", json={"envelope": envelope}).status_code == 201
    chain = world.admin.get("/v1/chain/org.far~dataset~d").json()
    assert (chain["root"], chain["root_public"]) == ("org.far", key.public)
    pinned = DelegatedKey(kid="org.far#exchange", public=chain["root_public"], nb=0, exp=253_402_300_799)
    envelopes = [each.encode() for each in chain["envelopes"]]
    assert verify_chain(envelopes, [Root(prefix=chain["root"], keys=(pinned,))], now_s).record == record


def test_records_come_in_pages_and_by_prefix_and_kind(busy):
    names, after = [], ""
    while True:
        page = busy.alice.get("/v1/records", params={"limit": 1, "after": after}).json()
        names.extend(record["id"] for record in page["records"])
        after = page["next_after"]
        if not after:
            break
    assert names == ["cn.demo.lab7/pool/gz1-cpu", "cn.demo.lab7/site/gz1", "cn.demo/owner/lab7"]
    only = busy.alice.get("/v1/records?kind=pool&prefix=cn.demo").json()["records"]
    assert [record["id"] for record in only] == ["cn.demo.lab7/pool/gz1-cpu"]


def test_a_forged_record_is_refused_with_its_rule_and_nothing_is_kept(busy):
    envelope = json.loads(busy.alice.get(f"/v1/records/{busy.gz.pool.replace('/', '~')}").json()["envelope"])
    envelope["signature"] = "A" * 86
    body = refused(busy.alice.post("/v1/records", json={"envelope": json.dumps(envelope)}), "record_refused")
    assert body["reasons"]
    refused(busy.alice.post("/v1/records", json={"envelope": "{}"}), "record_refused")


def test_what_is_registered_is_found_at_once_and_what_is_withdrawn_is_not(busy):
    answer = busy.gz.record("dataset", "digits", {"title": "Handwritten digits", "size_bytes": 5_000_000})
    assert answer.status_code == 201, answer.text
    for body in ({"query": "size > 1MB", "kind": "dataset"}, {"words": "handwritten"}):
        found = busy.alice.post("/v1/find", json=body).json()
        assert [offer["id"] for offer in found["offers"]] == ["cn.demo.lab7/dataset/digits"], found
    assert busy.gz.record("dataset", "digits", {}, status="withdrawn").status_code == 201
    assert busy.alice.post("/v1/find", json={"words": "handwritten"}).json()["offers"] == []


def test_found_pools_say_what_is_free_now(busy):
    question = {"query": "cores_free >= 8", "kind": "pool"}
    assert busy.alice.post("/v1/find", json=question).json()["matched"] == 1
    submit(busy.alice, {"tasks": [{"run": "x", "resources": [{"core_count": 3}]}]})
    found = busy.alice.post("/v1/find", json={"kind": "pool"}).json()["offers"][0]
    assert found["attributes"]["cores_free"] == 5
    answer = busy.alice.post("/v1/find", json=question).json()
    assert (answer["matched"], answer["reasons"][0]["code"]) == (0, "query_not_met")
    busy.gz.http.post(f"/v1/sites/{busy.gz.id.replace('/', '~')}/drain")
    assert busy.alice.post("/v1/find", json={"query": "status == draining", "kind": "pool"}).json()["matched"] == 1


def test_a_wrong_expression_is_refused_with_its_position(busy):
    body = refused(busy.alice.post("/v1/find", json={"query": "price <"}), "invalid_expression")
    assert "column" in body["where"]
    refused(busy.alice.post("/v1/find", json={"kind": "nothing"}), "invalid_request", "kind")


def test_a_plan_changes_nothing(busy):
    before = busy.writer.position
    found = busy.alice.post("/v1/plans", json={"tasks": [{"run": "x"}, {"run": "y", "nodes": 9}]}).json()["plans"]
    assert found[0]["chosen"] == busy.gz.pool
    assert found[1]["reasons"]
    assert busy.writer.position == before


def test_a_join_token_carries_where_to_go_and_whom_to_believe(fresh):
    world = fresh()
    made = world.admin.post(
        "/v1/tokens", json={"name": "join-lab9", "roles": ["join"], "owner": "lab9", "uses": 1}
    ).json()
    token = JoinToken.parse(made["secret"])
    assert (token.url, token.fingerprint) == (world.url, world.keys.key.fingerprint)
    site = Site(world, "lab9", "one").join(made["secret"])
    assert world.admin.get(f"/v1/sites/{site.id.replace('/', '~')}").json()["is_admitted"] is True
    late = Site(world, "lab9", "two")
    answer = world.http.post("/v1/sites", json={"token": made["secret"], "statement": late.join_statement()})
    refused(answer, "token_refused")
    answer = world.http.post("/v1/sites", json={"token": "tl1.###", "statement": late.join_statement()})
    refused(answer, "token_refused")


def test_a_site_without_a_token_waits_until_an_admin_accepts_it(fresh):
    world = fresh()
    site = Site(world, "lab5", "one").join("").open()
    assert site.welcome.is_admitted is False
    name = site.id.replace("/", "~")
    refused(world.as_("lab5-people", Role.OWNER, owner="lab5").post(f"/v1/sites/{name}/accept"), "forbidden")
    assert world.admin.post(f"/v1/sites/{name}/accept").json()["is_admitted"] is True


def test_an_owner_drains_its_own_site_and_no_other(busy):
    name = busy.gz.id.replace("/", "~")
    theirs = busy.as_("lab7-people", Role.OWNER, owner="lab7")
    assert theirs.post(f"/v1/sites/{name}/drain").json()["is_draining"] is True
    assert busy.gz.http.post(f"/v1/sites/{name}/undrain").json()["is_draining"] is False
    refused(busy.as_("lab8-people", Role.OWNER, owner="lab8").post(f"/v1/sites/{name}/drain"), "not_found")
    other = busy.site("lab8", "sh1")
    refused(other.http.post(f"/v1/sites/{name}/leave"), "not_found")
    assert theirs.post(f"/v1/sites/{name}/leave").json()["has_left"] is True
    refused(busy.gz.http.post("/v1/site/reports", json={"reports": []}), "unauthenticated")


def test_the_same_request_for_a_token_is_answered_with_the_same_secret(fresh):
    world = fresh()
    admin, body, key = world.admin, {"name": "gina", "roles": ["user"]}, {"Idempotency-Key": "once"}
    first, again = (admin.post("/v1/tokens", json=body, headers=key).json() for _ in range(2))
    assert first == again
    assert world.bearer(first["secret"]).get("/v1/me").json()["name"] == "gina"
    other = admin.post("/v1/tokens", json=body).json()
    assert other["secret"] != first["secret"]
    for token in admin.get("/v1/tokens").json()["tokens"]:
        assert "secret" not in token
        assert "sha256" not in token
    refused(admin.post("/v1/tokens", json={**body, "roles": ["admin"]}, headers=key), "idempotency_conflict")


def test_nobody_locks_itself_out_by_revoking_the_token_in_use(fresh):
    world = fresh()
    own = next(token for token in world.admin.get("/v1/tokens").json()["tokens"] if token["name"] == "admin")
    refused(world.admin.delete(f"/v1/tokens/{own['id']}"), "conflict")


def test_an_owner_gives_join_tokens_for_its_own_sites_and_sees_only_those(fresh):
    world = fresh()
    theirs = world.as_("lab7-people", Role.OWNER, owner="lab7")
    mine = theirs.post("/v1/tokens", json={"name": "j", "roles": ["join"], "owner": "cn.demo.lab7"})
    assert mine.status_code == 201, mine.text
    refused(theirs.post("/v1/tokens", json={"name": "j", "roles": ["join"], "owner": "cn.demo.lab8"}), "forbidden")
    refused(theirs.post("/v1/tokens", json={"name": "j", "roles": ["admin"]}), "forbidden")
    seen = theirs.get("/v1/tokens").json()["tokens"]
    assert {token["owner"] for token in seen} == {"cn.demo.lab7"}


def test_a_hello_is_used_once_and_a_forged_one_opens_nothing(busy):
    hello = {"statement": busy.gz.hello()}
    assert busy.http.post("/v1/site/sessions", json=hello).status_code == 201
    refused(busy.http.post("/v1/site/sessions", json=hello), "unauthenticated")
    stranger = Site(busy, "lab7", "gz1")
    stranger.site_key = Site(busy, "lab8", "x").site_key
    refused(busy.http.post("/v1/site/sessions", json={"statement": stranger.hello()}), "unauthenticated")
    old = Site(busy, "lab7", "gz1", protocols=(99,))
    old.nonce = 1_000
    refused(busy.http.post("/v1/site/sessions", json={"statement": old.hello()}), "version_not_supported")


def test_a_heartbeat_of_another_site_is_refused(busy):
    other = busy.site("lab8", "sh1")
    other.beats += 1
    forged = {"statement": busy.gz.statement("site-beat", {"site": busy.gz.id, "seq": 99, "at_ms": 0})}
    refused(other.http.post("/v1/site/heartbeat", json=forged), "unauthenticated")


def test_machines_that_watch_are_told_whether_the_exchange_lives_and_takes_changes(fresh, monkeypatch):
    world = fresh()
    assert world.http.get("/healthz").json()["status"] == "ok"
    assert world.http.get("/readyz").json()["status"] == "ready"
    monkeypatch.setattr(type(world.writer), "is_writable", property(lambda _: False))
    answer = world.http.get("/readyz")
    refused(answer, "overloaded")
    assert answer.headers["retry-after"]
    assert world.http.get("/healthz").status_code == 200


def test_metrics_are_counts_in_the_prometheus_format_without_names(busy):
    from prometheus_client.parser import text_string_to_metric_families

    submit(busy.alice)
    text = busy.admin.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    requests = families["tieline_http_requests"].samples
    assert any(sample.labels.get("operation") == "submit_jobs" and sample.value >= 1 for sample in requests)
    assert families["tieline_queue_depth"].samples[0].value >= 0
    assert {sample.labels["state"] for sample in families["tieline_sites"].samples} >= {"admitted", "silent"}
    for named in ("alice", "lab7", ADMIN):
        assert named not in text
    refused(busy.alice.get("/metrics"), "forbidden")


def test_a_full_queue_is_said_with_the_time_to_come_back(fresh, monkeypatch):
    from tieline.model.error import TielineError
    from tieline.model.reason import Reason

    world = fresh()
    alice = world.as_("alice", Role.USER)

    def full(*_args, **_names):
        raise TielineError(
            "overloaded", "full", reasons=(Reason(code="waiting_for_retry", values={"wait_us": 2_500_000}),)
        )

    monkeypatch.setattr(world.writer, "ask_many", full)
    answer = alice.post("/v1/jobs", json={"tasks": [{"run": "x"}]})
    refused(answer, "overloaded")
    assert answer.headers["retry-after"] == "3"


def test_an_exchange_that_starts_again_answers_as_before(fresh, tmp_path):
    world = fresh()
    world.site("lab7", "gz1")
    alice = world.as_("alice", Role.USER)
    (job,) = submit(alice)
    world.stop()
    again = type(world)(world.folder, clock=world.clock, address=world.address)
    again.is_new = False
    again.start()
    try:
        alice = again.as_("alice", Role.USER)
        assert alice.get("/v1/jobs").json()["jobs"][0]["id"] == job["id"]
        found = alice.post("/v1/find", json={"kind": "pool"}).json()
        assert [offer["id"] for offer in found["offers"]] == ["cn.demo.lab7/pool/gz1-cpu"]
        assert alice.get("/v1/events?limit=1000").json()["events"]
    finally:
        again.stop()
