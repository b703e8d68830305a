"""Endpoint: what stands between the router and a handler: permission, decoding, encoding. One for each operation."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from tieline.api.answer import Answer, encode
from tieline.api.operation import JSON, Operation
from tieline.api.roles import ROLES
from tieline.api.scoped import narrow
from tieline.model.error import TielineError

if TYPE_CHECKING:
    from tieline.api.call import Call


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operation without parameters refuses them."""


def permit(call: Call, operation: Operation) -> None:
    """Refuse who has no token (`unauthenticated`), and who has one of another role (`forbidden`)."""
    roles = ROLES[operation.id]
    if not roles:
        return
    if not call.actor.roles:
        if call.refused is not None:
            raise call.refused
        raise TielineError(
            "unauthenticated", "this needs a token: `Authorization: Bearer <token>`", hints=("tieline login URL",)
        )
    if not call.actor.has(*roles):
        needed = ", ".join(role.value for role in roles)
        held = ", ".join(role.value for role in call.actor.roles)
        raise TielineError(
            "forbidden",
            f"`{operation.id}` needs one of the roles {needed}; `{call.actor.name}` has {held}",
            hints=("tieline token create NAME --role ROLE  # by an admin",),
        )
    if call.actor.scopes:
        narrow(call, operation)


def endpoint_of(operation: Operation) -> HTTPRouteHandler:
    """The Litestar route of one operation."""

    async def endpoint(request: Request[Any, Any, Any]) -> ASGIApp:
        call: Call = request.scope["state"]["call"]
        call.operation = operation
        permit(call, operation)
        given: dict[str, Any] = {name: request.scope["path_params"][name] for name in operation.path_parameters}
        if operation.query is not None:
            given["query"] = call.query(operation.query)
        elif request.scope["query_string"]:
            call.query(NoQuery)
        if operation.is_change:
            call.take_key()
        if operation.body is not None:
            given["body"] = await call.body(operation.body)
        answer = await operation.handler(call, **given)
        if operation.gives == JSON and not callable(answer):
            return Answer(encode(answer), status=operation.status)
        return answer  # type: ignore[no-any-return]

    route: Callable[[Callable[..., Coroutine[Any, Any, Any]]], HTTPRouteHandler] = HTTPRouteHandler(
        operation.path.replace("}", ":str}"),
        http_method=operation.method,  # type: ignore[arg-type]
        status_code=operation.status,
        name=operation.id,
        include_in_schema=False,
    )
    return route(endpoint)


def options_of(path: str, methods: Iterable[str]) -> HTTPRouteHandler:
    """The route that says which methods a path has."""
    allowed = ", ".join(sorted((*methods, "OPTIONS"))).encode()

    async def options() -> ASGIApp:
        answer = Answer(status=204)
        answer.headers = [(b"allow", allowed)]
        return answer

    route: Callable[[Callable[..., Coroutine[Any, Any, Any]]], HTTPRouteHandler] = HTTPRouteHandler(
        path.replace("}", ":str}"), http_method="OPTIONS", status_code=200, include_in_schema=False
    )
    return route(options)
