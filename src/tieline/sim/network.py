"""Network: every message has a fate: lost, late, doubled, overtaken, cut off, clogged. Each is counted.

Calls are a question and an answer, each with a fate of its own; a stream keeps order and breaks where it loses
something, as TCP does. Fates are drawn link by link, so that leaving out one event of a story leaves other links alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from tieline.sim.chance import Chance
from tieline.sim.timeline import Chronicle, Timeline

BASE_MS = 2
JITTER_MS = 8
TIMEOUT_MS = 5_000
SILENCE_MS = 40_000  # a stream that says nothing for so long is given up
WEATHERS = ("loss", "delay", "duplication", "reordering")

Respond = Callable[[Any], None]


class Node(Protocol):
    """Whoever can be called."""

    name: str
    is_up: bool

    def serve(self, _source: str, _kind: str, _what: Any, respond: Respond, /) -> None:
        """Answer a question, now or later, or never."""


class Network:
    """All links. Directed: the way back has a fate of its own."""

    def __init__(self, timeline: Timeline, chance: Chance, chronicle: Chronicle, faults: Counter[str]) -> None:
        self.timeline, self.chance, self.chronicle, self.faults = timeline, chance, chronicle, faults
        self.nodes: dict[str, Node] = {}
        self.calls = 0
        self._weather: dict[tuple[str, str], tuple[int, int]] = {}  # what, node ("" everywhere) -> until_ms, number
        self._cut: dict[tuple[str, str], int] = {}  # directed link -> until_ms
        self._clogged: dict[tuple[str, str], int] = {}
        self._slow: dict[str, tuple[int, int]] = {}

    # -- what happens to it -------------------------------------------------------------------------------------------

    def change_weather(self, what: str, node: str, for_ms: int, number: int) -> None:
        """Lose or double ``number`` of a thousand messages, or delay them by up to ``number`` ms, around ``node``."""
        self._weather[what, node] = (self.timeline.now_ms + for_ms, number)

    def cut(self, one: str, two: str, for_ms: int, *, is_one_way: bool) -> None:
        """Nothing passes from ``one`` to ``two``, nor back unless ``is_one_way``."""
        until_ms = self.timeline.now_ms + for_ms
        for link in ((one, two), *(() if is_one_way else ((two, one),))):
            self._cut[link] = max(until_ms, self._cut.get(link, 0))

    def clog(self, node: str, neighbours: list[str], for_ms: int) -> None:
        """Clog the links of ``node`` one after the other and let them go in another order (swizzle-clogging)."""
        pick = self.chance.of(f"clog {node}")
        step_ms = max(1, for_ms // (2 * len(neighbours) + 1))
        ends = [self.timeline.now_ms + for_ms - step_ms * place for place in range(len(neighbours))]
        pick.shuffle(ends)
        order = list(neighbours)
        pick.shuffle(order)
        for place, (other, until_ms) in enumerate(zip(order, ends, strict=True)):
            self.timeline.after(place * step_ms, partial(self._clog, node, other, until_ms))

    def _clog(self, node: str, other: str, until_ms: int) -> None:
        self._clogged[node, other] = self._clogged[other, node] = until_ms

    def slow(self, node: str, for_ms: int, by_ms: int) -> None:
        """``node`` takes ``by_ms`` longer for everything."""
        self._slow[node] = (self.timeline.now_ms + for_ms, by_ms)

    def calm(self) -> None:
        """From now on everything arrives."""
        self._weather.clear()
        self._cut.clear()
        self._clogged.clear()
        self._slow.clear()

    # -- what happens to a message ------------------------------------------------------------------------------------

    def fate(self, source: str, target: str) -> list[int]:
        """After how many ms each copy of a message arrives; none when it is lost."""
        now_ms = self.timeline.now_ms
        if self._cut.get((source, target), 0) > now_ms:
            self.faults["message cut off"] += 1
            return []
        pick = self.chance.of(f"link {source}>{target}")
        if self._chance_of("loss", source, target) > pick.randrange(1000):
            self.faults["message lost"] += 1
            return []
        copies = 1
        if self._chance_of("duplication", source, target) > pick.randrange(1000):
            self.faults["message doubled"] += 1
            copies = 2
        return [self._delay(source, target) for _ in range(copies)]

    def _chance_of(self, what: str, source: str, target: str) -> int:
        now_ms = self.timeline.now_ms
        return max(
            (
                number
                for node in ("", source, target)
                for until_ms, number in (self._weather.get((what, node), (0, 0)),)
                if until_ms > now_ms
            ),
            default=0,
        )

    def _delay(self, source: str, target: str) -> int:
        now_ms = self.timeline.now_ms
        pick = self.chance.of(f"link {source}>{target}")
        delay_ms = BASE_MS + pick.randrange(JITTER_MS)
        late = self._chance_of("delay", source, target)
        if late:
            self.faults["message delayed"] += 1
            delay_ms += late
        swapped = self._chance_of("reordering", source, target)
        if swapped and pick.random() < 0.5:
            self.faults["message overtaken"] += 1
            delay_ms += pick.randrange(swapped)
        until_ms = self._clogged.get((source, target), 0)
        if until_ms > now_ms:
            self.faults["message clogged"] += 1
            delay_ms += until_ms - now_ms
        until_ms, by_ms = self._slow.get(target, (0, 0))
        if until_ms > now_ms:
            self.faults["message served slowly"] += 1
            delay_ms += by_ms
        return delay_ms

    # -- messages -----------------------------------------------------------------------------------------------------

    def call(
        self,
        source: str,
        target: str,
        kind: str,
        what: Any,
        answered: Callable[[Any], None],
        timeout_ms: int = TIMEOUT_MS,
    ) -> None:
        """Ask ``target``; ``answered`` hears the first answer, or None when none comes. It is called exactly once."""
        is_open = [True]
        self.calls += 1

        def settle(reply: Any) -> None:
            if is_open[0]:
                is_open[0] = False
                answered(reply)

        def respond(reply: Any) -> None:
            for delay_ms in self.fate(target, source)[:1]:
                self.timeline.after(delay_ms, lambda: settle(reply))

        def arrive() -> None:
            node = self.nodes[target]
            if node.is_up:
                self.chronicle.note(f"{source}>{target} {kind}")
                node.serve(source, kind, what, respond)
            else:
                respond(None)  # the connection is refused at once

        for delay_ms in self.fate(source, target):
            self.timeline.after(delay_ms, arrive)
        self.timeline.after(timeout_ms, lambda: settle(None))


class Stream:
    """A one-way stream in order; the first loss breaks it, and both ends learn of that late."""

    def __init__(
        self, network: Network, source: str, target: str, heard: Callable[[Any], None], broken: Callable[[], None]
    ) -> None:
        self.network, self.source, self.target = network, source, target
        self._heard, self._broken = heard, broken
        self.prefixes: tuple[str, ...] = ()  # of a tail: what its reader asked for; empty: all
        self._arrives_ms = 0
        self.is_open = True

    def send(self, what: Any) -> None:
        """Say something; the end of a broken stream hears no more."""
        if not self.is_open:
            return
        timeline = self.network.timeline
        delays = self.network.fate(self.source, self.target)
        if not delays:
            self.close()
            return
        for delay_ms in delays:  # two: the reader resumed from before what it had read
            self._arrives_ms = max(self._arrives_ms, timeline.now_ms + delay_ms)
            timeline.after(self._arrives_ms - timeline.now_ms, lambda: self._arrive(what))

    def _arrive(self, what: Any) -> None:
        if self.is_open and self.network.nodes[self.target].is_up:
            self._heard(what)

    def close(self) -> None:
        """It breaks; the reader finds out after a silence."""
        if self.is_open:
            self.is_open = False
            pick = self.network.chance.of(f"link {self.source}>{self.target}")
            self.network.timeline.after(pick.choice((50, 1_000, 8_000, SILENCE_MS)), self._broken)
