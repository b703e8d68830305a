"""A quote of an owner below another exchange, from `tieline ask` to both sides' bills."""

import json

import pytest
from use_world import LIMITS, MAKERS, SITE, ended, job, lines, used

from peer_world import until

pytestmark = pytest.mark.slow

COUNTER = SITE.replace("price: 3600", "price: 3600\n    counter: {price_floor: 1000, ttl: 60s}")


@pytest.fixture
def pair(exchange, tmp_path, monkeypatch):
    monkeypatch.setattr("use_world.SITE", COUNTER)
    a = exchange("cn.a", makers=MAKERS, limits=LIMITS)
    b = exchange("cn.b", makers=MAKERS, limits=LIMITS)
    site = used(a, b, tmp_path / "site")
    yield a, b, site
    site.stop()


def test_a_user_asks_an_owner_behind_a_peer_and_pays_what_was_quoted(pair, tieline):
    a, b, site = pair
    words = ("ask", "--price", "2000", "--duration", "60s", "--json")
    asked = json.loads(tieline(a, *words, "--", "sleep", "1"))["quote"]
    assert (asked["state"], asked["via"], asked["site"]) == ("open", b.id, site.id)
    assert asked["price_micro_cny_per_unit_hour"] == 2_000_000_000
    (theirs,) = b.view.quotes.values()
    assert (theirs.user, theirs.origin, theirs.origin_quote) == ("admin@cn.a", a.id, asked["id"])
    low = json.loads(tieline(a, "ask", "--price", "10", "--duration", "60s", "--json", "--", "true"))["quote"]
    assert (low["is_countered"], low["price_micro_cny_per_unit_hour"]) == (True, 1_000_000_000)

    tieline(a, "ask", asked["id"], "--accept", "-y")
    (found,) = a.http.get("/v1/jobs").json()["jobs"]
    view = ended(a, found["id"])
    assert view["job"]["state"] == "succeeded", view
    assert (view["runs"][0]["via"], view["runs"][0]["price_micro_cny_per_unit_hour"]) == (b.id, 2_000_000_000)

    def both():
        theirs = [line for line in lines(b) if line.get("given_answer")]
        return lines(a) and theirs and (lines(a)[0], theirs[0])

    ours, bill = until(both, why=lambda: json.dumps([lines(a), lines(b)]))
    assert ours["charge_micro_cny"] == bill["charge_micro_cny"] > 0
    assert ours["price_micro_cny_per_unit_hour"] == bill["price_micro_cny_per_unit_hour"] == 2_000_000_000
    assert ours.get("disputed_micro_cny", 0) == 0
    assert asked["id"] not in a.view.quotes
    assert list(b.view.quotes) == [] or asked["id"] not in [each.origin_quote for each in b.view.quotes.values()]

    site.kill()  # who does not answer is named, and nothing is booked
    task = {"run": "true", "resources": [{"core_count": 1}]}
    late = a.http.post("/v1/quotes", json={"task": task}).json()
    assert late["state"] == "asked"

    def answered():
        found = a.http.get(f"/v1/quotes/{late['id']}").json()
        return found["state"] == "refused" and found

    assert until(answered)["reasons"][0]["code"] == "site_silent"
    assert a.http.post(f"/v1/quotes/{late['id']}/accept", json={}).status_code == 404
    assert job(a, found["id"])["job"]["state"] == "succeeded"
