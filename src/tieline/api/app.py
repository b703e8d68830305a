"""App: the Litestar application of one exchange, made from the table of operations."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from litestar import Litestar, Request, Response
from litestar.handlers import HTTPRouteHandler
from litestar.types import ControllerRouterHandler

from tieline.api import (
    audit,
    blobs,
    calendar,
    circles,
    circuits,
    delegating,
    exchange,
    finding,
    health,
    joblog,
    jobs,
    log,
    logs,
    money,
    passes,
    peers,
    peerside,
    projects,
    quotes,
    readings,
    records,
    rekeying,
    roots,
    shells,
    sites,
    siteside,
    tokens,
    topology,
    transfers,
)
from tieline.api.answer import GoneError, allow_of, as_refusal, refusal_answer
from tieline.api.call import Call
from tieline.api.endpoint import endpoint_of, options_of
from tieline.api.gate import Gate
from tieline.api.openapi import document
from tieline.api.operation import Operation, operation_of
from tieline.api.platform import Platform
from tieline.api.roles import ROLES
from tieline.model.error import TielineError
from tieline.model.party import Role

HANDLERS = (
    exchange.read_exchange,
    exchange.read_me,
    exchange.read_status,
    exchange.read_situation,
    exchange.read_task_schema,
    records.store_record,
    records.list_records,
    records.read_record,
    records.read_chain,
    rekeying.rekey_owner,
    finding.find,
    finding.plan,
    quotes.ask_quote,
    quotes.read_quote,
    quotes.accept_quote,
    jobs.submit_jobs,
    jobs.list_jobs,
    jobs.read_job,
    jobs.read_job_why,
    jobs.read_job_history,
    jobs.stop_job,
    joblog.read_job_log,
    joblog.stream_job_log,
    shells.open_shell,
    shells.open_stream,
    shells.read_relay,
    projects.create_project,
    projects.list_projects,
    projects.read_project,
    projects.set_project,
    projects.change_members,
    projects.close_project,
    projects.reopen_project,
    money.list_usage,
    money.list_bills,
    money.list_usage_keys,
    log.list_events,
    log.stream_events,
    log.verify_events,
    audit.read_audit_head,
    audit.list_audit_heads,
    audit.read_audit_proof,
    audit.read_audit_entry,
    audit.read_audit_range,
    sites.join_site,
    sites.list_sites,
    sites.read_site,
    sites.accept_site,
    sites.drain_site,
    sites.undrain_site,
    sites.leave_site,
    passes.ask_pass,
    tokens.create_token,
    tokens.list_tokens,
    tokens.revoke_token,
    delegating.delegate_token,
    peers.read_greeting,
    peers.add_peer,
    peers.list_peers,
    peers.request_peering,
    peers.accept_peer,
    peers.grant_peer,
    peers.clear_peer,
    peers.remove_peer,
    peers.read_standing,
    roots.add_root,
    roots.list_roots,
    roots.remove_root,
    peerside.read_peer_state,
    peerside.take_peer_orders,
    peerside.take_peer_ask,
    peerside.read_peer_reports,
    peerside.take_peer_answers,
    peerside.read_peer_logs,
    peerside.check_peer_blob,
    peerside.store_peer_blob,
    peerside.read_peer_blob,
    logs.list_logs,
    logs.read_log_records,
    logs.read_log_snapshot,
    logs.read_log_digest,
    logs.read_log_buckets,
    logs.fetch_log_records,
    logs.stream_tail,
    blobs.store_blob,
    blobs.check_blob,
    blobs.read_blob,
    siteside.open_session,
    siteside.stream_orders,
    siteside.report,
    siteside.beat,
    siteside.store_run_log,
    readings.plan_probes,
    readings.take_readings,
    readings.read_peer_readings,
    readings.give_peer_passes,
    readings.list_readings,
    readings.read_way,
    readings.list_points,
    readings.change_points,
    readings.read_cats,
    topology.read_topology,
    topology.change_topology,
    topology.change_links,
    circles.read_circle,
    circles.read_coverage,
    transfers.order_transfer,
    transfers.list_transfers,
    transfers.read_transfer,
    transfers.cancel_transfer,
    transfers.book_night,
    circuits.order_circuit,
    circuits.list_circuits,
    circuits.read_circuit,
    circuits.resize_circuit,
    circuits.cancel_circuit,
    circuits.take_receipt,
    circuits.list_receipts,
    calendar.read_calendar,
    calendar.read_tariff,
    calendar.change_tariff,
    health.read_health,
    health.read_readiness,
    health.read_metrics,
    health.read_document,
)
OPERATIONS: tuple[Operation, ...] = tuple(operation_of(handler) for handler in HANDLERS)
assert [operation.id for operation in OPERATIONS if operation.id not in ROLES] == []
log_of_defects = logging.getLogger("tieline.api")


def api_document() -> dict[str, Any]:
    """The OpenAPI document of this version."""
    return document(OPERATIONS)


def make_app(platform: Platform, routes: Sequence[ControllerRouterHandler] = ()) -> Litestar:
    """The application of ``platform``; ``routes`` are mounted beside the API (a console, an agent's protocol).

    The platform starts and stops with the application; streams end as soon as `Platform.closing` is called.
    """

    @asynccontextmanager
    async def life(_: Litestar) -> AsyncIterator[None]:
        await platform.start(api_document())
        try:
            yield
        finally:
            platform.close()

    app = Litestar(
        route_handlers=[*_handlers(), *routes],
        openapi_config=None,
        exception_handlers={Exception: refuse},
        logging_config=None,
        request_max_body_size=None,  # each operation reads with its own limit
        lifespan=[life],
        debug=False,
    )
    app.asgi_handler = Gate(app.asgi_handler, platform)
    return app


@cache
def _handlers() -> tuple[HTTPRouteHandler, ...]:
    """Those of the API with their signatures read, which takes half of the time of making an application."""
    made = (*_options(), *(endpoint_of(operation) for operation in OPERATIONS))
    for handler in made:
        assert handler.parsed_fn_signature.return_type is not None
    return made


def _options() -> Iterator[HTTPRouteHandler]:
    """One for each path. They come first: Litestar's own know only the methods that were there before them."""
    methods: dict[str, list[str]] = {}
    for operation in OPERATIONS:
        methods.setdefault(operation.path, []).append(operation.method)
    for path, found in methods.items():
        yield options_of(path, found)


def refuse(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The envelope for whatever was raised on the way; a defect is logged with its traceback."""
    call: Call = request.scope["state"]["call"]
    refusal = as_refusal(error)
    if refusal is None and not isinstance(error, GoneError):
        log_of_defects.error(
            "defect in %s",
            call.operation.id if call.operation else "routing",
            exc_info=error,
            extra={"request": call.request_id},
        )
    if refusal is None:
        refusal = TielineError("internal", "a defect in Tieline; its traceback is in the log under this request id")
    if call.actor.has(Role.PEER):
        call.platform.peer_calls.refused(call.actor.name, refusal)
    answer = refusal_answer(refusal, call.request_id, allow_of(error))
    headers = {name.decode(): value.decode() for name, value in answer.headers if name != b"content-type"}
    return Response(answer.body, status_code=answer.status, media_type="application/json", headers=headers)
