"""Parking: envelopes that wait for a delegation which has not arrived, few and not for long."""

from __future__ import annotations

from tieline.registry.rules import refused

MAX_PARKED = 4_096
MAX_PARKED_BYTES = 16 * 2**20
MAX_PARKED_PER_PREFIX = 256
PARK_S = 3_600


class Parking:
    """Bounded by count, bytes, count per prefix and age; nothing in it was verified, so nothing is evicted for it."""

    def __init__(self) -> None:
        self._until: dict[bytes, tuple[str, int]] = {}  # in order of arrival
        self._waiting: dict[str, dict[bytes, None]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._until)

    def prefixes(self) -> tuple[str, ...]:
        """What is waited for, in order of arrival."""
        return tuple(self._waiting)

    def add(self, prefix: str, envelope: bytes, now_s: int) -> None:
        """Let ``envelope`` wait for the delegation of ``prefix``; raises `record_refused` (parking_full)."""
        if envelope in self._until:
            return
        self.check_room(prefix, envelope, now_s)
        for old in self._overdue(now_s):
            self._remove(old)
        self._until[envelope] = (prefix, now_s + PARK_S)
        self._waiting.setdefault(prefix, {})[envelope] = None
        self._bytes += len(envelope)

    def check_room(self, prefix: str, envelope: bytes, now_s: int) -> None:
        """Raise `record_refused` (parking_full) when ``envelope`` would not fit once overdue ones are gone."""
        overdue = self._overdue(now_s)
        gone = sum(map(len, overdue))
        waiting = self._waiting.get(prefix, {})
        if (
            len(self._until) - len(overdue) >= MAX_PARKED
            or self._bytes - gone + len(envelope) > MAX_PARKED_BYTES
            or len(waiting) - sum(old in waiting for old in overdue) >= MAX_PARKED_PER_PREFIX
        ):
            raise refused("parking_full", prefix=prefix)

    def take(self, prefix: str) -> tuple[bytes, ...]:
        """What waited for ``prefix``, in order of arrival; it waits no longer."""
        released = tuple(self._waiting.get(prefix, ()))
        for envelope in released:
            self._remove(envelope)
        return released

    def _overdue(self, now_s: int) -> list[bytes]:
        found = []
        for envelope, (_, until) in self._until.items():
            if until > now_s:
                break
            found.append(envelope)
        return found

    def _remove(self, envelope: bytes) -> None:
        prefix, _ = self._until.pop(envelope)
        self._bytes -= len(envelope)
        waiting = self._waiting[prefix]
        del waiting[envelope]
        if not waiting:
            del self._waiting[prefix]
