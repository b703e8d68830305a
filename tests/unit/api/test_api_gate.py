"""What every request passes: its name, its caller, its size, its rate, and the one shape of a refusal."""

import json
import logging
import socket
import time

import pytest

from tieline.model.error import CODES
from tieline.model.limits import Limits
from tieline.model.party import Role

ENVELOPE = {"code", "message", "where", "reasons", "hints", "request_id"}


def refused(answer, code, where=None):
    """The envelope of an answer that refuses with ``code``."""
    assert answer.headers["content-type"] == "application/json", answer.text
    body = answer.json()
    assert set(body) == ENVELOPE
    assert body["code"] == code, body
    assert answer.status_code == CODES[code].status
    assert body["request_id"] == answer.headers["x-request-id"]
    if where is not None:
        assert body["where"] == where
    return body


def test_every_answer_names_its_request_and_keeps_a_well_formed_name(world):
    first, second = world.http.get("/v1/exchange"), world.http.get("/v1/exchange")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert world.http.get("/v1/exchange", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    hostile = world.http.get("/v1/exchange", headers={"X-Request-Id": 'x"} {"a'})
    assert hostile.headers["x-request-id"] != 'x"} {"a'


def test_a_path_that_does_not_exist_is_refused_in_the_same_shape(world):
    refused(world.http.get("/v1/nothing"), "not_found")
    refused(world.http.get("/"), "not_found")
    refused(world.http.get("/v1/jobs/a/b/c/d"), "not_found")


def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(world):
    answer = world.http.put("/v1/jobs")
    refused(answer, "method_not_allowed")
    assert answer.headers["allow"] == "GET, OPTIONS, POST"


def test_no_token_and_a_wrong_one_are_told_apart_and_say_how_to_log_in(world):
    body = refused(world.http.get("/v1/me"), "unauthenticated")
    assert "tieline login" in body["hints"][0]
    answer = world.bearer("tl-not-a-token").get("/v1/me")
    assert "not known" in refused(answer, "unauthenticated")["message"]
    assert answer.headers["www-authenticate"].startswith("Bearer")
    basic = world.http.get("/v1/me", headers={"Authorization": "Basic YTpi"})
    assert "Bearer" in refused(basic, "unauthenticated")["message"]


def test_an_expired_and_a_revoked_token_open_nothing(fresh):
    world = fresh()
    carol = world.bearer(world.token("carol", Role.USER, ttl_s=60))
    me = carol.get("/v1/me").json()
    assert (me["name"], me["roles"], me["owner"], me["scopes"]) == ("carol", ["user"], "", [])
    assert me["right"].startswith("token t-")
    world.clock.advance(60_000)
    assert "expired" in refused(carol.get("/v1/me"), "unauthenticated")["message"]
    dave = world.as_("dave", Role.USER)
    token = next(token for token in world.admin.get("/v1/tokens").json()["tokens"] if token["name"] == "dave")
    assert world.admin.delete(f"/v1/tokens/{token['id']}").json()["is_revoked"] is True
    assert "revoked" in refused(dave.get("/v1/me"), "unauthenticated")["message"]
    again = world.admin.delete(f"/v1/tokens/{token['id']}")
    assert again.status_code == 200


def test_a_join_token_opens_nothing_but_the_join(world):
    joining = world.bearer(world.token("join-lab9", Role.JOIN, owner="lab9"))
    for path in ("/v1/me", "/v1/jobs", "/v1/site/stream", "/v1/status"):
        refused(joining.get(path), "forbidden")


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=%ff", "query"),
        ("limit=1&limit=2", "query"),
        ("nope=1", "query"),
        ("&".join(f"a{index}=1" for index in range(40)), "query"),
        ("x" * 20_000, "query"),
    ],
)
def test_a_wrong_query_is_refused_with_its_place(world, query, where):
    refused(world.admin.get(f"/v1/jobs?{query}"), "invalid_request", where)


def test_an_operation_without_parameters_refuses_them(world):
    refused(world.admin.get("/v1/me?limit=1"), "invalid_request", "query")


