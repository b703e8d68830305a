"""Digest: 4,096 buckets by which two holders of one log find what differs, without moving what does not.

A record falls into the bucket that the first 12 bits of its payload's sha256 name; a bucket is the count of its records
and the XOR of their first 16 bytes. Two digests are compared; of the buckets that differ (two for each record that was
changed, one for each that is missing) identifiers and hashes are exchanged, and then the records themselves.

Cost: 6 million records a second on one core (numpy); 90 KB on the wire; two catalogues of a million that differ in 100
exchange about 50,000 identifiers with hashes.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tieline.model.error import TielineError
from tieline.registry.keys import base64url_bytes
from tieline.registry.pages import page_refused

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUCKETS = 4_096
HASH_BYTES = 16
HASH_DIGITS = 2 * HASH_BYTES
_MAGIC = b"TLD1"
_ROW = np.dtype([("bucket", "<u2"), ("count", "<u4"), ("sum", "<u8", 2)])  # 22 bytes, packed
_HEAD = struct.Struct("<4sH")
_LINE_DIGITS = 22  # base64url of 16 bytes


@dataclass(frozen=True)
class Digest:
    """Counts and sums by bucket."""

    counts: NDArray[np.uint32]
    sums: NDArray[np.uint64]  # two words for each bucket

    @property
    def count(self) -> int:
        """Records in all buckets."""
        return int(self.counts.sum(dtype=np.int64))


def digest_of(digits: str) -> Digest:
    """The digest of hashes that are written one after the other, 32 hex digits each (`Archive.digits`)."""
    data = bytes.fromhex(digits)
    assert len(data) % HASH_BYTES == 0, len(data)
    counts = np.zeros(BUCKETS, np.uint32)
    sums = np.zeros((BUCKETS, 2), np.uint64)
    if data:
        words = np.frombuffer(data, "<u8").reshape(-1, 2)
        buckets = np.frombuffer(data, ">u2").reshape(-1, HASH_BYTES // 2)[:, 0] >> 4
        order = np.argsort(buckets, kind="stable")
        counts[:] = np.bincount(buckets, minlength=BUCKETS)
        filled = np.flatnonzero(counts)
        starts = np.concatenate(([0], np.cumsum(counts[filled], dtype=np.int64)[:-1]))
        sums[filled] = np.bitwise_xor.reduceat(words[order], starts, axis=0)
    return Digest(counts, sums)


def differing(ours: Digest, theirs: Digest) -> tuple[int, ...]:
    """The buckets that differ, ascending."""
    unlike = (ours.counts != theirs.counts) | (ours.sums != theirs.sums).any(axis=1)
    return tuple(int(bucket) for bucket in np.flatnonzero(unlike))


def packed(digest: Digest) -> bytes:
    """The compact form: magic, number of buckets that hold something, and for each its number, count and sum."""
    filled = np.flatnonzero(digest.counts)
    rows = np.zeros(len(filled), _ROW)
    rows["bucket"], rows["count"], rows["sum"] = filled, digest.counts[filled], digest.sums[filled]
    return _HEAD.pack(_MAGIC, len(filled)) + rows.tobytes()


def unpacked(data: bytes) -> Digest:
    """Read the compact form; raises TielineError `page_refused` (page_form) for anything else."""
    if len(data) < _HEAD.size or len(data) > _HEAD.size + BUCKETS * _ROW.itemsize:
        raise page_refused("page_form", why=f"a digest of {len(data)} bytes")
    magic, count = _HEAD.unpack_from(data)
    if magic != _MAGIC or len(data) != _HEAD.size + count * _ROW.itemsize:
        raise page_refused("page_form", why="the digest has another form or was cut")
    rows = np.frombuffer(data, _ROW, offset=_HEAD.size)
    names = rows["bucket"].astype(np.int64)
    if count and ((names >= BUCKETS).any() or (np.diff(names) <= 0).any() or (rows["count"] == 0).any()):
        raise page_refused("page_form", why="the buckets of the digest are not in order")
    counts = np.zeros(BUCKETS, np.uint32)
    sums = np.zeros((BUCKETS, 2), np.uint64)
    counts[names], sums[names] = rows["count"], rows["sum"]
    return Digest(counts, sums)


def bucket_name(bucket: int) -> str:
    """The hex digits with which the hashes of a bucket begin."""
    return f"{bucket:03x}"


def entry_lines(prefix: str, hashes: Iterable[tuple[str, str]]) -> bytes:
    """Identifiers of one log with their hashes: ``<kind>/<name> <22 base64url digits>``, sorted, a line each."""
    skip = len(prefix) + 1
    lines = sorted(f"{name[skip:]} {_short(sha256)}\n" for name, sha256 in hashes)
    return "".join(lines).encode()


def read_entries(prefix: str, body: bytes) -> dict[str, str]:
    """The same read: hex digits (32) by identifier; raises TielineError `page_refused` (page_form)."""
    found: dict[str, str] = {}
    try:
        for line in body.decode("ascii").splitlines():
            name, _, digits = line.partition(" ")
            if len(digits) != _LINE_DIGITS or not name or len(name) > 200:
                raise page_refused("page_form", why="a line is no identifier with a hash")
            found[f"{prefix}/{name}"] = base64url_bytes(digits.encode(), "hash").hex()
    except (UnicodeDecodeError, TielineError):
        raise page_refused("page_form", why="a line is no identifier with a hash") from None
    return found


def wanted(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Sequence[str]:
    """What they hold and we do not, or hold in another revision, in order of identifier."""
    return sorted(name for name, digits in theirs.items() if ours.get(name) != digits)


def _short(sha256: str) -> str:
    return urlsafe_b64encode(bytes.fromhex(sha256[:HASH_DIGITS])).decode()[:_LINE_DIGITS]
