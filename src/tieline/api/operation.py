"""Operation: one row for each thing that the API can do. Routes, permission, the document and the reference read it.

A handler is an async function of the call, its path parameters (``str``), and optionally ``query`` and ``body``, whose
annotations are the msgspec structs that decode them. So what is documented is what is decoded: the schemas come from
msgspec itself, not from a second model (Litestar's own generator loses msgspec's constraints on nested items, which the
schema-driven tests would take for promises).
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

JSON = "application/json"
BYTES = "application/octet-stream"
EVENTS = "text/event-stream"
NDJSON = "application/x-ndjson"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

Handler = Callable[..., Coroutine[Any, Any, Any]]
H = TypeVar("H", bound=Handler)


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A header that an operation reads or gives, as the document describes it."""

    name: str
    description: str
    schema: dict[str, Any]
    is_required: bool = False


class Follow(msgspec.Struct, frozen=True, kw_only=True):
    """An OpenAPI link: the answer's value at ``pointer`` is the named parameter of ``operation``."""

    operation: str
    parameter: str
    pointer: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What one method of one path does."""

    id: str
    method: str
    path: str
    tag: str
    summary: str
    description: str
    handler: Handler
    path_parameters: tuple[str, ...]
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    takes: str = ""  # media type of the body
    reply: Any = None  # type of a JSON answer
    gives: str = JSON
    status: int = 200
    is_change: bool = False  # takes an Idempotency-Key
    errors: tuple[str, ...] = ()  # codes beyond those that every operation of its form can answer
    headers: tuple[Parameter, ...] = ()  # that it reads
    answers: tuple[Parameter, ...] = ()  # headers that it gives
    events: dict[str, str] = {}  # of a stream: event name -> what its data is
    follows: tuple[Follow, ...] = ()
    example: Any = None  # of the body
    is_public: bool = False

    @property
    def label(self) -> str:
        """``GET /v1/jobs``."""
        return f"{self.method} {self.path}"


def operation(
    method: str,
    path: str,
    *,
    tag: str,
    status: int = 200,
    is_change: bool = False,
    takes: str = "",
    gives: str = JSON,
    errors: tuple[str, ...] = (),
    headers: tuple[Parameter, ...] = (),
    answers: tuple[Parameter, ...] = (),
    events: dict[str, str] | None = None,
    follows: tuple[Follow, ...] = (),
    example: Any = None,
) -> Callable[[H], H]:
    """Declare ``handler`` as an operation; it is found as ``handler.operation``. Its docstring is the documentation."""

    def declare(handler: H) -> H:
        hints = typing.get_type_hints(handler)
        names = list(inspect.signature(handler).parameters)[1:]
        doc = inspect.cleandoc(handler.__doc__ or "")
        summary, _, description = doc.partition("\n")
        body = hints.get("body")
        handler.operation = Operation(  # type: ignore[attr-defined]
            id=handler.__name__,
            method=method,
            path=path,
            tag=tag,
            summary=summary.rstrip("."),
            description=description.strip(),
            handler=handler,
            path_parameters=tuple(name for name in names if name not in ("query", "body")),
            query=hints.get("query"),
            body=body,
            takes=takes or (JSON if body is not None else ""),
            reply=_said(hints["return"]) if gives == JSON else None,
            gives=gives,
            status=status,
            is_change=is_change,
            errors=errors,
            headers=headers,
            answers=answers,
            events=events or {},
            follows=follows,
            example=example,
        )
        return handler

    return declare


def _said(hint: Any) -> Any:
    """What is said, of an annotation that also allows an answer which was encoded already (``Said | Answer``)."""
    return typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint


def operation_of(handler: Handler) -> Operation:
    """The row that `operation` made."""
    row = handler.operation  # type: ignore[attr-defined]
    assert isinstance(row, Operation)
    return row
