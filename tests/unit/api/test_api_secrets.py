"""Secrets and blobs: only whom they are meant for gets them, and nothing else keeps them."""

import base64
import hashlib
import json
import logging

import pytest
from nacl.public import PrivateKey, PublicKey, SealedBox
from test_api_gate import refused
from test_api_jobs import run_of, short, submit

from tieline.model.limits import Limits
from tieline.model.party import Role

VALUE = "correct-horse-battery-staple"
TASK = {"name": "t", "run": "env", "secrets": ["API_KEY"], "resources": [{"core_count": 1}]}


@pytest.fixture
def busy(fresh):
    world = fresh()
    world.gz = world.site("lab7", "gz1")
    world.alice = world.as_("alice", Role.USER)
    return world


def sealed(world, values):
    public = world.http.get("/v1/exchange").json()["sealing"]
    box = SealedBox(PublicKey(base64.urlsafe_b64decode(public + "=" * (-len(public) % 4))))
    return base64.urlsafe_b64encode(box.encrypt(json.dumps(values).encode())).rstrip(b"=").decode()


def test_a_secret_reaches_the_accepting_site_sealed_and_leaves_no_trace(busy, caplog):
    with caplog.at_level(logging.DEBUG):
        body = {"tasks": [TASK], "sealed_secrets": sealed(busy, {"API_KEY": VALUE})}
        (job,) = submit(busy.alice, body, **{"Idempotency-Key": "with-secret"})
        assert busy.store.secret(job["id"]) is not None
        run = run_of(busy, job)
        report = {"report": "accepted", "run": run["id"], "epoch": run["epoch"]}
        (outcome,) = busy.gz.report(report)
        opened = SealedBox(PrivateKey(busy.gz.sealing)).decrypt(base64.urlsafe_b64decode(outcome["sealed"] + "==="))
        assert json.loads(opened) == {"API_KEY": VALUE}
        (again,) = busy.gz.report(report)
        assert again["sealed"]
        busy.gz.report({"report": "ended", "run": run["id"], "epoch": run["epoch"], "state": "succeeded"})
    assert busy.store.secret(job["id"]) is None
    assert submit(busy.alice, body, **{"Idempotency-Key": "with-secret"})[0]["id"] == job["id"]
    assert busy.store.secret(job["id"]) is None
    for path in ("", "/history", "/why"):
        assert VALUE not in busy.alice.get(f"/v1/jobs/{short(job)}{path}").text
    assert VALUE not in busy.admin.get("/v1/events?limit=1000").text
    assert VALUE not in caplog.text
    busy.writer.close()
    for file in busy.folder.rglob("*"):
        if file.is_file():
            assert VALUE.encode() not in file.read_bytes(), file


def test_each_job_of_a_pipeline_keeps_the_secrets_that_it_names(busy):
    tasks = [{**TASK, "name": "one"}, {"name": "two", "run": "x"}, {**TASK, "name": "three", "secrets": ["B"]}]
    jobs = submit(busy.alice, {"tasks": tasks, "sealed_secrets": sealed(busy, {"API_KEY": VALUE, "B": "b"})})
    assert [busy.store.secret(job["id"]) is not None for job in jobs] == [True, False, True]


@pytest.mark.parametrize(
    ("values", "code", "said"),
    [
        (None, "invalid_task", "no secrets came"),
        ({}, "invalid_task", "not there: `API_KEY`"),
        ({"API_KEY": "x", "OTHER": "y"}, "invalid_task", "named by no task: `OTHER`"),
        ({"API_KEY": 5}, "invalid_task", "one JSON object of texts"),
        ({"API_KEY": "x" * 70_000}, "too_large", "70,"),
    ],
)
def test_secrets_that_do_not_match_the_task_are_refused_and_nothing_is_submitted(busy, values, code, said):
    body = {"tasks": [TASK]} if values is None else {"tasks": [TASK], "sealed_secrets": sealed(busy, values)}
    answer = refused(busy.alice.post("/v1/jobs", json=body), code, "sealed_secrets")
    assert said in answer["message"]
    assert busy.alice.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    ("text", "code"),
    [("!!!", "invalid_request"), ("AAAA", "invalid_task"), ("YWJj", "invalid_task"), ("a", "invalid_task")],
)
def test_secrets_that_do_not_open_are_refused(busy, text, code):
    answer = busy.alice.post("/v1/jobs", json={"tasks": [TASK], "sealed_secrets": text})
    refused(answer, code, "sealed_secrets")


BYTES = {"Content-Type": "application/octet-stream"}


