"""Jobs over HTTP: submitted once, seen by whom they concern, waited for, explained, stopped."""

import threading
import time

import pytest
from test_api_gate import refused

from tieline.model.party import Role

HELLO = {"tasks": [{"name": "hello", "run": "echo hello", "resources": [{"core_count": 1}]}]}


@pytest.fixture
def busy(fresh):
    """An exchange with one site whose orders are answered by hand."""
    world = fresh()
    world.gz = world.site("lab7", "gz1")
    world.alice = world.as_("alice", Role.USER)
    return world


def submit(client, body=HELLO, **headers):
    answer = client.post("/v1/jobs", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["jobs"]


def short(job):
    return job["id"].rpartition("/")[2]


def run_of(world, job):
    view = world.alice.get(f"/v1/jobs/{short(job)}").json()
    return view["runs"][-1]


def finish(world, job, **ended):
    run = run_of(world, job)
    outcomes = world.gz.report(
        {"report": "accepted", "run": run["id"], "epoch": run["epoch"]},
        {"report": "started", "run": run["id"], "epoch": run["epoch"]},
        {
            "report": "ended",
            "run": run["id"],
            "epoch": run["epoch"],
            "state": "succeeded",
            "exit_codes": [0],
            "duration_ms": 1000,
            **ended,
        },
    )
    assert [outcome["is_ok"] for outcome in outcomes] == [True, True, True], outcomes
    return run


def test_a_job_is_acknowledged_and_found_under_every_form_of_its_name(busy):
    (job,) = submit(busy.alice)
    assert job["user"] == "alice"
    for name in (short(job), job["id"].replace("/", "~"), job["id"].replace("/", "%2F")):
        view = busy.alice.get(f"/v1/jobs/{name}").json()
        assert view["job"]["id"] == job["id"]
        assert len(view["runs"]) == 1


def test_the_same_key_with_the_same_body_makes_one_job_and_another_body_is_a_conflict(busy):
    first = submit(busy.alice, **{"Idempotency-Key": "k1"})
    again = submit(busy.alice, **{"Idempotency-Key": "k1"})
    assert [job["id"] for job in first] == [job["id"] for job in again]
    other = {"tasks": [{"run": "echo other"}]}
    refused(busy.alice.post("/v1/jobs", json=other, headers={"Idempotency-Key": "k1"}), "idempotency_conflict")
    bob = busy.as_("bob", Role.USER)
    assert submit(bob, **{"Idempotency-Key": "k1"})[0]["id"] != first[0]["id"]
    quote = busy.alice.post(
        "/v1/quotes", json={"task": HELLO["tasks"][0]}, headers={"Idempotency-Key": "k1"}
    )  # a key counts for one operation
    assert quote.status_code == 201, quote.text
    assert len(busy.alice.get("/v1/jobs").json()["jobs"]) == 1


def test_a_wrong_key_is_refused(busy):
    for key in ("", "a b", "ä", "x" * 201):
        answer = busy.alice.post("/v1/jobs", json=HELLO, headers={"Idempotency-Key": key.encode()})
        refused(answer, "invalid_request", "Idempotency-Key")


def test_what_can_never_run_is_refused_whole_with_counted_reasons(busy):
    body = {"tasks": [HELLO["tasks"][0], {"run": "x", "resources": [{"core_count": 5_000}]}]}
    answer = refused(busy.alice.post("/v1/jobs", json=body), "unplaceable")
    assert answer["reasons"]
    assert busy.alice.get("/v1/jobs").json()["jobs"] == []


def test_jobs_are_seen_by_their_user_and_by_those_who_watch(busy):
    (job,) = submit(busy.alice)
    bob, admin, auditor = busy.as_("bob", Role.USER), busy.admin, busy.as_("audit", Role.AUDITOR)
    for path in ("", "/why", "/history", "/log"):
        refused(bob.get(f"/v1/jobs/{short(job)}{path}"), "not_found")
        assert busy.alice.get(f"/v1/jobs/{short(job)}{path}").status_code == 200
        assert admin.get(f"/v1/jobs/{short(job)}{path}").status_code == 200
        assert auditor.get(f"/v1/jobs/{short(job)}{path}").status_code == 200
    refused(bob.post(f"/v1/jobs/{short(job)}/stop", json={}), "not_found")
    refused(auditor.post(f"/v1/jobs/{short(job)}/stop", json={}), "forbidden")
    assert bob.get("/v1/jobs").json()["jobs"] == []
    assert bob.get("/v1/jobs?user=alice").json()["jobs"] == []
    assert [each["id"] for each in auditor.get("/v1/jobs?user=alice").json()["jobs"]] == [job["id"]]


def test_an_owner_sees_the_jobs_that_run_at_its_sites_and_only_those_runs(busy):
    (job,) = submit(busy.alice)
    theirs = busy.as_("lab7-people", Role.OWNER, owner="lab7")
    others = busy.as_("lab8-people", Role.OWNER, owner="lab8")
    assert len(theirs.get(f"/v1/jobs/{short(job)}").json()["runs"]) == 1
    refused(others.get(f"/v1/jobs/{short(job)}"), "not_found")
    refused(theirs.get(f"/v1/jobs/{short(job)}/log"), "not_found")


def test_pages_of_jobs_follow_one_another_newest_first(busy):
    made = []
    for _ in range(5):
        made.append(submit(busy.alice)[0]["id"])
        busy.clock.advance(1)
    seen, before = [], ""
    while True:
        page = busy.alice.get("/v1/jobs", params={"limit": 2, "before": before}).json()
        seen.extend(job["id"] for job in page["jobs"])
        before = page["next_before"]
        if not before:
            break
    assert seen == made[::-1]
    refused(busy.alice.get("/v1/jobs?before=j-nothing"), "invalid_cursor")


def test_waiting_for_a_job_ends_when_it_ends_and_not_before(busy):
    (job,) = submit(busy.alice)
    answers = []

    def wait():
        with busy.as_("alice", Role.USER) as client:
            answers.append(client.get(f"/v1/jobs/{short(job)}?wait_s=20").json())

    waiter = threading.Thread(target=wait)
    waiter.start()
    while not busy.platform.hub.waiters:
        time.sleep(0.005)
    run = run_of(busy, job)
    busy.gz.report({"report": "accepted", "run": run["id"], "epoch": run["epoch"]})
    assert waiter.is_alive()
    busy.gz.report(
        {"report": "ended", "run": run["id"], "epoch": run["epoch"], "state": "succeeded", "exit_codes": [0]}
    )
    waiter.join(30)
    assert answers[0]["job"]["state"] == "succeeded"
    assert busy.platform.hub.waiters == {}
    assert busy.alice.get(f"/v1/jobs/{short(job)}?wait_s=60").json()["job"]["state"] == "succeeded"


def test_waiting_longer_than_allowed_is_refused(busy):
    (job,) = submit(busy.alice)
    refused(busy.alice.get(f"/v1/jobs/{short(job)}?wait_s=61"), "invalid_request", "wait_s")


def test_a_queued_job_says_why_and_an_ended_one_how_it_ended(busy):
    jobs = [submit(busy.alice, {"tasks": [{"run": "x", "resources": [{"core_count": 8}]}]})[0] for _ in range(2)]
    why = busy.alice.get(f"/v1/jobs/{short(jobs[1])}/why").json()
    assert why["state"] == "queued"
    assert why["reasons"], why
    busy.alice.post(f"/v1/jobs/{short(jobs[1])}/stop", json={"why": "enough"})
    why = busy.alice.get(f"/v1/jobs/{short(jobs[1])}/why").json()
    assert why["state"] == "cancelled"
    assert why["reasons"][0]["code"] == "cancelled_by"


def test_stopping_twice_answers_the_job_as_it_is(busy):
    (job,) = submit(busy.alice)
    first = busy.alice.post(f"/v1/jobs/{short(job)}/stop", json={})
    second = busy.alice.post(f"/v1/jobs/{short(job)}/stop", json={})
    assert first.status_code == second.status_code == 200
    assert second.json()["job"]["state"] == "cancelled"


def test_the_history_of_a_job_is_its_part_of_the_log(busy):
    (job,) = submit(busy.alice)
    finish(busy, job)
    events = busy.alice.get(f"/v1/jobs/{short(job)}/history").json()["events"]
    assert [event["kind"] for event in events] == [
        "job_submitted", "run_offered", "run_accepted", "run_started", "run_ended", "job_ended",
    ]  # fmt: skip
    page = busy.alice.get(f"/v1/jobs/{short(job)}/history?limit=2").json()
    rest = busy.alice.get(f"/v1/jobs/{short(job)}/history?limit=100&after={page['next_after']}").json()
    assert [event["seq"] for event in (*page["events"], *rest["events"])] == [event["seq"] for event in events]


def test_usage_and_bills_are_seen_from_both_sides_and_add_up(busy):
    (job,) = submit(busy.alice)
    busy.clock.advance(5_000)
    run = run_of(busy, job)
    busy.gz.report({"report": "accepted", "run": run["id"], "epoch": run["epoch"]})
    busy.clock.advance(90_000)
    busy.gz.report(
        {"report": "ended", "run": run["id"], "epoch": run["epoch"], "state": "succeeded", "duration_ms": 90_000}
    )
    lines = busy.alice.get("/v1/usage").json()["lines"]
    assert [line["run"] for line in lines] == [run["id"]]
    assert lines[0]["charge_micro_cny"] == lines[0]["unit_seconds"] * 1_000_000 // 3600
    theirs = busy.as_("lab7-people", Role.OWNER, owner="lab7")
    assert [line["run"] for line in theirs.get("/v1/usage").json()["lines"]] == [run["id"]]
    others = busy.as_("lab8-people", Role.OWNER, owner="lab8")
    assert others.get("/v1/usage").json()["lines"] == []
    owed = busy.alice.get("/v1/bills").json()["bills"]
    earned = theirs.get("/v1/bills?side=owner").json()["bills"]
    assert [bill["party"] for bill in owed] == ["alice"]
    assert owed[0]["charge_micro_cny"] == earned[0]["charge_micro_cny"] == lines[0]["charge_micro_cny"]
    assert others.get("/v1/bills?side=owner").json()["bills"] == []
    assert busy.alice.get(f"/v1/usage?job={short(job)}").json()["lines"] == lines
    until = lines[0]["ended_ms"]
    assert busy.alice.get(f"/v1/bills?until_ms={until}").json()["bills"] == []
    refused(busy.alice.get("/v1/usage?after=nothing"), "invalid_cursor")


def test_a_quote_is_asked_answered_seen_by_both_sides_and_booked(busy):
    asked = busy.alice.post("/v1/quotes", json={"task": HELLO["tasks"][0], "duration_s": 60})
    assert asked.status_code == 201, asked.text
    quote = asked.json()
    refused(busy.alice.post(f"/v1/quotes/{quote['id']}/accept", json={}), "conflict")
    refused(busy.as_("bob", Role.USER).get(f"/v1/quotes/{quote['id']}"), "not_found")
    assert busy.as_("lab7-people", Role.OWNER, owner="lab7").get(f"/v1/quotes/{quote['id']}").status_code == 200
    busy.gz.report({"report": "quoted", "quote": quote["id"], "price_micro_cny_per_unit_hour": 900_000, "ttl_s": 60})
    assert busy.alice.get(f"/v1/quotes/{quote['id']}").json()["state"] == "open"
    booked = busy.alice.post(f"/v1/quotes/{quote['id']}/accept", json={})
    assert booked.status_code == 201, booked.text
    assert booked.json()["job"]["quote"] == quote["id"]
