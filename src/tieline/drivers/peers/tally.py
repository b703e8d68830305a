"""Tally: what was moved between us and one peer, and what of it was refused, by reason; since the process began."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import aiohttp

MOST_REASONS = 64  # that are counted apart; what comes after them is counted as `OTHER`
OTHER = "other"
NOT_ITS = (  # why nothing was had of a peer, and nothing that it sent was refused
    "peer_unreachable", "peer_refused", "peer_error", "log_parked", "log_not_here",
)  # fmt: skip


class Tally:
    """Counts of one peer. Bytes are those of bodies as they travel: packed ones count packed."""

    def __init__(self) -> None:
        self.rejected: dict[str, int] = {}
        self.out_bytes = 0
        self._in_bytes = 0
        self._open: dict[int, aiohttp.ClientResponse] = {}

    @property
    def in_bytes(self) -> int:
        """What came, the answers that are still coming included."""
        return self._in_bytes + sum(_read_bytes(response) for response in self._open.values())

    def reject(self, code: str) -> None:
        """Something of the peer was refused for this reason."""
        if code in NOT_ITS:
            return
        if code not in self.rejected and len(self.rejected) >= MOST_REASONS:
            code = OTHER
        self.rejected[code] = self.rejected.get(code, 0) + 1

    def take(self, size_bytes: int) -> None:
        """So much came otherwise than as an answer."""
        self._in_bytes += size_bytes

    def opened(self, response: aiohttp.ClientResponse) -> None:
        """An answer begins."""
        self._open[id(response)] = response

    def closed(self, response: aiohttp.ClientResponse) -> None:
        """It is over."""
        if self._open.pop(id(response), None) is not None:
            self._in_bytes += _read_bytes(response)

    def counted(self, data: bytes | AsyncIterator[bytes] | None) -> bytes | AsyncIterator[bytes] | None:
        """What is sent, counted as it goes."""
        if data is None or isinstance(data, bytes):
            self.out_bytes += len(data or b"")
            return data
        return self._counted(data)

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.out_bytes += len(chunk)
            yield chunk


def _read_bytes(response: aiohttp.ClientResponse) -> int:
    return int(getattr(response.content, "total_bytes", 0))
