"""Projects over HTTP: made, filled, closed, seen by their members, and bound to by delegated tokens."""

import pytest
from test_api_delegated import delegated, reason_of
from test_api_gate import refused
from test_api_jobs import HELLO, finish, run_of, short, submit
from test_api_oidc import process, provider, trusting

from tieline.model.party import Role

__all__ = ["process", "provider", "trusting"]


@pytest.fixture
def shared(fresh):
    """An exchange with one site, a project of Alice (a manager) and Bob, and Carol, who is in none."""
    world = fresh()
    world.gz = world.site("lab7", "gz1")
    for name in ("alice", "bob", "carol"):
        setattr(world, name, world.as_(name, Role.USER))
    members = [{"name": "alice", "role": "manager"}, {"name": "bob"}]
    made = world.admin.post("/v1/projects", json={"id": "vision", "quota": {"card_count": 4}, "members": members})
    assert made.status_code == 201, made.text
    return world


def lines_of(client):
    lines = client.get("/v1/usage?project=vision").json()["lines"]
    assert lines
    return lines


def names(answer):
    assert answer.status_code == 200, answer.text
    return [short(job) for job in answer.json()["jobs"]]


def test_a_project_is_made_once_changed_in_parts_and_closed(shared):
    admin = shared.admin
    body = {"id": "sound", "title": "Sound", "weight": 2}
    first = admin.post("/v1/projects", json=body, headers={"Idempotency-Key": "k"})
    again = admin.post("/v1/projects", json=body, headers={"Idempotency-Key": "k"})
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    refused(admin.post("/v1/projects", json=body), "conflict")
    changed = admin.post("/v1/projects/sound/set", json={"quota": {"card_hours": 7}, "may_borrow": False}).json()
    assert (changed["title"], changed["weight"], changed["may_borrow"]) == ("Sound", 2, False)
    assert changed["quota"] == {"card_hours": 7}
    assert admin.post("/v1/projects/sound/close").json()["is_closed"]
    refused(admin.post("/v1/jobs", json={**HELLO, "project": "sound"}), "forbidden")
    assert not admin.post("/v1/projects/sound/reopen").json()["is_closed"]
    refused(admin.post("/v1/projects/none/close"), "not_found")
    for wrong in ({"id": "Big"}, {"id": "x", "quota": {"cards": 1}}, {"id": "x", "members": [{"name": "a", "is": 1}]}):
        refused(admin.post("/v1/projects", json=wrong), "invalid_request")
    assert [each["id"] for each in admin.get("/v1/projects").json()["projects"]] == ["sound", "vision"]


def test_a_manager_who_leaves_is_answered_and_sees_the_project_no_more(shared):
    put = {"put": [{"name": "carol", "role": "manager"}], "remove": [{"name": "alice"}]}
    refused(shared.bob.post("/v1/projects/vision/members", json=put), "forbidden")
    refused(shared.carol.post("/v1/projects/vision/members", json=put), "not_found")
    left = shared.alice.post("/v1/projects/vision/members", json=put)
    assert left.status_code == 200, left.text
    assert (left.json()["role"], left.json()["member_count"]) == ("", 2)
    refused(shared.alice.get("/v1/projects/vision"), "not_found")
    assert shared.carol.get("/v1/projects/vision").json()["role"] == "manager"


def test_members_see_everything_of_their_projects_jobs_and_others_nothing(shared):
    (job,) = submit(shared.alice)
    assert job["project"] == "vision"
    run = finish(shared, job)
    auditor = shared.as_("audrey", Role.AUDITOR)
    for path in ("", "/why", "/history", "/log"):
        assert shared.bob.get(f"/v1/jobs/{short(job)}{path}").status_code == 200
        refused(shared.carol.get(f"/v1/jobs/{short(job)}{path}"), "not_found")
    history = shared.bob.get(f"/v1/jobs/{short(job)}/history").json()["events"]
    assert [event["kind"] for event in history][-1] == "job_ended"
    assert names(shared.bob.get("/v1/jobs?project=vision")) == [short(job)]
    assert names(shared.bob.get("/v1/jobs?project=vision&user=alice")) == [short(job)]
    assert names(shared.bob.get("/v1/jobs")) == names(shared.carol.get("/v1/jobs?project=vision")) == []
    assert names(auditor.get("/v1/jobs?project=vision")) == [short(job)]
    assert names(auditor.get("/v1/jobs?project=sound")) == []
    for client, seen in ((shared.alice, 1), (shared.bob, 1), (shared.carol, 0), (auditor, 1)):
        lines = client.get("/v1/usage?project=vision").json()["lines"]
        bills = client.get("/v1/bills?project=vision").json()["bills"]
        assert (len(lines), len(bills)) == (seen, seen)
        assert all(line["project"] == "vision" and line["run"] == run["id"] for line in lines)
    view = shared.bob.get("/v1/projects/vision").json()
    assert view["charge_micro_cny"] == sum(line["charge_micro_cny"] for line in lines_of(shared.bob))
    assert shared.bob.get("/v1/usage").json()["lines"] == []
    seen = [event["kind"] for event in shared.bob.get("/v1/events?limit=1000").json()["events"]]
    assert {"project_changed", "job_submitted", "job_ended"} <= set(seen)
    hidden = [event["kind"] for event in shared.carol.get("/v1/events?limit=1000").json()["events"]]
    assert not {"project_changed", "job_submitted"} & set(hidden)


