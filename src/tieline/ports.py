"""What the core may ask for: small protocols, each with a fake beside it.

The engines and use-cases see these and never a driver. Time is an integer of milliseconds since the Unix epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

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


class Distances(Protocol):
    """What the network work will fill: how long bytes take between two sites."""

    def rtt_us(self, source: str, target: str) -> int | None:
        """Round trip; None is unknown."""

    def rate_bps(self, source: str, target: str) -> int | None:
        """Available rate; None is unknown."""


@dataclass(frozen=True)
class ConstantDistances:
    """The assumption of today's launchers: one rate between every pair, no latency known. Declared, not measured."""

    constant_bps: int = 10_000_000_000
    readings_us: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def rtt_us(self, source: str, target: str) -> int | None:
        """A reading where one was given, else unknown."""
        return self.readings_us.get((source, target), self.readings_us.get((target, source)))

    def rate_bps(self, source: str, target: str) -> int | None:
        """The constant, and no limit inside one site."""
        return None if source == target else self.constant_bps
