"""User: submits, repeats what was not answered under the same key, and remembers what was acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tieline.exchange import commands as ask
from tieline.model.error import TielineError
from tieline.model.party import Actor, Role
from tieline.model.task import Checkpoint, Resources, Retry, Span, Task
from tieline.sim.network import Respond
from tieline.sim.work import Work

if TYPE_CHECKING:
    from tieline.sim.story import Shape
    from tieline.sim.world import World

RETRY_MS = 1_000
TRANSIENT = ("storage_full", "overloaded", "internal")


class SimUser:
    """One user of one exchange."""

    def __init__(self, world: World, name: str, exchange: str) -> None:
        self.world, self.name, self.exchange = world, name, exchange
        self.actor = Actor(name=name, roles=(Role.USER,))
        self.is_up = True
        self.requests = 0
        self.jobs: list[str] = []  # acknowledged, in the order in which the answers came
        self.waiting: dict[str, None] = {}  # keys of requests without an answer

    def serve(self, _source: str, _kind: str, _what: Any, respond: Respond) -> None:
        """Nobody calls a user."""
        respond(None)

    def submit(self, shape: Shape) -> None:
        """A job, or a pipeline of several."""
        key = self._key()
        tasks = tuple(task_of(shape, key, step) for step in range(shape.steps))
        project = self._project(shape)
        self._send(ask.SubmitJobs(actor=self.actor, key=key, digest=key, tasks=tasks, project=project), self._remember)

    def ask_for(self, shape: Shape) -> None:
        """A quote, taken as soon as the owner has answered."""
        key = self._key()
        task = task_of(shape, key, 0)

        def take(quote: Any) -> None:
            name = quote.id

            def accept() -> None:
                taken = self._key()
                accepted = ask.AcceptQuote(
                    actor=self.actor, key=taken, digest=taken, quote=name, project=self._project(shape)
                )
                self._send(accepted, self._remember)

            self.world.timeline.after(1_500, accept)

        self._send(ask.AskQuote(actor=self.actor, key=key, digest=key, task=task), take)

    def stop(self, number: int) -> None:
        """One of its jobs."""
        if self.jobs:
            job = self.jobs[number % len(self.jobs)]
            key = self._key()
            self._send(ask.StopJob(actor=self.actor, key=key, digest=key, job=job), lambda _: None)

    def _remember(self, reply: Any) -> None:
        for job in reply if isinstance(reply, tuple) else (reply,):
            self.jobs.append(job.id)

    def _project(self, shape: Shape) -> str:
        """The project that its work is for, of those that it was told of."""
        known = self.world.projects.get(self.exchange, [])
        return known[shape.project % len(known)] if known else ""

    def _key(self) -> str:
        self.requests += 1
        return f"{self.name}-{self.requests}"

    def _send(self, command: ask.Command, then: Any, tries: int = 0) -> None:
        """Ask until there is an answer: a repeated key is answered as before."""
        self.waiting[command.key] = None

        def answered(reply: Any) -> None:
            if reply is None or (isinstance(reply, TielineError) and reply.code in TRANSIENT):
                self.world.faults["request repeated"] += 1
                wait_ms = min(RETRY_MS << min(tries, 3), 8_000)
                self.world.timeline.after(wait_ms, lambda: self._send(command, then, tries + 1))
                return
            self.waiting.pop(command.key, None)
            if not isinstance(reply, TielineError):
                then(reply)

        self.world.network.call(self.name, self.exchange, "command", command, answered)


def task_of(shape: Shape, request: str, step: int) -> Task:
    """The task file of one step; ``request`` marks it, so that one request is never two jobs."""
    cards = {"accelerator": "a100", "accelerator_count": shape.cards} if shape.cards else {}
    return Task(
        name=f"step{step}",
        run=Work(shape.duration_ms, shape.exit_codes).script,
        nodes=shape.nodes,
        span=Span(rate_bps=shape.rate_bps, ports=(29_500,)) if shape.spans else None,
        resources=(Resources(core_count=shape.cores, memory_bytes=10**9, **cards),),  # type: ignore[arg-type]
        is_trusted=True,
        retry=Retry(limit=shape.retries, on_exit_codes=(75,) if shape.recovers else ()),
        budget_micro_cny=shape.budget_micro_cny,
        deadline_s=shape.deadline_s,
        max_duration_s=shape.max_duration_s,
        priority=shape.priority,
        grace_s=1,
        checkpoint=Checkpoint(path="state", every_s=2) if shape.has_checkpoint else None,
        outputs=("result",) if shape.has_outputs else (),
        labels={"request": f"{request} {step}"},
    )
