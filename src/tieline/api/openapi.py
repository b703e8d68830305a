"""OpenAPI: the document of the API (OpenAPI 3.1), made from the table of operations.

Every schema comes from msgspec, which also decodes the bodies, so that the document promises exactly what is enforced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from tieline import __version__
from tieline.api.call import KEY_PATTERN, NAME_PATTERN, REQUEST_ID
from tieline.api.operation import BYTES, EVENTS, JSON, Operation
from tieline.api.roles import ROLES
from tieline.model.error import CODES, ErrorEnvelope
from tieline.model.identifier import DOTTED, MAX_IDENTIFIER_BYTES

REF = "#/components/schemas/{name}"
TAGS: dict[str, str] = {
    "exchange": "who answers, who asks, and how the exchange is doing",
    "records": "what owners signed",
    "finding": "which offers fit, and what would be done with a task",
    "quotes": "ask before you take",
    "jobs": "work, from its submission to its end",
    "projects": "who shares a budget and a share of the cards",
    "money": "what was used and what it costs",
    "log": "everything that happened, hash-chained",
    "network": "the wide area: what it is made of, what of it carries now, what is booked of it",
    "sites": "who joined, and on which terms",
    "tokens": "who may call",
    "blobs": "bytes by their sha256",
    "site side": "what a site process says and hears; it dials out, nothing listens at a site",
    "peers": "other exchanges: who they are, what they may do, and the logs of records that they follow",
    "operating": "for machines that watch the exchange",
}
EVERY = ("invalid_request", "method_not_allowed", "rate_limited", "internal", "overloaded")
PATHS = ("invalid_identifier", "not_found")
BODIES = ("too_large", "unsupported_media", "timeout")
CHANGES = ("conflict", "idempotency_conflict", "storage_full", "store_unreachable", "not_leader")
SECURED = ("unauthenticated", "forbidden")
IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": (
        "The same key with the same body from the same caller is answered as before; with another body, refused."
    ),
    "schema": {"type": "string", "pattern": KEY_PATTERN},
}
REQUEST_ID_HEADER = {
    "description": "Names this request in the exchange's log; a well-formed `X-Request-Id` of the caller is kept.",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"},
}


def codes_of(operation: Operation) -> tuple[str, ...]:
    """The error codes that an operation can answer, in the order of the table of codes."""
    found = {*EVERY, *operation.errors}
    if ROLES[operation.id]:
        found.update(SECURED)
    if operation.path_parameters:
        found.update(PATHS)
    if operation.takes:
        found.update(BODIES)
    if operation.method in ("POST", "DELETE"):
        found.update(CHANGES)
    return tuple(code for code in CODES if code in found)


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole document."""
    names = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, names)
    statuses = sorted({CODES[code].status for operation in operations for code in codes_of(operation)})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tieline exchange",
            "version": __version__,
            "summary": "Find, place and use computing power that different people own.",
            "description": (
                "Identifiers contain slashes: in a path they are written with `~` (or `%2F`) for `/`. A job's short "
                "name is accepted wherever its identifier is. Every answer that is no success is one error envelope."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": names.components,
            "responses": {f"E{status}": _refusal(status) for status in statuses},
            "headers": {"X-Request-Id": REQUEST_ID_HEADER},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token's secret, or the bearer of a site's session.",
                }
            },
        },
    }


class _Schemas:
    """All named schemas, and the reference to each type."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        types: list[Any] = [ErrorEnvelope]
        for operation in operations:
            for kind in (operation.query, operation.body, operation.reply):
                if kind is not None and kind not in types:
                    types.append(kind)
        found, components = msgspec.json.schema_components(types, ref_template=REF)
        self.types = types
        self.found: list[dict[str, Any]] = [_portable(schema) for schema in found]
        queries = {operation.query.__name__ for operation in operations if operation.query is not None}
        self.components = {name: _portable(schema) for name, schema in components.items() if name not in queries}
        self.queries = {name: _portable(components[name]) for name in queries}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type: a reference, for a struct."""
        return self.found[self.types.index(kind)]


def _portable(schema: Any) -> Any:
    """Regular expressions as JSON Schema reads them (ECMA-262): ``^`` and ``$`` for ``\\A`` and ``\\Z``."""
    if isinstance(schema, dict):
        return {
            key: re.sub(r"\\Z$", "$", re.sub(r"^\\A", "^", value))
            if key == "pattern" and isinstance(value, str)
            else _portable(value)
            for key, value in schema.items()
        }
    return [_portable(value) for value in schema] if isinstance(schema, list) else schema


