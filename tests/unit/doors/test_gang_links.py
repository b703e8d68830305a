"""Nodes of one gang at two sites reach each other through a door, at the ports that were named and no others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import WSMessage, WSMsgType
from door_world import CLOCK, EXCHANGE, a_pass
from nacl.bindings import crypto_secretbox, crypto_secretbox_open

from tieline.drivers.doors.door import Door, chunks_of
from tieline.drivers.doors.link import CHANNELS, HEAD, PIECE_BYTES, WAITING, WINDOW_BYTES, Kind, Link
from tieline.drivers.doors.visitor import Visitor
from tieline.drivers.siteprocess.caller import caller_user
from tieline.drivers.siteprocess.gangs import Gangs
from tieline.model.door import Right
from tieline.model.error import TielineError
from tieline.model.passing import PassBody, PassView
from tieline.model.protocol import Member, Offer, Part
from tieline.model.task import Resources, Task
from tieline.registry import Key
from tieline.site import Held, Phase
from tieline.site.configuration import DoorConfig
from tieline.site.meeting import address_of, meeting_port

NAMES = ("cn.demo.lab7/site/gz1", "cn.demo.lab8/site/sh1")
WAIT_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


JOB = f"j-{os.getpid()}"  # this process says to the whole machine that it is here


def held(number: int, member: int, ports: tuple[int, ...], nodes: tuple[int, ...] = (1, 1)) -> Held:
    members = tuple(
        Member(run=f"{JOB}.1{f'.{at}' if at else ''}", site=NAMES[at], rank=sum(nodes[:at]), nodes=nodes[at])
        for at in range(len(nodes))
    )
    offer = Offer(
        run=members[member].run,
        job=f"cn.demo/job/{JOB}",
        epoch=1,
        pool="p",
        task=Task(name="t", run="true", nodes=nodes[member], resources=(Resources(core_count=1),)),
        alternative=0,
        user="alice",
        core_count=nodes[member],
        part=Part(member=member, members=members, number=number, ports=ports),
    )
    return Held(offer=offer, phase=Phase.RUNNING)


class Exchange:
    """Gives passes to whom it likes, as the exchange's own operation would."""

    def __init__(self, two: Two, holder: int) -> None:
        self.two, self.holder, self.asked = two, holder, 0
        self.refuses = False

    async def call(self, method: str, path: str, reply: type, body: PassBody, key: None) -> PassView:
        assert (method, reply, key) == ("POST", PassView, None)
        self.asked += 1
        if self.refuses:
            raise TielineError("conflict", "the gang is not all there")
        site = path.split("/")[3].replace("~", "/")
        other = self.two.doors[NAMES.index(site)]
        text = a_pass(
            door=site, holder=NAMES[self.holder], public=body.public, rights=body.rights, run=body.run, most_bytes=0
        )
        until_ms = CLOCK.now_ms() + 100_000
        return PassView(door_pass=text, site=site, url=other.url, public=other.key.public, until_ms=until_ms)


