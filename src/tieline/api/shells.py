"""Shells: reaching a run through the relay, and what the relay carried."""

from __future__ import annotations

from tieline.api.call import Call, named
from tieline.api.jobs import job_id
from tieline.api.operation import operation
from tieline.api.relaying import Stream
from tieline.exchange.commands import OpenShell
from tieline.exchange.meeting import Node
from tieline.exchange.permission import no_such
from tieline.model.error import TielineError
from tieline.model.protocol import Summon
from tieline.model.relay import SUMMONS, Purpose, RelayPage, RelayView, ShellBody, StreamBody, Summons
from tieline.registry import sign_statement
from tieline.registry.passes import checked_pass


@operation(
    "POST",
    "/v1/jobs/{job}/shells",
    tag="jobs",
    status=201,
    errors=("conflict", "site_unreachable"),
    example={"command": ["nvidia-smi"]},
)
async def open_shell(call: Call, job: str, body: ShellBody) -> RelayView:
    """Run a command beside a node of a job, or reach one of its ports, through the relay.

    The answer names a stream: open the WebSocket `/v1/relay/{stream}` within 30 s with the same token. The site dials
    the other end. The job's user, managers of its project and admins may; the site's owner may forbid it. That somebody
    did is in the log.
    """
    platform, name = call.platform, job_id(call.platform, named(job))
    call.note(job=name)
    platform.relay.check("", call.actor.name)  # before the log says that somebody came in
    node: Node = await platform.ask(OpenShell(actor=call.actor, job=name, body=body))
    run = node.run
    platform.relay.check(run.owner, call.actor.name, run.site)
    stream = platform.relay.open(run.id, run.site, run.owner, call.actor.name)
    told = Summons(
        stream=stream.name,
        site=run.site,
        purpose=Purpose.PORT if body.port else Purpose.SHELL,
        run=run.id,
        who=call.actor.name,
        until_ms=stream.until_ms,
        node=node.local,
        command=body.command,
        port=body.port,
        has_terminal=body.has_terminal,
        rows=body.rows,
        columns=body.columns,
        term=body.term,
    )
    return summoned(call, stream, told)


def summoned(call: Call, stream: Stream, told: Summons) -> RelayView:
    """Tell the site to dial. Raises TielineError `site_unreachable`."""
    platform = call.platform
    statement = sign_statement(told, platform.keys.key, platform.keys.kid, SUMMONS).decode()
    if not platform.hub.summon(told.site, Summon(statement=statement)):
        platform.relay.drop(stream, "the site does not listen")
        raise TielineError("site_unreachable", f"`{told.site}` does not listen now")
    return RelayView(stream=stream.name, run=told.run, site=told.site, until_ms=stream.until_ms)


@operation(
    "POST",
    "/v1/sites/{site}/streams",
    tag="sites",
    status=201,
    errors=("unauthenticated", "forbidden", "site_unreachable"),
    example={"door_pass": '{"payload":"e30","protected":"e30","signature":"AA"}'},
)
async def open_stream(call: Call, site: str, body: StreamBody) -> RelayView:
    """A stream to the door of a site that listens to nobody, for the holder of a pass through it.

    Open the WebSocket `/v1/relay/{stream}` within 30 s with the same token, and speak HTTP to the door over it.
    """
    platform, name, actor = call.platform, named(site), call.actor
    call.note(site=name)
    found = platform.view.sites.get(name)
    if found is None or found.has_left or not found.is_admitted:
        raise no_such("site", name)
    now_ms = platform.clock.now_ms()
    given = checked_pass(body.door_pass, platform.keys.key.public, name, None, now_ms)
    if given.holder != actor.name:
        raise TielineError("forbidden", "the pass is another holder's")
    platform.relay.check(found.owner, actor.name, name)
    stream = platform.relay.open("", name, found.owner, actor.name)
    told = Summons(
        stream=stream.name, site=name, purpose=Purpose.DOOR, run="", who=actor.name, until_ms=stream.until_ms
    )
    return summoned(call, stream, told)


@operation("GET", "/v1/relay", tag="jobs")
async def read_relay(call: Call) -> RelayPage:
    """What the relay carried, for each owner of sites and each caller: one's own, or all for admins and auditors.

    Counted since this exchange was started.
    """
    return call.platform.relay.page(call.actor)
