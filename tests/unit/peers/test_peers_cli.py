"""The verbs of `tieline exchange` against two real exchanges."""

import json
import logging
import socket

from peer_world import until


def test_two_admins_peer_by_the_command_line_and_see_how_it_stands(exchange, tieline):
    up, down = exchange("cn"), exchange("cn.sh")
    said = tieline(down, "exchange", "peer", "add", up.url, "--role", "parent", "--no-read", "--kind", "dataset")
    assert "asked" in said
    assert up.keys.key.fingerprint in said
    listed = tieline(up, "exchange", "peer", "ls")
    assert "waits for you" in listed
    assert f"peer accept {down.id}" in listed
    assert "-y" in tieline(up, "exchange", "peer", "accept", down.id, status=2)
    accepted = tieline(
        up, "exchange", "peer", "accept", down.id, "-y", "--use", "--cards", "4", "--cny", "10", "--json"
    )
    assert json.loads(accepted)["quota"] == {"card_count": 4, "micro_cny": 10_000_000}
    until(lambda: down.is_active(up))
    changed = tieline(up, "exchange", "peer", "grant", down.id, "--cores", "2", "--json")
    assert json.loads(changed)["quota"] == {"card_count": 4, "core_count": 2, "micro_cny": 10_000_000}
    tieline(down, "exchange", "peer", "grant", up.id, "--read", "--kind", "all")
    name = down.own("lab").publish("d")
    until(lambda: up.counts(name))
    until(lambda: up.branch(down)["lag"] == 0)
    (row,) = [line for line in tieline(up, "exchange", "status").splitlines() if line.startswith(down.id)]
    cells = row.split("\t")
    assert cells[:3] == [down.id, "child", "active"]
    assert cells[-1] == "-"
    branches = json.loads(tieline(up, "exchange", "status", "--json"))["branches"]
    assert branches[0]["is_listening"] is True


def test_a_fault_is_said_and_cleared_and_peering_ended(exchange, tieline):
    from tieline.exchange.commands import BlamePeer

    one, two = exchange("cn.sh"), exchange("cn.gd")
    tieline(one, "exchange", "peer", "add", two.url, "--fingerprint", two.keys.key.fingerprint)
    tieline(two, "exchange", "peer", "add", one.url)
    until(lambda: one.is_active(two))
    one.do(BlamePeer(peer=two.id, code="peer_body", values={}))
    shown = tieline(one, "exchange", "status")
    assert f"fault of {two.id}: the body is not the one that was signed" in shown
    assert f"peer clear {two.id}" in shown
    tieline(one, "exchange", "peer", "clear", two.id)
    assert "fault" not in tieline(one, "exchange", "status")
    assert "removed" in tieline(one, "exchange", "peer", "rm", two.id, "-y")
    assert two.id not in tieline(one, "exchange", "status")
    refused = tieline(one, "exchange", "peer", "add", "http://169.254.169.254", status=4)
    assert "metadata address" in refused


def test_an_address_where_nobody_answers_is_said_once_and_is_no_failure_of_this_exchange(exchange, tieline, caplog):
    one = exchange("cn.sh")
    with socket.create_server(("127.0.0.1", 0)) as held:
        nobody = f"http://127.0.0.1:{held.getsockname()[1]}"
    with caplog.at_level(logging.INFO, logger="tieline.api"):
        said = tieline(one, "exchange", "peer", "add", nobody, status=1)
        lines = until(lambda: [each for each in caplog.records if each.getMessage() == "add_peer"])
    assert f"no exchange answers at `{nobody}`" in said
    assert f"curl -sS {nobody}/healthz" in said
    assert [(each.levelname, each.status) for each in lines] == [("INFO", 404)], "it was not tried again"
    assert one.http.get("/v1/peers").json()["branches"] == []
