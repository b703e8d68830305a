"""A job of exchange A on a site of exchange B, over HTTP, from the command line to both bills."""

import json
import re

import msgspec
import pytest
from use_world import LIMITS, MAKERS, ended, job, lines, log, submit, used

from peer_world import until
from tieline.exchange.settlement import verify_usage
from tieline.model.job import Usage
from tieline.model.party import SYSTEM

pytestmark = pytest.mark.slow

TASK = """\
name: far
workdir: .
resources: {cpus: 1}
run: |
  cat said.txt
  echo made > result.txt
outputs: [result.txt]
"""


@pytest.fixture
def pair(exchange, tmp_path):
    """Two peers, B's site, and A whose users may run there."""
    a = exchange("cn.a", makers=MAKERS, limits=LIMITS)
    b = exchange("cn.b", makers=MAKERS, limits=LIMITS)
    site = used(a, b, tmp_path / "site")
    yield a, b, site
    site.stop()


def keys(*exchanges):
    return {each.id: each.keys.key.public for each in exchanges}


def settled(a, b, run):
    """Both sides' lines of a run, once B was told what A pays."""

    def both():
        ours = [line for line in lines(a) if line["run"] == run]
        theirs = [line for line in lines(b) if line.get("origin") == a.id and line.get("given_answer")]
        return (ours[0], theirs[0]) if ours and theirs else None

    return until(both, why=lambda: json.dumps([lines(a), lines(b)]))


def audited(exchange):
    """Kinds of entry by who asked for them; everything that somebody asked for says from where and by which right."""
    found = {}
    for row in exchange.store.log_rows(0, 10_000):
        if row.source is None:
            assert row.actor == SYSTEM.name, row
        else:
            assert re.fullmatch(r"127\.0\.0\.1 (token|session|peer|key|delegated)( \S+)*", row.source), row
            found.setdefault(row.actor, {}).setdefault(row.kind, row.source)
    return found


def shown_through(a, b, tieline, name, said):
    """That the run went through B, and by how old a state its place was chosen, wherever a user looks."""
    assert re.search(rf"state of {b.id} \d+ s old", said)
    assert re.search(rf"through {b.id}, by its state of \d+ s before", said)
    short = name.rpartition("/")[2]
    (plan,) = json.loads(tieline(a, "plan", "--json", "--", "true").partition("\nplan for")[0])
    (candidate,) = plan["candidates"]
    assert candidate["via"] == b.id
    assert 0 < candidate["as_of_ms"] <= plan["as_of_ms"]
    (row,) = tieline(a, "ps").splitlines()
    assert row.split("\t")[-1] == b.id
    (listed,) = json.loads(tieline(a, "ps", "--json"))
    assert listed["via"] == b.id
    why = tieline(a, "why", short)
    assert f"  through {b.id}\n" in why
    assert re.search(rf"run_offered\t.*cn.b.lab/pool/cpu; through {b.id}, by its state of \d+ s before", why)
    told = json.loads(tieline(a, "why", short, "--json"))
    assert (told["via"], told["as_of_ms"] > 0) == (b.id, True)
    (offer,) = json.loads(tieline(a, "find", "--json", "--kind", "pool", "cores >= 1"))["offers"]
    assert (offer["via"], offer["as_of_ms"] > 0) == (b.id, True)


