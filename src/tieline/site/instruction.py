"""Instructions: everything that the machine can ask of its shell. Every one may be carried out twice.

The order matters in one way: what `Persist` says is on the disk before anything after it is done.
"""

from __future__ import annotations

import msgspec

from tieline.model.protocol import Reports
from tieline.ports import Ending
from tieline.site.state import Done, Held


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done."""


class Persist(Instruction, frozen=True, kw_only=True):
    """Journal the run as it stands. ``is_durable``: it must survive a power cut too, so it is synced."""

    held: Held
    is_durable: bool = False


class Send(Instruction, frozen=True, kw_only=True):
    """Report it, and again until an outcome came."""

    report: Reports


class Withdraw(Instruction, frozen=True, kw_only=True):
    """Take back the reports of a run that wait to be sent, the terminal one excepted."""

    run: str


class Start(Instruction, frozen=True, kw_only=True):
    """Lay out its bytes and start its nodes, or adopt those that were started. ``sealed``: its secrets, base64url."""

    held: Held
    sealed: str = ""


class Adopt(Instruction, frozen=True, kw_only=True):
    """Watch the nodes of a run that was running when the site process died."""

    held: Held


class Halt(Instruction, frozen=True, kw_only=True):
    """End its processes: a checkpoint first and ``grace_s`` for SIGTERM, or at once when it is fenced."""

    run: str
    grace_s: int = 0
    is_fenced: bool = False


class HandOver(Instruction, frozen=True, kw_only=True):
    """Bring the rest of its log, its outputs and its last checkpoint to the exchange; answer `HandedOver`."""

    held: Held
    endings: tuple[Ending, ...] = ()
    with_outputs: bool = True
    with_checkpoint: bool = False


class Forget(Instruction, frozen=True, kw_only=True):
    """Its report was taken: keep ``done`` in the journal for a while, remove everything else of it."""

    run: str
    done: Done | None = None  # None: it never began, nothing need be remembered