def store(client, content):
    answer = client.post("/v1/blobs", content=content, headers=BYTES)
    assert answer.status_code == 201, answer.text
    assert answer.json() == {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    return answer.json()["sha256"]


def test_bytes_come_back_whole_and_in_parts(busy):
    content = bytes(range(256)) * 40
    digest = store(busy.alice, content)
    whole = busy.alice.get(f"/v1/blobs/{digest}")
    assert whole.content == content
    assert whole.headers["accept-ranges"] == "bytes"
    head = busy.alice.head(f"/v1/blobs/{digest}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(content)), b"")
    for asked, start, end in (
        ("0-9", 0, 10),
        ("100-", 100, 10_240),
        ("-7", 10_233, 10_240),
        ("10230-99999", 10_230, 10_240),
    ):
        part = busy.alice.get(f"/v1/blobs/{digest}", headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, content[start:end])
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/10240"
    for ignored in ("bytes=5-1", "lines=1-2", "bytes=1-2,4-5", "bytes=-", "nonsense"):
        assert busy.alice.get(f"/v1/blobs/{digest}", headers={"Range": ignored}).status_code == 200
    refused(busy.alice.get(f"/v1/blobs/{digest}", headers={"Range": "bytes=10240-"}), "range_not_satisfiable", "Range")
    empty = store(busy.alice, b"")
    for asked in ("bytes=0-", "bytes=5-9", "bytes=-3", "nothing"):
        part = busy.alice.get(f"/v1/blobs/{empty}", headers={"Range": asked})
        assert (part.status_code, part.content) == (200, b"")
    refused(busy.alice.get(f"/v1/blobs/{digest}", headers={"Range": "bytes=-0"}), "range_not_satisfiable")


def test_a_blob_is_read_by_its_sender_the_watchers_and_whom_a_job_brings_it_to(busy):
    digest = store(busy.alice, b"weights")
    bob, gz = busy.as_("bob", Role.USER), busy.gz.http
    other = busy.site("lab8", "sh1", price_micro_cny_per_accelerator_hour=9_000_000)
    for client in (busy.admin, busy.as_("audit", Role.AUDITOR), busy.alice):
        assert client.get(f"/v1/blobs/{digest}").content == b"weights"
    for client in (bob, gz, other.http):
        refused(client.get(f"/v1/blobs/{digest}"), "not_found")
        assert client.head(f"/v1/blobs/{digest}").status_code == 404
    task = {"run": "x", "mounts": [{"path": "w", "sha256": digest}], "resources": [{"core_count": 1}]}
    refused(bob.post("/v1/jobs", json={"tasks": [task]}), "not_found", "mounts")
    (job,) = submit(busy.alice, {"tasks": [task]})
    run = run_of(busy, job)
    assert run["site"] == busy.gz.id
    assert gz.get(f"/v1/blobs/{digest}").content == b"weights"
    refused(other.http.get(f"/v1/blobs/{digest}"), "not_found")
    output = store(gz, b"accuracy 0.97")
    refused(busy.alice.get(f"/v1/blobs/{output}"), "not_found")
    busy.gz.report(
        {"report": "accepted", "run": run["id"], "epoch": 1},
        {
            "report": "ended", "run": run["id"], "epoch": 1, "state": "succeeded",
            "outputs": [{"path": "out.txt", "sha256": output, "size_bytes": 13}],
        },
    )  # fmt: skip
    assert busy.alice.get(f"/v1/blobs/{output}").content == b"accuracy 0.97"
    refused(gz.get(f"/v1/blobs/{digest}"), "not_found")
    busy.platform.facts.readers.clear()
    assert busy.alice.get(f"/v1/blobs/{output}").content == b"accuracy 0.97"
    refused(bob.get(f"/v1/blobs/{output}"), "not_found")


def test_a_task_whose_bytes_are_not_here_is_refused_before_it_is_a_job(busy):
    task = {"run": "x", "workdir": {"path": ".", "sha256": "0" * 64}}
    answer = refused(busy.admin.post("/v1/jobs", json={"tasks": [task]}), "not_found", "mounts")
    assert "0" * 64 in answer["message"]


def test_a_blob_over_its_limit_leaves_nothing_behind(fresh):
    world = fresh(limits=Limits(blob_bytes=2**20, blobs_bytes=2**20))
    admin = world.admin
    refused(admin.post("/v1/blobs", content=b"x" * (2**20 + 1), headers=BYTES), "too_large")
    store(admin, b"y" * (2**20 - 5))
    refused(admin.post("/v1/blobs", content=b"z" * 100, headers=BYTES), "storage_full")
    assert world.blobs.count == 1
    assert list((world.folder / "blobs" / "tmp").iterdir()) == []


def test_what_is_no_sha256_is_refused(busy):
    for name in ("x", "A" * 64, "0" * 63, "..%2f..%2fetc"):
        refused(busy.alice.get(f"/v1/blobs/{name}"), "invalid_identifier", "path")


def given(world, site, job):
    """What the site is told for the run of a job, opened with its key."""
    run = run_of(world, job)
    (outcome,) = site.report({"report": "accepted", "run": run["id"], "epoch": run["epoch"]})
    opened = SealedBox(PrivateKey(site.sealing)).decrypt(base64.urlsafe_b64decode(outcome["sealed"] + "==="))
    return json.loads(opened), run


def test_a_run_is_given_a_token_for_its_own_job_that_ends_with_it(busy):
    plain = {"name": "plain", "run": "x", "resources": [{"core_count": 1}]}
    own, other = (
        submit(busy.alice, {"tasks": [task]})[0] for task in ({**plain, "token": ["read:job", "stop"]}, plain)
    )
    said, run = given(busy, busy.gz, own)
    assert (said["TIELINE_EXCHANGE"], said["TIELINE_JOB_ID"]) == (busy.platform.url, own["id"])
    holder = busy.bearer(said["TIELINE_TOKEN"])
    me = holder.get("/v1/me").json()
    assert (me["name"], me["roles"], me["scopes"]) == ("alice", ["user"], ["read:job", "stop"])
    assert holder.get(f"/v1/jobs/{short(own)}").status_code == 200
    assert reasons_of(holder.get(f"/v1/jobs/{short(other)}"), "forbidden") == ["token_bound"]
    assert reasons_of(holder.get(f"/v1/jobs/{short(own)}/log"), "forbidden") == ["scope_missing"]
    assert reasons_of(holder.post("/v1/jobs", json={"tasks": [plain]}), "forbidden") == ["scope_missing"]
    assert reasons_of(holder.post("/v1/tokens/delegated", json={"scopes": ["read:job"]}), "forbidden") == [
        "scope_never"
    ]
    busy.gz.report({"report": "ended", "run": run["id"], "epoch": run["epoch"], "state": "succeeded"})
    assert reasons_of(holder.get("/v1/me"), "unauthenticated") == ["token_job_ended"]
    assert said["TIELINE_TOKEN"] not in busy.admin.get("/v1/events?limit=1000").text


def test_a_token_of_a_run_that_is_over_is_void_while_its_job_goes_on(busy):
    task = {"name": "t", "run": "x", "token": ["read:job"], "resources": [{"core_count": 1}], "retry": {"limit": 3}}
    (job,) = submit(busy.alice, {"tasks": [task]})
    said, run = given(busy, busy.gz, job)
    busy.gz.report({"report": "ended", "run": run["id"], "epoch": run["epoch"], "state": "failed", "exit_codes": [1]})
    assert reasons_of(busy.bearer(said["TIELINE_TOKEN"]).get("/v1/me"), "unauthenticated") == ["token_run_ended"]


def test_a_token_lives_as_long_as_a_run_without_a_limit(busy):
    task = {"name": "t", "run": "x", "token": ["read:job"], "resources": [{"core_count": 1}]}
    job = submit(busy.alice, {"tasks": [task]})[0]
    said, run = given(busy, busy.gz, job)
    assert not run.get("stop_after_s")
    busy.clock.advance(30 * 86_400_000)
    holder = busy.bearer(said["TIELINE_TOKEN"])
    assert holder.get("/v1/me").json()["scopes"] == ["read:job"]
    busy.clock.advance(371 * 86_400_000)
    assert reasons_of(holder.get("/v1/me"), "unauthenticated") == ["token_expired"]


def test_a_token_outlives_the_wait_for_data_that_is_booked_for_later(busy):
    plain = {"name": "t", "run": "x", "token": ["read:job"], "resources": [{"core_count": 1}], "max_duration_s": 60}
    data = [{"size_bytes": 1, "site": "cn.demo.lab7/site/gz1"}]
    tokens = []
    for more in ({}, {"data": data}):
        said, run = given(busy, busy.gz, submit(busy.alice, {"tasks": [{**plain, **more}]})[0])
        assert run["stop_after_s"] == 60
        tokens.append(said["TIELINE_TOKEN"])
    busy.clock.advance(2 * 86_400_000)
    assert reasons_of(busy.bearer(tokens[0]).get("/v1/me"), "unauthenticated") == ["token_expired"]
    assert busy.bearer(tokens[1]).get("/v1/me").status_code == 200


def test_a_narrow_token_gives_no_run_more_than_it_has(busy):
    scopes = {"scopes": ["submit", "read:job"], "ttl_s": 600}
    holder = busy.bearer(busy.alice.post("/v1/tokens/delegated", json=scopes).json()["secret"])
    task = {"name": "t", "run": "x", "token": ["read:job", "stop"], "resources": [{"core_count": 1}]}
    answer = holder.post("/v1/jobs", json={"tasks": [task]})
    assert reasons_of(answer, "forbidden") == ["scope_missing"]
    for token, status in ((["read:job"], 201), (["submit"], 400)):
        made = holder.post("/v1/jobs", json={"tasks": [{**task, "token": token}]})
        assert made.status_code == status, made.text


def reasons_of(answer, code):
    return [reason["code"] for reason in refused(answer, code)["reasons"]]
