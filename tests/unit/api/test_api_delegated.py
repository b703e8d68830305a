"""Delegated tokens at the API: what they open, what they do not, and what ends them."""

import hashlib

import msgspec
import pytest
from test_api_gate import refused
from test_api_jobs import HELLO, finish, short, submit
from test_api_roles import attempt

from tieline.api.app import OPERATIONS
from tieline.api.roles import ANY_SCOPE, ANYONE, ROLES, SCOPE_OF
from tieline.model.party import Role
from tieline.model.peer import DelegatedToken
from tieline.model.scope import SCOPES
from tieline.registry import Key
from tieline.registry.delegated import PASSED_ON, opened_token, sealed_token

BETWEEN_EXCHANGES = "run"


@pytest.fixture
def busy(fresh):
    """An exchange with one site whose orders are answered by hand."""
    world = fresh()
    world.gz = world.site("lab7", "gz1")
    world.alice = world.as_("alice", Role.USER)
    return world


def delegated(world, client, *scopes, **fields):
    """A client with a token that ``client`` passed on, and what was said about it."""
    answer = client.post("/v1/tokens/delegated", json={"scopes": scopes, **fields})
    assert answer.status_code == 201, answer.text
    return world.bearer(answer.json()["secret"]), answer.json()


def reason_of(answer, code):
    refused(answer, code)
    return answer.json()["reasons"][0]["code"]


def test_the_holder_acts_in_the_givers_name_with_the_named_scopes_only(busy):
    (job,) = submit(busy.alice)
    holder, made = delegated(busy, busy.alice, "read:job", ttl_s=600)
    me = holder.get("/v1/me").json()
    assert (me["name"], me["scopes"], me["right"]) == ("alice", ["read:job"], f"delegated {made['id']}")
    assert made["expires_ms"] == busy.clock.now_ms() + 600_000
    assert holder.get(f"/v1/jobs/{short(job)}").json()["job"]["id"] == job["id"]
    answer = holder.post("/v1/jobs", json=HELLO)
    assert reason_of(answer, "forbidden") == "scope_missing"
    assert "`submit`" in answer.json()["message"]
    assert reason_of(holder.post(f"/v1/jobs/{short(job)}/stop", json={}), "forbidden") == "scope_missing"


def test_every_operation_asks_for_its_scope_and_what_has_none_is_closed(busy):
    everybody = (Role.ADMIN, Role.OWNER, Role.OPERATOR, Role.USER, Role.AUDITOR)
    client = busy.bearer(busy.token("all", *everybody, owner="lab7"))
    scopes = [scope for scope in SCOPES if scope != BETWEEN_EXCHANGES]
    whole, _ = delegated(busy, client, *scopes)
    for operation in OPERATIONS:
        roles, scope = ROLES[operation.id], SCOPE_OF.get(operation.id)
        if roles == ANYONE:
            continue
        status = attempt(whole, operation)
        if scope is None or not set(roles) & set(PASSED_ON):
            assert status == 403, operation.id
            continue
        assert status not in (401, 403), (operation.id, status)
        if scope != ANY_SCOPE:
            rest, _ = delegated(busy, client, *[each for each in scopes if each != scope])
            assert attempt(rest, operation) == 403, operation.id


def test_the_tables_of_scopes_and_of_roles_agree():
    assert set(SCOPE_OF) <= set(ROLES)
    assert set(SCOPE_OF.values()) - {ANY_SCOPE} == set(SCOPES) - {BETWEEN_EXCHANGES}
    for name, scope in SCOPE_OF.items():
        if scope != ANY_SCOPE:
            given = set(SCOPES[scope].roles)
            assert given & set(PASSED_ON), name
            assert given & set(ROLES[name]), name


