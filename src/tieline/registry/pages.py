"""Pages: records on their way, as NDJSON of envelopes, and the checkpoint by which an owner signs many pages at once.

::

    page        = 1*(envelope LF)        at most 2,000 records and 4 MiB
    checkpoint  = record <prefix>/checkpoint/records: for each page its first identifier, count, and sha256 of its bytes

A checkpoint's pages hold all records of the owner's prefix but the checkpoint itself, in order of identifier. A page
that a record was changed in since does not match any more, and is then taken record by record; the others still match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

import msgspec

from tieline.model.error import TielineError
from tieline.model.reason import Reason, Value, sentence
from tieline.model.record import MAX_RECORD_BYTES
from tieline.model.spec import CheckpointSpec, PageDigest
from tieline.registry.envelope import opened
from tieline.registry.keys import check_signature, check_strong, public_bytes
from tieline.registry.rules import refused

MAX_PAGE_RECORDS = 2_000
MAX_PAGE_BYTES = 4 * 2**20
CHECKPOINT_NAME = "checkpoint/records"  # after the prefix: one place to look


def page_refused(rule: str, **values: Value) -> TielineError:
    """The refusal of a page as a whole; the caller raises it."""
    reason = Reason(code=rule, values=values)
    return TielineError("page_refused", sentence(reason), reasons=(reason,))


def page_of(envelopes: Iterable[bytes]) -> bytes:
    """The bytes of a page."""
    lines = b"\n".join(envelopes)
    return lines + b"\n" if lines else b""


def whole_page(body: bytes, count: int, digest: str) -> tuple[bytes, ...]:
    """The envelopes of a page that arrived; ``count`` and ``digest`` (sha256, hex) are what its sender stated.

    Raises TielineError `page_refused`: page_size, page_records, page_line, page_cut, page_count, page_digest.
    """
    if len(body) > MAX_PAGE_BYTES:
        raise page_refused("page_size", size_bytes=len(body), limit_bytes=MAX_PAGE_BYTES)
    if count > MAX_PAGE_RECORDS:
        raise page_refused("page_records", count=count, limit=MAX_PAGE_RECORDS)
    if body and not body.endswith(b"\n"):
        raise page_refused("page_cut")
    *lines, _ = body.split(b"\n", max(0, count) + 1)  # of a flood of lines only one too many is cut
    if len(lines) != count:
        raise page_refused("page_count", count=body.count(b"\n"), stated=count)
    if sha256(body).hexdigest() != digest:
        raise page_refused("page_digest")
    return tuple(lines)


def check_page(envelopes: Sequence[bytes]) -> None:
    """Refuse more than a page, or a line that is longer than a record; raises TielineError `page_refused`."""
    if len(envelopes) > MAX_PAGE_RECORDS:
        raise page_refused("page_records", count=len(envelopes), limit=MAX_PAGE_RECORDS)
    size_bytes = sum(map(len, envelopes)) + len(envelopes)
    if size_bytes > MAX_PAGE_BYTES:
        raise page_refused("page_size", size_bytes=size_bytes, limit_bytes=MAX_PAGE_BYTES)


def is_proved(envelopes: Iterable[bytes], page: int, checkpoint: CheckpointSpec) -> bool:
    """Whether these are the very bytes that the owner's checkpoint states for that page."""
    if not 0 <= page < len(checkpoint.pages):
        return False
    return sha256(page_of(envelopes)).hexdigest() == checkpoint.pages[page].sha256


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint in the making: what is to be signed, and the pages that it speaks of."""

    spec: CheckpointSpec
    pages: tuple[bytes, ...]


def checkpoint_of(
    prefix: str,
    envelopes: Iterable[bytes],
    keys: Mapping[str, str],
    now_s: int,
    *,
    page_records: int = MAX_PAGE_RECORDS,
) -> Checkpoint:
    """The pages of an owner's records and what it may sign of them. ``keys``: its own public keys by name (`kid`).

    Each record is verified with the owner's own key first: nobody may sign what it did not write. Raises
    TielineError `record_refused` for a record that is another's or was changed, `conflict` for one that comes twice.
    """
    public = {kid: public_bytes(text, kid) for kid, text in keys.items()}
    for kid, key in public.items():
        check_strong(key, kid)
    own: dict[str, bytes] = {}
    for envelope in envelopes:
        name = _own_name(prefix, envelope, public)
        if name in own:
            raise TielineError("conflict", f"`{name}` comes twice among the records of `{prefix}`")
        if name != f"{prefix}/{CHECKPOINT_NAME}":
            own[name] = envelope
    digests: list[PageDigest] = []
    pages: list[bytes] = []
    for names in _cut(sorted(own), own, min(page_records, MAX_PAGE_RECORDS)):
        body = page_of(own[name] for name in names)
        first = names[0].partition("/")[2]
        digests.append(PageDigest(first=first, count=len(names), sha256=sha256(body).hexdigest()))
        pages.append(body)
    return Checkpoint(spec=CheckpointSpec(at=now_s, count=len(own), pages=tuple(digests)), pages=tuple(pages))


def _own_name(prefix: str, envelope: bytes, public: Mapping[str, bytes]) -> str:
    parcel = opened(envelope)
    name, kid = parcel.record.id, parcel.parts.kid
    if name.partition("/")[0] != prefix:
        raise refused("log_foreign", name, prefix=prefix)
    key = public.get(kid)
    if key is None:
        raise refused("key_unknown", name, kid=kid, prefix=prefix)
    check_signature(key, parcel.parts.signed, kid, name)
    return name


def _cut(names: Sequence[str], own: Mapping[str, bytes], most: int) -> Iterable[list[str]]:
    page: list[str] = []
    room_bytes = MAX_PAGE_BYTES
    for name in names:
        size_bytes = len(own[name]) + 1
        if page and (len(page) >= most or size_bytes > room_bytes):
            yield page
            page, room_bytes = [], MAX_PAGE_BYTES
        page.append(name)
        room_bytes -= size_bytes
    if page:
        yield page


assert MAX_RECORD_BYTES < MAX_PAGE_BYTES, "a page holds at least one record"
