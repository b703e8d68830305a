"""Readings: the newest of what each site measured, and what was refuted of it. Last value only: a site sends it again.

A round trip between two ends is known where a fresh direct measurement is: of each direction the newest that was
answered, and of both directions the slower, so that nobody makes itself look nearer than the other end saw. Half of
what is known comes from whoever wants to be chosen, hence the caution. A way through the relay is no direct way.

Sites of peers are held alike: their readings came as they signed them, over the peer that leads there (`via`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from tieline.exchange.statements import Statements
from tieline.model.evidence import Evidence
from tieline.model.reading import Method, Reading
from tieline.model.reason import Reason
from tieline.model.topology import Place
from tieline.network.coordinates import Coordinates
from tieline.network.physics import OLD_MS, Frame, refuted
from tieline.network.probing import Ledger, Links, Side

FRESH_MS: Final = 3_600_000  # how long a round trip or a loss counts as known
FRESH_RATE_MS: Final = 86_400_000
MOST_OF_A_SITE: Final = 2_048  # readings that are held of one source; the oldest goes
MOST_OF_A_PEER: Final = 100_000  # readings that are held of all sites behind one peer
MOST_REFUTED: Final = 256  # refuted readings that are remembered of all
NEWS_MS: Final = 5_000  # at most so often jobs that wait are looked at again for what was measured
NEWS_SHARE: Final = 4  # a known value that changed by less than one part in so many is no news
LOOK_MS: Final = 600_000  # from one look for sites behind peers that nothing is heard of to the next
ELSEWHERE: Final = ("reading_target", "reading_moved")  # of a peer's site no lie: it measures what we do not know
TIMED: Final = (Method.UDP, Method.TCP, Method.RELAY)
DIRECT: Final = (Method.UDP, Method.TCP)
SEEN: Final = (Evidence.MEASURED, Evidence.EMULATED)  # a laboratory measures what it emulates


class Refuted(NamedTuple):
    """A reading that cannot be, as it was said, and why."""

    site: str
    at_ms: int
    reading: Reading
    reason: Reason


class Declared(NamedTuple):
    """What the topology of one version says of sites: kept, because each batch is held against it."""

    version: int
    links: Links  # the slowest, whose share bounds what is measured
    access_bps: Mapping[str, int]  # of a site, all links together
    places: Mapping[str, Place]


class Readings:
    """Everything that was measured lately. ``now_ms`` is the newest time that it was told."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.coordinates = Coordinates()
        self.ledger = Ledger()
        self.declared = Declared(-1, Links(), {}, {})
        self.refuted: deque[Refuted] = deque(maxlen=MOST_REFUTED)
        self.counts: dict[str, dict[str, int]] = {}  # site -> code -> how often it was refuted since the start
        self.undone: dict[str, tuple[Reason, ...]] = {}  # site -> probes that it does not send, as it said last
        self._of: dict[str, dict[tuple[str, Method], Reading]] = {}  # source -> (target, method) -> the newest
        self._emulated: dict[tuple[str, str, Method], None] = {}  # those that are held of a laboratory
        self._seqs: dict[str, tuple[int, int]] = {}  # site -> session, number of its last batch
        self.statements = Statements()
        self.via: dict[str, str] = {}  # source -> the peer over which its readings came; ours are not there
        self._said: dict[str, dict[tuple[str, Method], int]] = {}  # source -> way -> serial of the statement of it
        self.far_doors: tuple[int, dict[str, Side]] = (-1, {})  # of peers' sites, as they were looked for last
        self._far: dict[str, int] = {}  # peer -> readings that are held of sites behind it
        self._looked_ms = 0
        self._has_news = False
        self._told_ms = 0

    @property
    def is_emulated(self) -> bool:
        """Whether something that is held was measured in a laboratory."""
        return bool(self._emulated)

    @property
    def evidence(self) -> dict[str, str]:
        """What the functions of the language rest on here; as soon as a laboratory has a part in it, on emulation."""
        said = Evidence.EMULATED if self.is_emulated else Evidence.MEASURED
        return {"rtt": said.value, "bandwidth": said.value}

    # -- taking -------------------------------------------------------------------------------------------------------

    def turn(self, now_ms: int) -> None:
        """Let time pass; it never goes back."""
        self.now_ms = max(self.now_ms, now_ms)
        self.statements.began_ms = self.statements.began_ms or self.now_ms

    def is_next(self, site: str, session: int, seq: int) -> bool:
        """Whether a batch is newer than all before; one that is not was sent again."""
        return (session, seq) > self._seqs.get(site, (-1, -1))

    def take(
        self, site: str, session: int, seq: int, readings: Iterable[Reading], frame: Frame, statement: str = ""
    ) -> tuple[int, int]:
        """Keep what is possible and newer than what is held. Answers how many were kept, and how many refuted.

        ``statement`` is the batch as it was signed: it is passed on to peers while something in it is the newest.
        """
        self._seqs[site] = session, seq
        self._lead(site, "")
        self.turn(frame.now_ms)
        kept, wrong, _ = self._taken(site, readings, frame, statement)
        return kept, wrong

    def take_far(
        self, peer: str, site: str, readings: Iterable[Reading], frame: Frame, statement: str
    ) -> tuple[int, int, int]:
        """The same of a site behind a peer. What it measured that nobody here knows is left out, and is no lie; so is
        what a laboratory there emulates: it says nothing of ways that are real here.

        Answers how many were kept, were refuted, and found no room.
        """
        self._lead(site, peer)
        self.turn(frame.now_ms)
        measured = (each for each in readings if each.evidence is Evidence.MEASURED)
        return self._taken(site, measured, frame, statement)

    def _taken(self, site: str, readings: Iterable[Reading], frame: Frame, statement: str) -> tuple[int, int, int]:
        kept: dict[tuple[str, Method], None] = {}
        count = wrong = over = 0
        for reading in readings:
            why = refuted(reading, frame)
            if why is None and self._is_full(reading):
                over += 1
            elif why is None and self._keep(reading):
                count += 1
                kept[reading.target, reading.method] = None
            elif why is not None and not (frame.is_far and why.code in ELSEWHERE):
                self._refute(Refuted(site, frame.now_ms, reading, why))
                wrong += 1
        held = self._of.get(site, {})
        live = [key for key in kept if key in held]  # one of a large batch may have made room for another
        if statement and live:
            serial = self.statements.put(site, statement, len(live), self.via.get(site, ""))
            if serial:
                self._said.setdefault(site, {}).update(dict.fromkeys(live, serial))
        return count, wrong, over

    def _is_full(self, reading: Reading) -> bool:
        """Whether nothing more is held of sites behind the peer that leads to its source."""
        peer = self.via.get(reading.source)
        if peer is None or self._far.get(peer, 0) < MOST_OF_A_PEER:
            return False
        return (reading.target, reading.method) not in self._of.get(reading.source, {})

    def _refute(self, found: Refuted) -> None:
        self.refuted.append(found)
        counts = self.counts.setdefault(found.site, {})
        counts[found.reason.code] = counts.get(found.reason.code, 0) + 1

    def _keep(self, reading: Reading) -> bool:
        held = self._of.setdefault(reading.source, {})
        key = (reading.target, reading.method)
        before = held.get(key)
        if before is not None and before.ended_ms >= reading.ended_ms:
            return False
        if before is None and len(held) >= MOST_OF_A_SITE:
            self._drop(reading.source, min(held, key=lambda each: (held[each].ended_ms, each)))
        if before is None:
            self._count(reading.source, 1)
        self._release(reading.source, key)
        self._has_news = self._has_news or self._is_news(before, reading)
        held[key] = reading
        if reading.evidence is Evidence.EMULATED:
            self._emulated[reading.source, *key] = None
        else:
            self._emulated.pop((reading.source, *key), None)
        if reading.method in DIRECT and reading.count and reading.evidence in SEEN:
            self.coordinates.heard(reading.source, reading.target, reading.p50_us)
        return True

    def _is_news(self, before: Reading | None, reading: Reading) -> bool:
        """Whether a round trip or a rate is known now that was not, or is clearly another one."""
        if reading.evidence not in SEEN or not reading.count:
            return False
        if reading.method in DIRECT:
            now, then = reading.p50_us, before.p50_us if before is not None else 0
        else:
            now, then = reading.rate_bps, before.rate_bps if before is not None else 0
        was_known = before is not None and before.count and then and self.is_fresh(before)
        return bool(now) and (not was_known or abs(now - then) * NEWS_SHARE > then)

    def has_news(self) -> bool:
        """Whether what was measured since it last said so may help a job that waits; at most every `NEWS_MS`."""
        if not self._has_news or self.now_ms < self._told_ms + NEWS_MS:
            return False
        self._has_news, self._told_ms = False, self.now_ms
        return True

    def _drop(self, source: str, key: tuple[str, Method]) -> None:
        del self._of[source][key]
        self._emulated.pop((source, *key), None)
        self._release(source, key)
        self._count(source, -1)

    def _release(self, source: str, key: tuple[str, Method]) -> None:
        said = self._said.get(source)
        serial = said.pop(key, None) if said is not None else None
        if serial is not None:
            self.statements.release(serial)

    def _count(self, source: str, more: int) -> None:
        peer = self.via.get(source)
        if peer is not None:
            self._far[peer] = self._far.get(peer, 0) + more
            if not self._far[peer]:
                del self._far[peer]

    def _lead(self, source: str, peer: str) -> None:
        """Note over which peer a source is heard now; empty: it is ours."""
        if self.via.get(source, "") == peer:
            return
        count = len(self._of.get(source, ()))
        self._count(source, -count)
        self.via.pop(source, None)
        if peer:
            self.via[source] = peer
            self._count(source, count)

    def forget(self, *names: str) -> None:
        """Sites that left, or points that were taken back: nothing to them or from them is known."""
        gone = dict.fromkeys(names)
        if not gone:
            return
        for name in gone:
            self._lead(name, "")
            self._of.pop(name, None)
            self._said.pop(name, None)
            self.statements.forget(name)
            self._seqs.pop(name, None)
            self.counts.pop(name, None)
            self.undone.pop(name, None)
            self.coordinates.forget(name)
        for source, held in self._of.items():  # one look at all that is held, however many go
            for key in [key for key in held if key[0] in gone]:
                self._drop(source, key)
        self._emulated = {each: None for each in self._emulated if each[0] not in gone and each[1] not in gone}

    def forget_over(self, peer: str) -> None:
        """A peer that is one no more: what came over it is let go."""
        self.forget(*(source for source, via in self.via.items() if via == peer))

    def forget_old(self) -> None:
        """Sites behind peers of which nothing was heard for a day; looked for now and then."""
        if self.now_ms < self._looked_ms + LOOK_MS:
            return
        self._looked_ms = self.now_ms
        old_ms = self.now_ms - OLD_MS
        self.forget(
            *(
                source
                for source in self.via
                if all(each.ended_ms < old_ms for each in self._of.get(source, {}).values())
            )
        )

    # -- asking -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Reading]:
        """All that are held, by source, in the order in which they were first heard."""
        for source in sorted(self._of):
            yield from list(self._of[source].values())

    def page(self, source: str, target: str, begin: int, limit: int) -> tuple[list[Reading], bool]:
        """Some by source, target and method, of one source and to one target where these are named, and whether there
        are more. Readings that are not on the page are not looked at: there may be hundreds of thousands.
        """
        found: list[Reading] = []
        for name in [source] if source else sorted(self._of):
            held = self._of.get(name, {})
            keys = [key for key in ((target, method) for method in Method) if key in held] if target else held
            if begin >= len(keys):
                begin -= len(keys)
                continue
            found += [held[key] for key in sorted(keys)[begin : begin + limit + 1 - len(found)]]
            begin = 0
            if len(found) > limit:
                break
        return found[:limit], len(found) > limit

    def of(self, source: str) -> tuple[Reading, ...]:
        """What one site measured."""
        return tuple(self._of.get(source, {}).values())

    def between(self, one: str, other: str) -> tuple[Reading, ...]:
        """Every reading of the way between two, both directions."""
        return tuple(
            reading
            for source, target in ((one, other), (other, one))
            for method in Method
            if (reading := self.newest(source, target, method)) is not None
        )

    def is_fresh(self, reading: Reading) -> bool:
        """Whether it still counts."""
        most_ms = FRESH_MS if reading.method in TIMED else FRESH_RATE_MS
        return reading.ended_ms >= self.now_ms - most_ms

    def near(self, name: str, candidates: Sequence[str], most: int) -> tuple[str, ...]:
        """Those of ``candidates`` that seem nearest, by estimate; who has none is not among them."""
        return self.coordinates.nearest(name, [each for each in candidates if each in self.coordinates], most)

    def newest(self, source: str, target: str, method: Method) -> Reading | None:
        """The newest reading of one way and method, however old."""
        held = self._of.get(source)
        return held.get((target, method)) if held is not None else None

    def ended_ms(self, source: str, target: str, method: Method) -> int | None:
        """When the newest one ended."""
        found = self.newest(source, target, method)
        return found.ended_ms if found is not None else None

    def rtt_us(self, one: str, other: str) -> int | None:
        """The median round trip between two ends, as the slower direction has it; None: unknown."""
        if one == other:
            return 0
        there, back = self._trip(one, other), self._trip(other, one)
        found = [each.p50_us for each in (there, back) if each is not None]
        return max(found) if found else None

    def loss_ppm(self, one: str, other: str) -> int | None:
        """Lost packets of a million on the way and back, of the direction that lost more; None: unknown."""
        found = [
            reading.loss_ppm
            for source, target in ((one, other), (other, one))
            if (reading := self.newest(source, target, Method.UDP)) is not None
            and reading.evidence in SEEN
            and self.is_fresh(reading)
        ]
        return max(found) if found else None

    def rate_bps(self, one: str, other: str) -> int | None:
        """The measured rate between two ends, of the slower direction that was measured; None: unknown."""
        found = [
            reading.rate_bps
            for source, target in ((one, other), (other, one))
            if (reading := self.newest(source, target, Method.RATE)) is not None
            and reading.rate_bps
            and self.is_fresh(reading)
            and reading.evidence in SEEN
        ]
        return min(found) if found else None

    def _trip(self, source: str, target: str) -> Reading | None:
        """The newest fresh and answered direct reading of one way."""
        held = self._of.get(source)
        if held is None:
            return None
        newest: Reading | None = None
        for method in DIRECT:
            reading = held.get((target, method))
            if (
                reading is not None
                and reading.count
                and self.is_fresh(reading)
                and reading.evidence in SEEN
                and (newest is None or reading.ended_ms > newest.ended_ms)
            ):
                newest = reading
        return newest
