"""Archive: the logs of records as a simulated disk holds them (port `Archive`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tieline.exchange.view import ExchangeRow
from tieline.ports import Logged, LogHead
from tieline.registry.pages import CHECKPOINT_NAME
from tieline.sim.disk import Disk


class DiskArchive:
    """Questions about the logs, answered from what was committed."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def position(self) -> tuple[str, int]:
        """As `Archive`."""
        row = next(iter(self.disk.state["exchange"].values()), None)
        session = msgspec.json.decode(row["doc"], type=ExchangeRow).session if row is not None else ""
        return session, self.disk.position()[0]

    def logs(self, after: str, limit: int) -> Sequence[LogHead]:
        """As `Archive`."""
        names = sorted(prefix for prefix in self.disk.state["serial"] if prefix > after)[:limit]
        return [head for head in map(self.log, names) if head is not None]

    def log(self, prefix: str) -> LogHead | None:
        """As `Archive`."""
        row = self.disk.state["serial"].get(prefix)
        if row is None:
            return None
        held = self._of(prefix, ())
        is_signed = any(each["id"] == f"{prefix}/{CHECKPOINT_NAME}" and each["status"] == "active" for each in held)
        return LogHead(prefix=prefix, serial=row["serial"], count=len(held), has_checkpoint=is_signed)

    def delta(self, prefix: str, after: int, limit: int, kinds: Sequence[str] = ()) -> Sequence[Logged]:
        """As `Archive`."""
        found = [_logged(row) for row in self._of(prefix, kinds) if row["serial"] > after]
        return sorted(found, key=lambda each: each.serial)[:limit]

    def between(self, first: str, until: str, below: int, limit: int) -> Sequence[Logged]:
        """As `Archive`."""
        rows = self._of(first.partition("/")[0], ())
        found = [_logged(row) for row in rows if first <= row["id"] < until and row["serial"] < below]
        return sorted(found, key=lambda each: each.id)[:limit]

    def digits(self, prefix: str, kinds: Sequence[str] = (), alive_s: int = 0) -> str:
        """As `Archive`."""
        return "".join(row["sha256"][:32] for row in self._alive(prefix, kinds, alive_s))

    def hashes(
        self, prefix: str, buckets: Sequence[str], kinds: Sequence[str] = (), alive_s: int = 0
    ) -> Sequence[tuple[str, str]]:
        """As `Archive`."""
        rows = self._alive(prefix, kinds, alive_s)
        return [(row["id"], row["sha256"]) for row in rows if row["sha256"][:3] in buckets]

    def envelopes(self, ids: Sequence[str]) -> Sequence[Logged]:
        """As `Archive`."""
        kept = self.disk.state["record"]
        return [_logged(kept[name]) for name in ids if name in kept]

    def _of(self, prefix: str, kinds: Sequence[str]) -> list[Any]:
        rows = self.disk.records.get(prefix, {}).values()
        return [row for row in rows if not kinds or row["kind"] in kinds]

    def _alive(self, prefix: str, kinds: Sequence[str], alive_s: int) -> list[Any]:
        rows = self._of(prefix, kinds)
        return [row for row in rows if not alive_s or row["exp"] > alive_s or row["status"] == "withdrawn"]


def _logged(row: Any) -> Logged:
    return Logged(row["id"], row["serial"], row["sha256"], row["envelope"])
