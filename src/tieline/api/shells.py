"""Shells: reaching a run through the relay, and what the relay carried."""

from __future__ import annotations

from tieline.api.call import Call, named
from tieline.api.jobs import job_id
from tieline.api.operation import operation
from tieline.exchange.commands import OpenShell
from tieline.model.error import TielineError
from tieline.model.job import Run
from tieline.model.protocol import Summon
from tieline.model.relay import SUMMONS, Purpose, RelayPage, RelayView, ShellBody, Summons
from tieline.registry import sign_statement


@operation(
    "POST",
    "/v1/jobs/{job}/shells",
    tag="jobs",
    status=201,
    errors=("conflict", "site_unreachable"),
    example={"command": ["nvidia-smi"]},
)
async def open_shell(call: Call, job: str, body: ShellBody) -> RelayView:
    """Run a command beside a job's run, or reach one of its ports, through the relay.

    The answer names a stream: open the WebSocket `/v1/relay/{stream}` within 30 s with the same token. The site dials
    the other end. The job's user, members of its project and admins may; the site's owner may forbid it. That somebody
    did is in the log.
    """
    platform, name = call.platform, job_id(call.platform, named(job))
    call.note(job=name)
    run: Run = await platform.ask(OpenShell(actor=call.actor, job=name, body=body))
    platform.relay.check(run.owner)
    stream = platform.relay.open(run.id, run.site, run.owner, call.actor.name)
    told = Summons(
        stream=stream.name,
        site=run.site,
        purpose=Purpose.PORT if body.port else Purpose.SHELL,
        run=run.id,
        who=call.actor.name,
        until_ms=stream.until_ms,
        node=body.node,
        command=body.command,
        port=body.port,
        has_terminal=body.has_terminal,
        rows=body.rows,
        columns=body.columns,
        term=body.term,
    )
    statement = sign_statement(told, platform.keys.key, platform.keys.kid, SUMMONS).decode()
    if not platform.hub.summon(run.site, Summon(statement=statement)):
        platform.relay.drop(stream, "the site does not listen")
        raise TielineError("site_unreachable", f"`{run.site}` does not listen now")
    return RelayView(stream=stream.name, run=run.id, site=run.site, until_ms=stream.until_ms)


@operation("GET", "/v1/relay", tag="jobs")
async def read_relay(call: Call) -> RelayPage:
    """What the relay carried, for each owner of sites and each caller: one's own, or all for admins and auditors.

    Counted since this exchange was started.
    """
    return call.platform.relay.page(call.actor)
