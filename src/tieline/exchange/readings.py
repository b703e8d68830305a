"""Readings: the newest of what each site measured, and what was refuted of it. Last value only: a site sends it again.

A round trip between two ends is known where a fresh direct measurement is: of each direction the newest that was
answered, and of both directions the slower, so that nobody makes itself look nearer than the other end saw. Half of
what is known comes from whoever wants to be chosen, hence the caution. A way through the relay is no direct way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from tieline.model.evidence import Evidence
from tieline.model.reading import Method, Reading
from tieline.model.reason import Reason
from tieline.model.topology import Place
from tieline.network.coordinates import Coordinates
from tieline.network.physics import Frame, refuted
from tieline.network.probing import Ledger, Links

FRESH_MS: Final = 3_600_000  # how long a round trip or a loss counts as known
FRESH_RATE_MS: Final = 86_400_000
MOST_OF_A_SITE: Final = 2_048  # readings that are held of one source; the oldest goes
MOST_REFUTED: Final = 256  # refuted readings that are remembered of all
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
        self._of: dict[str, dict[tuple[str, Method], Reading]] = {}  # source -> (target, method) -> the newest
        self._emulated: dict[tuple[str, str, Method], None] = {}  # those that are held of a laboratory
        self._seqs: dict[str, tuple[int, int]] = {}  # site -> session, number of its last batch

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

    def is_next(self, site: str, session: int, seq: int) -> bool:
        """Whether a batch is newer than all before; one that is not was sent again."""
        return (session, seq) > self._seqs.get(site, (-1, -1))

    def take(self, site: str, session: int, seq: int, readings: Iterable[Reading], frame: Frame) -> tuple[int, int]:
        """Keep what is possible and newer than what is held. Answers how many were kept, and how many refuted."""
        self._seqs[site] = session, seq
        self.turn(frame.now_ms)
        kept, wrong = 0, 0
        for reading in readings:
            why = refuted(reading, frame)
            if why is not None:
                self._refute(Refuted(site, frame.now_ms, reading, why))
                wrong += 1
            else:
                kept += self._keep(reading)
        return kept, wrong

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
            oldest = min(held, key=lambda each: (held[each].ended_ms, each))
            del held[oldest]
            self._emulated.pop((reading.source, *oldest), None)
        held[key] = reading
        if reading.evidence is Evidence.EMULATED:
            self._emulated[reading.source, *key] = None
        else:
            self._emulated.pop((reading.source, *key), None)
        if reading.method in DIRECT and reading.count and reading.evidence in SEEN:
            self.coordinates.heard(reading.source, reading.target, reading.p50_us)
        return True

    def forget(self, name: str) -> None:
        """A site that left, or a point that was taken back: nothing to it or from it is known."""
        self._of.pop(name, None)
        self._seqs.pop(name, None)
        self.counts.pop(name, None)
        self.coordinates.forget(name)
        for held in self._of.values():
            for key in [key for key in held if key[0] == name]:
                del held[key]
        self._emulated = {each: None for each in self._emulated if name not in each[:2]}

    # -- asking -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Reading]:
        """All that are held, by source, in the order in which they were first heard."""
        for source in sorted(self._of):
            yield from list(self._of[source].values())

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
