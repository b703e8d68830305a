"""Turn: one step of the machine while it is taken, and the moves that several handlers share."""

from __future__ import annotations

from typing import Any

import msgspec

from tieline.model.protocol import Accepted, CheckpointKept, Ended, Started
from tieline.model.reason import Reason
from tieline.site.ending import report_of
from tieline.site.instruction import Forget, Halt, Instruction, Persist, Send, Withdraw
from tieline.site.state import Held, Phase, SiteState

replace = msgspec.structs.replace


class Turn:
    """The state so far, and what is to be done."""

    def __init__(self, state: SiteState, now_ms: int) -> None:
        self.state = state
        self.now_ms = now_ms
        self.instructions: list[Instruction] = []

    def do(self, *instructions: Instruction) -> None:
        """Ask the shell for something."""
        self.instructions.extend(instructions)

    def change(self, **fields: Any) -> None:
        """Change the state beside its runs."""
        self.state = replace(self.state, **fields)

    def put(self, held: Held, *, is_durable: bool = False) -> Held:
        """Keep a run and journal it."""
        self.change(runs={**self.state.runs, held.run: held})
        self.do(Persist(held=held, is_durable=is_durable))
        return held

    def hold_longer(self, held: Held) -> Held:
        """Begin the time anew for which capacity is held. A crash may forget it: the journal keeps the first."""
        held = replace(held, offered_ms=self.now_ms)
        self.change(runs={**self.state.runs, held.run: held})
        return held

    def drop(self, held: Held) -> None:
        """Let go of a run that never began."""
        self.change(runs={name: other for name, other in self.state.runs.items() if name != held.run})
        self.do(Withdraw(run=held.run), Forget(run=held.run))
        self.wake_newer(held)

    def end(self, held: Held, report: Ended) -> None:
        """The run is over here; its report is owed from now on."""
        ended = replace(held, phase=Phase.ENDED, ended=report, checkpoint=report.checkpoint or held.checkpoint)
        self.do(Withdraw(run=held.run))
        self.put(ended)
        self.do(Send(report=report))
        self.wake_newer(held)

    def owe(self, report: Ended) -> None:
        """Report the end of a run of which nothing else is left here."""
        self.change(owed={**self.state.owed, report.run: report})
        self.do(Send(report=report))

    def wake_newer(self, gone: Held) -> None:
        """A newer run of the same job that waited for this one may go on: its acceptance is answered once more."""
        for other in self.state.runs.values():
            is_newer = other.offer.job == gone.offer.job and other.offer.epoch > gone.offer.epoch
            if is_newer and other.phase is Phase.ACCEPTING:
                self.do(Send(report=accepted_of(other)))

    def say_again(self, held: Held) -> None:
        """Report again whatever of this run may not have been heard."""
        if held.phase is Phase.ACCEPTING:
            self.do(Send(report=accepted_of(held)))
        elif held.phase in (Phase.RUNNING, Phase.FINISHING):
            self.do(Send(report=started_of(held)))
            if held.checkpoint and held.checkpoint != held.offer.checkpoint:
                self.do(Send(report=checkpoint_of(held)))
        elif held.phase is Phase.ENDED and held.ended is not None:
            self.do(Send(report=held.ended))

    def fence(self, held: Held) -> None:
        """It is not ours any more: nothing starts, what runs is ended at once, and nothing is billed."""
        if held.may_run:
            if not held.is_fenced:
                held = self.put(replace(held, is_stopping=True, is_fenced=True))
            self.do(halt_of(held))
        elif held.phase is Phase.ACCEPTING:
            self.drop(held)
        elif held.phase is Phase.ENDED:
            self.say_again(held)

    def halt(self, held: Held, reason: Reason | None) -> None:
        """End a run that is still ours, in order: a checkpoint first, then its grace."""
        if held.is_stopping:
            return
        held = replace(held, is_stopping=True, reason=reason)
        if held.may_run:
            self.do(halt_of(self.put(held)))
        elif held.phase is Phase.ACCEPTING:
            self.end(held, report_of(held, ()))


def halt_of(held: Held) -> Halt:
    """End its processes."""
    return Halt(run=held.run, grace_s=0 if held.is_fenced else held.offer.task.grace_s, is_fenced=held.is_fenced)


def accepted_of(held: Held) -> Accepted:
    """The owner takes it."""
    return Accepted(run=held.run, epoch=held.offer.epoch, sandbox=held.sandbox, network=held.network)


def started_of(held: Held) -> Started:
    """It runs."""
    return Started(run=held.run, epoch=held.offer.epoch, at_ms=held.started_ms, devices=held.devices)


def checkpoint_of(held: Held) -> CheckpointKept:
    """Its newest checkpoint is kept."""
    return CheckpointKept(
        run=held.run, epoch=held.offer.epoch, sha256=held.checkpoint, size_bytes=held.checkpoint_bytes
    )
