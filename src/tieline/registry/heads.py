"""Heads: what an exchange signs of its log, and whether a newer head really goes on from an older one. Pure.

A head that does not extend one that was seen proves, with both signatures, that the log was cut or rewritten, or that
its exchange shows different histories to different readers.
"""

from __future__ import annotations

from collections.abc import Sequence

from tieline.model.audit import HEAD, HeadView, LogHead
from tieline.model.error import TielineError
from tieline.model.reason import Reason
from tieline.registry.envelope import open_statement, sign_statement, stated
from tieline.registry.keys import Key
from tieline.registry.merkle import EMPTY_ROOT, is_consistent

HASH_BYTES = 32


def sign_head(head: LogHead, key: Key, kid: str) -> bytes:
    """The statement."""
    return sign_statement(head, key, kid, HEAD)


def head_view(statement: bytes) -> HeadView:
    """A statement as it is shown, before any check of its signature. Raises TielineError `unauthenticated`."""
    head, _ = open_statement(statement, HEAD, LogHead)
    return HeadView(
        exchange=head.exchange, size=head.size, root=head.root, at_ms=head.at_ms, statement=statement.decode()
    )


def checked_head(statement: bytes, public: str, exchange: str = "") -> LogHead:
    """What the holder of ``public`` signed of the log of ``exchange`` (of any, where that is empty).

    Raises TielineError `unauthenticated` when it did not.
    """
    head = stated(statement, public, HEAD, LogHead)
    if exchange and head.exchange != exchange:
        raise TielineError("unauthenticated", f"the head is of the log of `{head.exchange[:200]}`, not `{exchange}`")
    if not head.size and head.root != EMPTY_ROOT.hex():
        raise TielineError("unauthenticated", "the head of an empty log has the root of no empty log")
    return head


def contradiction(old: LogHead, new: LogHead) -> Reason | None:
    """What two genuine heads of one log prove against who signed them, without any further proof."""
    if new.size < old.size:
        return Reason(code="log_rolled_back", values={"seen": new.size, "known": old.size})
    if new.size == old.size and (new.root, new.head) != (old.root, old.head):
        return Reason(code="log_forked", values={"known": old.size, "seen": new.size})
    return None


def check_growth(old: LogHead, new: LogHead, proof: Sequence[str]) -> Reason | None:
    """What is wrong with ``new`` as the continuation of ``old``; None when ``proof`` shows that it is.

    Both heads are genuine (`checked_head`).
    """
    found = contradiction(old, new)
    if found is not None:
        return found
    try:
        path = [bytes.fromhex(each) for each in proof]
    except ValueError:
        path = [b""]
    holds = all(len(each) == HASH_BYTES for each in path) and is_consistent(
        old.size, bytes.fromhex(old.root), new.size, bytes.fromhex(new.root), path
    )
    return None if holds else Reason(code="log_forked", values={"known": old.size, "seen": new.size})
