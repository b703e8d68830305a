"""Two real exchanges: one keeps the other's heads, and finds a log that went back or was rewritten."""

import asyncio

import msgspec

from peer_world import until
from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.witness import Witness
from tieline.drivers.stores.heads import heads_of, kept
from tieline.exchange.commands import CreateToken
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
            made = witness or Witness(one.platform, peer, client)
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