def test_run_at_one_exchange_runs_on_a_site_of_another(pair, tieline, tmp_path):
    a, b, site = pair
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "said.txt").write_text("hello from afar\n")
    (folder / "task.yaml").write_text(TASK)
    said = tieline(a, "run", "-y", str(folder / "task.yaml"))
    assert "hello from afar" in said
    (found,) = a.http.get("/v1/jobs").json()["jobs"]
    view = job(a, found["id"])
    run = view["runs"][-1]
    assert (run["via"], run["site"], run["state"]) == (b.id, site.id, "succeeded")
    assert 0 < run["as_of_ms"] <= run["offered_ms"]
    shown_through(a, b, tieline, found["id"], said)
    assert log(a, found["id"]).strip() == "hello from afar"
    ours, theirs = settled(a, b, run["id"])
    assert ours["charge_micro_cny"] == theirs["charge_micro_cny"] > 0
    assert ours["claim"] == theirs["given_claim"]
    assert ours["answer"] == theirs["given_answer"]
    for line in (ours, theirs):
        assert verify_usage(msgspec.convert(line, Usage), keys(a, b)) == ()
    for here, other in ((a, b), (b, a)):
        pin = f"{other.id}={other.keys.key.public}"
        checked = json.loads(tieline(here, "bill", "verify", "--json", "--pin", pin))
        assert (checked["is_sound"], checked["remote"], checked["unpinned"]) == (True, 1, [])
    asked = audited(b)[a.id]
    assert asked["job_submitted"] == asked["usage_answered"] == f"127.0.0.1 peer {a.id}"
    assert "run_ended" in audited(b)[site.id]
    assert "run_ended" in audited(a)[b.id]
    b.stop()
    tieline(a, "fetch", found["id"], str(tmp_path / "out"))
    assert next((tmp_path / "out").rglob("result.txt")).read_text() == "made\n"


def test_output_comes_while_it_is_printed_and_a_run_outlives_restarts_of_both_sides(pair):
    a, b, _site = pair
    name = submit(a, name="long", run="for i in $(seq 0 79); do echo line $i; sleep 0.1; done")
    until(lambda: "line 3" in log(a, name), why=lambda: str(job(a, name)))
    assert job(a, name)["job"]["state"] == "running"
    b.stop()
    b.start()
    until(lambda: a.view.heard_ms.get(b.id, 0) > 0 and b.is_active(a))
    a.stop()
    a.start()
    view = ended(a, name)
    assert [run["state"] for run in view["runs"]] == ["succeeded"], view
    assert log(a, name).split() == [word for i in range(80) for word in ("line", str(i))]
    ours, theirs = settled(a, b, view["runs"][0]["id"])
    assert ours["charge_micro_cny"] == theirs["charge_micro_cny"]
    assert len([line for line in lines(b) if line.get("origin") == a.id]) == 1


def test_stop_reaches_the_other_side(pair):
    a, b, _site = pair
    name = submit(a, name="long", run="sleep 600")
    until(lambda: job(a, name)["job"]["state"] == "running", why=lambda: str(job(a, name)))
    assert a.http.post(f"/v1/jobs/{name.replace('/', '~')}/stop", json={}).status_code < 300
    assert ended(a, name)["job"]["state"] == "cancelled"
    until(lambda: not b.view.runs)


def free_cores(exchange, **body):
    """What the only pool behind a peer has free (-1: its record is not in the index yet), and the whole answer."""
    answer = exchange.http.post("/v1/find", json={"query": "cores >= 1", "kind": "pool", **body}).json()
    if not answer["offers"]:
        return -1, answer
    (offer,) = answer["offers"]
    return offer["attributes"].get("cores_free"), answer


def test_find_asks_what_is_free_behind_a_peer_and_says_how_old_that_is(pair, tieline):
    a, b, _site = pair
    until(lambda: free_cores(a)[0] == 4, why=lambda: str(free_cores(a)))
    _, answer = free_cores(a, branch_budget_ms=10_000)
    assert answer.get("is_partial", False) is False
    (branch,) = answer["branches"]
    assert branch["exchange"] == b.id
    assert branch["as_of_ms"] > 0
    name = submit(b, name="busy", run="sleep 600")
    until(lambda: job(b, name)["job"]["state"] == "running")
    until(lambda: free_cores(a)[0] == 3, why=lambda: str(free_cores(a)))
    b.stop()
    until(lambda: free_cores(a)[1].get("unreachable") == [b.id], why=lambda: str(free_cores(a)))
    cores, answer = free_cores(a, branch_budget_ms=0)
    assert cores is None
    assert answer["is_partial"] is True
    (branch,) = answer["branches"]
    assert (branch["is_reached"], bool(branch["error"])) == (False, True)
    assert b.id in tieline(a, "find", "cores >= 1")
