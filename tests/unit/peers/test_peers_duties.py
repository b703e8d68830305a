"""What is done for a peer fails, is begun again, and is shown as failed for no longer than it is."""

import asyncio
from types import SimpleNamespace

import pytest

from tieline.drivers.peers import federation, witness
from tieline.drivers.peers.federation import Federation
from tieline.model.error import TielineError
from tieline.model.peer import Peer, PeerRole, PeerState
from tieline.model.reason import Reason
from tieline.registry import Key

PEER = Peer(
    id="cn.b/exchange/main",
    prefix="cn.b",
    public=Key(bytes(32)).public,
    url="http://127.0.0.1:9",
    role=PeerRole.PEER,
    state=PeerState.ACTIVE,
    since_ms=0,
)
WHY = Reason(code="peer_garbled", values={"why": "it said something else"})


class Duty:
    """Fails when it is told to."""

    def __init__(self):
        self.fail = asyncio.Event()
        self.lives = 0

    def tell(self, peer):
        pass

    def wake(self):
        pass

    def standing(self):
        return None

    async def run(self):
        self.lives += 1
        await self.fail.wait()
        self.fail.clear()
        raise TielineError("check_failed", "it said something else", reasons=(WHY,))


async def holds(what):
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - whatever it is, it is not told
            await asyncio.sleep(0.005)


def test_what_failed_is_shown_until_it_is_well_again_and_beside_it_the_others_go_on(monkeypatch):
    monkeypatch.setattr(federation, "WELL_S", 0.05)

    async def play():
        one, other = Duty(), Duty()
        host = SimpleNamespace(view=SimpleNamespace(peers={PEER.id: PEER}), signer=None)
        branches = Federation(host, (lambda *_: one, lambda *_: other))
        branches.start()
        try:
            await holds(lambda: one.lives == other.lives == 1)
            assert branches.error(PEER.id) is None
            one.fail.set()
            await holds(lambda: branches.error(PEER.id) == WHY)
            await holds(lambda: branches.error(PEER.id) is None)
            assert (one.lives, other.lives) == (2, 1)
        finally:
            branches.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("code", "ends"), [("exchange_unreachable", False), ("timeout", False), ("check_failed", True)]
)
def test_a_witness_leaves_it_to_others_to_say_that_a_peer_is_silent(monkeypatch, code, ends):
    monkeypatch.setattr(witness, "ROUND_S", 0.001)
    rounds = []

    class Silent(witness.Witness):
        async def look(self):
            rounds.append(1)
            raise TielineError(code, "no answer")

    async def play():
        task = asyncio.create_task(Silent(None, PEER, None, witness.Hearsay()).run())
        await holds(lambda: len(rounds) > 2 or task.done())
        assert task.done() is ends
        if ends:
            with pytest.raises(TielineError):
                await task
        else:
            task.cancel()

    asyncio.run(play())
