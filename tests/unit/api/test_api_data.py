"""What a site may read for the data of its runs: chunks behind doors and blobs, as records of datasets name them."""

import hashlib

import pytest
from test_api_gate import refused
from test_api_jobs import run_of, submit

from tieline.model.party import Role

CHUNK = hashlib.sha256(b"chunk").hexdigest()


@pytest.fixture
def world(fresh):
    """A site that runs, a site of another owner with a door, a third owner, and two users."""
    world = fresh()
    world.gz, world.sz, world.other = world.site("lab7", "gz1"), world.site("lab8", "sz1"), world.site("lab9", "bj1")
    door = {"public": world.sz.site_key.public, "tier": "edge", "door": "http://192.0.2.9:7443"}
    assert world.sz.record("site", "sz1", door).status_code == 201
    world.alice, world.bob = world.as_("alice", Role.USER), world.as_("bob", Role.USER)
    return world


def published(by, sha256, *urls, name="d"):
    spec = {"size_bytes": 5, "sha256": sha256, "places": [{"url": url} for url in urls]}
    answer = by.record("dataset", name, spec)
    assert answer.status_code == 201, answer.text
    return f"{by.prefix}/dataset/{name}"


def started(world, data):
    """A live run at `gz1` of a job of alice's that names the data."""
    task = {"name": "t", "run": "x", "resources": [{"core_count": 1}], "owners": ["cn.demo.lab7"]}
    (job,) = submit(world.alice, {"tasks": [{**task, "data": [{"id": data, "path": "d"}]}]})
    run = run_of(world, job)
    assert run["site"] == world.gz.id
    world.gz.report({"report": "accepted", "run": run["id"], "epoch": run["epoch"]})
    return run


def asked(site, door, chunk):
    body = {"public": site.site_key.public, "rights": ["read"], "chunks": [chunk], "most_bytes": 100, "ttl_ms": 60_000}
    return site.http.post(f"/v1/sites/{door.id.replace('/', '~')}/passes", json=body)


def test_a_site_is_given_a_pass_to_the_chunk_that_the_data_of_its_run_is(world):
    name = published(world.sz, CHUNK, f"door:{world.sz.id}#{CHUNK}")
    refused(asked(world.gz, world.sz, CHUNK), "not_found")
    run = started(world, name)
    given = asked(world.gz, world.sz, CHUNK)
    assert (given.status_code, given.json()["url"]) == (201, "http://192.0.2.9:7443")
    refused(asked(world.gz, world.sz, "0" * 64), "not_found")
    refused(asked(world.other, world.sz, CHUNK), "not_found")
    world.gz.report({"report": "ended", "run": run["id"], "epoch": run["epoch"], "state": "succeeded"})
    refused(asked(world.gz, world.sz, CHUNK), "not_found")


def test_nobody_gives_away_what_is_behind_another_owners_door(world):
    started(world, published(world.other, CHUNK, f"door:{world.sz.id}#{CHUNK}"))
    refused(asked(world.gz, world.sz, CHUNK), "not_found")


@pytest.mark.parametrize("sender", ["alice", "bob"])
def test_a_blob_is_data_for_those_alone_who_may_read_it(world, sender):
    sent = getattr(world, sender).post(
        "/v1/blobs", content=b"bytes", headers={"Content-Type": "application/octet-stream"}
    )
    digest = sent.json()["sha256"]
    refused(world.gz.http.get(f"/v1/blobs/{digest}"), "not_found")
    run = started(world, published(world.sz, digest, f"blob:{digest}"))
    found = world.gz.http.get(f"/v1/blobs/{digest}")
    assert found.status_code == (200 if sender == "alice" else 404), "a record gives nobody what its user may not read"
    world.gz.report({"report": "ended", "run": run["id"], "epoch": run["epoch"], "state": "succeeded"})
    refused(world.gz.http.get(f"/v1/blobs/{digest}"), "not_found")
