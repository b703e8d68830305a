"""Export: a part of the log in one file that proves itself: with nothing but the file and the exchange's public key.

Lines of JSON::

    begin   which entries of whose log, the hash before them, the subtrees beside them, signed heads by size
    entry   each entry, its body byte for byte as it was hashed
    end     how many entries there were

The hash chain shows every change, gap and exchange of entries; the tree that the entries and the subtrees beside them
make must have the root that the last head signs, and on the way those of all other heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec

from tieline.drivers.stores.columns import columns_of
from tieline.drivers.stores.log import LogRow, decode_event, verify
from tieline.model.api import EventView
from tieline.model.audit import Digest, ExportView, LogHead, RangeView, Size
from tieline.model.error import TielineError
from tieline.model.reason import sentence
from tieline.registry.heads import checked_head, contradiction
from tieline.registry.merkle import Frontier, leaf_hash, whole_subtrees

FORMAT = 1
MOST_LINE_BYTES = 2**28  # a body of the largest size, and what stands around it
Statement = Annotated[str, msgspec.Meta(max_length=65_536)]


class Begin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="line", tag="begin"):
    """What the file holds. ``heads`` are statements in order of size; the last is over ``size`` entries."""

    format: int
    exchange: str
    first: Annotated[int, msgspec.Meta(ge=1)]
    last: Size
    size: Size
    before: Digest
    left: tuple[Digest, ...]
    right: tuple[Digest, ...]
    heads: Annotated[tuple[Statement, ...], msgspec.Meta(min_length=1)]


class EntryLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="line", tag="entry"):
    """One entry, in the form of `EventView`."""

    seq: int
    time_ms: int
    kind: str
    subject: str
    actor: str
    source: str
    hash: Digest
    body: msgspec.Raw


class End(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="line", tag="end"):
    """After the last entry."""

    entries: int


_encode = msgspec.json.Encoder().encode
Line = Begin | EntryLine | End
_line = msgspec.json.Decoder(Line).decode


class _BrokenError(Exception):
    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at, self.why = at, why


# -- writing ----------------------------------------------------------------------------------------------------------


def begin_line(exchange: str, beside: RangeView, heads: Sequence[str]) -> bytes:
    """The first line."""
    begin = Begin(
        format=FORMAT,
        exchange=exchange,
        first=beside.first,
        last=beside.last,
        size=beside.size,
        before=beside.before,
        left=beside.left,
        right=beside.right,
        heads=tuple(heads),
    )
    return _encode(begin) + b"\n"


def entry_line(event: EventView) -> bytes:
    """The line of one entry."""
    return _encode(EntryLine(**{name: getattr(event, name) for name in EntryLine.__struct_fields__})) + b"\n"


def end_line(entries: int) -> bytes:
    """The last line."""
    return _encode(End(entries=entries)) + b"\n"


# -- verifying --------------------------------------------------------------------------------------------------------


def verify_export(lines: Iterable[bytes], public: str, known: LogHead | None = None) -> ExportView:
    """Check a whole export against the exchange's public key, and against a head that was seen before.

    Never raises for what is wrong with the file: the answer names the first position that does not hold, and why.
    Memory does not grow with the log.
    """
    reading = _Reading(iter(lines), public, known)
    try:
        reading.check()
    except _BrokenError as error:
        return reading.view(error.at, error.why)
    return reading.view(0, "")


class _Reading:
    """One pass over an export."""

    def __init__(self, lines: Iterator[bytes], public: str, known: LogHead | None) -> None:
        self._lines, self._public, self._known = lines, public, known
        self._begin: Begin | None = None
        self._heads: list[LogHead] = []
        self._held = 0  # number of the last entry that a signed head vouches for
        self._end: End | None = None

    def view(self, broken_at: int, why: str) -> ExportView:
        """What was found."""
        begin, head = self._begin, self._heads[-1] if self._heads else None
        return ExportView(
            is_verified=not why,
            exchange=begin.exchange if begin is not None else "",
            first=begin.first if begin is not None else 0,
            last=begin.last if begin is not None else 0,
            size=head.size if head is not None else 0,
            root=head.root if head is not None else "",
            signed_ms=head.at_ms if head is not None else 0,
            heads=len(self._heads),
            broken_at=broken_at,
            why=why,
        )

    def check(self) -> None:
        """The whole file. Raises _BrokenError."""
        begin = self._begin = self._first_line()
        self._check_heads(begin)
        frontier = Frontier(begin.first - 1, [bytes.fromhex(each) for each in begin.left])
        found = verify(self._rows(begin, frontier), bytes.fromhex(begin.before), begin.first - 1)
        if not found.is_verified:
            raise _BrokenError(found.broken_at, found.why)
        if self._end is None or found.events != begin.last:
            why = f"the file ends after entry {found.events}: entries {found.events + 1} to {begin.last} are missing"
            raise _BrokenError(found.events + 1, why)
        if self._end.entries != begin.last - begin.first + 1 or next(self._lines, b""):
            raise _BrokenError(begin.last + 1, "something stands after its end, or another number of entries is stated")
        for (level, _), node in zip(whole_subtrees(begin.last, begin.size), begin.right, strict=True):
            frontier.append(bytes.fromhex(node), level)
        self._vouch(frontier, None)

    def _first_line(self) -> Begin:
        begin = self._decoded(next(self._lines, b""), 0)
        if not isinstance(begin, Begin):
            raise _BrokenError(0, "the file does not begin as an export of a log")
        if begin.format != FORMAT:
            raise _BrokenError(0, f"the file has format {begin.format}, this version reads {FORMAT}")
        if not begin.first - 1 <= begin.last <= begin.size:
            raise _BrokenError(0, f"entries {begin.first} to {begin.last} are no part of {begin.size}")
        sides = (begin.first - 1).bit_count(), len(list(whole_subtrees(begin.last, begin.size)))
        if sides != (len(begin.left), len(begin.right)):
            raise _BrokenError(0, "the subtrees beside the entries are not as many as there must be")
        return begin

    def _check_heads(self, begin: Begin) -> None:
        """Signatures, order, the last one's size, and the head that was seen before."""
        size = -1
        for statement in begin.heads:
            try:
                head = checked_head(statement.encode(), self._public, begin.exchange)
            except TielineError as error:
                raise _BrokenError(0, f"a head of the log is not genuine: {error.message}") from None
            if head.size <= size:
                raise _BrokenError(0, f"the heads are out of order: {head.size} follows {size}")
            size = head.size
            self._heads.append(head)
        if size != begin.size:
            raise _BrokenError(0, f"the last head is over {size} entries, the file states {begin.size}")
        known = self._known
        if known is None:
            return
        if known.exchange != begin.exchange:
            raise _BrokenError(0, f"the file is of the log of `{begin.exchange}`, not of `{known.exchange}`")
        for head in self._heads:
            found = contradiction(known, head) if head.size == known.size or head is self._heads[-1] else None
            if found is not None:
                raise _BrokenError(min(known.size, head.size), sentence(found))
        if all(head.size != known.size for head in self._heads):
            self._heads.insert(sum(head.size < known.size for head in self._heads), known)

    def _rows(self, begin: Begin, frontier: Frontier) -> Iterator[LogRow]:
        """The entries as rows; what passed the chain's check is then put into the tree."""
        self._vouch(frontier, None)
        at = begin.first
        for data in self._lines:
            line = self._decoded(data, at)
            if isinstance(line, End):
                self._end = line
                return
            if isinstance(line, Begin) or line.seq > begin.last:
                raise _BrokenError(at, f"what stands in the place of entry {at} is none of the entries of this file")
            row = row_of(line)
            yield row
            frontier.append(leaf_hash(row.hash))
            self._vouch(frontier, row.hash)
            at += 1

    def _vouch(self, frontier: Frontier, end: bytes | None) -> None:
        """Compare with the heads over this very length."""
        for head in self._heads:
            if head.size != frontier.size:
                continue
            if head.root != frontier.root().hex() or (end is not None and head.head != end.hex()):
                why = f"the entries up to {head.size} are not those whose root was signed"
                assert self._begin is not None
                raise _BrokenError(max(self._held + 1, self._begin.first), why)
            self._held = head.size

    def _decoded(self, data: bytes, at: int) -> Line:
        if not data.endswith(b"\n") or len(data) > MOST_LINE_BYTES:
            raise _BrokenError(at, f"the file is cut at entry {at}" if data else f"the file ends before entry {at}")
        try:
            line: Line = _line(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _BrokenError(at, f"the line of entry {at} cannot be read: {error}") from None
        return line


def row_of(line: EntryLine) -> LogRow:
    """An entry as the log holds it; its filter columns are those that its body states."""
    body = bytes(line.body)
    try:
        job, site = columns_of(decode_event(body), None)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # `verify` says so
        job = site = None
    digest, source = bytes.fromhex(line.hash), line.source or None
    return LogRow(line.seq, line.time_ms, line.kind, line.subject, job, site, line.actor, body, digest, source)
