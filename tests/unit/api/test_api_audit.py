"""Signed heads and proofs over the API: what an auditor can check alone, and who may ask."""

import time

import pytest
from api_world import EXCHANGE

from tieline.drivers.stores.heads import heads_of, kept
from tieline.drivers.stores.tiles import Tree
from tieline.exchange.commands import CreateToken
from tieline.model.audit import HeadView, LogHead
from tieline.model.error import TielineError
from tieline.model.party import SYSTEM, Role
from tieline.registry import Key
from tieline.registry.heads import check_growth, checked_head, sign_head
from tieline.registry.merkle import Frontier, is_included, leaf_hash, whole_subtrees


def grow(world, count):
    """More entries of the log."""
    for at in range(count):
        number = world.writer.position[0]
        world.do(CreateToken(actor=SYSTEM, sha256=f"{number:064x}", name=f"n{at}", roles=(Role.USER,)))


def head_of(client):
    said = client.get("/v1/audit/head")
    assert said.status_code == 200, said.text
    return said.json()


def checked(world, head):
    return checked_head(head["statement"].encode(), world.keys.key.public, EXCHANGE)


@pytest.fixture
def auditor(world):
    return world.as_("eve", Role.AUDITOR)


def test_a_head_is_signed_over_the_log_as_it_is(world, auditor):
    grow(world, 3)
    head = checked(world, head_of(auditor))
    size, end = world.writer.position
    assert (head.size, head.head) == (size, end.hex())
    rows = world.store.log_rows(0, 1_000)
    assert head.root == Tree().grown([row.hash for row in rows[:size]])[0].root().hex()
    assert head_of(auditor)["statement"] == head_of(auditor)["statement"]


def test_a_later_head_extends_an_earlier_one(world, auditor):
    old = checked(world, head_of(auditor))
    grow(world, 9)
    new = checked(world, head_of(auditor))
    said = auditor.get("/v1/audit/proof", params={"from": old.size, "to": new.size}).json()
    assert (said["old_root"], said["new_root"]) == (old.root, new.root)
    assert check_growth(old, new, said["proof"]) is None
    assert check_growth(new, new, ()) is None
    assert check_growth(new, old, said["proof"]).code == "log_rolled_back"
    forged = LogHead(exchange=EXCHANGE, size=old.size, root="ab" * 32, head=old.head, at_ms=1)
    assert check_growth(forged, new, said["proof"]).code == "log_forked"
    assert check_growth(forged, old, ()).code == "log_forked"
    for wrong in (("zz",), ("ab",), said["proof"][:-1], [*said["proof"], "00" * 32]):
        assert check_growth(old, new, wrong).code == "log_forked"


def test_an_entry_is_proved_to_be_in_the_log(world, auditor):
    grow(world, 5)
    head = checked(world, head_of(auditor))
    for seq in range(1, head.size + 1):
        said = auditor.get(f"/v1/audit/entry/{seq}", params={"size": head.size}).json()
        assert said["entry"]["seq"] == seq
        leaf, proof = leaf_hash(bytes.fromhex(said["entry"]["hash"])), [bytes.fromhex(each) for each in said["proof"]]
        assert is_included(leaf, seq - 1, head.size, proof, bytes.fromhex(head.root))


def test_a_range_leads_to_the_root(world, auditor):
    grow(world, 20)
    head = checked(world, head_of(auditor))
    said = auditor.get("/v1/audit/range", params={"from": 4, "to": 9, "size": head.size}).json()
    rows = world.store.log_rows(2, 7)
    assert said["before"] == rows[0].hash.hex()
    frontier = Frontier(3, [bytes.fromhex(each) for each in said["left"]])
    frontier.extend(leaf_hash(row.hash) for row in rows[1:])
    for (level, _), node in zip(whole_subtrees(9, head.size), said["right"], strict=True):
        frontier.append(bytes.fromhex(node), level)
    assert frontier.root().hex() == head.root


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/audit/proof?from=9999999", 400),
        ("/v1/audit/proof?from=2&to=1", 400),
        ("/v1/audit/entry/0", 404),
        ("/v1/audit/entry/99999999", 404),
        ("/v1/audit/entry/1?size=99999999", 400),
        ("/v1/audit/range?from=3&to=1", 400),
        ("/v1/audit/range?from=0&to=1", 400),
    ],
)
def test_what_is_not_there_is_refused(auditor, path, status):
    assert auditor.get(path).status_code == status


def test_heads_are_kept_when_the_log_moved(fresh):
    world = fresh()
    auditor = world.as_("eve", Role.AUDITOR)
    deadline = time.monotonic() + 45
    while not (found := heads_of(world.store.engine, EXCHANGE)):  # the first is kept at the start
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shown = auditor.get("/v1/audit/heads").json()["heads"]
    assert [each["statement"] for each in shown] == [found[0].statement]
    assert checked(world, shown[0]).size == found[0].size


def test_heads_of_peers_stand_beside_our_own(world, auditor):
    other = "cn.other/exchange/main"
    head = LogHead(exchange=other, size=7, root="ab" * 32, head="cd" * 32, at_ms=5)
    later = LogHead(exchange=other, size=9, root="ab" * 32, head="cd" * 32, at_ms=6)
    rows = [kept(each, sign_head(each, world.keys.key, "cn.other#exchange"), each.at_ms) for each in (head, later)]
    world.writer.keep(rows).result(30)
    newest = auditor.get("/v1/audit/heads").json()["heads"]
    assert [each["size"] for each in newest if each["exchange"] == other] == [9]
    every = auditor.get("/v1/audit/heads", params={"exchange": other.replace("/", "~")}).json()["heads"]
    assert [each["size"] for each in every] == [7, 9]
    after = auditor.get("/v1/audit/heads", params={"exchange": other, "after": 7}).json()["heads"]
    assert [HeadView(**each).at_ms for each in after] == [6]


def test_a_head_of_another_key_or_log_is_not_believed(world, auditor):
    statement = head_of(auditor)["statement"].encode()
    with pytest.raises(TielineError, match="not `cn"):
        checked_head(statement, world.keys.key.public, "cn.other/exchange/main")
    with pytest.raises(TielineError) as caught:
        checked_head(statement, Key(bytes(32)).public, EXCHANGE)
    assert caught.value.code == "unauthenticated"


def test_only_admins_and_auditors_read_proofs(world):
    for role in (Role.USER, Role.OWNER, Role.REGULATOR):
        client = world.as_(f"one-{role}", role, owner="lab7" if role is Role.OWNER else "")
        for path in ("head", "heads", "proof?from=1", "entry/1", "range?from=1&to=1"):
            assert client.get(f"/v1/audit/{path}").status_code == 403
