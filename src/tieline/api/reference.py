"""Reference: the OpenAPI document as a page of Markdown (``python -m tieline.api.reference``)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tieline.api.openapi import BODIES, CHANGES, EVERY, PATHS, SECURED
from tieline.model.party import Role

COMMON = frozenset((*EVERY, *SECURED, *PATHS, *BODIES, *CHANGES))
HEAD = """# The HTTP API

Made from the OpenAPI document (`GET /v1/openapi.json`) by `python -m tieline.api.reference`; a test compares both.

- Every answer that is no success carries one envelope: `code`, `message`, `where`, `reasons`, `hints`, `request_id`
  ([errors](errors.md)). The bounds of what is sent are [limits](limits.md).
- Identifiers contain slashes: in a path they are written with `~` (or `%2F`) for `/`. A job's short name is accepted
  wherever its identifier is.
- `Authorization: Bearer <token>`. What a caller may not see does not exist for it: 404.
- `Idempotency-Key` (operations marked *key*): the same key with the same body from the same caller is answered as
  before, for as long as `idempotency_s` says.
- `X-Request-Id` comes with every answer and stands in the exchange's log.
- A caller over its rate is answered 429, a full queue 503, both with `Retry-After`.
- Not repeated below: every operation can refuse with `invalid_request`, `method_not_allowed`, `rate_limited`,
  `internal` and `overloaded`; one that needs a role with `unauthenticated` and `forbidden`; one with a name in its
  path with `invalid_identifier` and `not_found`; one with a body with `too_large`, `unsupported_media` and `timeout`;
  a change with `conflict`, `idempotency_conflict`, `storage_full`, `store_unreachable` and `not_leader`.
- Streams are server-sent events: they are resumed by `Last-Event-ID` (or `after`), say a comment every 15 s, and end
  when the exchange stops.
"""


def page(document: Mapping[str, Any]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *_operations(document), *_roles(document), *_schemas(document)]).rstrip("\n") + "\n"


def _each(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    for tag in document["tags"]:
        yield f"## {tag['name'].capitalize()}\n\n{tag['description'].capitalize()}.\n"
        for method, path, operation in _each(document):
            if operation["tags"] == [tag["name"]]:
                yield from _operation(method, path, operation)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method} {path}\n"
    description, _, roles = operation["description"].rpartition("Roles: ")
    yield f"`{operation['operationId']}`: {operation['summary']}. {' '.join(description.split())}".rstrip() + "\n"
    parameters = operation.get("parameters", ())
    notes = [f"roles: {roles.rstrip('.')}"]
    if any(parameter["name"] == "Idempotency-Key" for parameter in parameters):
        notes.append("*key*")
    body = operation.get("requestBody")
    if body:
        notes.append("body: " + ", ".join(_shape(media, kind) for kind, media in body["content"].items()))
    notes.append("answer: " + _good(operation))
    yield f"{'; '.join(notes)}\n"
    rows = [parameter for parameter in parameters if parameter["name"] != "Idempotency-Key"]
    if rows:
        yield "| parameter | in | type | meaning |\n|---|---|---|---|"
        for row in rows:
            needed = ", required" if row["required"] and row["in"] != "path" else ""
            yield f"| `{row['name']}` | {row['in']}{needed} | {_type(row['schema'])} | {row.get('description', '')} |"
        yield ""
    events = next((answer["x-events"] for answer in operation["responses"].values() if "x-events" in answer), None)
    if events:
        yield "| event | data |\n|---|---|"
        yield from (f"| `{name}` | {meaning} |" for name, meaning in events.items())
        yield ""
    codes = [f"`{code}`" for code in operation["x-codes"] if code not in COMMON]
    if codes:
        yield f"Refuses besides with {', '.join(codes)}.\n"


def _good(operation: Mapping[str, Any]) -> str:
    status, answer = next((status, answer) for status, answer in operation["responses"].items() if status < "300")
    shown = ", ".join(_shape(media, kind) for kind, media in answer.get("content", {}).items()) or "no body"
    return f"{status} {shown}"


def _shape(media: Mapping[str, Any], kind: str) -> str:
    schema = media["schema"]
    return _type(schema) if "$ref" in schema else f"`{kind}`"


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with its bounds."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name.rpartition('.')[2]}`](#{anchor(name)})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}" + _bounds(schema, "minItems", "maxItems")
    if kind == "object" and "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
        return f"{_type(schema['additionalProperties'])} by name"
    if "pattern" in schema:
        shown = schema["pattern"].replace("|", "\\|")
        return f"{kind} `{shown}`" + _bounds(schema, "minLength", "maxLength")
    bounds = ("minLength", "maxLength") if kind == "string" else ("minimum", "maximum")
    return str(kind) + _bounds(schema, *bounds)


def _bounds(schema: Mapping[str, Any], least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if low is None and high is None:
        return ""
    if low is None:
        return f", at most {high:,}"
    return f", {low:,} or more" if high is None else f", {low:,} to {high:,}"


def anchor(name: str) -> str:
    """The fragment of a schema's heading."""
    return name.rpartition(".")[0].rpartition(".")[2] * ("." in name) + name.rpartition(".")[2].lower()


def _roles(document: Mapping[str, Any]) -> Iterator[str]:
    roles = [role.value for role in Role if role is not Role.JOIN]
    yield "## Who may call what\n"
    yield "A join token opens nothing here: it is a part of the body of `join_site`.\n"
    yield f"| operation | {' | '.join(roles)} | no token |\n|{'---|' * (len(roles) + 2)}"
    for _, _, operation in _each(document):
        held = operation["x-roles"]
        marks = ["yes" if role in held or not held else "" for role in (*roles, "")]
        yield f"| `{operation['operationId']}` | {' | '.join(marks)} |"
    yield ""


def _schemas(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## Bodies\n"
    for name, schema in document["components"]["schemas"].items():
        title = name if "." not in name else f"{name.rpartition('.')[0].rpartition('.')[2]}.{name.rpartition('.')[2]}"
        yield f"### {title}\n\n{schema.get('description', '')}\n"
        if "properties" not in schema:
            yield f"{_type(schema)}\n"
            continue
        needed = schema.get("required", ())
        yield "| field | type | required |\n|---|---|---|"
        for field, inner in schema["properties"].items():
            yield f"| `{field}` | {_type(inner)} | {'yes' if field in needed else ''} |"
        yield ""


def main() -> None:
    """Print the page of this version."""
    from tieline.api.app import api_document  # the application is not needed to import this

    sys.stdout.write(page(api_document()))


if __name__ == "__main__":
    main()
