"""What the core may ask for: small protocols, each with a fake beside it.

The engines and use-cases see these and never a driver. Time is an integer of milliseconds since the Unix epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tieline.model.circuit import Circuit, Receipt
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case


class Clock(Protocol):
    """Time, real or simulated."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""


class Ids(Protocol):
    """New names. Real ones draw from the system's randomness, fakes from a seed."""

    def new(self, kind: str) -> str:
        """A name that was never given before, such as ``j-7f3k2m9q``."""


@dataclass
class FakeClock:
    """A clock that moves when told."""

    at_ms: int = 1_700_000_000_000

    def now_ms(self) -> int:
        """The time it was set to."""
        return self.at_ms

    def advance(self, ms: int) -> None:
        """Let ``ms`` pass."""
        self.at_ms += ms


@dataclass
class FakeIds:
    """Names from a seed: the same seed gives the same names."""

    seed: int = 0
    given: int = 0

    def new(self, kind: str) -> str:
        """The next name."""
        self.given += 1
        digest = hashlib.sha256(f"{self.seed}.{self.given}".encode()).digest()
        return f"{kind[:1]}-" + "".join(ALPHABET[byte & 31] for byte in digest[:10])


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Everything an engine needs to start one node of a run. Paths are absolute on the site."""

    run: str  # short name, unique at the site
    node: int  # rank within the gang
    folder: str  # the run's own folder: work/, log, exit code, process identity live below it
    setup: str
    script: str
    envs: Mapping[str, str]
    devices: Sequence[int] = ()  # indices of the accelerators given to this node
    vendor: str = ""  # of the accelerators: decides which variables name the devices
    core_count: int = 0  # 0: no limit
    memory_bytes: int = 0
    disk_bytes: int = 0
    duration_s: int = 0  # hard limit
    grace_s: int = 5  # between SIGTERM and SIGKILL when a limit ends it
    network: str = "host"  # none or host
    sandbox: str = "none"  # bubblewrap, container, none
    image: str = ""
    log_bytes: int = 64 * 2**20  # the log is cut there, and says so
    readable: Sequence[str] = ()  # extra folders that are visible read-only inside a sandbox
    laid: Sequence[tuple[str, str]] = ()  # (file or folder, path below the work folder where it is seen, read-only)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one node ended."""

    exit_code: int  # 128 + n after signal n
    phase: str = "run"  # setup or run: where it ended
    limit: str = ""  # memory, time, disk, log: which limit ended it
    started_ms: int = 0
    ended_ms: int = 0
    cpu_ms: int = 0
    max_memory_bytes: int = 0


class Engine(Protocol):
    """Runs one node of a run at a site. Every call is idempotent: the folder is the identity of the run.

    A run survives the death of the site process: whoever opens the same folder later adopts it.
    """

    name: str

    def offers(self) -> Mapping[str, str]:
        """What it can do here: ``sandbox``, ``networks`` (comma-separated), ``version``; empty: it cannot run here."""

    async def start(self, launch: Launch) -> None:
        """Start it, or adopt it when it was started before. Raises TielineError when it cannot be started."""

    async def wait(self, folder: str) -> Ending:
        """How it ended; returns at once when it has. A run that vanished without a trace ended with 137."""

    async def signal(self, folder: str, number: int) -> None:
        """Send a signal to the whole process group; nothing happens when it has ended."""

    async def stop(self, folder: str, grace_s: float) -> Ending:
        """SIGTERM, then SIGKILL to everything that is left after ``grace_s``."""

    def log(self, folder: str) -> str:
        """Path of the file that holds its output."""


class Blobs(Protocol):
    """Bytes by their sha256."""

    async def has(self, digest: str) -> bool:
        """Whether they are there."""

    def read(self, digest: str) -> AsyncIterator[bytes]:
        """Stream them; raises TielineError `not_found`."""

    async def write(self, chunks: AsyncIterator[bytes], limit_bytes: int) -> tuple[str, int]:
        """Store a stream whole or not at all; returns (sha256, size)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogHead:
    """The log of one prefix: its newest serial, how many records it holds, whether its owner's checkpoint is there."""

    prefix: str
    serial: int
    count: int = 0
    has_checkpoint: bool = False


class Logged(NamedTuple):
    """One record of a log: position, payload hash in hex, and the envelope as signed."""

    id: str
    serial: int
    sha256: str
    envelope: bytes


