"""A member of a gang at a whole site process: met through the site's door, in its sandbox, and after a restart."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from scripted_exchange import OWNER_FILE, SITE, Exchange, go, home_at, offer, running, serving

from tieline.drivers.clock import SystemClock
from tieline.drivers.doors.link import Link
from tieline.drivers.doors.visitor import Visitor
from tieline.drivers.engines.sandbox import found
from tieline.drivers.siteprocess.process import SiteProcess
from tieline.model.door import Pass, Right
from tieline.model.error import TielineError
from tieline.model.protocol import Accepted, Ended, Member, Offer, Outcome, Part, Started, Stop
from tieline.model.task import Checkpoint
from tieline.registry import Key
from tieline.registry.passes import issued
from tieline.site.meeting import address_of

OTHER, HOLDER = "cn.demo.lab8/site/sh1", Key(b"h" * 32)
RUN = f"j-{os.getpid()}.1"
NODE = """exec python3 -u -c '
import os, socket
ips = os.environ["TIELINE_NODE_IPS"].split()
rank = int(os.environ["TIELINE_NODE_RANK"])
print(rank, "of", os.environ["TIELINE_NUM_NODES"])
server = socket.create_server((ips[rank], PORT))
with socket.create_connection((ips[0], PORT), 60) as first:
    first.sendall(b"rank %d" % rank)
    print(first.recv(99).decode())
while True:
    there, _ = server.accept()
    there.sendall(b"you said " + there.recv(99))
    there.close()
'"""


def part_of(number: int, port: int) -> Part:
    members = (
        Member(run=f"{RUN}.9", site=OTHER, rank=0, nodes=1),
        Member(run=RUN, site=SITE, rank=1, nodes=2),
    )
    return Part(member=1, members=members, number=number, ports=(port,))


def gang_offer(number: int, port: int, *, is_trusted: bool) -> Offer:
    made = offer(RUN, NODE.replace("PORT", str(port)), nodes=2, is_trusted=is_trusted, grace_s=1, network="host")
    return msgspec.structs.replace(made, part=part_of(number, port))


@asynccontextmanager
async def linked(exchange: Exchange, process: SiteProcess, heard: list[bytes]) -> AsyncIterator[Link]:
    """What the process of the other site does: its node, of rank 0, notes what it hears."""
    now_ms = SystemClock().now_ms()
    given = Pass(
        id="x" * 16, door=SITE, holder=OTHER, public=HOLDER.public, rights=(Right.PORT,), from_ms=now_ms,
        until_ms=now_ms + 60_000, run=RUN,
    )  # fmt: skip
    text = issued(given, exchange.key, "cn.demo#exchange")
    guest = Visitor(process.keeper.url, text, process.key.public, HOLDER, "cn.demo.lab8#site", SystemClock())

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readexactly(6))
        writer.write(b"welcome")
        writer.close()

    node = await asyncio.start_server(noted, "127.0.0.1", 0)

    async def connect(rank: int, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert rank == 0
        return await asyncio.open_connection(*node.sockets[0].getsockname())

    try:
        async with guest.linked(RUN) as (stream, key):
            link = Link(stream, key, is_caller=True, connect=connect)
            carrying = asyncio.create_task(link.run())
            yield link
            await link.close()
            await carrying
    finally:
        node.close()
        await guest.close()


async def said(link: Link, rank: int, port: int, text: bytes) -> bytes:
    ours, theirs = socket.socketpair()
    ends = await asyncio.open_connection(sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    carrying = asyncio.create_task(link.carry(*ends, rank, port))
    try:
        writer.write(text)
        return await reader.read()
    finally:
        writer.close()
        await carrying


@pytest.mark.parametrize("sandbox", ["none", "bubblewrap"])
def test_nodes_are_met_in_their_sandbox_through_the_door_and_again_after_a_restart(
    tmp_path: Path, sandbox: str
) -> None:
    if sandbox == "bubblewrap" and "host" not in found().networks:
        pytest.skip("no sandbox works here")
    number = int.from_bytes(os.urandom(2), "big")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange, OWNER_FILE + "door: {listen: 127.0.0.1:0}\n")
            made = gang_offer(number, port, is_trusted=sandbox == "none")
            exchange.outcome = lambda _: Outcome(is_ok=False, what="wait")
            heard: list[bytes] = []
            async with running(home) as process:
                await exchange.until(lambda: exchange.streams)
                exchange.order(made)
                (accepted, *_) = await exchange.until(lambda: exchange.of(Accepted, RUN), 30)
                assert accepted.sandbox == sandbox
                with pytest.raises(TielineError, match="409"):  # it waits for the others
                    async with linked(exchange, process, heard):
                        pass
                exchange.outcome = lambda _: Outcome(is_ok=True)
                exchange.order(msgspec.structs.replace(made, state="accepted"))
                await exchange.until(lambda: exchange.of(Started, RUN), 30)
                async with linked(exchange, process, heard) as link:
                    await exchange.until(lambda: len(heard) == 2, 30)
                    assert sorted(heard) == [b"rank 1", b"rank 2"]  # both called the first node, at its address here
                    for rank in (1, 2):
                        assert await said(link, rank, port, b"hi") == b"you said hi"
                    assert await said(link, 1, port + 1, b"hi") == b""
                logs = {(RUN, 0): b"1 of 3\nwelcome\n", (RUN, 1): b"2 of 3\nwelcome\n"}
                await exchange.until(lambda: exchange.logs == logs, 30)
            exchange.live = [msgspec.structs.replace(made, state="running")]
            async with running(home) as process:  # the nodes went on; they are met again
                await exchange.until(lambda: exchange.sessions == 2 and process.gangs.gangs, 30)
                async with linked(exchange, process, heard) as link:
                    assert await said(link, 2, port, b"again") == b"you said again"
                    exchange.order(Stop(run=RUN, epoch=1))
                    await exchange.until(lambda: exchange.of(Ended, RUN), 30)
                    await exchange.until(lambda: not process.gangs.gangs, 30)
                    assert link.is_over or await said(link, 2, port, b"late") == b""
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection(address_of(number, 0), port)

    go(story)


@pytest.mark.parametrize("member", [0, 1])
def test_the_checkpoint_is_that_of_the_first_node_wherever_it_stands(tmp_path: Path, member: int) -> None:
    members = tuple(Member(run=RUN if at == member else f"{RUN}.9", site="", rank=at, nodes=1) for at in (0, 1))
    sites = (SITE, OTHER) if member == 0 else (OTHER, SITE)
    members = tuple(msgspec.structs.replace(each, site=site) for each, site in zip(members, sites, strict=True))
    script = "mkdir -p $TIELINE_CHECKPOINT_DIR; echo $TIELINE_NODE_RANK >$TIELINE_CHECKPOINT_DIR/step; exit 3"
    made = msgspec.structs.replace(
        offer(RUN, script, checkpoint=Checkpoint(path="kept", every_s=3_600)),
        part=Part(member=member, members=members, number=int.from_bytes(os.urandom(2), "big")),
    )

    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange, OWNER_FILE)
            async with running(home):
                await exchange.until(lambda: exchange.streams)
                exchange.order(made)
                ended = await exchange.ended(RUN)
                assert ended.exit_codes == (3,)
                assert bool(ended.checkpoint) is (member == 0)

    go(story)
