"""Replication: pages of a peer's logs, verified here record by record or by their owner's checkpoint, and taken."""

from __future__ import annotations

from tieline.exchange.commands import Decision, TakePage
from tieline.exchange.view import View
from tieline.ports import Ids


def take_page(view: View, command: TakePage, now_ms: int, ids: Ids) -> Decision:
    """Take what is good of a page; what is refused is counted by rule, and the cursor moves on either way."""
    raise NotImplementedError
