"""A gang over two sites: secrets once it is whole, output by the ranks of the gang, passes between its sites."""

import base64
import json

import msgspec
import pytest
from api_world import Site
from nacl.public import PrivateKey, SealedBox
from test_api_gate import refused
from test_api_jobs import short, submit
from test_api_secrets import sealed

from tieline.model.door import Pass
from tieline.model.party import Role
from tieline.registry import verify_statement

TASK = {
    "name": "g",
    "run": "env",
    "nodes": 4,
    "span": {"ports": [29_500]},
    "secrets": ["API_KEY"],
    "resources": [{"core_count": 4}],
}


@pytest.fixture
def gang(fresh):
    """Four nodes, two at each of two sites; nobody has answered."""
    world = fresh()
    world.sites = [Site(world, f"lab{at}", "s", protocols=(3, 2)).join().open().offer() for at in (1, 2, 3)]
    world.alice = world.as_("alice", Role.USER)
    (job,) = submit(world.alice, {"tasks": [TASK], "sealed_secrets": sealed(world, {"API_KEY": "hush"})})
    world.job = f"/v1/jobs/{short(job)}"
    world.runs = sorted(world.alice.get(world.job).json()["runs"], key=lambda run: run.get("rank", 0))
    assert [run["nodes"] for run in world.runs] == [2, 2]
    world.of = [next(site for site in world.sites if site.id == run["site"]) for run in world.runs]
    return world


def accept(world, at):
    run = world.runs[at]
    (outcome,) = world.of[at].report({"report": "accepted", "run": run["id"], "epoch": run["epoch"]})
    return outcome


def whole(world):
    """All have accepted, and heard that all have."""
    accept(world, 0)
    accept(world, 1)
    return [accept(world, at) for at in (0, 1)]


def test_every_member_is_given_the_secrets_once_all_have_accepted(gang):
    early = accept(gang, 0)
    assert (early["is_ok"], early["what"], early.get("sealed", "")) == (False, "wait", "")
    accept(gang, 1)
    for at in (0, 1):
        outcome = accept(gang, at)
        assert outcome["is_ok"]
        content = base64.urlsafe_b64decode(outcome["sealed"] + "===")
        assert json.loads(SealedBox(PrivateKey(gang.of[at].sealing)).decrypt(content)) == {"API_KEY": "hush"}


def test_output_is_found_by_the_rank_in_the_gang(gang):
    whole(gang)
    for run, site in zip(gang.runs, gang.of, strict=True):
        site.report({"report": "started", "run": run["id"], "epoch": run["epoch"], "at_ms": 1})
        for node in (0, 1):
            said = f"node {node} of {run['id']}".encode()
            answer = site.http.post(f"/v1/site/runs/{run['id']}/log", params={"node": node}, content=said, headers={
                "Content-Type": "application/octet-stream"
            })  # fmt: skip
            assert answer.status_code == 200, answer.text
    expected = [f"node {node} of {run['id']}" for run in gang.runs for node in (0, 1)]
    found = [gang.alice.get(f"{gang.job}/log", params={"node": rank}) for rank in range(5)]
    assert [each.text for each in found] == [*expected, ""]
    assert [each.headers["tieline-log-run"] for each in found[:4:2]] == [run["id"] for run in gang.runs]
    second = gang.alice.get(f"{gang.job}/log", params={"node": 1, "run": gang.runs[1]["id"]})  # in that run
    assert second.text == expected[3]
    for run, site in zip(gang.runs, gang.of, strict=True):
        site.report({"report": "ended", "run": run["id"], "epoch": run["epoch"], "state": "failed", "exit_codes": [1]})
    for rank in range(4):
        with gang.alice.stream("GET", f"{gang.job}/log/stream", params={"node": rank}) as answer:
            lines = (line for line in answer.iter_lines() if line.startswith("data: "))
            assert base64.b64decode(next(lines)[6:]).decode() == expected[rank]
    assert gang.sites[2].http.get(f"{gang.job}/log").status_code == 403


def test_a_site_of_the_gang_is_given_a_pass_to_the_other_and_to_nothing_else(gang):
    one, two, three = *gang.of, next(site for site in gang.sites if site not in gang.of)

    def asked(site, door=two, **body):
        body = {"public": site.site_key.public, "rights": ["port"], "run": gang.runs[1]["id"], **body}
        return site.http.post(f"/v1/sites/{door.id.replace('/', '~')}/passes", json=body)

    assert asked(one).status_code == 409  # the gang is not whole
    whole(gang)
    answer = asked(one)
    assert answer.status_code == 201, answer.text
    said = verify_statement(answer.json()["door_pass"].encode(), gang.keys.key.public, "door-pass")
    given = msgspec.convert(said, Pass)
    assert (given.door, given.holder, given.run, given.rights) == (two.id, one.id, gang.runs[1]["id"], ("port",))
    assert given.public == one.site_key.public
    refused(asked(one, public=two.site_key.public), "forbidden", "public")
    refused(asked(one, run=""), "forbidden", "rights")
    refused(asked(one, rights=["port", "read"]), "invalid_request", "rights")
    refused(asked(one, rights=["read"]), "invalid_request", "rights")
    for answer in (asked(three), asked(one, door=three), asked(one, run="j-none.1")):
        refused(answer, "not_found")
    body = {"public": one.site_key.public, "rights": ["port"], "run": gang.runs[1]["id"]}
    for client in (gang.alice, gang.admin):
        refused(client.post(f"/v1/sites/{two.id.replace('/', '~')}/passes", json=body), "not_found")