class Two:
    """Two sites, each with a machine of its own, where nodes have addresses that the other machine does not know."""

    def __init__(self, ports: tuple[int, ...], nodes: tuple[int, ...] = (1, 1)) -> None:
        self.number = int.from_bytes(os.urandom(2), "big")
        self.ports, self.nodes = ports, nodes
        self.doors: list[Door] = []
        self.exchanges = [Exchange(self, at) for at in (0, 1)]
        self.gangs = [self.made(at) for at in (0, 1)]

    def made(self, at: int) -> Gangs:
        key = Key(NAMES[at].encode().ljust(32)[:32])
        url = lambda: self.doors[at].url  # noqa: E731
        where = lambda _, rank: self.where(at, rank)  # noqa: E731
        return Gangs(self.exchanges[at], NAMES[at], "cn.demo", key, CLOCK, url, is_local=True, address=where)

    def where(self, at: int, rank: int) -> str:
        return address_of(self.number + 7 * at, rank)

    def held(self, at: int) -> Held:
        return held(self.number, at, self.ports, self.nodes)

    @asynccontextmanager
    async def open(self, folder: Path, has_door: tuple[bool, bool] = (True, True)) -> AsyncIterator[Two]:
        for at in (0, 1):
            config = DoorConfig()
            chunks = chunks_of(folder / str(at), config)
            gangs = self.gangs[at]
            door = Door(config, NAMES[at], gangs.key, EXCHANGE.public, CLOCK, chunks, meets=gangs)
            self.doors.append(await door.open() if has_door[at] else await door.prepare())
        try:
            yield self
        finally:
            for gangs in self.gangs:
                await gangs.close()
            for door in self.doors:
                await door.close()

    async def start(self) -> None:
        """As two machines do it: nobody there says that the other is here too."""
        for at in (0, 1):
            self.gangs[at].is_here = lambda *_: asyncio.sleep(0, False)  # type: ignore[method-assign]
            await self.gangs[at].open(self.held(at))

    async def reach(self, at: int, rank: int, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """What a node of site ``at`` does."""
        return await asyncio.open_connection(self.where(at, rank), port)

    async def stand(self, at: int, rank: int, port: int) -> asyncio.Server:
        """A node that gives back what it hears."""
        return await asyncio.start_server(echo, self.where(at, rank), port)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    writer.close()


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    """All that comes back for ``data``."""

    async def give() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    _, back = await asyncio.gather(give(), reader.read())
    writer.close()
    return back


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 - tasks of many parts make it true
        await asyncio.sleep(0.02)


def go(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story(), WAIT_S))


@pytest.mark.parametrize("has_door", [(True, True), (True, False), (False, True)])
def test_nodes_reach_each_other_whichever_side_has_a_door(tmp_path: Path, has_door: tuple[bool, bool]) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        async with two.open(tmp_path, has_door):
            await two.start()
            meeting = meeting_port(two.number)
            async with await two.stand(0, 0, meeting), await two.stand(1, 1, port), await two.stand(0, 0, port):
                for at, rank, to in ((1, 0, meeting), (0, 1, port), (1, 0, port)):
                    data = os.urandom(3_000_000)
                    assert await said(*await two.reach(at, rank, to), data) == data
            links = [
                len(gangs.gangs[f"cn.demo/job/{JOB}", 1].links[NAMES[1 - at]]) for at, gangs in enumerate(two.gangs)
            ]
            assert links == [1, 1]
            with pytest.raises(ConnectionRefusedError):  # all meet at the first node, nowhere else
                await two.reach(0, 1, meeting)
            for at in (0, 1):
                await two.gangs[at].close_run(two.held(at).run)
            with pytest.raises(ConnectionRefusedError):
                await two.reach(0, 1, port)
            assert two.gangs[0].gangs == {}

    go(story)


def test_two_hundred_connections_share_one_link_and_a_slow_one_holds_up_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        port, slow = free_port(), free_port()
        two = Two((port, slow))
        async with two.open(tmp_path):
            await two.start()

            full = asyncio.Event()

            async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await full.wait()
                writer.transport.abort()

            deaf = await asyncio.start_server(ignore, two.where(1, 1), slow)
            async with await two.stand(1, 1, port):
                _, stuck = await two.reach(0, 1, slow)
                stuck.write(os.urandom(20_000_000))  # more than anything between them holds
                data = [os.urandom(50_000 + at) for at in range(200)]
                ends = [await two.reach(0, 1, port) for _ in data]
                assert await asyncio.gather(*(said(*end, each) for end, each in zip(ends, data, strict=True))) == data
                (link,) = two.gangs[1].gangs[f"cn.demo/job/{JOB}", 1].links[NAMES[0]]
                assert sum(len(each.coming) for each in link.channels.values()) <= 4 * 2**20
                stuck.transport.abort()
                full.set()
                await asyncio.sleep(0.1)
            deaf.close()

    go(story)


