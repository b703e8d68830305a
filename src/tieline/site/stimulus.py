"""Stimuli: everything that can happen to a site. The machine learns of nothing else."""

from __future__ import annotations

import msgspec

from tieline.model.job import Output
from tieline.model.protocol import Orders, Outcome, Reports
from tieline.model.reason import Reason
from tieline.ports import Ending


class Stimulus(msgspec.Struct, frozen=True, kw_only=True):
    """What happened."""


class Welcomed(Stimulus, frozen=True, kw_only=True):
    """A session is open: what the exchange believes of every run of this site."""

    orders: tuple[Orders, ...] = ()
    lease_ms: int = 10_000
    is_draining: bool = False


class Ordered(Stimulus, frozen=True, kw_only=True):
    """An order came down the stream. `Ask` and `Resync` are not for the machine."""

    order: Orders


class Answered(Stimulus, frozen=True, kw_only=True):
    """The outcome of a report."""

    report: Reports
    outcome: Outcome


class Fenced(Stimulus, frozen=True, kw_only=True):
    """The answer to a heartbeat named runs that are not ours any more."""

    runs: tuple[str, ...]


class Cut(Stimulus, frozen=True, kw_only=True):
    """The exchange is not heard; runs go on."""


class NodesStarted(Stimulus, frozen=True, kw_only=True):
    """Every node's setup has begun."""

    run: str


class StartFailed(Stimulus, frozen=True, kw_only=True):
    """It could not be started here, and nothing of it is left running."""

    run: str
    reason: Reason


class NodesEnded(Stimulus, frozen=True, kw_only=True):
    """No process of the run is left. ``endings`` in rank order; empty: it was stopped before any node began."""

    run: str
    endings: tuple[Ending, ...] = ()


class CheckpointKept(Stimulus, frozen=True, kw_only=True):
    """A checkpoint is with the exchange as a blob."""

    run: str
    sha256: str
    size_bytes: int


class HandedOver(Stimulus, frozen=True, kw_only=True):
    """Log, outputs and last checkpoint are with the exchange; ``failure`` says why something could not be."""

    run: str
    endings: tuple[Ending, ...] = ()
    outputs: tuple[Output, ...] = ()
    failure: Reason | None = None


class NotJournalled(Stimulus, frozen=True, kw_only=True):
    """The disk did not take what must be there before a run is accepted."""

    run: str
    why: str


class OwnerDrained(Stimulus, frozen=True, kw_only=True):
    """The owner takes no new runs, or takes them again."""

    is_draining: bool


class OwnerStopped(Stimulus, frozen=True, kw_only=True):
    """The owner ends a run: the capacity is wanted back."""

    run: str
    why: str


class Ticked(Stimulus, frozen=True, kw_only=True):
    """Time has passed."""
