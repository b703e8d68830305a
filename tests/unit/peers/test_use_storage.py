"""What one peer brings here is bounded, also over a restart, and takes no room of others."""

import asyncio
import hashlib
from types import SimpleNamespace

import msgspec
import pytest
from use_world import LIMITS, MAKERS

from peer_world import until
from tieline.drivers.peers.client import PeerClient
from tieline.drivers.peers.results import Results
from tieline.drivers.peers.tally import Tally
from tieline.model.error import TielineError
from tieline.model.job import Output
from tieline.model.protocol import Ended, Offer, PeerAnswers, PeerOrders, PeerReport
from tieline.model.task import Mount, Task

MIB = 2**20
SHARE = msgspec.structs.replace(LIMITS, blobs_bytes=8 * MIB, blob_bytes=8 * MIB)  # 1 MiB for each
BYTES = {"Content-Type": "application/octet-stream"}


def bytes_of(name, size_bytes):
    content = hashlib.shake_128(name.encode()).digest(size_bytes)
    return hashlib.sha256(content).hexdigest(), content


async def pieces(content):
    for at in range(0, len(content), 65_536):
        yield content[at : at + 65_536]


def upload(a, b, name, size_bytes):
    sha256, content = bytes_of(name, size_bytes)

    async def call():
        async with PeerClient(b.url, b.id, a.platform.signer) as client:
            path = f"/v1/peer/blobs/{sha256}"
            await client.upload(path, sha256, lambda: pieces(content), headers=BYTES)
            await client.raw("HEAD", path)

    asyncio.run(call())
    return sha256


def refused(a, b, name, size_bytes):
    with pytest.raises(TielineError) as caught:
        upload(a, b, name, size_bytes)
    return caught.value


def test_one_peer_that_fills_its_share_is_refused_by_name_and_others_are_not(exchange, tieline):
    a, b, c = (exchange(name, limits=SHARE, makers=MAKERS[:1]) for name in ("cn.a", "cn.b", "cn.c"))
    for each in (a, c):
        each.add(b)
        b.accept(each, may_use=True)
        until(lambda each=each: each.is_active(b) and b.is_active(each))
    kept = upload(a, b, "one", 700_000)
    error = refused(a, b, "two", 6 * MIB)  # much more: the answer is heard all the same
    assert (error.code, error.reasons[0].code) == ("too_large", "peer_storage")
    assert error.reasons[0].values["limit_bytes"] == MIB
    assert b.platform.blobs.count == 1
    b.stop()
    b.start()
    until(lambda: b.is_active(a))
    assert upload(c, b, "two", 900_000)
    assert refused(a, b, "three", 400_000).reasons[0].code == "peer_storage", "what came before the restart counts"
    upload(a, b, "four", 300_000)
    upload(a, b, "five", 1)
    assert refused(a, b, "six", 1).reasons[0].code == "peer_storage", "small ones count for more than they are"
    assert f"{a.id}: refused 2 times: peer_storage" in tieline(b, "exchange", "status")
    assert b.branch(c)["rejected"] == {}

    async def offered():
        async with PeerClient(b.url, b.id, a.platform.signer) as client:
            await client.raw("HEAD", f"/v1/peer/blobs/{kept}")  # it is known to be its own
            body = PeerOrders(orders=(offer("j-1.1", kept), offer("j-2.1", bytes_of("three", 400_000)[0])))
            return await client.call("POST", "/v1/peer/orders", PeerAnswers, body=body, key=None)

    whys = [answer.reports[0].reason.code for answer in asyncio.run(offered()).answers]
    assert whys[1] == "peer_storage"
    assert whys[0] != "peer_storage"
    assert not list((b.folder / "blobs" / "tmp").iterdir())
    drop(b, kept)
    b.stop()
    b.start()
    until(lambda: b.is_active(a))
    upload(a, b, "seven", 600_000)


def drop(exchange, sha256):
    assert exchange.platform.blobs.remove(sha256, 2**60)


def offer(run, sha256):
    task = Task(run="true", mounts=(Mount(path="x", sha256=sha256, size_bytes=1),))
    return Offer(
        run=run, epoch=1, job=run.partition(".")[0], pool="cn.b.lab/pool/cpu", task=task, alternative=0,
        user="u", user_owner="cn.a", core_count=1, memory_bytes=0, accelerator_count=0,
        price_micro_cny_per_unit_hour=1, stop_after_s=0, ttl_ms=60_000, state="offered",
    )  # fmt: skip


class Line:
    """A peer that gives whatever a report of it names."""

    def __init__(self, contents):
        self.contents, self.tally = contents, Tally()

    async def download(self, path, **_):
        yield self.contents[path.rpartition("/")[2]]


class Nothing:
    async def drain(self, _run, _most):
        return True


def test_what_a_peer_lets_us_fetch_is_bounded_by_its_share(exchange):
    a = exchange("cn.a", limits=SHARE, makers=MAKERS[:1])
    contents = dict(bytes_of(str(number), 300_000) for number in range(5))
    outputs = tuple(Output(path=sha256, sha256=sha256, size_bytes=300_000) for sha256 in contents)
    line = Line(contents)

    def brought(peer, run):
        view = SimpleNamespace(runs={run: SimpleNamespace(via=peer)}, limits=SHARE)
        host = SimpleNamespace(view=view, blobs=a.platform.blobs)
        results = Results(host, SimpleNamespace(id=peer), line, Nothing())
        said = PeerReport(serial=1, report=Ended(run=run, epoch=1, state="succeeded", outputs=outputs))

        async def story():
            assert not await results.is_late(said) or await results._bring(run, said) is None

        asyncio.run(story())
        return a.platform.blobs.count

    assert brought("cn.b/exchange/main", "j-1.1") == 3
    assert line.tally.rejected == {"peer_storage": 2}
    assert brought("cn.c/exchange/main", "j-2.1") == 5
