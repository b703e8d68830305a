"""Local: which operations a process answers by itself while it follows, in one table; all others are the leader's.

Here is what reads committed facts. What rests on last values (heartbeats, sessions, what waits), what changes anything,
and all that sites and peers say goes to the leader. So do bytes (logs, blobs) where the processes share no folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from tieline.api.operation import Operation

OWN = frozenset({"read_health", "read_readiness", "read_metrics", "read_document"})  # about this very process
FACTS = frozenset(
    {
        "read_exchange", "read_me", "read_task_schema",
        "list_records", "read_record", "read_chain", "find", "read_quote",
        "list_jobs", "read_job", "read_job_history",
        "list_usage", "list_bills", "list_usage_keys",
        "list_events", "stream_events", "verify_events",
        "list_tokens", "list_audit_heads",
    }
)  # fmt: skip
FILES = frozenset({"read_job_log", "stream_job_log", "check_blob", "read_blob"})  # where the folder is shared
LOCAL = OWN | FACTS | FILES

SIGNED = b"tieline-from"  # of a peer: its nonce is used up by whoever reads it
REPEATED = frozenset({"plan", "find", "report", "read_job_why"})  # asked again, they answer the same and change nothing


class Routes:
    """Which operation a request asks for, by method and path."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._by_shape: dict[tuple[str, int], list[tuple[tuple[str, ...], Operation]]] = {}
        for operation in sorted(operations, key=lambda operation: operation.path.count("{")):
            parts = _parts(operation.path)
            self._by_shape.setdefault((operation.method, len(parts)), []).append((parts, operation))

    def find(self, method: str, path: str) -> Operation | None:
        """The operation; None where there is no such path or method. ``path`` is as it was sent: `%2F` is no `/`."""
        parts = tuple(unquote(part) for part in _parts(path))
        for pattern, operation in self._by_shape.get((method, len(parts)), ()):
            if all(known == given or known.startswith("{") for known, given in zip(pattern, parts, strict=True)):
                return operation
        return None


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.strip("/").split("/"))
