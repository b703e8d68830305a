"""Audit: signed heads of the log, the proofs that go with them, and how the API shows both. Hashes are in hex."""

from __future__ import annotations

from typing import Annotated

import msgspec

from tieline.model.api import EventView, View
from tieline.model.reason import Reason

HEAD = "log-head"  # type of the statement
MOST_SIZE = 2**53 - 1

Size = Annotated[int, msgspec.Meta(ge=0, le=MOST_SIZE)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class LogHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an exchange signs of its log: the first ``size`` entries have this ``root``, the last of them this hash."""

    exchange: Annotated[str, msgspec.Meta(max_length=200)]
    size: Size
    root: Digest  # of the Merkle tree (RFC 9162) whose leaves are the hashes of the entries
    head: Digest  # of the hash chain; zeros for an empty log
    at_ms: Size


class HeadView(View, frozen=True, kw_only=True):
    """A signed head, and what its ``statement`` (type ``log-head``) says."""

    exchange: str
    size: int
    root: str
    at_ms: int
    statement: str


class HeadPage(View, frozen=True, kw_only=True):
    """Signed heads, in order of exchange and size."""

    heads: tuple[HeadView, ...]


class GrowthView(View, frozen=True, kw_only=True):
    """That the first ``old`` entries are the beginning of the first ``new`` (RFC 9162, section 2.1.4)."""

    old: int
    new: int
    old_root: str
    new_root: str
    proof: tuple[str, ...]


class InclusionView(View, frozen=True, kw_only=True):
    """That ``entry`` is in the tree of ``size`` entries (RFC 9162, section 2.1.3); its leaf is number ``seq - 1``."""

    entry: EventView
    size: int
    root: str
    proof: tuple[str, ...]


class RangeView(View, frozen=True, kw_only=True):
    """The whole subtrees beside the entries ``first`` to ``last``, which lead from those entries to the root."""

    first: int
    last: int
    size: int
    before: str  # hash of the entry before the first; zeros where there is none
    left: tuple[str, ...]  # of entries 1 to first - 1, the largest first
    right: tuple[str, ...]  # of entries last + 1 to size, in order


class ExportView(View, frozen=True, kw_only=True):
    """What was found in an exported log. ``broken_at`` is the first position that does not hold; 0: the file itself."""

    is_verified: bool
    exchange: str
    first: int
    last: int
    size: int  # of the log, as the last head says
    root: str
    signed_ms: int
    heads: int  # how many were compared
    broken_at: int
    reason: Reason | None  # null when everything holds
    why: str  # the reason as a sentence