def test_a_node_that_comes_late_is_waited_for_and_one_that_breaks_is_seen_to(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        async with two.open(tmp_path):
            await two.start()
            reader, writer = await two.reach(0, 1, port)
            writer.write(b"early")
            await asyncio.sleep(0.5)
            broken = asyncio.Event()

            async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                assert await reader.readexactly(5) == b"early"
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()
                broken.set()

            async with await asyncio.start_server(breaks, two.where(1, 1), port):
                await broken.wait()
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            writer.close()

    go(story)


def test_what_a_node_said_last_arrives_though_its_run_is_over(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        async with two.open(tmp_path):
            await two.start()
            content, begin = os.urandom(30_000_000), asyncio.Event()
            heard: list[bytes] = []

            async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await begin.wait()
                heard.append(await reader.read())
                writer.close()

            async with await asyncio.start_server(slow, two.where(1, 1), port):
                _, writer = await two.reach(0, 1, port)
                writer.write(content)
                writer.close()
                over = asyncio.create_task(two.gangs[0].close_run(two.held(0).run))
                await asyncio.sleep(0.2)
                assert not over.done()
                with pytest.raises(ConnectionRefusedError):  # nothing new begins
                    await two.reach(0, 1, port)
                begin.set()
                await over
                await until(lambda: heard)
                assert heard == [content]
                await writer.wait_closed()

    go(story)


def test_what_was_said_over_a_connection_that_nobody_had_accepted_yet_arrives_too(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        async with two.open(tmp_path):
            await two.start()
            heard: list[bytes] = []

            async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                heard.append(await reader.read())
                writer.close()

            async with await asyncio.start_server(hear, two.where(1, 1), port):
                assert await two.gangs[0].gangs[f"cn.demo/job/{JOB}", 1]._link(NAMES[1]) is not None
                for number in range(20):
                    with socket.create_connection((two.where(0, 1), port)) as node:
                        node.sendall(b"%d" % number)
                await two.gangs[0].close_run(two.held(0).run)
                await until(lambda: len(heard) == 20)
                assert {int(each) for each in heard} == set(range(20))

    go(story)


def test_the_end_of_a_site_process_waits_for_no_node_elsewhere(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        async with two.open(tmp_path):
            await two.start()
            never = asyncio.Event()

            async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await never.wait()
                writer.transport.abort()

            async with await asyncio.start_server(deaf, two.where(1, 1), port):
                _, writer = await two.reach(0, 1, port)
                writer.write(bytes(30_000_000))
                over = asyncio.create_task(two.gangs[0].close_run(two.held(0).run))
                await asyncio.sleep(0.3)
                assert not over.done()
                async with asyncio.timeout(20):  # less than it would linger
                    await two.gangs[0].close()
                    await over
                writer.transport.abort()
                never.set()

    go(story)


def test_a_link_that_breaks_gives_nodes_what_is_all_and_resets_the_rest(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        async with two.open(tmp_path):
            await two.start()
            begin, heard = asyncio.Event(), []

            async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await begin.wait()
                try:
                    heard.append(len(await reader.read()))
                except ConnectionResetError:
                    heard.append(-1)
                writer.close()

            async with await asyncio.start_server(slow, two.where(1, 1), port, limit=1_000):
                ends = [await two.reach(0, 1, port) for _ in range(2)]
                for _, writer in ends:
                    writer.write(bytes(100_000))
                ends[0][1].write_eof()
                gang = two.gangs[1].gangs[f"cn.demo/job/{JOB}", 1]
                (link,) = gang.links[NAMES[0]]
                await until(lambda: any(each.has_ended for each in link.channels.values()))
                await two.gangs[0].close()  # that site's process ends
                assert link.is_over
                begin.set()
                await until(lambda: len(heard) == 2)
                assert sorted(heard) == [-1, 100_000]
                await until(lambda: not link.channels and not link._tasks)
                for _, writer in ends:
                    writer.transport.abort()

    go(story)


def test_a_site_that_was_away_is_linked_again(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        async with two.open(tmp_path):
            await two.start()
            async with await two.stand(1, 1, port):
                reader, writer = await two.reach(0, 1, port)
                writer.write(b"a")
                assert await reader.readexactly(1) == b"a"
                await two.gangs[1].close()  # its process ends; the node there goes on
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await reader.readexactly(1)
                writer.close()
                await two.gangs[1].adopt(two.held(1))
                assert await said(*await two.reach(0, 1, port), b"again") == b"again"

    go(story)


def test_a_door_lets_nobody_in_but_members_of_the_gang(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        async with two.open(tmp_path):
            await two.start()
            run, stranger, door = two.held(1).run, Key(b"x" * 32), two.doors[1]

            async def linked(name: str = run, key: Key = stranger, **fields: Any) -> str:
                fields = {"holder": NAMES[0], "rights": (Right.PORT,), "run": run, **fields}
                given = a_pass(door=NAMES[1], public=stranger.public, **fields)
                guest = Visitor(door.url, given, two.gangs[1].key.public, key, "x#y", CLOCK)
                try:
                    async with guest.linked(name):
                        return "in"
                except TielineError as error:
                    return error.message
                finally:
                    await guest.close()

            assert await linked() == "in"
            assert "403" in await linked(rights=(Right.READ,))
            assert "403" in await linked(run="j-2.1")
            assert "403" in await linked(holder="cn.demo.eve/site/x")  # it has no part in the gang
            assert "409" in await linked(name="j-2.1", run="j-2.1")
            assert "401" in await linked(key=Key(b"z" * 32))
            guest = Visitor(door.url, a_pass(door=NAMES[1], run=run, rights=(Right.PORT,), holder=NAMES[0],
                public=stranger.public), stranger.public, stranger, "x#y", CLOCK)  # fmt: skip
            with pytest.raises(TielineError) as caught:  # another one answers than the exchange names
                async with guest.linked(run):
                    pass
            assert caught.value.code == "check_failed"
            await guest.close()
            await two.gangs[1].close_run(run)
            assert "409" in await linked()  # the run is over

    go(story)


async def carried(link: Link, rank: int, port: int) -> bytes:
    """What comes back from there, without a word said."""
    ours, theirs = socket.socketpair()
    ends = await asyncio.open_connection(sock=ours)
    mine, writer = await asyncio.open_connection(sock=theirs)
    await link.carry(*ends, rank, port)
    try:
        return await mine.read()
    finally:
        writer.close()


def test_what_comes_over_a_link_reaches_the_named_ports_alone(tmp_path: Path) -> None:
    async def story() -> None:
        port, other = free_port(), free_port()
        two = Two((port,))
        async with two.open(tmp_path):
            await two.start()
            async with await two.stand(1, 1, other):
                gang = two.gangs[0].gangs[f"cn.demo/job/{JOB}", 1]
                link = await gang._link(NAMES[1])
                assert link is not None
                for rank, wanted in ((1, other), (0, port), (7, port), (1, meeting_port(two.number))):
                    assert await carried(link, rank, wanted) == b""  # as a site that means no good
                assert two.gangs[1].gangs[f"cn.demo/job/{JOB}", 1].refused == 4
                assert not link.is_over

                link._sent += 1  # a message that is missing on the way
                assert await carried(link, 1, port) == b""
                assert link.is_over

    go(story)


def test_a_record_leads_a_site_into_no_network_that_its_owner_did_not_list(tmp_path: Path) -> None:
    async def story() -> None:
        two = Two((free_port(),))
        async with two.open(tmp_path, (False, True)):
            two.gangs[0].is_local = False
            await two.start()
            gang = two.gangs[0].gangs[f"cn.demo/job/{JOB}", 1]
            run, view = await gang._pass(NAMES[1])
            for inner, url, code in (
                ((), view.url, "address_refused"),
                (("10.0.0.0/8",), view.url, "address_refused"),
                (("127.0.0.0/8",), "http://169.254.169.254/", "address_refused"),
                ((), "http://localhost:1/", "address_refused"),
            ):
                two.gangs[0].inner = inner
                with pytest.raises(TielineError) as caught:
                    await gang._dial(NAMES[1], run, msgspec.structs.replace(view, url=url), by_relay=False)
                assert caught.value.code == code, (inner, url)
            two.gangs[0].inner = ("127.0.0.0/8",)
            link = await gang._link(NAMES[1])  # it is tried again
            assert link is not None

    go(story)


@pytest.mark.parametrize(
    ("frames", "is_cut"),
    [
        ([b""], True),
        ([b"\0" * 4], True),
        ([HEAD.pack(9, 2)], True),  # nobody knows such a frame
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 5], True),
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 7], True),
        ([HEAD.pack(Kind.OPEN, 2) + b"\0" * 6], True),  # a number that is ours to give
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 6] * 2, True),
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 6, HEAD.pack(Kind.GRANT, 1)], True),
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 6, HEAD.pack(Kind.DATA, 1)], True),
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 6] + [HEAD.pack(Kind.DATA, 1) + bytes(PIECE_BYTES)] * 4, False),
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 6] + [HEAD.pack(Kind.DATA, 1) + bytes(PIECE_BYTES)] * 5, True),
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 6, HEAD.pack(Kind.END, 1), HEAD.pack(Kind.DATA, 1) + b"x"], True),
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 6, *[HEAD.pack(Kind.END, 1)] * 2], True),
        ([HEAD.pack(kind, 77) + bytes(8) for kind in (Kind.DATA, Kind.END, Kind.GRANT, Kind.RESET)], False),
        ([HEAD.pack(Kind.OPEN, 1) + b"\0" * 6, *[HEAD.pack(Kind.GRANT, 1) + b"\xff" * 4] * 3], False),
        ([HEAD.pack(Kind.OPEN, 2 * each + 1) + b"\0" * 6 for each in range(3 * CHANNELS)], False),
    ],
)
def test_what_no_honest_end_says_cuts_the_link_and_takes_no_more_than_was_granted(
    frames: list[bytes], is_cut: bool
) -> None:
    async def story() -> None:
        key, sent = os.urandom(32), []

        class Stream:
            """The other end, which says its frames and then nothing."""

            async def send_bytes(self, data: bytes) -> None:
                sent.append(data)

            async def close(self, message: bytes) -> None:
                """Nothing is held."""

            def get_extra_info(self, name: str) -> None:
                """There is no socket."""

            async def __aiter__(self) -> AsyncIterator[WSMessage]:
                for count, frame in enumerate(frames):
                    sealed = crypto_secretbox(frame, struct.pack(">B15xQ", 1, count), key)
                    yield WSMessage(WSMsgType.BINARY, sealed, None)
                    most.append((len(link.channels), sum(len(each.coming) for each in link.channels.values())))
                await asyncio.sleep(0)
                seen.append(link.is_over)

        async def connect(rank: int, port: int) -> Any:
            await asyncio.Event().wait()

        most: list[tuple[int, int]] = []
        seen: list[bool] = []
        link = Link(Stream(), key, is_caller=True, connect=connect)  # type: ignore[arg-type]
        await link.run()
        assert (seen == []) is is_cut
        assert all(bytes_held <= WINDOW_BYTES for _, bytes_held in most)
        assert all(count <= 2 * len(frames) for count, _ in most)
        assert link.is_over

    go(story)


