"""Branches: runs that this exchange's users have behind a peer, and runs that a peer's users have here."""

from __future__ import annotations

from tieline.exchange.commands import Decision, ReadState, TakeAnswer, TakeOffer, TakePeerReports, TakeStop
from tieline.exchange.view import View
from tieline.ports import Ids


def take_offer(view: View, command: TakeOffer, now_ms: int, ids: Ids) -> Decision:
    """A peer asks for a run here: checked against our own policy and the peer's quota, then a job like any other."""
    raise NotImplementedError


def take_stop(view: View, command: TakeStop, now_ms: int, ids: Ids) -> Decision:
    """A peer wants its run to end, or fenced it."""
    raise NotImplementedError


def take_peer_reports(view: View, command: TakePeerReports, now_ms: int, ids: Ids) -> Decision:
    """What a peer says of runs that we placed there; each takes effect once."""
    raise NotImplementedError


def take_answer(view: View, command: TakeAnswer, now_ms: int, ids: Ids) -> Decision:
    """Keep what a peer signed of a claim of ours."""
    raise NotImplementedError


def read_state(view: View, command: ReadState, now_ms: int, ids: Ids) -> Decision:
    """What is free here and behind us, for a peer that may use it."""
    raise NotImplementedError
