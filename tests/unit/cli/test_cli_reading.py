"""`tieline reading` and `tieline point`: what was measured, what was refuted and why, and what is only estimated."""

import json

import pytest
from api_world import ADMIN

from tieline.model.party import Role
from tieline.model.reading import READINGS, Method, OneWay, Reading, ReadingBatch


@pytest.fixture
def operator(exchange, call):
    call("login", exchange.url, "--token", ADMIN, "--name", "admin")
    call("login", exchange.url, "--token", exchange.token("olga", Role.OPERATOR), "--name", "olga")
    return lambda *args, **more: call("-x", "olga", *args, **more)


def bring(exchange, site, *readings):
    now_ms = exchange.clock.now_ms()
    batch = ReadingBatch(site=site.id, seq=now_ms, at_ms=now_ms, readings=readings)
    answer = site.http.post("/v1/site/readings", json={"statement": site.statement(READINGS, batch)})
    assert answer.status_code == 200, answer.text


def reading(exchange, source, target, **more):
    now_ms = exchange.clock.now_ms()
    values = {"method": Method.TCP, "count": 9, "sent": 10, "min_us": 640, "p50_us": 700, "p99_us": 1_500}
    return Reading(source=source, target=target, begun_ms=now_ms - 900, ended_ms=now_ms, **{**values, **more})


def test_points_are_named_measured_found_by_and_taken_back(exchange, operator, call):
    site = exchange.site("lab41", "gz1").offer()
    added = operator("point", "add", "shanghai", "--at", "31.23,121.47", "--address", "192.0.2.7:443")
    assert added.exit_code == 0, added.stderr
    assert "hint: tieline find 'rtt(shanghai) < 1ms'" in added.stderr
    assert operator("point", "ls").stdout == "shanghai\t192.0.2.7:443\t31.2300,121.4700\t-\n"
    bring(
        exchange,
        site,
        reading(exchange, site.id, "shanghai", one_way=OneWay.HALF, one_way_us=320),
        reading(exchange, site.id, "nowhere"),
        reading(exchange, "cn.other/site/x", "shanghai"),
    )
    found = call("-x", "admin", "find", f'rtt(shanghai) < 1ms and site == "{site.id}"', "--json")
    assert found.exit_code == 0, found.stderr
    assert [offer["id"] for offer in json.loads(found.stdout)["offers"]] == [site.pool, site.id]
    listed = operator("reading", "ls", "--source", site.id)
    times = "640 us\t700 us\t1.5 ms\t9/10\tone way 320 us: half, an estimate"
    assert listed.stdout == f"{site.id}\tshanghai\ttcp\t{times}\t0 s\tfresh\tmeasured\n"
    assert f"2 readings of {site.id} were refuted since the start" in listed.stderr
    lies = operator("reading", "refuted", "--source", site.id).stdout.splitlines()
    assert [line.split("\t")[1] for line in lies] == ["shanghai", "nowhere"]
    assert lies[0].endswith(f"says that cn.other/site/x measured, and {site.id} signed it")
    way = operator("reading", "show", "shanghai", site.id)
    assert way.stdout.startswith("round trip\t700 us (measured)\nrate\tunknown\nestimate\t")
    assert "it decides nothing" in way.stderr
    assert json.loads(operator("reading", "show", "shanghai", site.id, "--json").stdout)["rtt_us"] == 700
    near = next(
        line for line in operator("reading", "cats", "--from", "shanghai").stdout.splitlines() if site.pool in line
    )
    assert near.split("\t")[2:] == ["10", "10", "10", "700 us", "-"]
    gone = operator("point", "rm", "shanghai", "--yes")
    assert (gone.exit_code, gone.stderr) == (0, "reference points: 0\n")
    assert operator("reading", "ls", "--source", site.id).stdout == ""


@pytest.mark.parametrize("place", ["31", "x,y", "91,0", "0,181", "nan,0", "1,2,3"])
def test_a_place_that_is_none_is_a_mistake_in_what_was_typed(operator, place):
    done = operator("point", "add", "p", "--at", place)
    assert (done.exit_code, "is not LATITUDE,LONGITUDE" in done.stderr) == (2, True)


def test_who_runs_no_network_names_no_points_and_unknown_ends_are_said(exchange, operator, call):
    call("login", exchange.url, "--token", exchange.token("ann", Role.USER), "--name", "ann")
    assert call("-x", "ann", "point", "add", "p").exit_code == 4
    done = call("-x", "ann", "reading", "show", "atlantis", "eldorado")
    assert (done.exit_code, "atlantis" in done.stderr) == (1, True)