class Full:
    """A stream that has no room: as in aiohttp, all who have something to say wait for one and the same thing."""

    def __init__(self, frames: Callable[[int], bytes | None] = lambda _: None) -> None:
        self.sent: list[bytes] = []
        self.frames = frames
        self.room = asyncio.get_running_loop().create_future()

    async def send_bytes(self, data: bytes) -> None:
        self.sent.append(data)
        if not self.room.done():
            await self.room

    async def close(self, message: bytes) -> None:
        """Nothing is held."""

    def get_extra_info(self, name: str) -> None:
        """There is no socket."""

    async def __aiter__(self) -> AsyncIterator[WSMessage]:
        count = 0
        while (frame := self.frames(count)) is not None:
            yield WSMessage(WSMsgType.BINARY, crypto_secretbox(frame, struct.pack(">B15xQ", 1, count), KEY), None)
            await asyncio.sleep(0)
            count += 1


KEY = b"k" * 32


async def nobody(rank: int, port: int) -> Any:
    raise ConnectionRefusedError


def test_a_connection_that_breaks_while_the_link_is_full_takes_no_other_with_it() -> None:
    async def story() -> None:
        stream = Full()
        link = Link(stream, KEY, is_caller=True, connect=nobody)  # type: ignore[arg-type]
        carrying, nodes = [], []
        for rank in range(2):
            ours, theirs = socket.socketpair()
            carrying.append(asyncio.create_task(link.carry(*await asyncio.open_connection(sock=ours), rank, 1)))
            nodes.append((await asyncio.open_connection(sock=theirs))[1])
        await until(lambda: link._waiting == 2)
        stream.room.set_result(None)
        await until(lambda: not link._waiting)
        stream.room = asyncio.get_running_loop().create_future()
        for node in nodes:
            node.write(bytes(100_000))
        await until(lambda: link._waiting == 2)
        link._take(HEAD.pack(Kind.RESET, 0))
        await until(lambda: carrying[0].done())
        stream.room.set_result(None)

        def said() -> int:
            frames = [
                crypto_secretbox_open(each, struct.pack(">B15xQ", 0, at), KEY) for at, each in enumerate(stream.sent)
            ]
            return sum(len(each) - HEAD.size for each in frames if HEAD.unpack_from(each) == (Kind.DATA, 2))

        await until(lambda: said() == 100_000)
        await link.close()
        link.cut()
        await asyncio.gather(*carrying)
        for node in nodes:
            node.transport.abort()

    go(story)


