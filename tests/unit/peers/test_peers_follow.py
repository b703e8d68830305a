"""Records from exchange to exchange over HTTP: pulled, tailed, resumed, filtered, cut and healed."""

import contextlib
import gzip
import json

import httpx

from peer_world import until
from tieline.api import tailing


def link(up, down, role="child"):
    """Both are peers; ``role``: what ``down`` is to ``up``."""
    other = {"child": "parent", "parent": "child", "peer": "peer"}[role]
    assert down.add(up, other).status_code == 201
    assert up.accept(down).status_code == 200
    until(lambda: down.is_active(up))


def test_what_is_stored_here_is_soon_kept_over_there_by_its_owners_signature(exchange):
    up, down = exchange("cn"), exchange("cn.sh")
    before = down.own("lab").publish("before")
    link(up, down)
    until(lambda: up.counts(before))
    after = down.own("lab").publish("after")
    until(lambda: up.counts(after))
    until(lambda: up.branch(down)["lag"] == 0 and up.branch(down)["is_listening"])
    branch = up.branch(down)
    assert branch["error"] is None
    assert branch["refused"] == {}
    assert branch["logs"] >= 2
    assert up.view.cursors[(down.id, "cn.sh.lab")].serial == 2


def test_records_go_on_through_the_middle_without_anybody_believing_it(exchange):
    region, hub, other = exchange("cn.sh"), exchange("cn"), exchange("cn.gd")
    link(hub, region)
    link(hub, other)
    name = region.own("lab").publish("d")
    until(lambda: other.counts(name))
    assert other.view.catalogue.chain("cn.sh.lab")
    assert other.view.peers.keys() == {hub.id}
    owner = region.own("lab")
    owner.revs = {f"{owner.prefix}/dataset/d": (1, region.view.catalogue.head(name).sha256)}
    owner.publish("d")
    until(lambda: other.holds(name, 2))


def test_a_withdrawn_record_is_withdrawn_everywhere(exchange):
    up, down = exchange("cn"), exchange("cn.sh")
    link(up, down)
    owner = down.own("lab")
    name = owner.publish("d")
    until(lambda: up.counts(name))
    owner.publish("d", status="withdrawn")
    until(lambda: up.holds(name, 2))
    assert not up.counts(name)


def test_only_the_kinds_and_prefixes_that_were_asked_for_are_pulled(exchange):
    up, down = exchange("cn"), exchange("cn.sh")
    wanted, other = down.own("lab").publish("d"), down.own("lab2").publish("d")
    assert up.add(down, "child", prefixes=["cn.sh.lab"]).status_code == 201
    assert down.add(up, "parent").status_code == 201
    until(lambda: up.is_active(down) and up.counts(wanted))
    assert not up.holds(other)
    up.change(down, "grant", prefixes=("cn.sh",))
    until(lambda: up.counts(other))


def test_a_restart_on_either_side_goes_on_from_the_cursor(exchange):
    up, down = exchange("cn"), exchange("cn.sh")
    link(up, down)
    first = down.own("lab").publish("a")
    until(lambda: up.counts(first))
    up.stop()
    second = down.own("lab2").publish("b")
    up.start()
    assert up.counts(first)
    until(lambda: up.counts(second))
    down.stop()
    until(lambda: up.branch(down)["error"] is not None)
    down.start()
    third = down.own("lab3").publish("c")
    until(lambda: up.counts(third))
    until(lambda: up.branch(down)["error"] is None)


