"""The double opt-in, as decisions: who may be what to whom, and that one key stays pinned."""

import hashlib

import pytest

from tieline.exchange import peers
from tieline.exchange.commands import (
    AskPeer,
    BlamePeer,
    ChangePeer,
    CreateExchange,
    Greeting,
    ReadBranches,
    TakeBranch,
    TakePeering,
)
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import PeerChanged, RecordStored
from tieline.model.party import ANONYMOUS, SYSTEM, Actor, Role
from tieline.model.peer import BranchState, PeerRole, PeerState
from tieline.model.project import Quota
from tieline.ports import FakeClock, FakeIds
from tieline.registry import Key

NOW_MS = 1_763_000_000_000
ADMIN = Actor(name="root", roles=(Role.ADMIN,))


def key(name):
    return Key(hashlib.sha256(name.encode()).digest())


def greeting(prefix="cn.sh", name="main", by="", url="https://sh.example"):
    return Greeting(id=f"{prefix}/exchange/{name}", prefix=prefix, public=key(by or prefix).public, url=url)


class Pure:
    """One exchange as a view, without anything around it."""

    def __init__(self, prefix="cn"):
        self.clock, self.ids, self.nonces = FakeClock(at_ms=NOW_MS), FakeIds(3), 0
        self.keys = ExchangeKeys(key(prefix), prefix)
        self.view = View(self.keys)
        self.kept = {}
        self.do(
            CreateExchange(
                id=f"{prefix}/exchange/main", prefix=prefix, public=key(prefix).public, admin_token_sha256="0" * 64
            )
        )

    def decide(self, command):
        decision = decide(self.view, command, self.clock.now_ms(), self.ids)
        for event in decision.events:
            self.view.apply(event, self.clock.now_ms())
        for table, name, row in rows(self.view):
            self.kept.setdefault(table, {})[name] = row
        return decision

    def do(self, command):
        return self.decide(command).reply

    def ask(self, what=None, role=PeerRole.CHILD, **fields):
        return self.decide(AskPeer(actor=ADMIN, greeting=what or greeting(), role=role, **fields))

    def offered(self, what=None, role=PeerRole.CHILD, nonce="", at_ms=0):
        self.nonces += 1
        return self.decide(
            TakePeering(
                actor=ANONYMOUS,
                greeting=what or greeting(),
                role=role,
                nonce=nonce or f"nonce-{self.nonces:020d}",
                at_ms=at_ms or self.clock.now_ms(),
            )
        )

    def change(self, what, peer="cn.sh/exchange/main", actor=ADMIN, **fields):
        return self.decide(ChangePeer(actor=actor, peer=peer, what=what, **fields))

    def state(self, peer="cn.sh/exchange/main"):
        return self.view.peers[peer].state

    def restarted(self):
        """The same exchange, filled from what its store would hold."""
        fresh = View(self.keys)
        tables = {table: list(self.kept.get(table, {}).values()) for table in TABLES}
        load(fresh, tables, self.clock.now_ms())
        return fresh


TABLES = (
    "exchange", "token", "peer", "cursor", "project", "spending", "serial", "record", "equivocation", "site", "job",
    "run", "quote", "usage", "report",
)  # fmt: skip


def refused(code, work, *args, **fields):
    with pytest.raises(TielineError) as caught:
        work(*args, **fields)
    assert caught.value.code == code, caught.value.message
    return caught.value.message


def test_two_consents_make_a_peer_whoever_begins():
    one, two = Pure(), Pure()
    assert one.ask().reply.state is PeerState.ASKED
    assert one.offered().reply.state is PeerState.ACTIVE
    assert two.offered().reply.state is PeerState.OFFERED
    assert two.ask().reply.state is PeerState.ACTIVE


def test_an_offer_is_accepted_by_an_admin_and_by_nobody_else():
    here = Pure()
    here.offered()
    refused("forbidden", here.change, "accept", actor=Actor(name="u", roles=(Role.USER, Role.PEER)))
    assert here.change("accept", may_use=True, quota=Quota(card_count=4)).reply.state is PeerState.ACTIVE
    peer = here.view.peers["cn.sh/exchange/main"]
    assert (peer.may_use, peer.quota.card_count, peer.may_read) == (True, 4, True)


def test_what_was_asked_is_confirmed_and_not_accepted():
    here = Pure()
    here.ask()
    refused("conflict", here.change, "accept")
    assert here.change("confirm", actor=SYSTEM).reply.state is PeerState.ACTIVE
    other = Pure()
    other.offered()
    refused("conflict", other.change, "confirm", actor=SYSTEM)