def _operation(operation: Operation, names: _Schemas) -> dict[str, Any]:
    roles = ROLES[operation.id]
    described = [operation.description] if operation.description else []
    described.append(f"Roles: {', '.join(role.value for role in roles) if roles else 'anyone'}.")
    found: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": "\n\n".join(described),
        "security": [{"bearer": []}] if roles else [],
        "x-roles": [role.value for role in roles],
        "x-codes": list(codes_of(operation)),
        "responses": _responses(operation, names),
    }
    parameters = list(_parameters(operation, names))
    if parameters:
        found["parameters"] = parameters
    if operation.takes:
        media: dict[str, Any] = {"schema": _body_schema(operation, names)}
        if operation.example is not None:
            media["examples"] = {"typical": {"value": operation.example}}
        found["requestBody"] = {"required": True, "content": {operation.takes: media}}
    return found


def _body_schema(operation: Operation, names: _Schemas) -> dict[str, Any]:
    return names.of(operation.body) if operation.body is not None else {"type": "string", "format": "binary"}


def _parameters(operation: Operation, names: _Schemas) -> Iterable[dict[str, Any]]:
    for name in operation.path_parameters:
        yield {"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]}
    if operation.query is not None:
        schema = names.queries[operation.query.__name__]
        needed = schema.get("required", ())
        for name, field in schema["properties"].items():
            described = field.pop("description", "") if isinstance(field, dict) else ""
            parameter = {"name": name, "in": "query", "required": name in needed, "schema": field}
            yield {**parameter, "description": described} if described else parameter
    if operation.is_change:
        yield IDEMPOTENCY
    for header in operation.headers:
        yield {
            "name": header.name,
            "in": "header",
            "required": header.is_required,
            "description": header.description,
            "schema": header.schema,
        }


_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "record": {"description": "An identifier.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "site": {"description": "A site's identifier.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "job": {"description": "A job's short name or identifier.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "quote": {"description": "A quote's name.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "token": {"description": "A token's name (not its secret).", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "project": {"description": "A project's name.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "peer": {"description": "An exchange's identifier.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "prefix": {
        "description": "A prefix: the owner whose log it is.",
        "schema": {"type": "string", "pattern": f"^{DOTTED}$", "maxLength": MAX_IDENTIFIER_BYTES},
    },
    "seq": {"description": "The number of an entry.", "schema": {"type": "string", "pattern": "^[0-9]{1,16}$"}},
    "transfer": {"description": "A transfer's name.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "circuit": {"description": "A circuit's name.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "subject": {"description": "A transfer or circuit.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "run": {"description": "A run's short name.", "schema": {"type": "string", "pattern": NAME_PATTERN}},
    "sha256": {"description": "The sha256 of the bytes, in hex.", "schema": _DIGEST},
}


def _responses(operation: Operation, names: _Schemas) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    for header in operation.answers:
        headers[header.name] = {
            "description": header.description,
            "required": header.is_required,
            "schema": header.schema,
        }
    good: dict[str, Any] = {"description": operation.summary, "headers": headers}
    if operation.gives == JSON:
        good["content"] = {JSON: {"schema": names.of(operation.reply)}}
    elif operation.gives:
        schema: dict[str, Any] = {"type": "string"}
        if operation.gives == BYTES:
            schema["format"] = "binary"
        good["content"] = {operation.gives.partition(";")[0]: {"schema": schema}}
    if operation.gives == EVENTS:
        good["x-events"] = operation.events
    if operation.follows:
        good["links"] = {
            follow.operation: {
                "operationId": follow.operation,
                "parameters": {follow.parameter: f"$response.body#{follow.pointer}"},
            }
            for follow in operation.follows
        }
    found = {str(operation.status): good}
    if operation.gives == BYTES and operation.tag == "blobs":
        found["206"] = {**good, "description": "The part that `Range` asks for"}
    if any(header.name == "If-None-Match" for header in operation.headers):
        found["304"] = {"description": "The caller has these bytes already", "headers": headers}
    for status in sorted({CODES[code].status for code in codes_of(operation)}):
        found[str(status)] = {"$ref": f"#/components/responses/E{status}"}
    return found


def _refusal(status: int) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    if status == 401:
        headers["WWW-Authenticate"] = {"required": True, "schema": {"type": "string"}}
    elif status == 405:
        headers["Allow"] = {"required": True, "schema": {"type": "string"}}
    elif status == 429:
        headers["Retry-After"] = {"required": True, "schema": {"type": "integer", "minimum": 1}}
    codes = ", ".join(f"`{code}`" for code, row in CODES.items() if row.status == status)
    return {
        "description": f"{HTTPStatus(status).phrase}: {codes}",
        "headers": headers,
        "content": {JSON: {"schema": {"$ref": REF.format(name=ErrorEnvelope.__name__)}}},
    }