def test_bound_to_a_job_it_opens_nothing_else_and_ends_with_it(busy):
    (mine,), (other,) = submit(busy.alice), submit(busy.alice)
    scopes = ("read:job", "read:log", "read:blob", "stop")
    holder, made = delegated(busy, busy.alice, *scopes, job=short(mine))
    assert made["job"] == mine["id"]
    for name in (short(mine), mine["id"].replace("/", "~")):
        assert holder.get(f"/v1/jobs/{name}").status_code == 200
        assert holder.get(f"/v1/jobs/{name}/history").status_code == 200
    assert reason_of(holder.get(f"/v1/jobs/{short(other)}"), "forbidden") == "token_bound"
    assert reason_of(holder.get("/v1/jobs"), "forbidden") == "token_bound"
    assert reason_of(holder.post(f"/v1/jobs/{short(other)}/stop", json={}), "forbidden") == "token_bound"
    finish(busy, mine)
    answer = holder.get(f"/v1/jobs/{short(mine)}")
    assert reason_of(answer, "unauthenticated") == "token_job_ended"
    refused(busy.alice.post("/v1/tokens/delegated", json={"scopes": ["read:job"], "job": short(mine)}), "conflict")


def test_bound_to_a_job_it_reads_the_blobs_of_that_job_alone(busy):
    sent = {}
    for content in (b"of the job", b"of nobody's job"):
        answer = busy.alice.post("/v1/blobs", content=content, headers={"Content-Type": "application/octet-stream"})
        sent[content] = answer.json()["sha256"]
    digest = sent[b"of the job"]
    mount = {"path": "in.txt", "sha256": digest, "size_bytes": 10}
    (job,) = submit(busy.alice, {"tasks": [{**HELLO["tasks"][0], "mounts": [mount]}]})
    holder, _ = delegated(busy, busy.alice, "read:blob", job=short(job))
    assert holder.get(f"/v1/blobs/{digest}").content == b"of the job"
    other = sent[b"of nobody's job"]
    assert busy.alice.get(f"/v1/blobs/{other}").status_code == 200
    assert holder.get(f"/v1/blobs/{other}").status_code == 404


def test_it_ends_in_time_and_never_after_the_token_that_it_comes_from(fresh):
    world = fresh()
    short_lived = world.bearer(world.token("carol", Role.USER, ttl_s=60))
    holder, made = delegated(world, short_lived, "find")
    assert made["expires_ms"] == world.clock.now_ms() + 60_000
    assert holder.get("/v1/me").status_code == 200
    world.clock.advance(60_000)
    assert reason_of(holder.get("/v1/me"), "unauthenticated") == "token_expired"


def test_it_is_void_once_the_token_that_it_comes_from_is_revoked(fresh):
    world = fresh()
    alice = world.as_("alice", Role.USER)
    holder, _ = delegated(world, alice, "find")
    assert holder.get("/v1/me").status_code == 200
    parent = next(each for each in world.admin.get("/v1/tokens").json()["tokens"] if each["name"] == "alice")
    assert world.admin.delete(f"/v1/tokens/{parent['id']}").status_code == 200
    assert reason_of(holder.get("/v1/me"), "unauthenticated") == "token_parent"


@pytest.mark.parametrize(
    ("roles", "body", "code"),
    [
        ((Role.USER,), {"scopes": []}, "invalid_request"),
        ((Role.USER,), {"scopes": ["everything"]}, "invalid_request"),
        ((Role.USER,), {"scopes": ["run"]}, "invalid_request"),
        ((Role.USER,), {"scopes": ["find"], "ttl_s": 86_401}, "invalid_request"),
        ((Role.USER,), {"scopes": ["find"], "ttl_s": 0}, "invalid_request"),
        ((Role.USER,), {"scopes": ["find"], "pool": "p"}, "invalid_request"),
        ((Role.USER,), {"scopes": ["read:job"], "job": "j-none"}, "not_found"),
        ((Role.USER,), {"scopes": ["change:site"]}, "forbidden"),
        ((Role.AUDITOR,), {"scopes": ["submit"]}, "forbidden"),
        ((Role.ADMIN,), {"scopes": ["submit"]}, "forbidden"),
        ((Role.REGULATOR,), {"scopes": ["read:situation"]}, "forbidden"),
    ],
    ids=str,
)
def test_what_cannot_be_passed_on_is_refused(world, roles, body, code):
    client = world.as_(f"giver-{'-'.join(roles)}", *roles)
    refused(client.post("/v1/tokens/delegated", json=body), code)


def test_it_is_not_passed_on_again_and_makes_no_tokens(world):
    admin = world.bearer(world.token("chief", Role.ADMIN, Role.USER))
    holder, _ = delegated(world, admin, "read:job", "submit")
    assert reason_of(holder.post("/v1/tokens/delegated", json={"scopes": ["read:job"]}), "forbidden") == "scope_never"
    refused(holder.post("/v1/tokens", json={"name": "x", "roles": ["admin"]}), "forbidden")
    refused(holder.get("/v1/tokens"), "forbidden")


