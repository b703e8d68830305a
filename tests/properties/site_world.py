"""A world around the site's machine: an exchange that may lie, a network that loses and repeats, processes, crashes.

Every action is chosen by two small numbers, so that Hypothesis can draw and shrink a story and a seed can replay one.
The world counts what it did (`faults`) and checks what must hold after every action (`check`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import msgspec

from tieline.model import protocol as wire
from tieline.model.job import Member
from tieline.model.protocol import Accepted, Ended, Offer, Outcome, Stop
from tieline.model.reason import Reason
from tieline.model.task import Resources, Task
from tieline.ports import Ending
from tieline.site import instruction as told
from tieline.site import machine, stimulus
from tieline.site.pool import Pool
from tieline.site.state import Done, Entry, Held, Progress, SiteState

SITE = "cn.demo.lab7/site/gz1"
ELSEWHERE = "cn.demo.lab8/site/sh1"
CARDS = Pool(
    id="cn.demo.lab7/pool/cards", owner="cn.demo.lab7", accelerator="a100", devices=(2, 3, 5, 7), core_count=8,
    memory_bytes=1000, networks=("host",), sandbox="bubblewrap",
)  # fmt: skip
CORES = Pool(
    id="cn.demo.lab7/pool/cores", owner="cn.demo.lab7", core_count=4, memory_bytes=100, networks=("host",),
    sandbox="bubblewrap",
)  # fmt: skip
POOLS = (CARDS, CORES)
JOBS = 5


@dataclass
class Gang:
    """Runs of one job and epoch, here and elsewhere, of which none starts before all are accepted."""

    here: list[str]
    elsewhere: int = 0  # members at other sites that have not accepted yet
    is_confirmed: bool = False
    is_broken: bool = False


@dataclass
class Booked:
    """A run as the exchange sees it."""

    offer: Offer
    state: str = "offered"  # offered accepted running ended
    was_ok: bool = False  # an acceptance was answered ok
    terminals: list[Ended] = field(default_factory=list)  # that were taken
    gang: Gang | None = None


@dataclass
class Process:
    """What really runs. Ended ones stay until their folder goes."""

    offer: Offer
    devices: tuple[int, ...]
    endings: tuple[Ending, ...] | None = None


class World:
    """One exchange, one site, one unreliable line."""

    def __init__(self, module: ModuleType = machine) -> None:
        self.machine = module
        self.now_ms = 1_000_000
        self.faults: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        # the exchange
        self.runs: dict[str, Booked] = {}
        self.epochs: dict[str, int] = {}
        # the line
        self.orders: list[wire.Orders] = []
        self.answers: list[stimulus.Answered] = []
        # the site
        self.disk: dict[str, Entry] = {}
        self.processes: dict[str, Process] = {}
        self.state = SiteState(site=SITE, pools={pool.id: pool for pool in POOLS})
        self.forget_shell()

    def forget_shell(self) -> None:
        """What a crash of the site process takes with it."""
        self.outbox: dict[tuple[str, str], wire.Reports] = {}
        self.launching: dict[str, told.Start] = {}
        self.watched: dict[str, None] = {}
        self.halting: dict[str, told.Halt] = {}
        self.handing: dict[str, told.HandOver] = {}

    # -- the site -----------------------------------------------------------------------------------------------------

    def feel(self, what: stimulus.Stimulus, survives: int | None = None) -> None:
        """Let the site react; with ``survives`` it dies after that many of its instructions."""
        before = msgspec.json.encode(self.state)
        old = self.state
        self.state, instructions = self.machine.step(self.state, what, self.now_ms)
        assert msgspec.json.encode(old) == before, "step changed the state that it was given"
        for number, instruction in enumerate(instructions):
            if number == survives:
                break
            self.obey(instruction)
        if survives is not None:
            self.crash()

    def obey(self, instruction: told.Instruction) -> None:
        match instruction:
            case told.Persist(held=held):
                before = self.disk.get(held.run)
                if isinstance(before, Held):  # as the journal does: the offer once, then how far it has come
                    step = msgspec.json.decode(msgspec.json.encode(Progress.of(held)), type=Progress)
                    self.disk[held.run] = step.on(before)
                else:
                    self.disk[held.run] = msgspec.json.decode(msgspec.json.encode(held), type=Held)
            case told.Send(report=report):
                if isinstance(report, Accepted):
                    assert report.run in self.disk, f"{report.run} is accepted and in no journal"
                name = getattr(report, "run", "") or report.quote
                self.outbox[type(report).__name__, name] = report
            case told.Withdraw(run=run):
                self.outbox = {key: told_ for key, told_ in self.outbox.items() if key[1] != run or key[0] == "Ended"}
            case told.Start(held=held):
                booked = self.runs.get(held.run)
                assert booked is not None
                assert booked.was_ok, f"{held.run} started without the exchange's ok"
                if held.run in self.processes:
                    self.watched[held.run] = None
                self.launching[held.run] = instruction
            case told.Adopt(held=held):
                self.watched[held.run] = None
            case told.Halt(run=run):
                self.halting[run] = instruction
            case told.HandOver(held=held):
                self.handing[held.run] = instruction
            case told.Forget(run=run, done=done):
                live = self.processes.get(run)
                assert live is None or live.endings is not None, f"{run} was forgotten while it ran"
                self.processes.pop(run, None)
                self.disk.pop(run, None)
                if done is not None:
                    self.disk[run] = done

    def crash(self) -> None:
        self.faults["site crashed"] += 1
        self.forget_shell()
        self.state, instructions = self.machine.recover(SITE, POOLS, self.disk.values(), self.now_ms)
        for instruction in instructions:
            self.obey(instruction)

    def begin(self, run: str) -> None:
        """The shell has laid out a run that it was told to start."""
        start = self.launching.pop(run)
        if run not in self.processes:
            self.processes[run] = Process(start.held.offer, start.held.devices)
        self.watched[run] = None
        running = sum(process.endings is None for process in self.processes.values())
        self.reached["runs at once"] = max(self.reached["runs at once"], running)
        self.reached["runs begun"] += 1
        self.feel(stimulus.NodesStarted(run=run))

    def finish(self, run: str, code: int) -> None:
        """The nodes of a process end by themselves, watched or not."""
        process = self.processes[run]
        if process.endings is None:
            nodes = process.offer.task.nodes
            process.endings = (Ending(exit_code=code, started_ms=self.now_ms - 5, ended_ms=self.now_ms),) * nodes

    def notice(self, run: str) -> None:
        """The shell sees that the nodes are gone."""
        process = self.processes.get(run)
        if run in self.watched and process is not None and process.endings is not None:
            del self.watched[run]
            self.launching.pop(run, None)
            self.halting.pop(run, None)
            self.feel(stimulus.NodesEnded(run=run, endings=process.endings))

    def halt(self, run: str) -> None:
        """The shell ends what it was told to end."""
        self.halting.pop(run)
        self.launching.pop(run, None)
        if run in self.processes:
            self.finish(run, 143)
            self.watched[run] = None
            self.notice(run)
        else:
            self.feel(stimulus.NodesEnded(run=run))

    # -- the exchange -------------------------------------------------------------------------------------------------

    def offer(self, number: int) -> None:
        """Book a new run of some job, or a gang, whatever the site has free; an older run of the job is lost."""
        job = f"j-{number // 7 % JOBS}"
        for booked in self.runs.values():
            if booked.offer.job == f"cn.demo/job/{job}" and booked.state != "ended":
                booked.state = "ended"
                if booked.gang is not None:
                    booked.gang.is_broken = True
        epoch = self.epochs[job] = self.epochs.get(job, 0) + 1
        sizes = (1, 1 + number % 2) if number % 4 == 0 else (1 + number % 2,)
        places = (SITE, SITE if number % 8 == 0 else ELSEWHERE)
        members: list[Member] = []
        for at, nodes in enumerate(sizes):
            run, rank = f"{job}.{epoch}" if at == 0 else f"{job}.{epoch}.{at}", sum(sizes[:at])
            members.append(Member(run=run, site=places[at], rank=rank, nodes=nodes))
        here = [at for at, member in enumerate(members) if member.site == SITE]
        gang = Gang([members[at].run for at in here], len(members) - len(here)) if len(members) > 1 else None
        for at in here:
            part = wire.Part(member=at, members=tuple(members), number=number) if gang is not None else None
            self.book(job, epoch, members[at], part, number + at, gang)

    def book(
        self, job: str, epoch: int, member: Member, part: wire.Part | None, number: int, gang: Gang | None
    ) -> None:
        """One run, alone or of a gang."""
        cards = member.nodes * (1 + number % 3)
        pool = POOLS[number // 3 % 2]
        offer = Offer(
            run=member.run, job=f"cn.demo/job/{job}", epoch=epoch, pool=pool.id, alternative=0, user="alice",
            task=Task(nodes=member.nodes, run="true", resources=(Resources(core_count=1),)),
            accelerator_count=cards if pool is CARDS else 0, core_count=member.nodes, memory_bytes=number % 5 * 40,
            stop_after_s=number % 4 * 10, ttl_ms=5_000, part=part,
        )  # fmt: skip
        self.runs[offer.run] = Booked(offer, gang=gang)
        self.orders.append(offer)

    def confirm(self, gang: Gang) -> None:
        """All of a gang may start, once each is accepted: those that wait are offered again."""
        booked = [self.runs[run] for run in gang.here]
        if gang.is_broken or gang.is_confirmed or gang.elsewhere or any(each.state != "accepted" for each in booked):
            return
        gang.is_confirmed = True
        self.reached["gangs confirmed"] += 1
        self.orders += [msgspec.structs.replace(each.offer, state="accepted") for each in booked]

    def break_up(self, gang: Gang) -> None:
        """One of a gang is over and the others are asked to end; those that nobody answered for are over."""
        if gang.is_broken:
            return
        gang.is_broken = True
        self.reached["gangs broken"] += 1
        for run in gang.here:
            if self.runs[run].state == "offered":
                self.runs[run].state = "ended"
            elif self.runs[run].state != "ended":
                self.orders.append(Stop(run=run, epoch=self.runs[run].offer.epoch, why="gang"))

    def take(self, report: wire.Reports) -> Outcome:
        """What `exchange.runs` answers."""
        booked = self.runs.get(getattr(report, "run", ""))
        if booked is None:
            return Outcome(is_ok=False, what="unknown")
        if booked.state == "ended" or booked.offer.epoch != report.epoch:  # type: ignore[union-attr]
            return Outcome(is_ok=False, what="stale")
        gang = booked.gang
        if isinstance(report, Accepted):
            booked.state = "accepted" if booked.state == "offered" else booked.state
            if gang is not None:
                self.confirm(gang)
                if not gang.is_confirmed:
                    self.reached["told to wait"] += 1
                    return Outcome(is_ok=False, what="wait")
            booked.was_ok = True
        elif isinstance(report, wire.Started):
            if booked.state == "offered" or (gang is not None and not gang.is_confirmed):
                return Outcome(is_ok=False, what="stale")
            booked.state = "running"
        elif isinstance(report, wire.Refused):
            booked.state = "ended"
        elif isinstance(report, Ended):
            booked.state = "ended"
            booked.terminals.append(report)
        if gang is not None and booked.state == "ended" and getattr(report, "state", "") != "succeeded":
            self.break_up(gang)
        return Outcome(is_ok=True)

    def welcome(self) -> None:
        live = [booked for booked in self.runs.values() if booked.state != "ended"]
        orders: list[wire.Orders] = []
        for booked in live:
            orders.append(msgspec.structs.replace(booked.offer, state=booked.state))
            if booked.gang is not None and booked.gang.is_broken:
                orders.append(Stop(run=booked.offer.run, epoch=booked.offer.epoch, why="gang"))
        self.orders.clear()
        self.feel(stimulus.Welcomed(orders=tuple(orders), lease_ms=2_000))

    # -- actions ------------------------------------------------------------------------------------------------------

    def act(self, kind: int, number: int) -> None:
        """One action. Every number means something."""
        self.now_ms += number % 7
        CHOICES[kind % len(CHOICES)](self, number)
        self.check()

    def pick(self, things: list[str], number: int) -> str | None:
        return things[number % len(things)] if things else None

    def check(self) -> None:
        """What must hold at every moment, of what really runs."""
        running = [process for process in self.processes.values() if process.endings is None]
        for pool in POOLS:
            here = [process for process in running if process.offer.pool == pool.id]
            devices = [device for process in here for device in process.devices]
            assert len(devices) == len(set(devices)), f"a device is given twice: {devices}"
            assert set(devices) <= set(pool.devices), f"devices that are not there: {devices}"
            assert sum(process.offer.core_count for process in here) <= pool.core_count, "cores are oversold"
            assert sum(process.offer.memory_bytes for process in here) <= pool.memory_bytes, "memory is oversold"
            for process in here:
                assert len(process.devices) == process.offer.accelerator_count
        epochs = {(process.offer.job, process.offer.epoch) for process in running}
        jobs = {job for job, _ in epochs}
        assert len(epochs) == len(jobs), f"two epochs of one job run: {[p.offer.run for p in running]}"
        for process in running:
            gang = self.runs[process.offer.run].gang
            assert gang is None or gang.is_confirmed, f"{process.offer.run} runs before its whole gang was accepted"
        for booked in self.runs.values():
            assert len(booked.terminals) <= 1, f"{booked.offer.run} ended twice"

    def settle(self) -> None:
        """A good day: everything is delivered, everything ends. Then nothing may be left over."""
        for _ in range(40):
            for booked in tuple(self.runs.values()):
                if booked.gang is not None:
                    booked.gang.elsewhere = 0
                    self.confirm(booked.gang)
            self.welcome()
            for _ in range(4):
                while self.outbox:
                    self.outbox, sent = {}, list(self.outbox.values())
                    for report in sent:
                        self.feel(stimulus.Answered(report=report, outcome=self.take(report)))
                for run in list(self.launching):
                    self.begin(run)
                for run in list(self.processes):
                    self.finish(run, 0)
                    self.notice(run)
                for run in list(self.halting):
                    self.halt(run)
                for run in list(self.handing):
                    hand = self.handing.pop(run)
                    self.feel(stimulus.HandedOver(run=run, endings=hand.endings))
                self.check()
            if not self.state.runs and all(booked.state == "ended" for booked in self.runs.values()):
                break
        assert not self.state.runs, f"left at the site: {list(self.state.runs)}"
        assert not self.state.owed
        assert not [run for run, process in self.processes.items() if process.endings is None], "something still runs"
        assert all(booked.state == "ended" for booked in self.runs.values()), "the exchange waits for a run for ever"
        assert all(isinstance(entry, Done) for entry in self.disk.values())


def _deliver_order(world: World, number: int) -> None:
    if world.orders:
        index = number % len(world.orders)
        order = world.orders[index]
        if number % 5:
            del world.orders[index]
        else:
            world.faults["order repeated"] += 1
        world.faults["order out of order"] += index > 0
        world.feel(stimulus.Ordered(order=order))


def _lose_order(world: World, number: int) -> None:
    if world.orders:
        del world.orders[number % len(world.orders)]
        world.faults["order lost"] += 1


def _deliver_report(world: World, number: int) -> None:
    keys = list(world.outbox)
    if keys:
        key = keys[number % len(keys)]
        report = world.outbox[key]
        outcome = world.take(report)
        if number % 4 == 0:
            world.faults["outcome lost"] += 1
            return
        del world.outbox[key]
        world.answers.append(stimulus.Answered(report=report, outcome=outcome))
        if number % 3:
            world.feel(world.answers[-1])


def _repeat_answer(world: World, number: int) -> None:
    if world.answers:
        world.faults["outcome late or repeated"] += 1
        world.feel(world.answers[number % len(world.answers)])


def _begin(world: World, number: int) -> None:
    run = world.pick(list(world.launching), number)
    if run is None:
        return
    if number % 6 == 0 and run not in world.processes:
        world.launching.pop(run)
        world.faults["start failed"] += 1
        world.feel(stimulus.StartFailed(run=run, reason=Reason(code="start_failed", values={"pool": "x", "why": "y"})))
    else:
        world.begin(run)


def _finish(world: World, number: int) -> None:
    run = world.pick([run for run, process in world.processes.items() if process.endings is None], number)
    if run is not None:
        world.finish(run, number % 3)
        if number % 2:
            world.notice(run)


def _notice(world: World, number: int) -> None:
    run = world.pick(list(world.watched), number)
    if run is not None:
        world.notice(run)


def _halt(world: World, number: int) -> None:
    run = world.pick(list(world.halting), number)
    if run is not None:
        world.halt(run)


def _hand_over(world: World, number: int) -> None:
    run = world.pick(list(world.handing), number)
    if run is not None:
        hand = world.handing.pop(run)
        world.feel(stimulus.HandedOver(run=run, endings=hand.endings))


def _elsewhere(world: World, number: int) -> None:
    """Another site answers for its part of a gang."""
    gangs = [each.gang for each in world.runs.values() if each.gang is not None and each.gang.elsewhere]
    if gangs:
        gang = gangs[number % len(gangs)]
        if number % 3 == 0:
            world.break_up(gang)
        else:
            gang.elsewhere -= 1
            world.confirm(gang)


def _stop(world: World, number: int) -> None:
    live = [run for run, booked in world.runs.items() if booked.state != "ended"]
    run = world.pick(live, number)
    if run is not None:
        world.orders.append(Stop(run=run, epoch=world.runs[run].offer.epoch, why="asked"))


def _lose(world: World, number: int) -> None:
    live = [run for run, booked in world.runs.items() if booked.state != "ended"]
    run = world.pick(live, number)
    if run is not None:
        lost = world.runs[run]
        lost.state = "ended"
        if lost.gang is not None:
            world.break_up(lost.gang)
        world.faults["run fenced"] += 1
        if number % 2:
            world.feel(stimulus.Fenced(runs=(run,)))


def _crash(world: World, number: int) -> None:
    world.crash()


def _crash_in_order(world: World, number: int) -> None:
    if world.orders:
        world.feel(stimulus.Ordered(order=world.orders.pop(number % len(world.orders))), survives=number % 4)


def _crash_in_answer(world: World, number: int) -> None:
    keys = list(world.outbox)
    if keys:
        report = world.outbox[keys[number % len(keys)]]
        world.feel(stimulus.Answered(report=report, outcome=world.take(report)), survives=number % 4)


def _crash_at_end(world: World, number: int) -> None:
    run = world.pick(list(world.watched), number)
    process = world.processes.get(run or "")
    if run is not None and process is not None:
        world.finish(run, number % 2)
        assert process.endings is not None
        world.feel(stimulus.NodesEnded(run=run, endings=process.endings), survives=number % 4)


def _wait(world: World, number: int) -> None:
    world.now_ms += number * 40
    world.feel(stimulus.Ticked())


def _checkpoint(world: World, number: int) -> None:
    run = world.pick(list(world.watched), number)
    if run is not None:
        world.feel(stimulus.CheckpointKept(run=run, sha256=f"{number:064x}", size_bytes=number))


def _owner(world: World, number: int) -> None:
    run = world.pick(list(world.state.runs), number)
    if number % 3 == 0:
        world.feel(stimulus.OwnerDrained(is_draining=number % 2 == 0))
    elif run is not None:
        world.feel(stimulus.OwnerStopped(run=run, why="mine"))


def _cut(world: World, number: int) -> None:
    world.faults["line cut"] += 1
    world.feel(stimulus.Cut())


ACTIONS: dict[str, tuple[int, Callable[[World, int], None]]] = {
    # what happens, and how often
    "offer": (8, World.offer),
    "deliver order": (14, _deliver_order),
    "deliver report": (20, _deliver_report),
    "begin": (14, _begin),
    "finish": (5, _finish),
    "notice": (5, _notice),
    "halt": (4, _halt),
    "hand over": (6, _hand_over),
    "checkpoint": (2, _checkpoint),
    "wait": (2, _wait),
    "welcome": (2, lambda world, _number: world.welcome()),
    "elsewhere": (6, _elsewhere),
    "stop": (2, _stop),
    "lose": (1, _lose),
    "lose order": (1, _lose_order),
    "repeat answer": (2, _repeat_answer),
    "crash": (1, _crash),
    "crash in order": (1, _crash_in_order),
    "crash in answer": (1, _crash_in_answer),
    "crash at end": (1, _crash_at_end),
    "owner": (1, _owner),
    "cut": (1, _cut),
}
CHOICES = tuple(act for weight, act in ACTIONS.values() for _ in range(weight))