def test_a_child_is_given_its_prefix_once_it_is_active_and_not_before():
    here = Pure()
    here.offered()
    assert here.view.catalogue.delegation("cn.sh") is None
    events = here.change("accept").events
    assert [type(event) for event in events] == [PeerChanged, RecordStored]
    assert events[1].id == "cn/exchange/sh"
    assert here.view.catalogue.key("cn.sh#exchange", NOW_MS // 1000) == key("cn.sh").public
    assert here.change("accept").events == ()


def test_the_delegation_of_a_child_is_signed_anew_before_its_lease_ends():
    here = Pure()
    here.offered()
    here.change("accept")
    assert here.change("renew", actor=SYSTEM).events == ()
    here.clock.advance(350 * 86_400_000)
    (renewed,) = here.change("renew", actor=SYSTEM).events
    assert (renewed.id, renewed.rev) == ("cn/exchange/sh", 2)


def test_a_peer_beside_us_is_pinned_and_unpinned_with_its_removal():
    here = Pure("cn.gd")
    here.ask(greeting("cn.sh"), PeerRole.PEER)
    assert here.view.catalogue.key("cn.sh#exchange", NOW_MS // 1000) is None
    here.change("confirm")
    assert here.view.catalogue.key("cn.sh#exchange", NOW_MS // 1000) == key("cn.sh").public
    here.change("remove")
    assert here.view.catalogue.key("cn.sh#exchange", NOW_MS // 1000) is None
    assert here.restarted().catalogue.key("cn.sh#exchange", NOW_MS // 1000) is None
    refused("not_found", here.change, "grant")


def test_a_removed_peer_does_not_take_the_pin_of_the_one_that_came_after_it():
    here = Pure("cn.gd")
    here.ask(greeting("cn.sh", "zz"), PeerRole.PEER)
    here.change("confirm", "cn.sh/exchange/zz")
    here.change("remove", "cn.sh/exchange/zz")
    here.ask(greeting("cn.sh", "aa"), PeerRole.PEER)
    here.change("confirm", "cn.sh/exchange/aa")
    for view in (here.view, here.restarted()):
        assert view.catalogue.key("cn.sh#exchange", NOW_MS // 1000) == key("cn.sh").public


@pytest.mark.parametrize(
    ("ours", "theirs", "role", "why"),
    [
        ("cn", greeting("cn", "other"), PeerRole.PEER, "collides"),
        ("cn", greeting("cn", "main"), PeerRole.PARENT, "collides"),
        ("cn.sh.pd", greeting("cn"), PeerRole.PEER, "contains our own"),
        ("cn.sh.pd", greeting("cn.sh"), PeerRole.CHILD, "contains our own"),
        ("cn", greeting("cn.sh"), PeerRole.PEER, "ours to give"),
        ("cn", greeting("cn.sh"), PeerRole.PARENT, "ours to give"),
        ("cn", greeting("cn.sh.pd"), PeerRole.CHILD, "ours to give"),
        ("cn", greeting("cn.main"), PeerRole.CHILD, "another owner"),
    ],
)
def test_a_prefix_that_collides_is_refused_when_asked_and_when_offered(ours, theirs, role, why):
    assert why in refused("conflict", Pure(ours).ask, theirs, role)
    assert why in refused("conflict", Pure(ours).offered, theirs, role)


def test_two_peers_cannot_hold_one_prefix_and_a_parent_may_hold_ours():
    here = Pure("cn.gd")
    here.ask(greeting("cn"), PeerRole.PARENT)
    here.offered(greeting("cn.sh"), PeerRole.PEER)
    assert "already" in refused("conflict", here.ask, greeting("cn.sh", "two", by="two"), PeerRole.PEER)
    assert "already" in refused("conflict", here.offered, greeting("cn.sh", "two", by="two"), PeerRole.PEER)
    here.change("remove")
    here.ask(greeting("cn.sh", "two", by="two"), PeerRole.PEER)
    assert "already" in refused("conflict", here.offered, greeting("cn.sh"), PeerRole.PEER)


def test_a_pinned_key_stays_until_the_peer_is_removed():
    for begin in (Pure.ask, Pure.offered):
        here = Pure()
        begin(here)
        assert "is known here under the key" in refused("unauthenticated", here.offered, greeting(by="thief"))
    here = Pure()
    here.ask()
    refused("unauthenticated", here.ask, greeting(by="thief"))
    here.change("confirm")
    refused("unauthenticated", here.offered, greeting(by="thief"))
    here.change("remove")
    assert here.offered(greeting(by="new")).reply.state is PeerState.OFFERED


def test_an_admin_who_dialled_is_stronger_than_a_stranger_who_only_asked():
    here = Pure()
    here.offered(greeting(by="thief", url="http://10.0.0.9"))
    peer = here.ask().reply
    assert (peer.state, peer.public, peer.url) == (PeerState.ASKED, key("cn.sh").public, "https://sh.example")


def test_an_active_peer_cannot_move_its_own_address():
    here = Pure()
    here.ask()
    here.offered(greeting(url="http://169.254.169.254/"))
    assert here.view.peers["cn.sh/exchange/main"].url == "https://sh.example"
    assert here.offered(greeting(url="http://169.254.169.254/")).events == ()


def test_a_request_counts_once_and_only_for_a_while():
    here = Pure()
    here.offered(nonce="n" * 20)
    assert "used before" in refused("unauthenticated", here.offered, nonce="n" * 20)
    assert "clock" in refused("unauthenticated", here.offered, at_ms=NOW_MS - 600_000)


def test_strangers_cannot_fill_the_store_with_requests():
    here = Pure()
    for number in range(peers.MOST_OFFERS):
        here.offered(greeting(f"org.p{number}"), PeerRole.PEER)
    assert "wait for an admin" in refused("overloaded", here.offered, greeting("org.more"), PeerRole.PEER)
    assert here.offered(greeting("org.p1", url="https://moved.example"), PeerRole.PEER).reply.url.endswith(
        "moved.example"
    )
    here.change("remove", "org.p2/exchange/main")
    here.offered(greeting("org.more"), PeerRole.PEER)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "cn.sh/site/main"},
        {"id": "cn.gd/exchange/main"},
        {"id": "nonsense"},
        {"public": "A" * 43},
        {"public": "short"},
        {"url": "file:///etc/passwd"},
        {"url": "https://a b"},
        {"scope": "galactic"},
        {"title": "x" * 401},
        {"title": "\x1b[31mred"},
    ],
)
def test_a_greeting_whose_parts_do_not_fit_is_refused_whole(wrong):
    import msgspec

    here = Pure()
    with pytest.raises(TielineError):
        here.offered(msgspec.structs.replace(greeting(), **wrong))
    assert here.view.peers == {}


def test_proof_against_a_peer_is_shown_until_an_admin_clears_it():
    here = Pure()
    here.ask()
    here.change("confirm")
    blame = BlamePeer(peer="cn.sh/exchange/main", code="peer_replayed", values={})
    assert here.do(blame).fault.code == "peer_replayed"
    assert here.decide(BlamePeer(peer="cn.sh/exchange/main", code="peer_body", values={})).events == ()
    assert here.do(ReadBranches(actor=ADMIN))[0].fault.code == "peer_replayed"
    refused("invalid_request", here.do, BlamePeer(peer="cn.sh/exchange/main", code="no_such_reason", values={}))
    assert here.change("clear").reply.fault is None


def test_the_fast_state_of_a_branch_is_that_of_the_peer_itself():
    here = Pure()
    here.ask()
    refused("not_found", here.do, TakeBranch(peer="cn.sh/exchange/main", state=None, error="no answer"))
    here.change("confirm")
    state = BranchState(exchange="cn.sh/exchange/main", at_ms=NOW_MS, head=3)
    here.do(TakeBranch(peer="cn.sh/exchange/main", state=state))
    assert here.view.branches["cn.sh/exchange/main"].state == state
    here.do(TakeBranch(peer="cn.sh/exchange/main", state=None, error="timeout"))
    branch = here.view.branches["cn.sh/exchange/main"]
    assert (branch.state, branch.error, branch.heard_ms) == (state, "timeout", NOW_MS)
    wrong = BranchState(exchange="cn.gd/exchange/main", at_ms=NOW_MS, head=3)
    refused("forbidden", here.do, TakeBranch(peer="cn.sh/exchange/main", state=wrong))


def test_the_same_word_twice_changes_nothing():
    here = Pure()
    assert len(here.ask(kinds=("pool", "pool")).events) == 1
    assert here.ask(kinds=("pool",)).events == ()
    here.change("confirm")
    assert here.change("confirm").events == ()
    assert here.change("grant", may_read=True).events == ()
    assert len(here.change("grant", may_read=False, prefixes=("cn.sh", "cn.sh")).events) == 1
    assert here.view.peers["cn.sh/exchange/main"].prefixes == ("cn.sh",)
    refused("invalid_request", here.change, "grant", kinds=("nonsense",))
    refused("invalid_request", here.change, "dance")


def test_a_restart_keeps_peers_and_their_pins():
    here = Pure("cn.gd")
    here.ask(greeting("cn"), PeerRole.PARENT)
    here.change("confirm", "cn/exchange/main")
    fresh = here.restarted()
    assert fresh.peers == here.view.peers
    assert fresh.catalogue.key("cn#exchange", NOW_MS // 1000) == key("cn").public
