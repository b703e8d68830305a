"""Two real exchanges: one keeps the other's heads, and finds a log that went back or was rewritten."""

import asyncio

import msgspec

from peer_world import until
from tieline.drivers.peers import witness as witnessing
from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.puller import Puller
from tieline.drivers.peers.witness import Hearsay, Witness
from tieline.drivers.stores.heads import heads_of, kept
from tieline.exchange.commands import CreateToken
from tieline.model.audit import HeadView
from tieline.model.party import SYSTEM, Role
from tieline.registry.heads import checked_head, sign_head


def peered(exchange):
    one, two = exchange("cn.sh"), exchange("cn.gd")
    assert one.add(two).status_code in (200, 201)
    until(lambda: one.id in two.view.peers)
    assert two.accept(one).status_code == 200
    until(lambda: one.is_active(two) and two.is_active(one))
    return one, two


def look(one, two, witness=None):
    """One round of the duty, on a loop of its own."""
    peer = one.view.peers[two.id]

    async def round_():
        async with PeerClient(peer.url, peer.id, one.platform.signer) as client:
            made = witness or Witness(one.platform, peer, client, Hearsay())
            made.client = client
            made.tell(peer)
            await made.look()
            return made

    return asyncio.run(round_())


def sizes(one, two):
    return [head.size for head in heads_of(one.store.engine, two.id)]


def grow(world):
    number = world.writer.position[0]
    world.do(CreateToken(actor=SYSTEM, sha256=f"{number:064x}", name=f"n{number}", roles=(Role.USER,)))


def test_heads_that_go_on_are_kept(exchange):
    one, two = peered(exchange)
    look(one, two)
    grow(two)
    look(one, two)
    assert len(sizes(one, two)) >= 2
    for head in heads_of(one.store.engine, two.id):
        assert checked_head(head.statement.encode(), two.keys.key.public, two.id).size == head.size
    assert one.view.peers[two.id].fault is None


def seen(one, two, **fields):
    """``one`` has seen another head, which ``two`` signed."""
    statement = one.http.get("/v1/audit/heads", params={"exchange": two.id}).json()["heads"][-1]["statement"]
    head = checked_head(statement.encode(), two.keys.key.public, two.id)
    head = msgspec.structs.replace(head, **fields)
    row = kept(head, sign_head(head, two.keys.key, two.keys.kid), one.clock.now_ms())
    one.writer.keep([row]).result(30)


def test_a_log_that_went_back_is_proof_until_an_admin_clears_it(exchange):
    one, two = peered(exchange)
    look(one, two)
    seen(one, two, size=9_999)
    witness = look(one, two)
    fault = one.view.peers[two.id].fault
    assert (fault.code, fault.values["known"]) == ("log_rolled_back", 9_999)
    before = sizes(one, two)
    look(one, two, witness)  # nothing is asked of it meanwhile
    assert sizes(one, two) == before
    one.change(two, "clear")
    one.stop()
    one.start()  # what was cleared stays so
    look(one, two)
    assert one.view.peers[two.id].fault is None
    grow(two)
    look(one, two)
    assert one.view.peers[two.id].fault is None
    seen(one, two, size=9_998)
    look(one, two)
    assert one.view.peers[two.id].fault.values["known"] == 9_998


def test_a_log_that_was_rewritten_is_proof(exchange):
    one, two = peered(exchange)
    look(one, two)
    seen(one, two, root="ab" * 32)
    grow(two)
    look(one, two)
    assert one.view.peers[two.id].fault.code == "log_forked"


def duties():
    """What an exchange does for its peers, with one ear for what they tell of each other."""
    hearsay = Hearsay()
    return Puller, lambda host, peer, client: Witness(host, peer, client, hearsay)


def link(one, two):
    assert one.add(two).status_code in (200, 201)
    until(lambda: one.id in two.view.peers)
    assert two.accept(one).status_code == 200
    until(lambda: one.is_active(two) and two.is_active(one))


def test_who_shows_two_peers_a_log_each_is_found_by_both_and_it_is_shown(exchange, monkeypatch, tieline):
    """One exchange with two faces: each of its logs only grows, and each head is genuine."""
    monkeypatch.setattr(witnessing, "ROUND_S", 0.1)
    one, two = exchange("cn.sh", makers=duties()), exchange("cn.gd", makers=duties())
    face, other = exchange("cn.y"), exchange("cn.y")
    assert (face.id, face.keys.key.public) == (other.id, other.keys.key.public)
    for _ in range(3):
        grow(other)
    link(one, face)
    link(two, other)
    until(lambda: sizes(one, face) and sizes(two, other))
    assert one.view.peers[face.id].fault is two.view.peers[face.id].fault is None  # alone nobody can know

    link(one, two)
    for each, by in ((one, two), (two, one)):
        fault = until(lambda each=each: each.view.peers[face.id].fault)
        assert (fault.code, fault.values["by"]) == ("log_shown_otherwise", by.id)
        heads = [checked_head(fault.values[name].encode(), face.keys.key.public, face.id) for name in ("here", "there")]
        assert [heads[0].size, heads[1].size] == [fault.values["seen"], fault.values["known"]]
        assert heads[0].root != heads[1].root
        assert each.view.peers[by.id].fault is None  # whoever told it is not to blame
    assert "it signed two histories" in tieline(one, "exchange", "status")
    shown = tieline(one, "audit", "show", "--kind", "peer_changed", "--subject", face.id)
    assert "found at fault: log_shown_otherwise" in shown

    one.change(face, "clear")
    grow(face)
    until(lambda: heads_of(one.store.engine, face.id)[-1].size == face.writer.position[0])
    assert one.view.peers[face.id].fault is None  # what was known before is not held against it once more
    cleared_ms = one.view.peers[face.id].cleared_ms
    two.change(face, "clear")
    grow(other)
    fault = until(lambda: one.view.peers[face.id].fault, why=lambda: "the other face goes on signing, and two tells")
    assert checked_head(fault.values["there"].encode(), face.keys.key.public).at_ms > cleared_ms


def test_what_somebody_makes_up_about_a_log_blames_nobody(exchange):
    one, two = peered(exchange)
    look(one, two)
    peer = one.view.peers[two.id]
    (known,) = heads_of(one.store.engine, two.id)
    head = checked_head(known.statement.encode(), two.keys.key.public)
    forged = sign_head(msgspec.structs.replace(head, root="ab" * 32), one.keys.key, two.keys.kid).decode()
    foreign = msgspec.structs.replace(head, exchange="cn.z/exchange/main")
    hearsay = Hearsay()
    for number, statement in enumerate((forged, "{}", sign_head(foreign, two.keys.key, two.keys.kid).decode())):
        hearsay.tell(msgspec.structs.replace(known, statement=statement), f"cn.x{number}/exchange/main")
    hearsay.tell(known, "cn.x9/exchange/main")  # of the same history, from before
    grow(two)

    async def round_():
        async with PeerClient(peer.url, peer.id, one.platform.signer) as client:
            await Witness(one.platform, peer, client, hearsay).look()

    asyncio.run(round_())
    assert one.view.peers[two.id].fault is None
    assert len(sizes(one, two)) == 2
    assert hearsay.take(two.id) == {}


def test_what_is_told_is_bounded():
    head = HeadView(exchange="cn.y/exchange/main", size=1, root="ab" * 32, at_ms=1, statement="{}")
    hearsay = Hearsay()
    for number in range(witnessing.MOST_TOLD + 9):
        hearsay.tell(head, f"x{number}")
        hearsay.tell(head, "x0")
    assert len(hearsay.take(head.exchange)) == witnessing.MOST_TOLD
