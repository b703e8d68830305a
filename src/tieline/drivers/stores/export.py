"""Export: a part of the log in one file that proves itself: with nothing but the file and the exchange's public key.

Lines of JSON::

    begin   which entries of whose log, the hash before them, the subtrees beside them, signed heads by size, and
            how the last head goes on from those that were seen elsewhere over lengths outside of this part
    entry   each entry, its body byte for byte as it was hashed
    end     how many entries there were

The hash chain shows every change, gap and exchange of entries; the tree that the entries and the subtrees beside them
make must have the root that the last head signs, and on the way those of all other heads. A head whose length lies
outside of this part is tied to the last one by a consistency proof; without one it proves nothing, and that is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec

from tieline.drivers.stores.columns import columns_of
from tieline.drivers.stores.log import LogRow, decode_event, fault
from tieline.model.api import EventView
from tieline.model.audit import Digest, ExportView, LogHead, RangeView, Size
from tieline.model.error import TielineError
from tieline.model.reason import Reason, Value, sentence
from tieline.registry.heads import check_growth, checked_head, contradiction
from tieline.registry.merkle import Frontier, leaf_hash, whole_subtrees

FORMAT = 1
MOST_LINE_BYTES = 2**28  # a body of the largest size, and what stands around it
Statement = Annotated[str, msgspec.Meta(max_length=65_536)]


class Growth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That the log of the last head goes on from its first ``size`` entries (RFC 9162, section 2.1.4)."""

    size: Size
    proof: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=64)]


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
    growths: Annotated[tuple[Growth, ...], msgspec.Meta(max_length=1_000)] = ()


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
    def __init__(self, at: int, code: str, **values: Value) -> None:
        super().__init__(code)
        self.at, self.reason = at, Reason(code=code, values=values)


# -- writing ----------------------------------------------------------------------------------------------------------


def begin_line(exchange: str, beside: RangeView, heads: Sequence[str], growths: Sequence[Growth] = ()) -> bytes:
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
        growths=tuple(growths),
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
        return reading.view(error.at, error.reason)
    return reading.view(0, None)