def test_a_new_session_begins_anew_and_brings_back_what_only_the_peer_still_has(exchange, tmp_path):
    up, down = exchange("cn"), exchange("cn.sh")
    link(up, down)
    names = [down.own("lab").publish("a"), down.own("lab").publish("b")]
    until(lambda: all(up.counts(name) for name in names))
    down.stop()
    for file in down.folder.glob("tieline.db*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    down.start()
    late = down.own("late").publish("c")
    until(lambda: up.counts(late))
    down.stop()
    for file in down.folder.glob("tieline.db*"):
        file.unlink()
    for file in tmp_path.glob("tieline.db*"):
        (down.folder / file.name).write_bytes(file.read_bytes())
    down.start("s-restored")
    until(lambda: down.counts(late))
    until(lambda: up.branch(down)["fault"] is None and up.branch(down)["lag"] == 0)


def test_a_store_that_was_rolled_back_without_a_word_is_proof_and_shown(exchange, tmp_path):
    up, down = exchange("cn"), exchange("cn.sh")
    link(up, down)
    down.own("lab").publish("a")
    down.stop()
    for file in down.folder.glob("tieline.db*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    down.start()
    late = down.own("late").publish("c")
    until(lambda: up.counts(late))
    down.stop()
    for file in down.folder.glob("tieline.db*"):
        file.unlink()
    for file in tmp_path.glob("tieline.db*"):
        (down.folder / file.name).write_bytes(file.read_bytes())
    down.start()
    fault = until(lambda: up.branch(down)["fault"])
    assert fault["code"] == "peer_rolled_back"
    assert up.counts(late)
    name = down.own("new").publish("d")
    up.change(down, "clear")
    up.stop()
    up.start()  # that it was cleared counts for good
    until(lambda: up.counts(name), why=lambda: str(up.branch(down)))
    assert up.branch(down)["fault"] is None


def test_a_peer_that_is_removed_is_followed_no_more(exchange):
    one, two = exchange("cn.sh"), exchange("cn.gd")
    link(one, two, "peer")
    name = two.own("lab").publish("d")
    until(lambda: one.counts(name))
    one.change(two, "remove")
    until(lambda: two.id not in one.platform.federation.branches)
    two.own("lab2").publish("e")
    assert one.holds(name)
    assert not one.counts(name)
    assert one.http.get(f"/v1/records/{name.replace('/', '~')}").json()["is_valid"] is False


# -- what is served ---------------------------------------------------------------------------------------------------


def test_a_page_says_first_what_follows_and_names_its_bytes(exchange):
    here = exchange("cn", makers=())
    owner = here.own("lab")
    for number in range(30):
        owner.publish(f"d{number}")
    answer = here.http.get("/v1/logs/cn.lab/records", params={"after": 10}, headers={"Accept-Encoding": "identity"})
    head, *lines = answer.content.split(b"\n")[:-1]
    said = json.loads(head)
    assert (said["type"], said["prefix"], said["count"], said["serial"]) == ("page", "cn.lab", 20, 30)
    assert len(lines) == 20
    etag = answer.headers["etag"]
    again = here.http.get("/v1/logs/cn.lab/records", params={"after": 10}, headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    with httpx.stream(
        "GET", here.url + "/v1/logs/cn.lab/records?after=10",
        headers={"Accept-Encoding": "gzip", "Authorization": here.http.headers["Authorization"]},
    ) as packed:  # fmt: skip
        body = b"".join(packed.iter_raw())
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == answer.content


def test_logs_that_are_not_there_and_names_that_are_none_are_refused(exchange):
    here = exchange("cn", makers=())
    here.own("lab").publish("d")
    assert {line["prefix"] for line in here.http.get("/v1/logs").json()["logs"]} == {"cn", "cn.lab"}
    assert here.http.get("/v1/logs/cn.none/records").status_code == 404
    assert here.http.get("/v1/logs/CN/records").status_code == 400
    assert here.http.get("/v1/logs/cn~lab/records").status_code == 400
    assert here.http.get("/v1/logs/cn.lab/records?kinds=nonsense").status_code == 400
    assert here.http.get("/v1/logs/cn.lab/snapshot").status_code == 404
    assert here.http.get("/v1/logs/cn.lab/digest").status_code == 200
    assert here.http.post("/v1/logs/cn.lab/buckets", json={"buckets": [5_000]}).status_code == 400
    fetched = here.http.post("/v1/logs/cn.lab/fetch", json={"ids": ["cn.lab/dataset/d", "cn.xx/dataset/d"]})
    assert json.loads(fetched.content.split(b"\n")[0])["count"] == 1


def tail(here, **params):
    return here.http.stream("GET", "/v1/tail", params=params)


def test_the_tail_is_resumed_from_its_cursor_and_refuses_one_that_it_cannot(exchange):
    here = exchange("cn", makers=())
    owner = here.own("lab")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(tail(here))
        lines = first.iter_lines()
        assert next(lines) == ":"
        until(lambda: here.platform.tail.listeners == 1)
        owner.publish("a")
        cursor = next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")
        owner.publish("b")
        second = stack.enter_context(tail(here, after=cursor))
        said = next(line for line in second.iter_lines() if line.startswith("data: "))
        assert json.loads(said.removeprefix("data: "))["serial"] == 2
    assert here.http.get("/v1/tail", params={"after": "deadbeef-3"}).json()["code"] == "invalid_cursor"
    until(lambda: here.platform.tail._task is None)
    assert here.platform.tail.listeners == 0


def test_a_tail_says_only_what_was_asked_for(exchange):
    here = exchange("cn", makers=())
    one, two = here.own("lab"), here.own("lab2")
    with tail(here, prefixes="cn.lab2", kinds="dataset") as stream:
        lines = stream.iter_lines()
        assert next(lines) == ":"
        until(lambda: here.platform.tail.listeners == 1)
        one.publish("a")
        two.publish("b")
        said = next(line for line in lines if line.startswith("data: "))
        assert json.loads(said.removeprefix("data: "))["prefix"] == "cn.lab2"


def test_what_the_tail_remembers_is_bounded_and_older_cursors_are_refused(exchange, monkeypatch):
    monkeypatch.setattr(tailing, "MOST_LINES", 2)
    here = exchange("cn", makers=())
    owner = here.own("lab")
    with tail(here) as stream:
        lines = stream.iter_lines()
        assert next(lines) == ":"
        until(lambda: here.platform.tail.listeners == 1)
        for number in range(6):
            owner.publish(f"d{number}")
            until(lambda number=number: here.platform.tail.count > number)
        assert len(here.platform.tail.lines) == 2
        run = here.platform.tail.run
        assert here.http.get("/v1/tail", params={"after": f"{run}-1"}).json()["code"] == "invalid_cursor"
        with tail(here, after=f"{run}-4") as resumed:
            said = (line for line in resumed.iter_lines() if line.startswith("data: "))
            assert [json.loads(next(said).removeprefix("data: "))["serial"] for _ in range(2)] == [5, 6]
