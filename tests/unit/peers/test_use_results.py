"""Results of runs elsewhere that wait for their bytes: however many a peer names, few are remembered."""

import asyncio
from types import SimpleNamespace

from tieline.drivers.peers.results import LITTLE_BYTES, MOST_BEHIND, Results
from tieline.model.error import TielineError
from tieline.model.peer import Peer, PeerRole, PeerState
from tieline.model.protocol import CheckpointKept, Ended, PeerReport

PEER = Peer(
    id="cn.b/exchange/main", prefix="cn.b", public="", url="http://127.0.0.1:1", role=PeerRole.PEER,
    state=PeerState.ACTIVE,
)  # fmt: skip
RUN = "j-1.1"


class Store:
    """Keeps nothing, and remembers what was brought to it."""

    def __init__(self):
        self.brought = []

    async def has(self, sha256):
        return False

    async def write(self, chunks, limit_bytes, sender):
        assert sender == PEER.id
        async for chunk in chunks:
            self.brought.append(chunk)


class Host:
    """One run behind the peer; what is taken is remembered."""

    def __init__(self):
        self.blobs = Store()
        runs = {RUN: SimpleNamespace(via=PEER.id)}
        self.view = SimpleNamespace(runs=runs, limits=SimpleNamespace(blob_bytes=2**30))
        self.taken = []

    async def ask(self, command):
        self.taken += [each.report for each in command.reports]
        return ()


class Refusing:
    """A peer that says that there are no such bytes, once it is let."""

    def __init__(self):
        self.answers = asyncio.Event()

    async def download(self, path, **_):
        await self.answers.wait()
        raise TielineError("not_found", "no such blob")
        yield b""


class Silent:
    """A log without anything in it."""

    async def drain(self, run, most):
        return True


def test_a_peer_that_names_ever_more_checkpoints_fills_nothing_here_and_its_end_is_taken():
    async def story():
        host, client = Host(), Refusing()
        results = Results(host, PEER, client, Silent())
        lanes = [asyncio.create_task(results.lane(lambda _: None)) for _ in range(2)]
        kept = [
            CheckpointKept(run=RUN, epoch=1, sha256=f"{number:064x}", size_bytes=LITTLE_BYTES + 1)
            for number in range(500)
        ]
        end = Ended(run=RUN, epoch=1, state="succeeded", exit_codes=(0,))
        for serial, report in enumerate((*kept, end), 1):
            assert await results.is_late(PeerReport(serial=serial, report=report))
            await asyncio.sleep(0)
            assert sum(map(len, results._late.values())) <= MOST_BEHIND
        client.answers.set()
        for _ in range(6_000):
            if not results._late:
                break
            await asyncio.sleep(0.01)
        for lane in lanes:
            lane.cancel()
        return host.taken, kept, end

    taken, kept, end = asyncio.run(story())
    assert (taken[0], taken[-2:], len(taken)) == (kept[0], [kept[-1], end], MOST_BEHIND)