class _Reading:
    """One pass over an export."""

    def __init__(self, lines: Iterator[bytes], public: str, known: LogHead | None) -> None:
        self._lines, self._public, self._known = lines, public, known
        self._begin: Begin | None = None
        self._heads: list[LogHead] = []  # in order of size; each is compared with what the entries make
        self._held = 0  # number of the last entry that a signed head vouches for
        self._end: End | None = None

    def view(self, broken_at: int, reason: Reason | None) -> ExportView:
        """What was found."""
        begin, head = self._begin, self._heads[-1] if self._heads else None
        return ExportView(
            is_verified=reason is None,
            exchange=begin.exchange if begin is not None else "",
            first=begin.first if begin is not None else 0,
            last=begin.last if begin is not None else 0,
            size=head.size if head is not None else 0,
            root=head.root if head is not None else "",
            signed_ms=head.at_ms if head is not None else 0,
            heads=len(self._heads),
            broken_at=broken_at,
            reason=reason,
            why=sentence(reason) if reason is not None else "",
        )

    def check(self) -> None:
        """The whole file. Raises _BrokenError."""
        begin = self._begin = self._first_line()
        self._check_heads(begin)
        self._check_known(begin)
        self._check_growths(begin)
        frontier = Frontier(begin.first - 1, [bytes.fromhex(each) for each in begin.left])
        last = self._check_entries(begin, frontier)
        if self._end is None or last != begin.last:
            raise _BrokenError(last + 1, "export_cut", entry=last + 1, last=last, end=begin.last)
        if self._end.entries != begin.last - begin.first + 1 or next(self._lines, b""):
            raise _BrokenError(begin.last + 1, "export_more")
        for (level, _), node in zip(whole_subtrees(begin.last, begin.size), begin.right, strict=True):
            frontier.append(bytes.fromhex(node), level)
        self._vouch(frontier, None)

    def _first_line(self) -> Begin:
        begin = self._decoded(next(self._lines, b""), 0)
        if not isinstance(begin, Begin):
            raise _BrokenError(0, "export_form", what="the file does not begin as an export of a log")
        if begin.format != FORMAT:
            raise _BrokenError(
                0, "export_form", what=f"the file has format {begin.format}, this version reads {FORMAT}"
            )
        if not begin.first - 1 <= begin.last <= begin.size:
            what = f"entries {begin.first} to {begin.last} are no part of {begin.size}"
            raise _BrokenError(0, "export_form", what=what)
        sides = (begin.first - 1).bit_count(), len(list(whole_subtrees(begin.last, begin.size)))
        if sides != (len(begin.left), len(begin.right)):
            what = "the subtrees beside the entries are not as many as there must be"
            raise _BrokenError(0, "export_form", what=what)
        return begin

    def _check_heads(self, begin: Begin) -> None:
        """Signatures, whose log, order, and the last one's size."""
        size = -1
        for statement in begin.heads:
            try:
                head = checked_head(statement.encode(), self._public)
            except TielineError as error:
                raise _BrokenError(0, "export_signature", why=error.message) from None
            if head.exchange != begin.exchange:
                raise _BrokenError(0, "export_head_foreign", seen=head.exchange, asked=begin.exchange)
            if head.size <= size:
                raise _BrokenError(0, "export_order", seen=head.size, last=size)
            size = head.size
            self._heads.append(head)
        if size != begin.size:
            raise _BrokenError(0, "export_size", seen=size, known=begin.size)

    def _check_known(self, begin: Begin) -> None:
        """The head that was seen before is of this log, and is compared like those in the file."""
        known = self._known
        if known is None:
            return
        if known.exchange != begin.exchange:
            raise _BrokenError(0, "export_foreign", seen=begin.exchange, asked=known.exchange)
        for head in self._heads:
            found = contradiction(known, head) if head.size == known.size or head is self._heads[-1] else None
            if found is not None:
                raise _BrokenError(min(known.size, head.size), found.code, **found.values)
        if all(head.size != known.size for head in self._heads):
            self._heads.insert(sum(head.size < known.size for head in self._heads), known)

    def _check_growths(self, begin: Begin) -> None:
        """What the entries cannot show of a head, because its length lies outside of them, a proof must."""
        growths = {growth.size: growth for growth in begin.growths}
        last = self._heads[-1]
        for head in self._heads[:-1]:
            if begin.first - 1 <= head.size <= begin.last or not head.size:
                continue
            growth = growths.get(head.size)
            if growth is None:
                raise _BrokenError(0, "export_unproved", known=head.size)
            found = check_growth(head, last, growth.proof)
            if found is not None:
                raise _BrokenError(0, found.code, **found.values)

    def _check_entries(self, begin: Begin, frontier: Frontier) -> int:
        """The chain, and the tree that it makes; the number of the last entry that was there."""
        self._vouch(frontier, None)
        previous, seq = bytes.fromhex(begin.before), begin.first - 1
        for data in self._lines:
            line = self._decoded(data, seq + 1)
            if isinstance(line, End):
                self._end = line
                break
            if isinstance(line, Begin) or line.seq > begin.last:
                what = f"what stands in the place of entry {seq + 1} is none of the entries of this file"
                raise _BrokenError(seq + 1, "export_form", what=what)
            row = row_of(line)
            found = fault(row, seq, previous)
            if found is not None:
                raise _BrokenError(seq + 1, found.code, **found.values)
            previous, seq = row.hash, row.seq
            frontier.append(leaf_hash(row.hash))
            self._vouch(frontier, row.hash)
        return seq

    def _vouch(self, frontier: Frontier, end: bytes | None) -> None:
        """Compare with the heads over this very length."""
        for head in self._heads:
            if head.size != frontier.size:
                continue
            if head.root != frontier.root().hex() or (end is not None and head.head != end.hex()):
                assert self._begin is not None
                at = max(self._held + 1, self._begin.first)
                raise _BrokenError(at, "export_root", entry=head.size)
            self._held = head.size

    def _decoded(self, data: bytes, at: int) -> Line:
        if not data.endswith(b"\n") or len(data) > MOST_LINE_BYTES:
            if data:
                raise _BrokenError(at, "export_cut_line", entry=at)
            raise _BrokenError(at, "export_form", what=f"the file ends before entry {at}")
        try:
            line: Line = _line(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            what = f"the line of entry {at} cannot be read: {error}"
            raise _BrokenError(at, "export_form", what=what) from None
        return line


def row_of(line: EntryLine) -> LogRow:
    """An entry as the log holds it; its filter columns are those that its body states."""
    body = bytes(line.body)
    try:
        job, site = columns_of(decode_event(body), None)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # `fault` says so
        job = site = None
    digest, source = bytes.fromhex(line.hash), line.source or None
    return LogRow(line.seq, line.time_ms, line.kind, line.subject, job, site, line.actor, body, digest, source)