def forged(world, key=None, **fields):
    now_s = world.clock.now_ms() // 1000
    here = world.platform.exchange.id
    said = {"by": here, "to": here, "user": "alice", "scopes": ("find",), "roles": (Role.USER,), **fields}
    token = DelegatedToken(id="d-x", nb_s=now_s, exp_s=now_s + 60, **said)
    return sealed_token(token, key or world.keys.key, world.keys.kid)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"to": "cn.other/exchange/main"}, "token_to"),
        ({"by": "cn.other/exchange/main"}, "token_by"),
        ({"parent": "t-none"}, "token_parent"),
        ({"job": "cn.demo/job/j-none", "scopes": ("read:job",)}, "token_job_ended"),
        ({"key": Key(b"x" * 32)}, "signature_wrong"),
    ],
    ids=str,
)
def test_a_token_that_this_exchange_would_not_give_is_not_believed(world, fields, reason):
    answer = world.bearer(forged(world, **fields)).get("/v1/me")
    assert reason_of(answer, "unauthenticated") == reason


def test_no_delegated_token_makes_an_admin(world):
    holder = world.bearer(forged(world, roles=(Role.ADMIN, Role.USER, Role.SITE, Role.PEER), scopes=("audit", "find")))
    assert holder.get("/v1/me").json()["roles"] == ["user"]
    refused(holder.get("/metrics"), "forbidden")


def test_its_secret_is_kept_nowhere(fresh, caplog):
    world = fresh()
    alice = world.as_("alice", Role.USER)
    _, made = delegated(world, alice, "find", "submit")
    holder = world.bearer(made["secret"])
    caplog.set_level("INFO", "tieline.api")
    submit_answer = holder.post("/v1/quotes", json={"task": HELLO["tasks"][0]})
    assert submit_answer.status_code == 403
    secret = made["secret"].rpartition(".")[2].encode()
    for file in world.folder.rglob("*"):
        if file.is_file():
            assert secret not in file.read_bytes(), file
    assert secret.decode() not in caplog.text
    assert hashlib.sha256(made["secret"].encode()).hexdigest() not in world.writer.view.tokens
    token = opened_token(
        made["secret"],
        world.keys.key.public,
        by=world.platform.exchange.id,
        to=world.platform.exchange.id,
        now_s=world.clock.now_ms() // 1000,
    )
    assert msgspec.structs.asdict(token)["user"] == "alice"


def test_the_log_says_from_where_and_under_which_right_to_those_who_may_see_everything(busy):
    holder, made = delegated(busy, busy.alice, "submit", "read:job", "read:event")
    (job,) = submit(holder)
    (direct,) = submit(busy.alice)
    auditor = busy.as_("audrey", Role.AUDITOR)
    parent = next(each for each in auditor.get("/v1/tokens").json()["tokens"] if each["name"] == "alice")
    wanted = {short(job): f"127.0.0.1 delegated {made['id']}", short(direct): f"127.0.0.1 token {parent['id']}"}
    for client in (auditor, busy.admin):
        page = client.get("/v1/events?limit=1000").json()["events"]
        for name, source in wanted.items():
            told = [each["source"] for each in page if each["kind"] == "job_submitted" and name in each["subject"]]
            assert told == [source]
        accepted = [each for each in page if each["kind"] == "session_opened"]
        assert accepted
        assert all(each["source"].startswith("127.0.0.1") for each in accepted)
        history = client.get(f"/v1/jobs/{short(job)}/history").json()["events"]
        assert history[0]["source"] == wanted[short(job)]
    for client in (busy.alice, holder):
        page = client.get("/v1/events?limit=1000").json()["events"]
        assert [each for each in page if each["kind"] == "job_submitted"]
        assert {each["source"] for each in page} == {""}
        assert {each["source"] for each in client.get(f"/v1/jobs/{short(job)}/history").json()["events"]} == {""}
    busy.gz.beat()
    finish(busy, job)
    reported = [
        each["source"]
        for each in auditor.get(f"/v1/jobs/{short(job)}/history").json()["events"]
        if each["kind"] == "run_ended"
    ]
    assert reported == ["127.0.0.1 session"]
