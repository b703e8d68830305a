"""A laboratory's follower: what should lie on its routers, from what is booked; and what is told of it."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from zlib import crc32

import msgspec
import pytest
from click.testing import CliRunner

from tieline.cli import lab
from tieline.cli.lab_follow import LATE_MS, LEAD_MS, Follower, ways_of, wire_bps
from tieline.cli.main import tieline
from tieline.client import context
from tieline.drivers.lab.wording import Happened, LinkSeen, Seen, Stands
from tieline.model.circuit import Circuit, CircuitOrder, CircuitState, Route
from tieline.model.error import TielineError
from tieline.model.network_api import TopologyView
from tieline.model.topology import Line, Link, Node, Topology, Window
from tieline.model.transfer import Segment, Transfer, TransferOrder
from tieline.ports import FakeCircuits

replace = msgspec.structs.replace
TOPOLOGY = Topology(
    name="line",
    nodes=(Node(name="a"), Node(name="b"), Node(name="c")),
    links=(
        Link(name="ab", a="a", b="b", capacity_bps=10**8),
        Link(name="cb", a="c", b="b", capacity_bps=10**8),
        Link(name="ac", a="a", b="c", capacity_bps=10**8),
    ),
)
ENDS = {link.name: (link.a, link.b) for link in TOPOLOGY.links}
NOW_MS = 1_000_000_000
LONG = Route(nodes=("a", "b", "c"), links=("ab", "cb"), delay_us=2_000)
SHORT = Route(nodes=("a", "c"), links=("ac",), delay_us=5_000)


def transfer(*spans: tuple[int, int, int]) -> Transfer:
    segments = tuple(
        Segment(
            path=("ab", "cb"), is_forward=(True, False), from_ms=NOW_MS + begin, until_ms=NOW_MS + end, rate_bps=rate
        )
        for begin, end, rate in spans
    )
    order = TransferOrder(source="a", target="c", size_bytes=1_000)
    return Transfer(id="t-1", order=order, user="u", segments=segments)


def test_the_path_of_a_transfer_lies_there_before_its_bytes_come_and_holds_what_is_booked_now():
    booked = transfer((10_000, 20_000, 8_000_000), (20_000, 30_000, 4_000_000))
    early = ways_of(booked, ENDS, NOW_MS)["t-1.1"]
    assert early.route is not None
    assert early.route.nodes == ("a", "b", "c")
    assert early.held_bps == early.back_bps == 64_000
    assert ways_of(booked, ENDS, NOW_MS + 15_000)["t-1.1"].held_bps == wire_bps(8_000_000) == 9_096_385
    assert ways_of(booked, ENDS, NOW_MS + 25_000)["t-1.1"].held_bps == wire_bps(4_000_000)
    assert ways_of(booked, ENDS, NOW_MS + 30_000 + LATE_MS) == {}
    assert ways_of(booked, ENDS, NOW_MS + 9_999 - LEAD_MS) == {}
    assert ways_of(booked, {"ab": ("a", "b")}, NOW_MS) == {}


class Exchange:
    """The client that a follower has: what is booked, and what it was told."""

    def __init__(self, *circuits: Circuit) -> None:
        self.booked = {each.id: each for each in circuits}
        self.down: tuple[str, ...] = ()
        self.receipts = []
        self.reads = 0

    async def topology(self):
        return TopologyView(topology=TOPOLOGY, down=self.down, changes=crc32(repr((self.down, self.booked)).encode()))

    async def change_links(self, *, down, up, why):
        self.down = tuple(name for name in (*self.down, *down) if name not in up)

    async def circuits(self, state, before, limit):
        """Two to a page, whatever is asked for."""
        self.reads += 1
        found = [each for name, each in sorted(self.booked.items()) if each.state.value == state and name > before]
        return SimpleNamespace(circuits=found[:2], next_before=found[1].id if len(found) > 2 else "")

    async def transfers(self, state, before, limit):
        return SimpleNamespace(transfers=(), next_before="")

    async def give_receipt(self, receipt):
        self.receipts.append(receipt)
        self.booked[receipt.subject] = replace(self.booked[receipt.subject], seq=receipt.seq, state=CircuitState.UP)


class Laboratory:
    """What is to be seen of routers that are a fake."""

    def __init__(self, circuits: FakeCircuits) -> None:
        self.circuits = circuits
        self.down: list[str] = []
        self.events: list[Happened] = []

    async def show(self):
        links = tuple(
            LinkSeen(
                name=each.name, a=each.a, b=each.b, is_up=each.name not in self.down, delay_us=0,
                capacity_bps=each.capacity_bps, sent_bytes=0, sent_back_bytes=0,
            )
            for each in TOPOLOGY.links
        )  # fmt: skip
        stands = tuple(
            Stands(circuit=each, on=each.route.links, ends=()) for each in self.circuits.standing.values() if each.route
        )
        return Seen(
            topology="line", links=links, circuits=stands, events=tuple(self.events), sites={}, nodes={}, manager=3
        )


def circuit(name: str = "c-1", **more) -> Circuit:
    windows = (Window(from_ms=0, until_ms=2**52),)
    order = CircuitOrder(a="a", b="c", rate_bps=1_000_000)
    return Circuit(**{"id": name, "order": order, "user": "u", "route": LONG, "windows": windows, **more})


@pytest.fixture
def world():
    exchange, circuits = Exchange(circuit()), FakeCircuits()
    laboratory = Laboratory(circuits)
    said: list[str] = []
    follower = Follower(exchange, laboratory, circuits, said.append)  # type: ignore[arg-type]
    return SimpleNamespace(exchange=exchange, circuits=circuits, laboratory=laboratory, follower=follower, said=said)


def once(world) -> None:
    asyncio.run(world.follower.once())


def test_what_is_booked_is_laid_and_proven_once(world):
    once(world)
    once(world)
    assert list(world.circuits.standing) == ["c-1"]
    assert [(each.seq, each.is_path_proven) for each in world.exchange.receipts] == [(1, True)]
    world.exchange.booked["c-1"] = replace(world.exchange.booked["c-1"], route=SHORT)
    once(world)
    assert world.circuits.standing["c-1"].route == SHORT
    assert world.exchange.receipts[-1].path == SHORT.links
    del world.exchange.booked["c-1"]
    once(world)
    assert world.circuits.standing == {}


def test_only_what_is_due_and_can_be_driven_is_laid(world):
    past = (Window(from_ms=0, until_ms=1),)
    light = CircuitOrder(a="a", b="c", rate_bps=1, line=Line.OTN)
    world.exchange.booked = {
        "c-2": circuit("c-2", windows=past),
        "c-3": circuit("c-3", route=None),
        "c-4": circuit("c-4", order=light),
        "c-5": circuit("c-5", state=CircuitState.CANCELLED),
    }
    once(world)
    assert world.circuits.standing == {}
    assert world.exchange.receipts == []


def test_lost_light_is_told_and_its_return(world):
    world.laboratory.down = ["ab"]
    once(world)
    assert world.exchange.down == ("ab",)
    world.laboratory.down = []
    once(world)
    assert world.exchange.down == ()


def test_what_a_router_refuses_is_told_as_a_receipt_that_proves_nothing_and_tried_again_when_it_changed(world):
    world.circuits.refused = 1
    once(world)
    once(world)
    assert world.circuits.standing == {}
    assert [(each.is_path_proven, each.goodput_bps) for each in world.exchange.receipts] == [(False, 0)]
    assert "refused" in world.said[0]
    world.exchange.booked["c-1"] = replace(world.exchange.booked["c-1"], route=SHORT)
    once(world)
    assert list(world.circuits.standing) == ["c-1"]


def test_what_may_pass_is_said_and_waited_for_and_all_else_ends_it(world, monkeypatch):
    monkeypatch.setattr("tieline.cli.lab_follow.AGAIN_S", 0.0)
    monkeypatch.setattr("tieline.cli.lab_follow.PAUSE_S", 0.0)
    apply, wrong = world.circuits.apply, [
        TielineError("timeout", "the laboratory is away"),
        TielineError("timeout", "the laboratory is slow"),
    ]  # fmt: skip

    async def moody(asked):
        if wrong:
            raise wrong.pop(0)
        return await apply(asked)

    async def topology():
        if world.exchange.receipts:
            raise TielineError("not_found", "it is gone")
        return TopologyView(topology=TOPOLOGY, down=())

    monkeypatch.setattr(world.circuits, "apply", moody)
    monkeypatch.setattr(world.exchange, "topology", topology)
    with pytest.raises(TielineError, match="it is gone"):
        asyncio.run(world.follower.follow())
    assert world.said[:2] == ["the laboratory is away", "the laboratory is slow"]
    assert [each.is_path_proven for each in world.exchange.receipts] == [True]  # none for what nobody refused


def test_what_is_booked_is_read_whole_and_only_where_it_is_another(world, monkeypatch):
    names = [f"c-{number}" for number in range(1, 6)]
    world.exchange.booked = {name: circuit(name) for name in names}
    once(world)
    assert sorted(world.circuits.standing) == names  # over all pages
    once(world)  # what was proven is another
    read = world.exchange.reads
    for _ in range(3):
        once(world)
    assert world.exchange.reads == read
    world.exchange.booked = {name: each for name, each in world.exchange.booked.items() if name != "c-4"}
    once(world)
    assert world.exchange.reads > read
    assert "c-4" not in world.circuits.standing
    read = world.exchange.reads
    monkeypatch.setattr("tieline.cli.lab_follow.REREAD_S", -1.0)  # in any case after a while
    once(world)
    assert world.exchange.reads > read


def test_a_circuit_ends_with_its_window_though_nothing_is_read_anew(world, monkeypatch):
    world.exchange.booked = {"c-1": circuit(windows=(Window(from_ms=0, until_ms=5_000),))}
    now_ms = [1_000]
    monkeypatch.setattr("tieline.cli.lab_follow.time.time_ns", lambda: now_ms[0] * 1_000_000)
    once(world)
    once(world)
    read = world.exchange.reads
    assert list(world.circuits.standing) == ["c-1"]
    now_ms[0] = 5_000
    once(world)
    assert (world.exchange.reads, world.circuits.standing) == (read, {})


def test_nothing_is_remembered_of_what_is_booked_no_more(world):
    world.circuits.refused = 1
    once(world)
    world.exchange.booked["c-2"] = circuit("c-2")
    once(world)
    assert (list(world.follower._refused), list(world.follower._next_s)) == (["c-1"], ["c-2"])
    world.exchange.booked = {}
    once(world)
    assert world.follower._refused == world.follower._next_s == world.follower._proven == {}


def test_a_receipt_covers_the_time_since_the_one_before_while_the_circuit_stood_still(world, monkeypatch):
    seen = iter(range(1_000, 100_000, 1_000))
    verify = world.circuits.verify

    async def timed(asked, seq):
        ended_ms = next(seen)
        return replace(await verify(asked, seq), begun_ms=ended_ms - 100, ended_ms=ended_ms)

    monkeypatch.setattr(world.circuits, "verify", timed)
    for moved in (False, False, True):
        if moved:
            world.laboratory.events = [Happened(at_ms=2_500, what="to spare", subject="c-1")]
        world.follower._next_s.clear()
        once(world)
    assert [each.begun_ms for each in world.exchange.receipts] == [900, 1_000, 2_900]


def test_without_a_laboratory_every_verb_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path))
    for words in (["show"], ["cut", "x"], ["exec", "a", "--", "true"], ["down"], ["show", "--lab", "y"], ["follow"]):
        result = CliRunner().invoke(tieline, ["lab", *words])
        assert result.exit_code == 1, words
        assert "no laboratory is kept" in result.output
    assert CliRunner().invoke(tieline, ["lab", "ls", "--json"]).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nnodes: [{name: a}, {name: b}]\nlinks: [{name: l, a: a, b: c, capacity_bps: 1}]\n", "`c`"),
        (
            "name: x\nnodes: [{name: a}, {name: b}]\nlinks: [{name: l, a: a, b: b, capacity_bps: -1}]\n",
            "links[0].capacity_bps",
        ),
        ("name: x\nnodes: [{name: a}, {name: b}]\nlinks: []\n", "falls into 2 parts"),
    ],
)
def test_a_topology_that_is_not_sound_builds_nothing(tmp_path, monkeypatch, text, said):
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path / "home"))
    file = tmp_path / "lab.yaml"
    file.write_text(text)
    result = CliRunner().invoke(tieline, ["lab", "up", str(file)])
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert not (tmp_path / "home").exists()


def test_a_laboratory_keeps_its_own_contexts(tmp_path, monkeypatch):
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path))
    monkeypatch.delenv("TIELINE_EXCHANGE", raising=False)
    context.keep("local", context.Context(url="http://outside", token="o"))
    monkeypatch.setenv("TIELINE_LAB", "metro")
    with pytest.raises(TielineError, match="no exchange is known yet"):
        context.chosen()
    context.keep("local", context.Context(url="http://inside", token="i"))
    assert context.chosen().url == "http://inside"
    assert context.place() == tmp_path / "labs" / "metro"
    monkeypatch.setenv("TIELINE_LAB", "../../..")  # a name, and no way out
    assert context.place() == tmp_path
    monkeypatch.delenv("TIELINE_LAB")
    assert (context.chosen().url, context.read().current) == ("http://outside", "local")


def test_a_command_inside_a_laboratory_is_told_in_which(tmp_path, monkeypatch):
    (tmp_path / "labs" / "metro").mkdir(parents=True)
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path))
    monkeypatch.setenv("TIELINE_LAB", "")
    became = []
    monkeypatch.setattr(lab, "_standing", lambda: {"metro": 7})
    monkeypatch.setattr(lab, "_kept", lambda folder: 7)
    monkeypatch.setattr(lab, "_ask", lambda folder, work: SimpleNamespace(nodes={"a": 1}, sites={}, manager=3))
    monkeypatch.setattr(
        "tieline.drivers.circuits.kernel.namespaces.join", lambda pid, place: became.append((pid, place))
    )
    monkeypatch.setattr("os.execvp", lambda file, words: became.append((file, words, os.environ["TIELINE_LAB"])))
    result = CliRunner().invoke(tieline, ["lab", "exec", "manager", "--", "tieline", "up"])
    assert result.exit_code == 0, result.output
    assert became == [(7, 3), ("tieline", ("tieline", "up"), "metro")]
