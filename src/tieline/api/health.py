"""For machines that watch the exchange."""

from __future__ import annotations

from typing import Any

import msgspec

from tieline.api.answer import Answer, ThrottledError
from tieline.api.call import Call
from tieline.api.operation import TEXT, operation


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str
    why: str


@operation("GET", "/healthz", tag="operating")
async def read_health(call: Call) -> Health:
    """Whether the process is alive: it answers, and the thread that decides runs.

    Anything but 200 means: start it anew.
    """
    if not call.platform.writer.alive:
        raise ThrottledError("overloaded", "the writer's thread has stopped: start the exchange anew", 5)
    return Health(status="ok", why="")


@operation("GET", "/readyz", tag="operating")
async def read_readiness(call: Call) -> Health:
    """Whether changes are taken; 503 while the exchange starts, stops, or can only read.

    Reading goes on while the store takes no changes. After the start of a large exchange `find` is refused, and all
    else is answered, until its index is built.
    """
    platform = call.platform
    if platform.hub.is_closed:
        raise ThrottledError("overloaded", "the exchange is starting or stopping", 1)
    if not platform.writer.is_writable:
        raise ThrottledError("overloaded", f"no changes are taken: {platform.writer.why_not_writable}", 5)
    return Health(status="ready", why="")


@operation("GET", "/metrics", tag="operating", gives=TEXT)
async def read_metrics(call: Call) -> Answer:
    """Counts and times in the Prometheus text format; no name of an owner, a user or a job."""
    return Answer(call.platform.metrics.text(), media=TEXT)


@operation("GET", "/v1/openapi.json", tag="operating")
async def read_document(call: Call) -> dict[str, Any]:
    """This document: every operation, body and error."""
    return Answer(call.platform.document)  # type: ignore[return-value]
