"""Structured logs: one JSON object per line on standard error, with request and job ids and never a secret.

Fields of ``extra={...}`` appear beside the message when they are among FIELDS; nothing else of a caller's gets out, so
a secret cannot slip in by being attached. Values of ``Authorization`` headers and join tokens are cut from messages.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

FIELDS = (
    "request", "method", "path", "status", "caller", "site", "owner", "job", "run", "node", "epoch", "pool", "quote",
    "token", "event", "seq", "code", "why", "attempt", "wait_ms", "duration_ms", "size_bytes", "count", "url",
)  # fmt: skip
SECRETS = re.compile(r"(?i)(bearer\s+|\btl1\.|\btl-)[A-Za-z0-9._~+/=-]{4,}")
MESSAGE_CHARS = 4_000


class JsonFormatter(logging.Formatter):
    """Formats a record as one line: time (RFC 3339, UTC), level, logger, message, then the fields that were given."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object without a line end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": hidden(record.getMessage())[:MESSAGE_CHARS],
        }
        for name in FIELDS:
            value = record.__dict__.get(name)
            if value is not None:
                line[name] = hidden(value)[:MESSAGE_CHARS] if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = hidden(self.formatException(record.exc_info))[: 4 * MESSAGE_CHARS]
        return msgspec.json.encode(line, enc_hook=str).decode()


def hidden(text: str) -> str:
    """``text`` with bearers and tokens cut to their kind."""
    return SECRETS.sub(lambda match: f"{match[1]}...", text)


def log_to(stream: TextIO | None = None, level: str = "info") -> None:
    """Send every logger of this process to ``stream`` (standard error) as JSON lines, replacing what was set before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
