"""The site's memory: every run that it holds, the reports that it owes, and what it will not do a second time.

::

    accepting --outcome ok--> launching --started--> running --nodes ended--> finishing --handed over--> ended --outcome--> done
        |                         |                                                                        ^
        +--------- fenced, withdrawn, could not start, stopped before it began -----------------------------+

An entry of the journal is a `Held` or a `Done`; `recover` makes a `SiteState` of them after any crash. What
happens to a run after its acceptance is journalled as its `Progress`.
"""  # noqa: E501 - the drawing

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from tieline.model.protocol import Ended, Offer
from tieline.model.reason import Reason
from tieline.site.pool import Pool

DONE_MOST = 512  # ended runs that are remembered, so that a replayed order starts nothing again


class Phase(StrEnum):
    """How far a run has come at this site."""

    ACCEPTING = "accepting"  # journalled and held; nothing starts before the exchange says that it is ours
    LAUNCHING = "launching"  # ours: bytes are laid out, nodes are started
    RUNNING = "running"
    FINISHING = "finishing"  # every process is gone; logs, outputs and a last checkpoint go up
    ENDED = "ended"  # the terminal report waits for its outcome


HOLDING = (Phase.ACCEPTING, Phase.LAUNCHING, Phase.RUNNING)  # what capacity is held for
STARTED = (Phase.LAUNCHING, Phase.RUNNING)  # processes may exist


class Held(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="held"):
    """One run at this site, as it is journalled. Secrets are never here."""

    offer: Offer
    phase: Phase
    engine: str = "process"
    sandbox: str = "none"
    network: str = "host"
    devices: tuple[int, ...] = ()  # over all nodes, in rank order
    offered_ms: int = 0  # or told of again, where the exchange counts on it
    launched_ms: int = 0  # nodes were first told to start; kept through a crash
    started_ms: int = 0
    is_stopping: bool = False
    is_fenced: bool = False
    reason: Reason | None = None  # why it is being stopped
    checkpoint: str = ""  # newest that is kept as a blob
    checkpoint_bytes: int = 0
    ended: Ended | None = None

    @property
    def run(self) -> str:
        """Its name."""
        return self.offer.run

    @property
    def may_run(self) -> bool:
        """Whether it may have processes: it was told to start, now or before a crash, and is not known to be over."""
        return self.phase in STARTED or (self.phase is Phase.ACCEPTING and self.launched_ms > 0)

    @property
    def nodes(self) -> int:
        """Members of the gang."""
        return self.offer.task.nodes

    def devices_of(self, node: int) -> tuple[int, ...]:
        """The accelerators of one node."""
        share = len(self.devices) // self.nodes
        return self.devices[node * share : (node + 1) * share]

    @property
    def stop_at_ms(self) -> int:
        """When its time is over; 0: never, or not yet known."""
        began = self.started_ms or self.launched_ms
        return began + self.offer.stop_after_s * 1000 if began and self.offer.stop_after_s else 0


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="progress"):
    """What changes of a run after it was accepted: all of `Held` but the offer."""

    phase: Phase
    launched_ms: int = 0
    started_ms: int = 0
    is_stopping: bool = False
    is_fenced: bool = False
    reason: Reason | None = None
    checkpoint: str = ""
    checkpoint_bytes: int = 0
    ended: Ended | None = None

    @classmethod
    def of(cls, held: Held) -> Progress:
        """The progress of ``held``."""
        return cls(**{name: getattr(held, name) for name in cls.__struct_fields__})

    def on(self, held: Held) -> Held:
        """``held`` as far as this."""
        return msgspec.structs.replace(held, **{name: getattr(self, name) for name in self.__struct_fields__})


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """A run whose terminal report was taken."""

    ended: Ended


Entry = Held | Done


class SiteState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the site decides by. Its dictionaries are never changed in place."""

    site: str
    pools: dict[str, Pool]
    runs: dict[str, Held] = {}
    owed: dict[str, Ended] = {}  # terminal reports of runs of which nothing else is left here
    done: dict[str, Ended] = {}  # oldest first, at most DONE_MOST
    lease_ms: int = 10_000
    is_connected: bool = False
    is_drained_by_owner: bool = False
    is_drained_by_exchange: bool = False

    @property
    def is_draining(self) -> bool:
        """Whether new runs are refused."""
        return self.is_drained_by_owner or self.is_drained_by_exchange

    def holding(self, pool: str) -> Iterator[Held]:
        """The runs that capacity of ``pool`` is held for."""
        return (held for held in self.runs.values() if held.offer.pool == pool and held.phase in HOLDING)

    def of_job(self, job: str) -> Iterator[Held]:
        """The runs of one job that hold capacity here."""
        return (held for held in self.runs.values() if held.offer.job == job and held.phase in HOLDING)

    def older(self, offer: Offer) -> Iterator[Held]:
        """Those of its job, of an earlier epoch: members of its gang are not among them."""
        return (held for held in self.of_job(offer.job) if held.offer.epoch < offer.epoch)
