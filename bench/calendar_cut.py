"""A busy link is cut under a loaded calendar: how long nobody else is served, and when everything is mended.

A generated network with 1,990 circuits, a quarter of them with a spare route, and as many transfers as it takes of a
thousand orders; then the link with most circuits is cut, then it is restored. Every decision is taken and applied as
the writer does, without its commit; times are of the processor, so that other work beside it does not count. Also the
time of an order for a circuit beside all these, and in a network of 2,000 links.
"""

from __future__ import annotations

from collections import Counter
from time import process_time

import msgspec
import numpy as np

from bench.calendar_world import generated
from bench.row import Row
from tieline.exchange.bookings import CancelCircuit, OrderCircuit, OrderTransfer
from tieline.exchange.commands import ChangeLinks, ChangeTopology, Command, CreateExchange, Tick
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.view import View
from tieline.model.circuit import CircuitOrder, Diversity
from tieline.model.error import TielineError
from tieline.model.party import Actor, Role
from tieline.model.transfer import TransferOrder
from tieline.ports import FakeIds
from tieline.registry import Key

BEGIN_MS = 1_763_000_000_000 // 300_000 * 300_000
MBIT = 10**6
CIRCUITS = 1_990
ORDERS = 1_000
MOST_TICKS = 2_000
USERS = tuple(Actor(name=f"user{number}", roles=(Role.OPERATOR,)) for number in range(8))


class Exchange:
    """A view, its time, and how long each decision and its effect took."""

    def __init__(self, nodes: int, links: int, seed: int) -> None:
        keys = ExchangeKeys(Key(b"k" * 32), "cn.demo")
        self.view, self.now_ms, self.ids = View(keys), BEGIN_MS, FakeIds(seed)
        self.pick = np.random.default_rng(seed)
        self.nodes = nodes
        first = CreateExchange(
            id="cn.demo/exchange/main", prefix="cn.demo", public=keys.key.public, admin_token_sha256="0" * 64
        )
        self.do(first)
        self.do(ChangeTopology(actor=USERS[0], topology=generated(nodes, links, seed)))

    def do(self, command: Command) -> tuple[float, int, object]:
        """Seconds, events, and the reply; -1 events: refused."""
        began = process_time()
        try:
            decision = decide(self.view, command, self.now_ms, self.ids)
        except TielineError as error:
            if error.code != "not_admitted":
                raise
            return process_time() - began, -1, error
        for event in decision.events:
            self.view.apply(event, self.now_ms)
        return process_time() - began, len(decision.events), decision.reply

    def circuit(self, number: int) -> OrderCircuit:
        """One order of 5 to 60 Mbit/s until it is cancelled, between two places drawn by chance."""
        a, b = self.pick.choice(self.nodes, 2, replace=False)
        apart = Diversity.LINK if number % 4 == 0 else Diversity.NONE
        rate = int(self.pick.integers(5, 60)) * MBIT
        order = CircuitOrder(a=f"n{a}", b=f"n{b}", rate_bps=rate, diversity=apart)
        return OrderCircuit(actor=USERS[number % len(USERS)], order=order)

    def transfer(self, number: int) -> OrderTransfer:
        """One order with 2 to 50 hours of time."""
        a, b = self.pick.choice(self.nodes, 2, replace=False)
        due_ms = self.now_ms + int(self.pick.integers(24, 600)) * 300_000
        size = int((self.pick.pareto(1.5) + 1) * 2e12)
        order = TransferOrder(source=f"n{a}", target=f"n{b}", size_bytes=size, deadline_ms=due_ms)
        return OrderTransfer(actor=USERS[number % len(USERS)], order=order)

    def quiet(self) -> list[float]:
        """Tick until nothing is left to do; seconds of each tick."""
        seconds = []
        while len(seconds) < MOST_TICKS:
            self.now_ms += 250
            took, events, _ = self.do(Tick())
            seconds.append(took)
            if not events and self.now_ms < self.view.network.due_ms:
                return seconds
        raise AssertionError("the ticks never come to rest")


def loaded(nodes: int, links: int, circuits: int, orders: int) -> Exchange:
    """An exchange with so many circuits, and what it takes of so many transfers."""
    exchange = Exchange(nodes, links, 7)
    number = 0
    while len(exchange.view.network.circuits) < circuits and number < 2 * circuits:
        exchange.do(exchange.circuit(number))
        number += 1
    for number in range(orders):
        exchange.do(exchange.transfer(number))
    exchange.quiet()
    return exchange


def run() -> list[Row]:
    """The rows."""
    exchange = loaded(200, 400, CIRCUITS, ORDERS)
    network = exchange.view.network
    routes = (route for circuit in network.circuits.values() for route in (circuit.route, circuit.spare) if route)
    (name, hit), *_ = Counter(link for route in routes for link in route.links).most_common(1)
    live = f"{len(network.transfers)} live transfers, {len(network.circuits):,} circuits, 200 nodes; {hit} on the link"
    rows = []
    for what, change in (("cut", {"down": (name,)}), ("restored", {"up": (name,)})):
        took, _, _ = exchange.do(ChangeLinks(actor=USERS[0], **change))
        ticks = exchange.quiet()
        if what == "cut":
            calendar = network.calendar_at(exchange.now_ms)
            if calendar is None or not calendar.is_kept():
                raise AssertionError("a slot is oversubscribed")
        busy = [each for each in ticks if each > 0.01]
        after = f"the change itself {took * 1e3:.0f} ms, then {len(busy)} busy ticks, {sum(ticks):.2f} s in all"
        note = f"CPU; {live}; {after}"
        claim = f"a link is {what}: the writer is busy at most"
        rows.append(Row(claim=claim, figure=1e3 * max(took, *ticks), unit="ms", target="200 ms", note=note))
    rows.append(_ordered(exchange, "200 nodes, 400 links"))
    rows.append(_ordered(loaded(1_000, 2_000, 500, 500), "1,000 nodes, 2,000 links"))
    return rows


def _ordered(exchange: Exchange, where: str) -> Row:
    """Orders for circuits of three sizes, each cancelled again."""
    seconds, refused = [], 0
    for number in range(300):
        command = exchange.circuit(number)
        asked = msgspec.structs.replace(command.order, rate_bps=command.order.rate_bps * (1, 20, 100)[number % 3])
        took, _, reply = exchange.do(OrderCircuit(actor=command.actor, order=asked))
        seconds.append(took)
        if isinstance(reply, TielineError):
            refused += 1
        else:
            exchange.do(CancelCircuit(actor=command.actor, circuit=reply.circuit.id))
    p50, p99, most = (1e3 * np.percentile(seconds, at) for at in (50, 99, 100))
    network = exchange.view.network
    live = f"{where}, {len(network.transfers)} live transfers, {len(network.circuits):,} circuits"
    note = f"CPU; {live}; p50 {p50:.1f} ms, most {most:.1f} ms; 300 orders of 5 Mbit/s to 6 Gbit/s, {refused} refused"
    return Row(claim=f"order of a circuit, {where}: p99", figure=float(p99), unit="ms", target="20 ms", note=note)
