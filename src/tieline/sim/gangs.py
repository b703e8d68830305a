"""Gangs over several sites, as the log of one exchange tells them: what must hold of their runs and their circuits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tieline.model import event as fact
from tieline.model.circuit import CIRCUIT_ENDED, Circuit
from tieline.model.job import Job, JobState, Run, RunState

if TYPE_CHECKING:
    from tieline.sim.exchange import SimExchange

Hold = Callable[..., None]
PATIENCE_MS = 10_000  # until every member of a gang of which one ended badly was asked to end, while its exchange is up


class Gangs:
    """The gangs of one exchange, from its log alone."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self.jobs: dict[str, Job] = {}  # that may have gangs
        self.placed: dict[str, list[Run]] = {}  # job -> members of its newest gang, until it waits again or ends
        self.accepted: dict[str, None] = {}
        self.confirmed: dict[str, None] = {}
        self.over: dict[str, RunState] = {}
        self.circuits: dict[str, str] = {}  # live ones -> job

    def take(self, event: fact.Event) -> None:
        """Note one fact."""
        match event:
            case fact.JobSubmitted(job=job) if job.task.span is not None:
                self.jobs[job.id] = job
            case fact.RunOffered(run=run) if run.members:
                self._offered(run)
            case fact.RunAccepted(run=run):
                self.accepted[run] = None
            case fact.RunConfirmed(run=run):
                gang = next(each for each in self.placed.values() if any(one.id == run for one in each))
                is_so = all(one.id in self.accepted and one.id not in self.over for one in gang)
                self.hold("no member starts before all are accepted", is_so, run)
                self.confirmed[run] = None
            case fact.RunEnded():
                self._run_ended(event)
            case fact.CircuitChanged(circuit=circuit) if circuit.job:
                self._circuit(circuit)
            case fact.JobQueued(job=job):
                self._left(job)
            case fact.JobEnded():
                self._job_ended(event)
            case _:
                return

    def look(self) -> None:
        """What holds after each batch: a gang is there whole, with what joins it, or not at all."""
        for job, runs in self.placed.items():
            self.hold("a gang is booked whole", len(runs) == runs[0].members == len(runs[0].gang), job, len(runs))
        for circuit, job in self.circuits.items():
            self.hold("no circuit lives without its gang", job in self.placed, circuit, job)

    def may_start(self, run: Run) -> bool:
        """Whether all members of its gang were accepted."""
        return all(member.run in self.accepted for member in run.gang)

    def broken(self) -> Iterator[Run]:
        """Members that live while another one of their gang has ended badly."""
        for runs in self.placed.values():
            if any(self.over.get(run.id, RunState.SUCCEEDED) is not RunState.SUCCEEDED for run in runs):
                yield from (run for run in runs if run.id not in self.over)

    def _offered(self, run: Run) -> None:
        gang = self.placed.setdefault(run.job, [])
        is_next = run.member == len(gang) and all((one.epoch, one.gang) == (run.epoch, run.gang) for one in gang)
        self.hold("a gang is booked whole", is_next, run.id, run.member, len(gang))
        gang.append(run)

    def _run_ended(self, event: fact.RunEnded) -> None:
        run = next((one for gang in self.placed.values() for one in gang if one.id == event.run), None)
        if run is None:
            return
        self.over[run.id] = event.state
        is_paid = event.usage is not None
        self.hold("who waits for its gang is paid nothing", not is_paid or run.id in self.confirmed, run.id)

    def _circuit(self, circuit: Circuit) -> None:
        if circuit.state in CIRCUIT_ENDED:
            self.circuits.pop(circuit.id, None)
        else:
            self.circuits[circuit.id] = circuit.job

    def _job_ended(self, event: fact.JobEnded) -> None:
        gang = self.placed.get(event.job)
        if gang and event.state is JobState.SUCCEEDED:
            states = [self.over.get(run.id) for run in gang]
            self.hold("a gang succeeds whole", set(states) == {RunState.SUCCEEDED}, event.job, states)
            asked = len(self.jobs[event.job].task.outputs)
            left = [(output.path, output.node) for output in event.outputs]
            wanted = [(path, run.rank) for run in gang for path in self.jobs[event.job].task.outputs]
            is_so = sorted(left) == sorted(wanted)
            self.hold("a gang leaves what each member left", is_so, event.job, left, "of", asked)
        self._left(event.job)

    def _left(self, job: str) -> None:
        """Its newest gang is over: nothing of it is left."""
        gang = self.placed.pop(job, [])
        if gang:
            self.hold("nothing of a gang outlives it", all(run.id in self.over for run in gang), job)
        for run in gang:
            del self.over[run.id]
            self.accepted.pop(run.id, None)
            self.confirmed.pop(run.id, None)


class Stops:
    """Since when each member of a broken gang of one exchange goes on unasked."""

    def __init__(self) -> None:
        self.since_ms: dict[tuple[int, str], int] = {}

    def look(self, exchange: SimExchange, hold: Hold, now_ms: int) -> None:
        """Look at every gang that broke; ``now_ms`` is true time. Who is down, or can write nothing, is not late."""
        runs = exchange.view.runs
        left = [run.id for run in exchange.books.gangs.broken() if not runs[run.id].is_stop_requested]
        if exchange.disk.is_full:
            left = []
        keys = [(exchange.life, run) for run in left]
        self.since_ms = {key: self.since_ms.get(key, now_ms) for key in keys}
        for key, since_ms in self.since_ms.items():
            is_so = now_ms - since_ms <= PATIENCE_MS
            hold("when one ends badly no other goes on for long", is_so, exchange.name, key[1], now_ms - since_ms)
