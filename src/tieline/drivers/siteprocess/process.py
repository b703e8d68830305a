"""The site process: everything that `tieline.site` decides, done on a real machine.

One loop, one connection kept alive, a few threads for the disk. Its order of work is the machine's: what is to be
journalled is on the disk before anything that follows from it is said or started.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from tieline.drivers.clock import SystemClock
from tieline.drivers.http import HttpClient
from tieline.drivers.http.client import is_loopback
from tieline.drivers.siteprocess.attempt import Attempt, Ground
from tieline.drivers.siteprocess.beats import Beats
from tieline.drivers.siteprocess.cache import Cache
from tieline.drivers.siteprocess.doorkeeper import Doorkeeper
from tieline.drivers.siteprocess.equipment import ability_of, engines_for, machine_seen
from tieline.drivers.siteprocess.gangs import Gangs
from tieline.drivers.siteprocess.holding import Holding
from tieline.drivers.siteprocess.home import Home
from tieline.drivers.siteprocess.journal import Journal
from tieline.drivers.siteprocess.line import Line
from tieline.drivers.siteprocess.outbox import Outbox
from tieline.drivers.siteprocess.patience import waited
from tieline.drivers.siteprocess.places import Rules
from tieline.drivers.siteprocess.probing import Probing
from tieline.drivers.siteprocess.publisher import Publisher
from tieline.drivers.siteprocess.shells import Shells
from tieline.drivers.siteprocess.tails import Tails
from tieline.model.api import SiteView
from tieline.model.error import TielineError
from tieline.model.protocol import Accepted, Ask, Beaten, Ended, Orders, Outcome, Reports, Summon, Welcome
from tieline.ports import Clock, Engine
from tieline.registry import Key, sealing_public
from tieline.site import Held, Phase, SiteState, next_ms, recover, step
from tieline.site import instruction as told
from tieline.site import stimulus as seen
from tieline.site.found import Machine
from tieline.site.instruction import Instruction
from tieline.site.offering import offered
from tieline.site.quotes import answer
from tieline.site.receipt import with_receipt
from tieline.site.records import Statement, pool_statement, site_statement

log = logging.getLogger("tieline.site")
THREADS = 4
LOOK_S = 1.0  # how often the owner's markers are looked at
LEAST_S = 0.005
PROBE_AFTER_S = 5.0


class SiteProcess:
    """One site. ``engines`` and ``machine`` stand in for what is found here, in tests."""

    def __init__(
        self,
        home: Home,
        *,
        clock: Clock | None = None,
        engines: Mapping[str, Engine] | None = None,
        machine: Machine | None = None,
        is_measuring: bool = True,
    ) -> None:
        self.home = home
        self.clock = clock or SystemClock()
        self.is_measuring = is_measuring
        self.identity = home.identity
        self.config = home.config()
        self._given_engines = engines
        self._given_machine = machine
        self.key = Key(home.seed("site"))
        self.state = SiteState(site=self.identity.site, pools={})
        self.attempts: dict[str, Attempt] = {}
        self.statements: list[Statement] = []
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="journal")  # never behind somebody's archive
        self._todo: deque[Instruction] = deque()
        self._work = asyncio.Event()
        self._retime = asyncio.Event()
        self._due_ms: int | None = None
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        self._errands: set[asyncio.Task[None]] = set()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `stop`. Raises TielineError for what waiting cannot mend; runs go on in any case."""
        if self.home.has("left"):
            raise TielineError(
                "conflict", f"`{self.identity.site}` has left", hints=("tieline site join TOKEN FOLDER",)
            )
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="site"))
        with self.home.lock():
            await self._equip()
            tasks = self._begin()
            try:
                await self._wait(tasks)
            finally:
                await self._end(tasks)

    def stop(self) -> None:
        """End the process in order."""
        self._stop.set()

    def checkpoint_now(self) -> None:
        """Every run that declares a checkpoint is asked for one."""
        for attempt in self.attempts.values():
            attempt.checkpoint_now()

    async def _equip(self) -> None:
        """Look at the machine, read the journal, and make the parts."""
        home, config, identity = self.home, self.config, self.identity
        engines = self._given_engines
        if engines is None:
            engines = await asyncio.to_thread(engines_for, home.folder, config.engines)
        machine = self._given_machine or await machine_seen(home.folder)
        self.core_count = machine.core_count
        pools = offered(config, machine, ability_of(engines), identity.owner, identity.site)
        self.pool_statements = [pool_statement(each.pool.id, each.spec) for each in pools]
        self.journal = Journal(home.runs, config.limits.kept_runs)
        entries = await asyncio.to_thread(self.journal.read)
        self.state, self._recovered = recover(
            identity.site, [each.pool for each in pools], entries, self.clock.now_ms()
        )
        self.client = HttpClient(
            identity.url, proxy=config.proxy or identity.proxy, ca_file=config.ca_file or identity.ca_file
        )
        self.outbox = Outbox(self.client, self._answered, self._renew)
        is_open = self.outbox.is_open
        self.cache = Cache(home.cache, self.client, config.limits.cache_bytes)
        self.cache.prepare()
        self.tails = Tails(self.client, is_open)
        self.line = Line(
            self.client, identity, self.key, self.clock,
            welcomed=self._welcomed, ordered=self._ordered, cut=self._cut,
        )  # fmt: skip
        self.publisher = Publisher(
            self.client, home, self.clock, is_open,
            lease_s=config.record_lease_s, fronts=config.fronts, statements=self._statements,
        )  # fmt: skip
        self.beats = Beats(
            self.client, self.key, f"{identity.owner}#site", self.clock, is_open, self.publisher.said,
            state=lambda: self.state, beaten=self._beaten, renew=self._renew,
        )  # fmt: skip
        self.gangs = Gangs(
            self.client, identity.site, identity.owner, self.key, self.clock, lambda: self.keeper.url,
            config.probe_inner, is_local=is_loopback(identity.url),
        )  # fmt: skip
        rules = Rules(self.client, identity, self.key, self.clock, config.data, config.readable)
        self.holding = Holding(home.folder, rules, is_open)
        self.ground = Ground(
            folder=str(home.runs), engines=dict(engines), client=self.client, is_open=is_open, cache=self.cache,
            rules=rules,
            tails=self.tails, gangs=self.gangs, limits=config.limits, readable=config.readable,
            sealing=home.seed("sealing"), pool_of=lambda name: self.state.pools.get(name), feel=self.feel,
            failed=self._failed,
        )  # fmt: skip
        self.keeper = Doorkeeper(
            config.door, home.folder, identity.site, self.key, identity.public, self.clock, self.gangs
        )
        await self.keeper.look()
        self.probing = Probing(self.client, identity, self.key, self.clock, is_open, config.probe_inner)
        self.shells = Shells(self.client, identity, self.clock, self._running, self.keeper.inner, config)
        held = len(self.state.runs)
        log.info("site ready", extra={"site": identity.site, "count": held, "url": identity.url})

    def _begin(self) -> list[asyncio.Task[None]]:
        if self.home.has("draining"):
            self.feel(seen.OwnerDrained(is_draining=True))
        for held in self.state.runs.values():
            self.gangs.announce(held)
        for instruction in self._recovered:
            self._obey(instruction)
        works = [
            self.line.run(), self.outbox.run(), self.beats.run(), self.tails.run(), self.publisher.run(),
            self._work_off(), self._tick(), self.holding.run(),
            *(self.publisher.follow(front) for front in self.config.fronts),
        ]  # fmt: skip
        if self.is_measuring and self.config.may_probe:
            works.append(self.probing.run())
        if self.is_measuring and not self.home.readings():
            works.append(self._measure())
        return [asyncio.create_task(work) for work in works]

    async def _wait(self, tasks: list[asyncio.Task[None]]) -> None:
        """Until the owner stops it, or a part of it breaks."""
        stopped = asyncio.create_task(self._stop.wait())
        waited: set[asyncio.Task[None] | asyncio.Task[bool]] = {stopped, *tasks}
        try:
            while not self._stop.is_set():
                done, waited = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopped}:
                    task.result()
        finally:
            stopped.cancel()
        if self._error is not None:
            raise self._error

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        """Runs go on; whoever starts this site next adopts them."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for attempt in self.attempts.values():
            await attempt.close()
        for engine in self.ground.engines.values():
            await getattr(engine, "close", _nothing)()
        await self.gangs.close()
        await asyncio.gather(*self._errands, return_exceptions=True)
        await self.shells.close()
        await self.keeper.end()
        await self.client.close()
        self._disk.shutdown()
        self.home.keep_session("")
        log.info("site stopped", extra={"site": self.identity.site, "count": len(self.state.runs)})

    def _failed(self, error: BaseException) -> None:
        """A part of the process is broken: end it, and let whoever supervises it start it anew."""
        log.error("a defect ends the process", exc_info=error)
        self._error = self._error or error
        self._stop.set()

    # -- the machine --------------------------------------------------------------------------------------------------

    def feel(self, what: seen.Stimulus) -> None:
        """Something happened: decide, and do what follows."""
        self.state, instructions = step(self.state, what, self.clock.now_ms())
        if isinstance(what, seen.NodesEnded | seen.StartFailed) and self.gangs.has(what.run):
            self._errand(self.gangs.close_run(what.run))
        must_sync = any(isinstance(each, told.Persist) and each.is_durable for each in instructions)
        if must_sync or self._todo:
            self._todo.extend(instructions)
            self._work.set()
        else:
            for instruction in instructions:
                self._obey(instruction)
        due_ms = next_ms(self.state)
        if due_ms != self._due_ms:
            self._due_ms = due_ms
            self._retime.set()

    async def _work_off(self) -> None:
        """Instructions that wait for the disk, in their order; what is to be synced is synced together."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._todo:
                batch = list(self._todo)
                held = [each.held for each in batch if isinstance(each, told.Persist) and each.is_durable]
                why = await self._synced(held) if held else ""
                lost = {each.run for each in held} if why else set()
                for instruction in batch:
                    self._todo.popleft()
                    if isinstance(instruction, told.Persist) and instruction.is_durable:
                        continue
                    if not _is_lost(instruction, lost):
                        self._obey(instruction)
                for run in sorted(lost):
                    self.feel(seen.NotJournalled(run=run, why=why))

    async def _synced(self, held: list[Held]) -> str:
        """Write durably; empty, or why that failed."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, self.journal.accept, held)
        except TielineError as error:
            log.error("the journal is not written", extra={"why": error.message})  # noqa: TRY400 - no defect
            return error.message
        return ""

    def _signed(self, report: Reports) -> Reports:
        """A report as it goes out: an end carries the site's own reading."""
        if not isinstance(report, Ended):
            return report
        site = self.identity
        return with_receipt(report, site.site, self.key, f"{site.owner}#site")

    def _obey(self, instruction: Instruction) -> None:
        if isinstance(instruction, told.Send):
            self._announce(instruction.report)
            self.outbox.put(self._signed(instruction.report))
        elif isinstance(instruction, told.Persist):
            self._note(instruction.held)
        elif isinstance(instruction, told.Withdraw):
            self.outbox.withdraw(instruction.run)
        elif isinstance(instruction, told.Start):
            self._attempt(instruction.held).start(instruction.sealed)
        elif isinstance(instruction, told.Adopt):
            self._attempt(instruction.held).adopt()
        elif isinstance(instruction, told.Halt):
            held = self.state.runs.get(instruction.run)
            if held is not None:
                self._attempt(held).halt(instruction)
        elif isinstance(instruction, told.HandOver):
            self._attempt(instruction.held).hand_over(instruction)
        elif isinstance(instruction, told.Forget):
            self._forget(instruction)

    def _announce(self, report: Reports) -> None:
        """Before a gang is whole, every member of it on this machine says that it is here."""
        held = self.state.runs.get(report.run) if isinstance(report, Accepted) else None
        if held is not None:
            self.gangs.announce(held)

    def _attempt(self, held: Held) -> Attempt:
        attempt = self.attempts.get(held.run)
        if attempt is None:
            attempt = self.attempts[held.run] = Attempt(self.ground, held)
        return attempt

    def _running(self, run: str) -> Attempt | None:
        held = self.state.runs.get(run)
        return self.attempts.get(run) if held is not None and held.phase is Phase.RUNNING else None

    def _note(self, held: Held) -> None:
        """Journal what a crash must not forget, though a power cut may: the folder tells it again."""
        try:
            self.journal.note(held)
        except TielineError as error:
            log.error("the journal is not written", extra={"run": held.run, "why": error.message})  # noqa: TRY400

    def _forget(self, forget: told.Forget) -> None:
        self.attempts.pop(forget.run, None)
        if self.gangs.has(forget.run):
            self._errand(self.gangs.close_run(forget.run))
        self.tails.drop(forget.run)
        if forget.done is None:
            self.journal.forget(forget.run, None)
        else:
            self._errand(asyncio.to_thread(self.journal.forget, forget.run, forget.done))

    def _errand(self, work: object) -> None:
        """Something that nobody waits for."""

        async def do() -> None:
            try:
                await work  # type: ignore[misc]
            except (TielineError, OSError) as error:
                log.warning("an errand failed", extra={"why": str(error)})

        task = asyncio.create_task(do())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    # -- the line -----------------------------------------------------------------------------------------------------

    def _welcomed(self, welcome: Welcome) -> None:
        self.home.keep_session(welcome.bearer)
        self.beats.every_ms = max(100, welcome.beat_ms)
        self.feel(seen.Welcomed(orders=welcome.orders, lease_ms=welcome.lease_ms, is_draining=welcome.is_draining))
        for order in welcome.orders:
            if isinstance(order, Ask):
                self._ordered(order)
        self.outbox.is_open.set()
        self.probing.renewed()
        self.publisher.wake()
        self.beats.soon()
        if self.state.is_drained_by_owner != welcome.is_draining:
            self._tell_draining()

    def _ordered(self, order: Orders) -> None:
        if isinstance(order, Ask):
            self.outbox.put(answer(self.state, order, self.clock.now_ms()))
        elif isinstance(order, Summon):
            self.shells.summon(order.statement)
        else:
            self.feel(seen.Ordered(order=order))

    def _answered(self, report: Reports, outcome: Outcome) -> None:
        self.feel(seen.Answered(report=report, outcome=outcome))

    def _cut(self, why: str) -> None:
        if self.outbox.is_open.is_set():
            log.warning("the exchange is not heard; runs go on", extra={"why": why})
        self.outbox.is_open.clear()
        self.home.keep_session("")
        self.feel(seen.Cut())

    def _renew(self) -> None:
        self.outbox.is_open.clear()
        self.line.renew()

    def _beaten(self, beaten: Beaten) -> None:
        if beaten.stale:
            self.feel(seen.Fenced(runs=beaten.stale))
        if beaten.is_resync:
            self._renew()

    # -- the owner and the clock --------------------------------------------------------------------------------------

    def _statements(self) -> list[Statement]:
        """What the owner says of the site and its pools now."""
        own = site_statement(
            self.config,
            self.identity.site,
            self.key.public,
            sealing_public(self.home.seed("sealing")),
            self.home.readings(),
            door=self.keeper.url,
            is_draining=self.state.is_drained_by_owner,
        )
        return [own, *self.pool_statements]

    def _tell_draining(self) -> None:
        """The owner's word was given while nobody was there to hear it."""
        what = "drain" if self.state.is_drained_by_owner else "undrain"
        if what == "undrain":  # an admin drained it: that stands until somebody undoes it
            return
        path = f"/v1/sites/{self.identity.site.replace('/', '~')}/{what}"
        self._errand(self.client.call("POST", path, SiteView))

    async def _tick(self) -> None:
        """Time limits to the moment, the owner's markers once a second."""
        while True:
            wait_s = LOOK_S
            if self._due_ms is not None:
                wait_s = min(LOOK_S, max(LEAST_S, (self._due_ms - self.clock.now_ms()) / 1000))
            self._retime.clear()
            await waited(self._retime, wait_s)
            if self._due_ms is not None and self._due_ms <= self.clock.now_ms():
                self.feel(seen.Ticked())
            if self.home.has("left"):
                self.stop()
            self.publisher.look()
            if await self.keeper.look():
                self.publisher.wake()
            is_draining = self.home.has("draining")
            if is_draining != self.state.is_drained_by_owner:
                self.feel(seen.OwnerDrained(is_draining=is_draining))
                self.publisher.wake()
                self.beats.soon()

    async def _measure(self) -> None:
        """Probe the machine once, while it has nothing else to do."""
        from tieline.drivers.engines.probes import measure

        await asyncio.sleep(PROBE_AFTER_S)
        while self.state.runs:  # noqa: ASYNC110 - there is time
            await asyncio.sleep(PROBE_AFTER_S)
        readings = await asyncio.to_thread(measure, str(self.home.folder), self.core_count)
        self.home.keep_readings(readings)
        self.publisher.wake()
        await asyncio.Event().wait()


def _is_lost(instruction: Instruction, lost: set[str]) -> bool:
    """Whether it would accept a run that is not in the journal."""
    is_accepting = isinstance(instruction, told.Send) and isinstance(instruction.report, Accepted)
    return is_accepting and instruction.report.run in lost  # type: ignore[attr-defined]


async def _nothing() -> None:
    """An engine that has nothing to close."""
