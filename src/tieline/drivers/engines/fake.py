"""An engine without processes, for tests and simulation: emulated 仿真, never to be offered to anybody.

Runs live in memory and end when a clock says so, as scripted. It keeps the promises of `Engine`: the folder is the
identity of a run, every call may be repeated, and a run outlives the engine object when both share one `world`.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.ports import Clock, Ending, Launch


@dataclass(frozen=True, kw_only=True)
class Script:
    """What one launch shall do."""

    duration_ms: int = 0  # until it ends by itself; negative: never
    exit_code: int = 0
    phase: str = "run"
    output: str = ""
    obeys_after_ms: int = 0  # after SIGTERM; negative: it ignores it
    refuses: str = ""  # start raises TielineError `overloaded` with these words
    cpu_ms: int = 0
    max_memory_bytes: int = 0


@dataclass
class FakeRun:
    """One emulated run, as far as it got."""

    launch: Launch
    script: Script
    started_ms: int
    ends_ms: int | None
    exit_code: int
    limit: str = ""
    signals: list[int] = field(default_factory=list)
    ending: Ending | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class FakeEngine:
    """Emulated runs by a given clock. After moving a `FakeClock`, call `tick`; waiting calls then answer."""

    clock: Clock
    scripted: Callable[[Launch], Script] = lambda _: Script()
    world: dict[str, FakeRun] = field(default_factory=dict)  # folder -> run; outlives the engine when shared
    sandboxes: str = "bubblewrap"
    networks: str = "host,none"
    name: str = "fake"
    evidence: Evidence = Evidence.EMULATED

    def offers(self) -> Mapping[str, str]:
        """See `Engine.offers`; ``evidence`` says that nothing here is real."""
        return {
            "sandbox": self.sandboxes,
            "networks": self.networks,
            "version": "emulated",
            "evidence": self.evidence.value,
        }

    async def start(self, launch: Launch) -> None:
        """See `Engine.start`."""
        if launch.folder in self.world:
            return
        script = self.scripted(launch)
        if script.refuses:
            raise TielineError("overloaded", script.refuses)
        now_ms = self.clock.now_ms()
        ends_ms = now_ms + script.duration_ms if script.duration_ms >= 0 else None
        run = FakeRun(launch, script, now_ms, ends_ms, script.exit_code)
        limit_ms = now_ms + launch.duration_s * 1000
        if launch.duration_s and (ends_ms is None or ends_ms > limit_ms):
            run.ends_ms, run.exit_code, run.limit = limit_ms, 128 + signal.SIGTERM, "time"
        self.world[launch.folder] = run
        _print(self.log(launch.folder), script.output)
        self.tick()

    async def wait(self, folder: str) -> Ending:
        """See `Engine.wait`."""
        run = self.world.get(folder)
        if run is None:
            return Ending(exit_code=128 + signal.SIGKILL)
        self.tick()
        while run.ending is None:
            await run.changed.wait()
        return run.ending

    async def signal(self, folder: str, number: int) -> None:
        """See `Engine.signal`; the signal is noted, SIGTERM and SIGKILL act."""
        run = self.world.get(folder)
        if run is None or run.ending is not None:
            return
        run.signals.append(number)
        if number == signal.SIGKILL:
            self._end(run, self.clock.now_ms(), 128 + number)
        elif number == signal.SIGTERM and run.script.obeys_after_ms >= 0:
            soon_ms = self.clock.now_ms() + run.script.obeys_after_ms
            if run.ends_ms is None or soon_ms < run.ends_ms:
                run.ends_ms, run.exit_code, run.limit = soon_ms, 128 + number, ""
            self.tick()

    async def stop(self, folder: str, grace_s: float) -> Ending:
        """See `Engine.stop`; what would outlast its grace is killed at once, at the time when that would be."""
        run = self.world.get(folder)
        if run is not None and run.ending is None:
            killed_ms = self.clock.now_ms() + int(grace_s * 1000)
            await self.signal(folder, signal.SIGTERM)
            if run.ending is None and (run.ends_ms is None or run.ends_ms > killed_ms):
                run.signals.append(signal.SIGKILL)
                run.ends_ms, run.exit_code, run.limit = killed_ms, 128 + signal.SIGKILL, ""
                self.tick()
        return await self.wait(folder)

    def log(self, folder: str) -> str:
        """See `Engine.log`."""
        return f"{folder}/log"

    async def close(self) -> None:
        """Nothing is held; runs stay in `world`."""

    def tick(self) -> None:
        """End every run whose time has come."""
        now_ms = self.clock.now_ms()
        for run in self.world.values():
            if run.ending is None and run.ends_ms is not None and run.ends_ms <= now_ms:
                self._end(run, run.ends_ms, run.exit_code, run.limit)

    def vanish(self, folder: str) -> None:
        """Let a run disappear without a trace, as after a power cut: it ended with 137."""
        self._end(self.world[folder], self.clock.now_ms(), 128 + signal.SIGKILL)

    def _end(self, run: FakeRun, at_ms: int, exit_code: int, limit: str = "") -> None:
        run.ending = Ending(
            exit_code=exit_code,
            phase=run.script.phase,
            limit=limit,
            started_ms=run.started_ms,
            ended_ms=at_ms,
            cpu_ms=run.script.cpu_ms,
            max_memory_bytes=run.script.max_memory_bytes,
        )
        run.changed.set()


def _print(log: str, output: str) -> None:
    if output:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        Path(log).write_text(output)
