"""Site: the product's site machine with a simulated shell: a journal, processes, an outbox, a line that breaks.

Processes live on when the site process dies, and are gone when the machine is. A liar's machine is honest; what it
sends is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from tieline.model import protocol as wire
from tieline.model.error import TielineError
from tieline.model.job import Output
from tieline.model.peer import METER, MeterReading
from tieline.model.protocol import Accepted, Ask, Beat, Beaten, Ended, Outcome, Outcomes, Quoted, Refused, Welcome
from tieline.model.reason import Reason
from tieline.ports import Ending
from tieline.registry import Key, sign_statement
from tieline.sim.network import Respond
from tieline.sim.timeline import NodeClock
from tieline.sim.work import work_of
from tieline.site import Entry, Held, Pool, SiteState, next_ms, recover, step
from tieline.site import instruction as told
from tieline.site import stimulus as seen
from tieline.site.quotes import answer
from tieline.site.state import Progress

if TYPE_CHECKING:
    from tieline.sim.world import World

BACKOFF_MS = 200
BACKOFF_MOST_MS = 5_000
LAUNCH_MS = 20
KILL_MS = 300
LOST_SESSION = ("unauthenticated", "forbidden")


@dataclass
class Process:
    """What really runs, or ran until its folder goes."""

    offer: wire.Offer
    devices: tuple[int, ...]
    began_ms: int
    endings: tuple[Ending, ...] | None = None


class SimSite:
    """One site of one exchange. ``name`` is short (``s3``)."""

    def __init__(self, world: World, name: str, exchange: str, owner: str, pools: tuple[Pool, ...]) -> None:
        self.world, self.name, self.exchange, self.owner = world, name, exchange, owner
        self.id = f"{owner}/site/{name}"
        self.pools = pools
        self.clock = NodeClock(world.timeline)
        self.key = Key(hashlib.sha256(f"site {name}".encode()).digest())
        self.kid = f"{owner}#site"
        self.is_up = False
        self.life = 0
        self.lies: dict[str, int] = {}  # how -> until when
        self.disk: dict[str, Entry] = {}
        self.is_full = False
        self.processes: dict[str, Process] = {}
        self.said_ok: dict[str, None] = {}  # runs whose acceptance the exchange answered with ok
        self.nonces = 0
        self.beats = 0
        self.dies_after: int | None = None  # instructions of the next step that are still done
        self.state = SiteState(site=self.id, pools={})
        self._forget_shell()

    # -- life ---------------------------------------------------------------------------------------------------------

    def _forget_shell(self) -> None:
        """What dies with the process."""
        self.outbox: dict[tuple[str, str], wire.Reports] = {}
        self.launching: dict[str, None] = {}
        self.watched: dict[str, None] = {}
        self.bearer = ""
        self.tries = 0
        self._is_sending = False
        self._is_opening = False
        self._due_ms: int | None = None

    def start(self) -> None:
        """Read the journal, adopt what runs, dial out."""
        self.life += 1
        self.is_up = True
        self._forget_shell()
        now_ms = self.clock.now_ms()
        self.state, instructions = recover(self.id, self.pools, tuple(self.disk.values()), now_ms)
        for instruction in instructions:
            self._obey(instruction)
        self._open()
        self._beat_soon(self.life, 0)

    def crash(self, down_ms: int, *, loses_disk: bool = False) -> None:
        """The process dies; with ``loses_disk`` the machine does, and everything that ran on it."""
        if not self.is_up:
            return
        self.is_up = False
        self.dies_after = None
        self.world.chronicle.note(f"{self.name} crashed{' with its disk' if loses_disk else ''}")
        if loses_disk:
            self.disk.clear()
            self.processes.clear()
        self.world.timeline.after(down_ms, lambda: None if self.is_up else self.start())

    def _later(self, ms: int, do: Callable[[], None]) -> None:
        """In this life of the process only."""
        life = self.life
        self.world.timeline.after(ms, lambda: do() if self.is_up and self.life == life else None)

    def serve(self, _source: str, _kind: str, _what: Any, respond: Respond) -> None:
        """Nothing listens at a site."""
        respond(None)

    # -- the machine --------------------------------------------------------------------------------------------------

    def feel(self, what: seen.Stimulus) -> None:
        """Something happened: decide, and do what follows, as far as the process lives."""
        if not self.is_up:
            return
        self.state, instructions = step(self.state, what, self.clock.now_ms())
        lost: dict[str, None] = {}
        dies_after = self.dies_after if instructions else None
        for place, instruction in enumerate(instructions):
            if place == dies_after:
                break
            if isinstance(instruction, told.Persist) and instruction.is_durable and self.is_full:
                self.world.faults["journal not written"] += 1
                lost[instruction.held.run] = None
            elif not _is_lost(instruction, lost):
                self._obey(instruction)
        self.world.check_site(self)
        if dies_after is not None:
            self.world.faults["crash within a step"] += 1
            self.crash(self.world.chance.of(self.name).randrange(100, 6_000))
            return
        for run in lost:
            self.feel(seen.NotJournalled(run=run, why="no space is left on the disk"))
        self._set_alarm()

    def _set_alarm(self) -> None:
        due_ms = next_ms(self.state)
        if due_ms is not None and due_ms != self._due_ms:
            self._due_ms = due_ms
            self._later(due_ms - self.clock.now_ms(), self._alarm)

    def _alarm(self) -> None:
        self._due_ms = None
        self.feel(seen.Ticked())

    def _obey(self, instruction: told.Instruction) -> None:
        match instruction:
            case told.Persist(held=held):
                before = self.disk.get(held.run)
                self.disk[held.run] = Progress.of(held).on(before) if isinstance(before, Held) else held
            case told.Send(report=report):
                self._put(report)
            case told.Withdraw(run=run):
                self.outbox = {key: each for key, each in self.outbox.items() if key[1] != run or key[0] == "Ended"}
            case told.Start(held=held):
                self.world.checks.hold(
                    "nothing starts before the exchange's ok", held.run in self.said_ok, self.name, held.run
                )
                if held.run in self.processes:
                    self._watch(held.run)
                elif held.run not in self.launching:
                    self.launching[held.run] = None
                    self._later(LAUNCH_MS, lambda: self._begin(held))
            case told.Adopt(held=held):
                self._adopt(held)
            case told.Halt(run=run, is_fenced=is_fenced):
                self._later(KILL_MS if is_fenced else KILL_MS * 3, lambda: self._halt(run))
            case told.HandOver(held=held, endings=endings, with_outputs=with_outputs):
                outputs = outputs_of(held) if with_outputs else ()
                self._later(30, lambda: self.feel(seen.HandedOver(run=held.run, endings=endings, outputs=outputs)))
            case told.Forget(run=run, done=done):
                live = self.processes.pop(run, None)
                self.world.checks.hold(
                    "nothing is forgotten while it runs", live is None or live.endings is not None, self.name, run
                )
                self.disk.pop(run, None)
                if done is not None:
                    self.disk[run] = done
            case _:
                raise AssertionError(instruction)

    # -- the engine ---------------------------------------------------------------------------------------------------

    def _begin(self, held: Held) -> None:
        if self.launching.pop(held.run, "") == "":
            return
        work = work_of(held.offer.task.run)
        now_ms = self.clock.now_ms()
        request = held.offer.task.labels.get("request", held.offer.job)
        gang = f"{held.offer.job}.{held.offer.epoch}" if held.offer.part is not None else ""
        self.world.attempts[request] += gang not in self.world.begun
        if gang:
            self.world.begun[gang] = None
        code = work.code(self.world.attempts[request])
        self.processes[held.run] = Process(held.offer, held.devices, now_ms)
        self.world.chronicle.note(f"{self.name} runs {held.run}")
        life_of_machine = self.processes[held.run]
        self.world.timeline.after(work.duration_ms, lambda: self._finish(held.run, life_of_machine, code))
        self.world.check_site(self)
        self._watch(held.run)
        self._keep_checkpoints(held)
        self.feel(seen.NodesStarted(run=held.run))

    def _keep_checkpoints(self, held: Held) -> None:
        kept = held.offer.task.checkpoint
        if kept is None:
            return

        def keep() -> None:
            process = self.processes.get(held.run)
            if process is not None and process.endings is None:
                sha256 = hashlib.sha256(f"{held.run} {self.clock.now_ms()}".encode()).hexdigest()
                self.feel(seen.CheckpointKept(run=held.run, sha256=sha256, size_bytes=1_000))
                self._later(kept.every_s * 1000, keep)

        self._later(kept.every_s * 1000, keep)

    def _finish(self, run: str, process: Process, code: int) -> None:
        """The nodes of a process end, watched or not; ``process`` tells this one from a later one of that name."""
        if self.processes.get(run) is not process or process.endings is not None:
            return
        ending = Ending(exit_code=code, started_ms=process.began_ms, ended_ms=self.clock.now_ms())
        process.endings = (ending,) * process.offer.task.nodes
        self._notice(run)

    def _watch(self, run: str) -> None:
        self.watched[run] = None
        self._notice(run)

    def _adopt(self, held: Held) -> None:
        """Nodes that ended while nobody looked have ended; of nodes that are gone without a trace nothing is left."""
        process = self.processes.get(held.run)
        if process is None:
            self._later(1, lambda: self.feel(seen.NodesEnded(run=held.run, endings=_gone(held, self.clock.now_ms()))))
        else:
            self._watch(held.run)

    def _notice(self, run: str) -> None:
        process = self.processes.get(run)
        if self.is_up and run in self.watched and process is not None and process.endings is not None:
            del self.watched[run]
            endings = process.endings
            self._later(1, lambda: self.feel(seen.NodesEnded(run=run, endings=endings)))

    def _halt(self, run: str) -> None:
        self.launching.pop(run, None)
        process = self.processes.get(run)
        if process is not None:
            self.watched[run] = None
            self._finish(run, process, 143)
            self._notice(run)
        else:
            self.feel(seen.NodesEnded(run=run))

    # -- the line -----------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._is_opening:
            return
        self._is_opening = True
        self.bearer = ""
        self.nonces += 1
        nonce = f"{self.name}-{self.life}-{self.nonces:012d}"
        hello = wire.Hello(
            site=self.id, nonce=nonce, at_ms=self.clock.now_ms(), protocols=(wire.PROTOCOL, wire.PROTOCOL_LEAST)
        )
        statement = sign_statement(hello, self.key, self.kid, "site-hello")
        bearer = f"bearer of {nonce}"
        life = self.life
        self.world.expect_stream(
            bearer,
            lambda order: self._ordered(bearer, order) if self.life == life else None,
            lambda: self._cut(bearer) if self.is_up and self.life == life else None,
        )
        self.world.network.call(
            self.name, self.exchange, "hello", (statement, bearer), lambda reply: self._welcomed(life, reply), 15_000
        )

    def _welcomed(self, life: int, reply: Any) -> None:
        if life != self.life or not self.is_up:
            return
        self._is_opening = False
        if not isinstance(reply, Welcome):
            self._cut("")
            return
        self.tries = 0
        self.bearer = reply.bearer
        self.feel(seen.Welcomed(orders=reply.orders, lease_ms=reply.lease_ms, is_draining=reply.is_draining))
        for order in reply.orders:
            if isinstance(order, Ask):
                self._ordered(reply.bearer, order)
        self._send()

    def _cut(self, bearer: str) -> None:
        """The stream broke, or no session was opened: dial again later."""
        if bearer != self.bearer:
            return
        self.bearer = ""
        self.feel(seen.Cut())
        self.tries += 1
        pick = self.world.chance.of(self.name)
        self._later(pick.randrange(1, min(BACKOFF_MOST_MS, BACKOFF_MS << min(self.tries, 10))), self._open)

    def _ordered(self, bearer: str, order: wire.Orders) -> None:
        if not self.is_up or bearer != self.bearer:
            return
        self.world.chronicle.note(f"{self.name} < {type(order).__name__}")
        if isinstance(order, wire.Resync):
            self._cut(bearer)
        elif isinstance(order, Ask):
            self._put(answer(self.state, order, self.clock.now_ms()))
        else:
            self.feel(seen.Ordered(order=order))

    def _put(self, report: wire.Reports) -> None:
        if isinstance(report, Accepted):
            self.world.checks.hold("what is accepted is journalled", report.run in self.disk, self.name, report.run)
        name = report.quote if isinstance(report, Quoted) else report.run
        self.outbox[type(report).__name__, name] = report
        self._later(1, self._send)

    def _send(self) -> None:
        if self._is_sending or not self.bearer or not self.outbox:
            return
        self._is_sending = True
        life = self.life
        batch = tuple(self.outbox.values())[:256]
        sent = tuple(self._bent(report) for report in batch)
        self.world.network.call(
            self.name, self.exchange, "reports", (self.bearer, sent), lambda reply: self._answered(life, batch, reply)
        )

    def _answered(self, life: int, batch: tuple[wire.Reports, ...], reply: Any) -> None:
        if life != self.life or not self.is_up:
            return
        self._is_sending = False
        if isinstance(reply, TielineError) and reply.code in LOST_SESSION and self.bearer:
            self._cut(self.bearer)
        if not isinstance(reply, Outcomes):
            self._later(self.world.chance.of(self.name).randrange(50, 2_000), self._send)
            return
        for report, outcome in zip(batch, reply.outcomes, strict=True):
            self._settle(report, outcome)
        self._later(1, self._send)

    def _settle(self, report: wire.Reports, outcome: Outcome) -> None:
        name = report.quote if isinstance(report, Quoted) else report.run
        if self.outbox.get((type(report).__name__, name)) is report:
            del self.outbox[type(report).__name__, name]
        self.feel(seen.Answered(report=report, outcome=outcome))
        is_taken = outcome.is_ok or outcome.what == "wait"
        if isinstance(report, Accepted) and is_taken and self._lies("late refusal"):
            self.world.faults["refused after it accepted"] += 1
            self._put(Refused(run=report.run, epoch=report.epoch, reason=Reason(code="site_draining")))

    # -- heartbeats ---------------------------------------------------------------------------------------------------

    def _beat_soon(self, life: int, ms: int) -> None:
        if life == self.life and self.is_up:
            self._later(ms, lambda: self._beat(life))

    def _beat(self, life: int) -> None:
        if self.bearer:
            self.beats = max(self.beats + 1, self.clock.now_ms())
            beat = self.beat_now(self.beats)
            statement = sign_statement(beat, self.key, self.kid, "site-beat")
            self.world.network.call(
                self.name, self.exchange, "beat", (self.bearer, statement), lambda reply: self._beaten(life, reply)
            )
        self._beat_soon(life, 3_000)

    def beat_now(self, seq: int) -> Beat:
        """The vector of this site. A boaster offers ten times what it has."""
        is_open = not self.state.is_draining
        times = 10 if self._lies("oversold beat") else 1
        if times > 1:
            self.world.faults["more offered than is there"] += 1
        pools = tuple(
            wire.PoolBeat(
                pool=pool.id,
                accelerators=len(pool.devices) * times if is_open else 0,
                cores=pool.core_count * times if is_open else 0,
                memory_bytes=pool.memory_bytes * times if is_open else 0,
            )
            for pool in self.state.pools.values()
        )
        return Beat(site=self.id, seq=seq, at_ms=self.clock.now_ms(), pools=pools, runs=tuple(self.state.runs))

    def _beaten(self, life: int, reply: Any) -> None:
        if life != self.life or not self.is_up:
            return
        if isinstance(reply, Beaten) and reply.stale:
            self.feel(seen.Fenced(runs=reply.stale))
        elif isinstance(reply, TielineError) and reply.code in LOST_SESSION and self.bearer:
            self._cut(self.bearer)
        elif isinstance(reply, TielineError) and reply.code == "conflict":
            self.beats += 600_000  # our clock was set back: catch up with what was said before

    # -- lies ---------------------------------------------------------------------------------------------------------

    def _lies(self, how: str) -> bool:
        return self.lies.get(how, 0) > self.world.timeline.now_ms

    def _bent(self, report: wire.Reports) -> wire.Reports:
        """The report as it is sent: with the site's own reading of its meter; a liar's is another."""
        if not isinstance(report, Ended):
            return report
        if self._lies("over-claim"):
            self.world.faults["more claimed than was used"] += 1
            report = msgspec.structs.replace(report, duration_ms=report.duration_ms * 9 + 3_600_000)
        reading = MeterReading(
            site=self.id,
            run=report.run,
            first_run=report.first_run,
            epoch=report.epoch,
            state=report.state,
            duration_ms=report.duration_ms,
        )
        return msgspec.structs.replace(report, receipt=sign_statement(reading, self.key, self.kid, METER).decode())

    def say(self, reports: tuple[wire.Reports, ...]) -> None:
        """Send what no honest site would, once."""
        if self.bearer:
            self.world.network.call(self.name, self.exchange, "reports", (self.bearer, reports), lambda _: None)

    def own_disk(self, is_full: bool) -> None:
        """The journal's disk is full, or has room again."""
        self.is_full = is_full

    @property
    def running(self) -> list[Process]:
        """What really runs now."""
        return [process for process in self.processes.values() if process.endings is None]


def _gone(held: Held, now_ms: int) -> tuple[Ending, ...]:
    return (Ending(exit_code=137, started_ms=held.started_ms, ended_ms=now_ms),) * held.nodes


def outputs_of(held: Held) -> tuple[Output, ...]:
    """What a run leaves behind, by name."""
    job = held.offer.job
    return tuple(
        Output(path=path, sha256=hashlib.sha256(f"{job} {path}".encode()).hexdigest(), size_bytes=9)
        for path in held.offer.task.outputs
    )


def _is_lost(instruction: told.Instruction, lost: dict[str, None]) -> bool:
    """Whether it would accept a run that is not in the journal, as the site's process sees it."""
    if not (isinstance(instruction, told.Send) and isinstance(instruction.report, Accepted)):
        return False
    return instruction.report.run in lost