def test_a_member_who_leaves_sees_its_own_jobs_alone(shared):
    (hers,) = submit(shared.alice)
    shared.clock.advance(1)
    (his,) = submit(shared.bob)
    assert names(shared.bob.get("/v1/jobs?project=vision")) == [short(his), short(hers)]
    shared.alice.post("/v1/projects/vision/members", json={"remove": [{"name": "bob"}]})
    assert names(shared.bob.get("/v1/jobs?project=vision")) == [short(his)]
    refused(shared.bob.get(f"/v1/jobs/{short(hers)}"), "not_found")
    kinds = [event["kind"] for event in shared.bob.get(f"/v1/jobs/{short(his)}/history").json()["events"]]
    assert kinds[0] == "job_submitted"
    assert submit(shared.bob)[0].get("project", "") == ""


def test_what_a_job_left_behind_is_fetched_by_members(shared):
    (job,) = submit(shared.alice)
    content = b"forty-two\n"
    kept = shared.gz.http.post("/v1/blobs", content=content, headers={"Content-Type": "application/octet-stream"})
    digest = kept.json()["sha256"]
    finish(shared, job, outputs=[{"path": "answer.txt", "sha256": digest, "size_bytes": len(content)}])
    assert shared.bob.get(f"/v1/blobs/{digest}").content == content
    refused(shared.carol.get(f"/v1/blobs/{digest}"), "not_found")
    shared.alice.post("/v1/projects/vision/members", json={"remove": [{"name": "bob"}]})
    refused(shared.bob.get(f"/v1/blobs/{digest}"), "not_found")


def test_a_manager_stops_what_runs_in_the_project(shared):
    (job,) = submit(shared.bob)
    (own,) = submit(shared.carol)
    refused(shared.alice.post(f"/v1/jobs/{short(own)}/stop", json={}), "not_found")
    (hers,) = submit(shared.alice)
    refused(shared.bob.post(f"/v1/jobs/{short(hers)}/stop", json={}), "forbidden")
    for _ in range(2):  # what has ended is answered as it is
        stopped = shared.alice.post(f"/v1/jobs/{short(job)}/stop", json={"why": "too long"})
        assert stopped.json()["job"]["state"] == "cancelled", stopped.text
    reason = stopped.json()["job"]["reasons"][0]
    assert reason["values"] == {"who": "alice"}


def test_who_changed_a_project_is_in_the_log_with_address_and_right(shared):
    shared.alice.post("/v1/projects/vision/members", json={"put": [{"name": "corp:x", "is_group": True}]})
    (event,) = shared.admin.get("/v1/events?limit=1000").json()["events"][-1:]
    assert (event["kind"], event["subject"], event["actor"]) == ("project_changed", "vision", "alice")
    assert event["source"].startswith("127.0.0.1 token t-")
    assert event["body"]["why"] == "members changed by alice"


def test_a_delegated_token_of_a_project_reaches_nothing_of_another(shared):
    shared.admin.post("/v1/projects", json={"id": "sound", "members": [{"name": "alice"}]})
    assert reason_of(shared.alice.post("/v1/jobs", json=HELLO), "forbidden") == "project_several"
    scopes = ("submit", "stop", "read:job", "read:log", "read:bill", "read:event", "find")
    bound, made = delegated(shared, shared.alice, *scopes, project="vision")
    assert bound.get("/v1/me").json()["project"] == "vision"
    (job,) = submit(bound)
    assert job["project"] == "vision"
    (other,) = submit(shared.alice, {**HELLO, "project": "sound"})
    finish(shared, other)
    assert reason_of(bound.post("/v1/jobs", json={**HELLO, "project": "sound"}), "forbidden") == "token_bound"
    assert reason_of(bound.post("/v1/plans", json={**HELLO, "project": "sound"}), "forbidden") == "token_bound"
    assert bound.post("/v1/plans", json=HELLO).status_code == 200
    for path in ("", "/why", "/history", "/log"):
        refused(bound.get(f"/v1/jobs/{short(other)}{path}"), "not_found")
    refused(bound.post(f"/v1/jobs/{short(other)}/stop", json={}), "not_found")
    refused(bound.get("/v1/projects/sound"), "not_found")
    assert [each["id"] for each in bound.get("/v1/projects").json()["projects"]] == ["vision"]
    assert names(bound.get("/v1/jobs")) == [short(job)]
    assert names(bound.get("/v1/jobs?project=sound")) == []
    assert bound.get("/v1/usage").json()["lines"] == []
    assert reason_of(bound.get("/v1/usage?project=sound"), "forbidden") == "token_bound"
    assert bound.get("/v1/bills").json()["bills"] == []
    jobs = {event["subject"].partition(".")[0] for event in bound.get("/v1/events?limit=1000").json()["events"]}
    assert not any(short(other) in name for name in jobs), made
    assert run_of(shared, job)["project"] == "vision"
    refused(bound.post("/v1/projects/vision/members", json={"put": [{"name": "eve"}]}), "forbidden")


def test_people_of_a_group_of_the_identity_provider_are_members(trusting, provider):
    trusting.site("lab7", "gz1")
    put = [{"name": "corp:hpc-users", "is_group": True}]
    assert trusting.admin.post("/v1/projects", json={"id": "vision", "members": put}).status_code == 201
    alice = trusting.bearer(provider.mint("alice"))
    (job,) = submit(alice)
    assert (job["user"], job["project"]) == ("corp:alice", "vision")
    bound, _ = delegated(trusting, alice, "submit", "read:job", project="vision")
    assert submit(bound)[0]["project"] == "vision"  # the groups of its giver go with a token
    trusting.admin.post("/v1/projects/vision/members", json={"remove": put})
    assert reason_of(bound.post("/v1/jobs", json=HELLO), "forbidden") == "project_not_member"
    assert submit(alice)[0].get("project", "") == ""