class Archive(Protocol):
    """What serving needs of the committed records: a log by prefix, each identifier once, at its newest revision.

    Bounded: no call gives more than ``limit``. Safe from any thread. Records whose bytes were let go are not in it.
    """

    def position(self) -> tuple[str, int]:
        """Session of the logs, and the newest position of the event log."""

    def logs(self, after: str, limit: int) -> Sequence[LogHead]:
        """Logs in order of prefix, those after the prefix ``after``."""

    def log(self, prefix: str) -> LogHead | None:
        """One of them; None when no record of that prefix was ever stored."""

    def delta(self, prefix: str, after: int, limit: int, kinds: Sequence[str] = ()) -> Sequence[Logged]:
        """Records above the serial ``after`` in order of serial; ``kinds`` empty: of every kind."""

    def between(self, first: str, until: str, below: int, limit: int) -> Sequence[Logged]:
        """Records of one prefix from the identifier ``first`` to before ``until``, with a serial below ``below``."""

    def digits(self, prefix: str, kinds: Sequence[str] = (), alive_s: int = 0) -> str:
        """The first 32 hex digits of the payload hash of every record of the log, joined, in any order.

        Left out is what expired at ``alive_s`` (seconds since the epoch), unless it is a tombstone: nobody takes that.
        """

    def hashes(
        self, prefix: str, buckets: Sequence[str], kinds: Sequence[str] = (), alive_s: int = 0
    ) -> Sequence[tuple[str, str]]:
        """Identifier and payload hash (hex) of those of the same records whose hash begins with one of ``buckets``."""

    def envelopes(self, ids: Sequence[str]) -> Sequence[Logged]:
        """Those of ``ids`` that are here, in the order asked."""


class FakeArchive:
    """An archive in memory; `put` is what a commit does."""

    def __init__(self, session: str = "s-1") -> None:
        self.session = session
        self.head = 0
        self._serials: dict[str, int] = {}
        self._records: dict[str, dict[str, Logged]] = {}  # prefix -> id -> record
        self._ends_s: dict[str, int] = {}  # when it expires

    def put(self, name: str, sha256: str, envelope: bytes, exp: int = 253_402_300_799, status: str = "active") -> int:
        """Store a record; gives its serial."""
        prefix = name.partition("/")[0]
        self.head += 1
        serial = self._serials[prefix] = self._serials.get(prefix, 0) + 1
        self._records.setdefault(prefix, {})[name] = Logged(name, serial, sha256, envelope)
        self._ends_s[name] = exp if status != "withdrawn" else 253_402_300_799
        return serial

    def forget(self, name: str) -> None:
        """Let a record go."""
        self._records.get(name.partition("/")[0], {}).pop(name, None)

    def position(self) -> tuple[str, int]:
        """As `Archive`."""
        return self.session, self.head

    def logs(self, after: str, limit: int) -> Sequence[LogHead]:
        """As `Archive`."""
        names = sorted(prefix for prefix in self._serials if prefix > after)[:limit]
        return [head for head in map(self.log, names) if head is not None]

    def log(self, prefix: str) -> LogHead | None:
        """As `Archive`."""
        if prefix not in self._serials:
            return None
        held = self._records.get(prefix, {})
        has_checkpoint = f"{prefix}/checkpoint/records" in held
        return LogHead(prefix=prefix, serial=self._serials[prefix], count=len(held), has_checkpoint=has_checkpoint)

    def delta(self, prefix: str, after: int, limit: int, kinds: Sequence[str] = ()) -> Sequence[Logged]:
        """As `Archive`."""
        found = [each for each in self._of(prefix, kinds) if each.serial > after]
        return sorted(found, key=lambda each: each.serial)[:limit]

    def between(self, first: str, until: str, below: int, limit: int) -> Sequence[Logged]:
        """As `Archive`."""
        held = self._records.get(first.partition("/")[0], {})
        names = sorted(name for name in held if first <= name < until and held[name].serial < below)
        return [held[name] for name in names[:limit]]

    def digits(self, prefix: str, kinds: Sequence[str] = (), alive_s: int = 0) -> str:
        """As `Archive`."""
        return "".join(each.sha256[:32] for each in self._of(prefix, kinds) if self._ends_s[each.id] > alive_s)

    def hashes(
        self, prefix: str, buckets: Sequence[str], kinds: Sequence[str] = (), alive_s: int = 0
    ) -> Sequence[tuple[str, str]]:
        """As `Archive`."""
        held = [each for each in self._of(prefix, kinds) if self._ends_s[each.id] > alive_s]
        return [(each.id, each.sha256) for each in held if each.sha256[:3] in buckets]

    def envelopes(self, ids: Sequence[str]) -> Sequence[Logged]:
        """As `Archive`."""
        found = (self._records.get(name.partition("/")[0], {}).get(name) for name in ids)
        return [each for each in found if each is not None]

    def _of(self, prefix: str, kinds: Sequence[str]) -> list[Logged]:
        held = self._records.get(prefix, {}).values()
        return [each for each in held if not kinds or each.id.split("/")[1] in kinds]


class Transit(NamedTuple):
    """What it takes to bring bytes from one site to another, from now on."""

    time_us: int  # until the last byte is there
    price_micro_cny: int = 0
    rate_bps: int = 0  # over the whole time
    links: tuple[str, ...] = ()  # of the path that carries most; none where no topology is known
    evidence: Evidence = Evidence.DECLARED  # of the rate; unknown: nobody said or measured it, it is assumed


