"""Shells: who may run a command beside a node of a job, or reach one of its ports. That somebody did is in the log.

The right is that of stopping the job: who can run a command there can end it, and sees what its environment holds.
"""

from __future__ import annotations

from re import compile as pattern

from tieline.exchange.commands import Decision, OpenShell
from tieline.exchange.meeting import live_node
from tieline.exchange.permission import no_such
from tieline.exchange.projects import manages, sees_work
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import ShellOpened
from tieline.model.job import RunState
from tieline.model.party import Role
from tieline.model.relay import WORDS_BYTES
from tieline.ports import Ids

PROGRAM = pattern(r"[A-Za-z0-9._+/-]{1,200}")


def open_shell(view: View, command: OpenShell, now_ms: int, ids: Ids) -> Decision:
    """The node to be reached, once the log says who reaches it. Reply: exchange.meeting.Node."""
    actor, body = command.actor, command.body
    row = view.jobs.rows.get(command.job)
    if row is None or not sees_work(view, actor, row.user, row.project):
        raise no_such("live job", command.job)
    job = view.jobs[row.id]
    if not (actor.name == job.user or manages(view, actor, job.project) or actor.has(Role.ADMIN)):
        raise TielineError("forbidden", f"`{command.job}` belongs to `{job.user}`")
    if body.node >= job.task.nodes:
        raise TielineError(
            "invalid_request", f"the job has {job.task.nodes} nodes, none of rank {body.node}", where="node"
        )
    node = live_node(view, job, body.node)
    if node is None or node.run.state is not RunState.RUNNING:
        what = f"node {body.node} of `{job.id}`" if job.id in view.gangs else f"`{job.id}`"
        state = node.run.state if node is not None and node.run.members else job.state
        raise TielineError("conflict", f"{what} does not run now: it is {state}", hints=(f"tieline why {job.id}",))
    run = node.run
    if run.site not in view.sites:
        raise TielineError("conflict", f"`{run.id}` runs behind another exchange, whose relay this is not")
    if sum(len(word) for word in body.command) > WORDS_BYTES or any("\0" in word for word in body.command):
        raise TielineError(
            "invalid_request", f"a command has at most {WORDS_BYTES:,} characters, and no NUL", where="command"
        )
    if body.port and body.command:
        raise TielineError("invalid_request", "a stream is for a command or for a port", where="port")
    program = f"port {body.port}" if body.port else _program(body.command)
    said = ShellOpened(job=job.id, run=run.id, by=actor.name, program=program, words=len(body.command))
    return Decision((said,), node)


def _program(command: tuple[str, ...]) -> str:
    """What the log calls a command. A word that is no program's name may be a whole line, with a secret in it."""
    if not command:
        return "shell"
    return command[0] if PROGRAM.fullmatch(command[0]) else "(not shown)"