@pytest.mark.parametrize(
    ("content", "where", "said"),
    [
        (b"", "body", "not JSON"),
        (b"{", "body", "not JSON"),
        (b"\xff\xfe", "body", "not JSON"),
        (b"[]", "body", "expected `object`"),
        (b'{"tasks": []}', "tasks", "length >= 1"),
        (b'{"tasks": [{"run": "x", "nodes": "2"}]}', "tasks[0].nodes", "expected `int`"),
        (b'{"tasks": [{"run": "x", "resources": [{"core_count": -1}]}]}', "tasks[0].resources[0].core_count", ">= 0"),
        (b'{"tasks": [{"run": "x"}], "colour": "red"}', "body", "unknown field `colour`"),
        (b'{"tasks": [{"run": "x", "envs": {"1A": ""}}]}', "key in tasks[0].envs", "regex"),
        (b'{"tasks": [{"run": "\\ud800"}]}', "body", "not JSON"),
        (b"[" * 100_000, "body", ""),
    ],
)
def test_a_wrong_body_is_refused_with_the_path_of_what_is_wrong(world, content, where, said):
    answer = world.admin.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    body = refused(answer, "invalid_request", where)
    assert said in body["message"]


def test_another_content_type_is_refused(world):
    for kind in ("text/plain", "application/json; charset=latin-1", "application/x-www-form-urlencoded"):
        answer = world.admin.post("/v1/jobs", content=b"{}", headers={"Content-Type": kind})
        refused(answer, "unsupported_media", "Content-Type")
    answer = world.admin.post("/v1/jobs", content=b"{}", headers={"Content-Type": ""})
    refused(answer, "unsupported_media", "Content-Type")
    good = world.admin.post("/v1/find", content=b"{}", headers={"Content-Type": "Application/JSON; charset=UTF-8"})
    assert good.status_code == 200


def test_a_body_over_its_limit_is_refused_before_it_is_read(fresh):
    world = fresh(limits=Limits(body_bytes=65_536))
    admin = world.admin
    json_type = {"Content-Type": "application/json"}
    answer = admin.post("/v1/jobs", content=b" " * 65_537, headers=json_type)
    refused(answer, "too_large")
    assert answer.headers["connection"] == "close"

    host, port = world.listener.getsockname()[:2]
    with socket.create_connection((host, port), timeout=10) as raw:  # a body that does not state its length
        raw.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tl-admin-secret\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(9):
                raw.sendall(b"2000\r\n" + b" " * 8_192 + b"\r\n")
            head = raw.recv(65_536)
        except ConnectionError:  # it hung up while we were sending
            return
    assert b" 413 " in head.split(b"\r\n")[0]


def test_a_promised_length_over_the_limit_is_refused_without_waiting_for_the_bytes(world):
    limit = world.limits.body_bytes
    host, port = world.listener.getsockname()[:2]
    with socket.create_connection((host, port), timeout=10) as raw:
        raw.sendall(
            f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tl-admin-secret\r\n"
            f"Content-Type: application/json\r\nContent-Length: {limit + 1}\r\n\r\n".encode()
        )
        head = raw.recv(65_536)
    assert b" 413 " in head.split(b"\r\n")[0]


def test_too_many_headers_are_refused(world):
    refused(world.http.get("/v1/exchange", headers={f"X-{i}": "1" for i in range(150)}), "invalid_request", "headers")


def test_an_identifier_may_be_written_with_a_tilde_or_quoted(world):
    missing = "cn.demo.lab7/pool/none"
    for written in (missing.replace("/", "~"), missing.replace("/", "%2F"), missing.replace("/", "%2f")):
        body = refused(world.admin.get(f"/v1/records/{written}"), "not_found")
        assert missing in body["message"]
    refused(world.admin.get("/v1/records/UPPER"), "invalid_identifier", "path")
    refused(world.admin.get("/v1/records/..~..~etc~passwd"), "invalid_identifier", "path")


def test_a_caller_over_its_rate_is_told_when_to_come_back_and_others_are_not_held_up(fresh):
    world = fresh(limits=Limits(requests_per_s=1, requests_burst=3))
    erin, frank = world.as_("erin", Role.USER), world.as_("frank", Role.USER)
    answers = [erin.get("/v1/me") for _ in range(6)]
    assert [answer.status_code for answer in answers[:3]] == [200, 200, 200]
    last = answers[-1]
    refused(last, "rate_limited")
    assert int(last.headers["retry-after"]) >= 1
    assert frank.get("/v1/me").status_code == 200
    strangers = [world.http.get("/v1/exchange").status_code for _ in range(6)]
    assert 429 in strangers
    assert world.http.get("/healthz").status_code == 200


