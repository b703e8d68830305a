"""Server-sent events (WHATWG HTML, section 9.2.6) as a parser without I/O: bytes in, events out, buffers bounded."""

from __future__ import annotations

from typing import NamedTuple

from tieline.model.error import TielineError

EVENT_BYTES = 16 * 2**20  # one event, all its lines together


class ServerEvent(NamedTuple):
    """One dispatched event. ``id`` is the stream's last identifier at that point: where to resume."""

    id: str
    event: str
    data: bytes


class SseParser:
    """Feed chunks as they come; an event is returned once its empty line has arrived.

    >>> parser = SseParser()
    >>> parser.feed(b'id: 7\\nevent: order\\nda'), parser.feed(b'ta: {}\\n\\n')
    ([], [ServerEvent(id='7', event='order', data=b'{}')])
    """

    def __init__(self, limit_bytes: int = EVENT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.last_id = ""
        self.retry_ms: int | None = None
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self._is_first = True
        self._ended_by_cr = False

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that ``chunk`` completes. Raises TielineError `too_large` for an endless line or event."""
        if self._ended_by_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # CR LF that was cut in two is one line end
        if not chunk:
            return []
        self._ended_by_cr = False
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            return []
        text = b"".join((*self._rest, chunk))
        if self._is_first:
            text = text.removeprefix(b"\xef\xbb\xbf")
            self._is_first = False
        self._ended_by_cr = text.endswith(b"\r")
        lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest, self._rest_bytes = [], 0
        self._keep(lines.pop())
        return [event for line in lines if (event := self._line(line)) is not None]

    def _keep(self, part: bytes) -> None:
        self._rest.append(part)
        self._rest_bytes += len(part)
        self._check()

    def _check(self) -> None:
        if self._rest_bytes + self._data_bytes > self.limit_bytes:
            raise TielineError("too_large", f"a server-sent event is over {self.limit_bytes:,} bytes")

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            self._check()
        elif name == b"id" and b"\0" not in value:
            self.last_id = value.decode("utf-8", "replace")[:200]
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")[:200]
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ServerEvent | None:
        data, event = self._data, self._event
        self._data, self._data_bytes, self._event = [], 0, ""
        return ServerEvent(self.last_id, event or "message", b"\n".join(data)) if data else None
