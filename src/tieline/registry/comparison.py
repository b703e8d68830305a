"""Comparison: two holders of one log find out what differs, step by step (a part of `follow.py`).

::

    AskDigest (ours, of a log that is new: nothing here?) -> the log is taken page by page
    AskDigest (theirs) -> AskDigest (ours) -> equal: done
                                           -> AskBuckets (theirs) -> AskBuckets (ours) -> AskEnvelopes -> Take
                                                ^ the next chunk of buckets, until none is left |
                                           -> we hold too little for this to pay: the log is taken page by page

A log that is new in the peer's session is compared before it is taken: after a renumbering, or when another peer
brought it already, nothing or little moves. Each round fetches a bounded number of records.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tieline.registry.digest import differing, digest_of, packed, read_entries, unpacked, wanted
from tieline.registry.pages import page_refused, whole_page
from tieline.registry.pulling import Asking, Comparing, kinds_of
from tieline.registry.rules import SKEW_S
from tieline.registry.serving import (
    MOST_ENTRIES,
    AskBuckets,
    AskDigest,
    AskEnvelopes,
    BucketsAnswer,
    DigestAnswer,
    PageAnswer,
)

if TYPE_CHECKING:
    from tieline.registry.turn import Turn

replace = msgspec.structs.replace

COMPARED_LEAST = 500  # records of a new log from which on it is compared before it is taken
MOST_FETCHED = 20_000  # records of one comparison; the next one goes on
FETCHED_AT_ONCE = 500
MOST_ENTRY_BYTES = 64 * 2**20


def start(turn: Turn, prefix: str) -> None:
    """Ask for the digest of a log over there; of a new one, first for what is here: mostly nothing."""
    alive_s = max(0, turn.now_ms // 1000 - SKEW_S)
    turn.change(comparing=Comparing(prefix=prefix, alive_s=alive_s))
    request = AskDigest(prefix=prefix, kinds=kinds_of(turn.state, prefix), alive_s=alive_s)
    turn.ask(request, is_own=turn.state.logs[prefix].is_new)


def pursue(turn: Turn) -> bool:
    """Go on with the comparison that is under way; False when there is none."""
    comparing = turn.state.comparing
    if comparing is None:
        return False
    if comparing.prefix in turn.state.taking:
        return True  # its records are being committed
    kinds, alive_s = kinds_of(turn.state, comparing.prefix), comparing.alive_s
    if comparing.ids:
        turn.ask(AskEnvelopes(prefix=comparing.prefix, ids=comparing.ids[:FETCHED_AT_ONCE]))
    elif comparing.chunk:
        turn.ask(AskBuckets(prefix=comparing.prefix, buckets=comparing.chunk, kinds=kinds, alive_s=alive_s))
    elif comparing.buckets and comparing.fetched < MOST_FETCHED:
        chunk = _chunk(comparing)
        turn.change(comparing=replace(comparing, chunk=chunk, buckets=comparing.buckets[len(chunk) :]))
        return pursue(turn)
    else:
        _done(turn, comparing)
        return False
    return True


def answered(turn: Turn, asking: Asking, answer: Any) -> None:
    """Take in an answer to one of its questions; raises TielineError `page_refused` for one that cannot be used."""
    comparing = turn.state.comparing
    if comparing is None:
        return
    request = asking.request
    if getattr(answer, "prefix", "") != comparing.prefix:
        raise page_refused("page_other", asked=comparing.prefix, seen=str(getattr(answer, "prefix", ""))[:200])
    if not asking.is_own and answer.session != turn.state.logs[comparing.prefix].session:
        turn.change(comparing=None, list_ms=turn.now_ms)
        return
    if isinstance(request, AskDigest) and isinstance(answer, DigestAnswer):
        digest = unpacked(answer.body)
        if not asking.is_own:
            comparing = replace(comparing, session=answer.session, serial=answer.serial, digest=answer.body)
        elif not digest.count:
            nothing_here(turn)
            return
        else:
            comparing = replace(comparing, ours=answer.body)
        turn.change(comparing=comparing)
        if comparing.digest and comparing.ours:
            _compare(turn, comparing)
        else:
            turn.ask(request, is_own=not asking.is_own)
    elif isinstance(request, AskBuckets) and isinstance(answer, BucketsAnswer):
        _check_entries(answer)
        if asking.is_own:
            _look(turn, comparing, answer)
        else:
            _look_at_home(turn, comparing, request, answer)
    elif isinstance(request, AskEnvelopes) and isinstance(answer, PageAnswer):
        _fetch(turn, comparing, request, answer)
    else:
        raise page_refused("page_form", why="it answers another question")


def nothing_here(turn: Turn) -> None:
    """Our own archive has no such log."""
    comparing = turn.state.comparing
    if comparing is None:
        return
    if turn.state.logs[comparing.prefix].is_new:
        _take_all(turn, comparing)
    else:
        comparing = replace(comparing, ours=packed(digest_of("")))
        turn.change(comparing=comparing)
        _compare(turn, comparing)


def mended(turn: Turn, prefix: str) -> None:
    """What was fetched is committed."""
    comparing = turn.state.comparing
    if comparing is None or comparing.prefix != prefix:
        turn.caught_up(prefix)


def _compare(turn: Turn, comparing: Comparing) -> None:
    ours, theirs = unpacked(comparing.ours), unpacked(comparing.digest)
    if turn.state.logs[comparing.prefix].is_new and ours.count * 2 < theirs.count:
        _take_all(turn, comparing)
        return
    turn.change(comparing=replace(comparing, ours=b"", buckets=differing(ours, theirs)))


def _take_all(turn: Turn, comparing: Comparing) -> None:
    """Too little of a new log is here for a comparison to pay."""
    turn.change(comparing=None)
    turn.put_log(comparing.prefix, is_new=False)
    turn.caught_up(comparing.prefix)


def _chunk(comparing: Comparing) -> tuple[int, ...]:
    """As many of the differing buckets as fit in one answer; at least one."""
    counts = unpacked(comparing.digest).counts
    names = np.array(comparing.buckets, np.int64)
    total = np.cumsum(counts[names], dtype=np.int64)
    fitting = max(1, int(np.searchsorted(total, MOST_ENTRIES, side="right")))
    return comparing.buckets[:fitting]


def _check_entries(answer: BucketsAnswer) -> None:
    if len(answer.body) > MOST_ENTRY_BYTES:
        raise page_refused("page_size", size_bytes=len(answer.body), limit_bytes=MOST_ENTRY_BYTES)
    if sha256(answer.body).hexdigest() != answer.sha256:
        raise page_refused("page_digest")


def _look_at_home(turn: Turn, comparing: Comparing, request: AskBuckets, answer: BucketsAnswer) -> None:
    """What they hold is known: what do we?"""
    buckets = comparing.buckets
    chunk = request.buckets
    if answer.next_bucket >= 0:
        if answer.next_bucket not in chunk[1:]:
            raise page_refused("page_order", asked=chunk[0], seen=answer.next_bucket)
        cut = chunk.index(answer.next_bucket)
        chunk, buckets = chunk[:cut], chunk[cut:] + buckets
    turn.change(comparing=replace(comparing, chunk=chunk, buckets=buckets, entries=answer.body))
    turn.ask(replace(request, buckets=chunk), is_own=True)


def _look(turn: Turn, comparing: Comparing, answer: BucketsAnswer) -> None:
    """Both sides are known: what is missing here?"""
    theirs = read_entries(comparing.prefix, comparing.entries)
    ours = read_entries(comparing.prefix, answer.body)
    room = max(0, MOST_FETCHED - comparing.fetched)
    ids = tuple(wanted(ours, theirs)[:room])
    known = replace(comparing, ids=ids, chunk=(), entries=b"", fetched=comparing.fetched + len(ids))
    turn.change(comparing=known)


def _fetch(turn: Turn, comparing: Comparing, request: AskEnvelopes, answer: PageAnswer) -> None:
    envelopes = whole_page(answer.body, answer.count, answer.sha256)
    asked = len(request.ids)
    if answer.count > asked or (not answer.is_last and not answer.count):
        raise page_refused("page_count", count=answer.count, stated=asked)
    gone = asked if answer.is_last else answer.count  # they come in the order asked
    turn.change(comparing=replace(comparing, ids=comparing.ids[gone:]))
    if envelopes:
        log = turn.state.logs[comparing.prefix]
        turn.take(comparing.prefix, log.serial, envelopes, is_mending=True)


def _done(turn: Turn, comparing: Comparing) -> None:
    """Nothing that they hold is missing here, as far as one round goes."""
    turn.change(comparing=None)
    log = turn.state.logs[comparing.prefix]
    is_whole = not comparing.buckets and not comparing.ids
    turn.put_log(log.prefix, compared_ms=turn.now_ms, is_new=False)
    if log.is_new and is_whole and comparing.session == log.session:
        turn.put_log(log.prefix, page=-1)
        turn.take(log.prefix, max(log.serial, comparing.serial), ())
        return
    turn.caught_up(log.prefix)