def test_guessing_tokens_is_bounded_by_the_address_it_comes_from(fresh):
    world = fresh(limits=Limits(requests_per_s=1, requests_burst=5))
    codes = [world.http.get("/v1/me", headers={"Authorization": f"Bearer tl-{i}"}).status_code for i in range(12)]
    assert codes.count(401) == 5
    assert set(codes[5:]) == {429}


def test_the_log_names_the_request_its_caller_and_its_job_and_no_secret(world, caplog):
    world.site("lab8", "log1")
    with caplog.at_level(logging.INFO, logger="tieline.api"):
        admin = world.admin
        answer = admin.post("/v1/jobs", json={"tasks": [{"run": "echo hush-hush", "envs": {"A": "hush-hush"}}]})
        assert answer.status_code == 201, answer.text
        deadline = time.monotonic() + 60  # the line is written once the answer has gone out
        while not (found := [each for each in caplog.records if each.getMessage() == "submit_jobs"]):
            assert time.monotonic() < deadline, "the request is not in the log"
            time.sleep(0.01)
    record = found[0]
    assert record.request == answer.headers["x-request-id"]
    assert record.status == 201
    assert record.caller == "admin"
    assert record.job == answer.json()["jobs"][0]["id"]
    said = json.dumps([{**vars(each), "msg": each.getMessage()} for each in caplog.records], default=str)
    assert "hush-hush" not in said
    assert "tl-admin-secret" not in said


def test_bytes_that_are_no_http_are_answered_with_the_envelope(world):
    host, port = world.listener.getsockname()[:2]
    with socket.create_connection((host, port), timeout=10) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = b""
        while chunk := raw.recv(65_536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["code"] == "invalid_request"


def test_a_head_that_does_not_end_is_refused(world):
    host, port = world.listener.getsockname()[:2]
    with socket.create_connection((host, port), timeout=10) as raw:
        raw.sendall(b"GET /v1/exchange HTTP/1.1\r\nHost: x\r\n")
        try:
            for _ in range(200):
                raw.sendall(b"X-Filler: " + b"a" * 1_000 + b"\r\n")
            answer = raw.recv(65_536)
        except OSError:
            return
    assert answer.startswith(b"HTTP/1.1 400 ") or answer == b""


def test_a_defect_is_answered_without_its_details_and_logged_with_its_traceback(world, caplog, monkeypatch):
    def broken(*_args, **_names):
        raise ZeroDivisionError("inside-detail")

    monkeypatch.setattr(world.store, "tokens", broken)
    answer = world.admin.get("/v1/tokens")
    body = refused(answer, "internal")
    assert "inside-detail" not in answer.text
    defect = next(record for record in caplog.records if record.getMessage() == "defect in list_tokens")
    assert defect.exc_info is not None
    assert defect.request == body["request_id"]


def test_a_sender_beyond_its_rate_of_bytes_is_slowed_down_and_then_refused(fresh, monkeypatch):
    monkeypatch.setattr("tieline.api.call.MOST_WAIT_S", 0.0)
    world = fresh(limits=Limits(upload_bytes_per_s=65_536))
    admin, content = world.admin, b"x" * 65_000
    binary = {"Content-Type": "application/octet-stream"}
    assert admin.post("/v1/blobs", content=content, headers=binary).status_code == 201
    answer = admin.post("/v1/blobs", content=content, headers=binary)
    refused(answer, "rate_limited")
    assert int(answer.headers["retry-after"]) >= 1
    assert world.blobs.count == 1


def test_numbers_without_a_fraction_are_whole_however_they_are_written(world):
    world.site("lab8", "log2")
    answer = world.admin.post(
        "/v1/plans",
        content=b'{"tasks": [{"run": "x", "nodes": 1.0, "deadline_s": 6e1}]}',
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 200, answer.text
    half = world.admin.post("/v1/plans", json={"tasks": [{"run": "x", "nodes": 1.5}]})
    refused(half, "invalid_request", "tasks[0].nodes")


def test_a_path_says_which_methods_it_has(world):
    for path, methods in (("/v1/jobs", "GET, OPTIONS, POST"), (f"/v1/blobs/{'0' * 64}", "GET, HEAD, OPTIONS")):
        answer = world.http.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, methods)
