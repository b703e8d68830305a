"""One line of the table that `make bench` prints."""

from __future__ import annotations

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A claim, the figure seen, and the anchor measured in the same run (or the published one, said so in the note)."""

    claim: str
    figure: float
    unit: str
    anchor: float | None = None
    anchor_name: str = ""
    ratio: float | None = None
    target: str = ""
    note: str = ""