def test_who_asks_on_and_on_and_takes_no_answer_is_cut_off() -> None:
    async def story() -> None:
        stream = Full(lambda count: HEAD.pack(Kind.OPEN, 2 * count + 1) + b"\0" * 6 if count < 4 * WAITING else None)
        link = Link(stream, KEY, is_caller=True, connect=nobody)  # type: ignore[arg-type]
        await link.run()
        assert link._heard <= 2 * WAITING
        assert len(stream.sent) <= 2 * WAITING
        stream.room.set_result(None)
        await until(lambda: not link._waiting)

    go(story)


def test_an_address_that_is_taken_is_a_reason(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        async with two.open(tmp_path):
            async with await two.stand(0, 1, port):
                with pytest.raises(TielineError, match=f"node 1 of .* port {port}"):
                    await two.start()
            assert two.gangs[0].gangs == {}
            await two.start()

    go(story)


def test_two_sites_of_one_machine_leave_its_addresses_to_the_nodes(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port()
        two = Two((port,))
        two.where = lambda _, rank: address_of(two.number, rank)  # type: ignore[method-assign]
        async with two.open(tmp_path):
            for at in (0, 1):
                two.gangs[at].announce(two.held(at))
            for at in (0, 1):
                await two.gangs[at].open(two.held(at))
            async with await two.stand(1, 1, port):
                assert await said(*await two.reach(0, 1, port), b"direct") == b"direct"
            assert not await two.gangs[0].is_here(two.held(1).run, Key(b"x" * 32).public)
            assert all(not any(gang.links.values()) for gangs in two.gangs for gang in gangs.gangs.values())

    go(story)


def test_the_kernel_says_whose_connection_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as caller:
        assert caller_user(caller.getsockname(), server.getsockname()) == os.geteuid()
        assert caller_user(("127.0.0.9", 1), server.getsockname()) == -1
    with socket.create_server(("127.20.0.1", 0)) as server, socket.socket(socket.AF_INET6) as caller:
        host, port = server.getsockname()
        caller.connect((f"::ffff:{host}", port))
        there, peer = server.accept()
        with there:
            assert caller_user(peer, there.getsockname()) == os.geteuid()