class Distances(Protocol):
    """How long bytes take between two sites."""

    def rtt_us(self, source: str, target: str) -> int | None:
        """Round trip; None is unknown."""

    def rate_bps(self, source: str, target: str) -> int | None:
        """Available rate; None is unknown."""

    def read_bps(self, source: str, target: str) -> int | None:  # noqa: ARG002
        """Measured rate: what `bandwidth(point)` means; None is unknown."""
        return None

    def may_read(self, function: str, point: str, site: str) -> bool:  # noqa: ARG002
        """Whether ``rtt(point)`` or ``bandwidth(point)`` of a site, unknown now, may be measured some day."""
        return False

    def rate_evidence(self, source: str, target: str) -> Evidence:
        """What `rate_bps` rests on."""
        return Evidence.DECLARED if self.read_bps(source, target) is None else Evidence.MEASURED

    def most_bps(self, source: str, target: str) -> int | None:
        """What no transfer between them exceeds, whatever is booked; None is unknown. Asked for many sites at once."""
        return self.rate_bps(source, target)

    def transit(
        self,
        source: str,
        target: str,
        size_bytes: int,
        now_ms: int,  # noqa: ARG002
        due_ms: int = 0,  # noqa: ARG002
    ) -> Transit | None:
        """What it takes in what nobody else has booked; None is unknown. Never quicker than `most_bps` says.

        ``due_ms``: when it has to be there, which may have another price; 0: whenever.
        """
        rate = self.rate_bps(source, target)
        if not rate:
            return None
        evidence = self.rate_evidence(source, target)
        return Transit(-(-size_bytes * 8_000_000 // rate), rate_bps=rate, evidence=evidence)


@dataclass(frozen=True)
class ConstantDistances(Distances):
    """The assumption of today's launchers: one rate between every pair, no latency known. Assumed: nobody says it."""

    constant_bps: int = 10_000_000_000
    readings_us: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def rtt_us(self, source: str, target: str) -> int | None:
        """A reading where one was given, else unknown."""
        return self.readings_us.get((source, target), self.readings_us.get((target, source)))

    def rate_bps(self, source: str, target: str) -> int | None:
        """The constant, and no limit inside one site."""
        return None if source == target else self.constant_bps

    def rate_evidence(self, source: str, target: str) -> Evidence:  # noqa: ARG002
        """Nobody said it, nobody measured it."""
        return Evidence.UNKNOWN


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """What a driver of circuits did."""

    circuits: Sequence[str]  # brought to the state that was asked for
    step_count: int  # changes of routers
    took_us: int
    evidence: Evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class PortCount:
    """Totals of one port: of ``link``, at the end ``node``, since the port was made."""

    link: str
    node: str
    sent_bytes: int
    received_bytes: int
    dropped_packets: int = 0
    is_carrying: bool = True  # False: no light


class Circuits(Protocol):
    """Makes circuits stand on routers. A circuit stands as it is given: on its route, at its rate, its spare one ready.

    Giving it again with another route moves it there, the new way made before the old one is left; with another rate
    resizes it; with the same changes nothing. Raises TielineError `circuit_refused` when a router did not do its part:
    then everything that was done for the call has been undone.
    """

    name: str
    evidence: Evidence

    async def apply(self, circuits: Sequence[Circuit]) -> Applied:
        """Bring all of them to the state given, or none."""

    async def verify(self, circuit: Circuit, seq: int) -> Receipt:
        """Send through it and look: full-size probes, counters of the ports on its path, its rate for a second."""

    async def counters(self) -> Sequence[PortCount]:
        """Both ports of every link, in the order of the topology."""

    async def withdraw(self, circuit: str) -> None:
        """Take it down; its packets go as all others do. Nothing happens where it does not stand."""


class FakeCircuits:
    """Circuits in memory. ``refused`` counts down: the change that brings it to 0 fails, and its call is undone."""

    name = "fake"
    evidence = Evidence.SIMULATED

    def __init__(self, refused: int = 0) -> None:
        self.standing: dict[str, Circuit] = {}
        self.refused = refused

    async def apply(self, circuits: Sequence[Circuit]) -> Applied:
        """As `Circuits`."""
        before = dict(self.standing)
        for circuit in circuits:
            self.refused -= 1
            if self.refused == 0:
                self.standing = before
                raise TielineError("circuit_refused", "the fake refused 1 change", where=circuit.id)
            self.standing[circuit.id] = circuit
        names = [circuit.id for circuit in circuits]
        return Applied(circuits=names, step_count=len(names), took_us=0, evidence=self.evidence)

    async def verify(self, circuit: Circuit, seq: int) -> Receipt:
        """As `Circuits`: proven where it stands on the route that is given."""
        held = self.standing.get(circuit.id)
        is_proven = held is not None and held.route == circuit.route
        path = () if held is None or held.route is None else held.route.links
        return Receipt(
            subject=circuit.id, seq=seq, begun_ms=0, ended_ms=1_000, path=path, is_path_proven=is_proven,
            goodput_bps=0 if held is None else held.held_bps, computed_bps=circuit.held_bps,
            probe_bytes=circuit.order.mtu_bytes, evidence=self.evidence,
        )  # fmt: skip

    async def counters(self) -> Sequence[PortCount]:
        """As `Circuits`: it has no ports."""
        return ()

    async def withdraw(self, circuit: str) -> None:
        """As `Circuits`."""
        self.standing.pop(circuit, None)
