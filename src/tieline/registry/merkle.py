"""Merkle tree over the entries of a log: roots, and proofs that need neither the log nor trust in who keeps it.

::

    leaf = sha256( 0x00 | entry hash )        node = sha256( 0x01 | left | right )
    the tree of n leaves splits at the largest power of two below n

Source of the algorithms: RFC 9162, section 2.1 (the tree, inclusion proofs 2.1.3, consistency proofs 2.1.4). Whole rows
of 256 hashes are *tiles*: once written they never change, so that a proof over millions of entries reads a few of them.
A hash is 32 bytes everywhere. Positions count from 0; a size is a number of leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()
TILE_LEVELS = 8  # of the tree in one level of tiles
TILE_HASHES = 1 << TILE_LEVELS

Hashes = Callable[[int, int], bytes]  # level, place -> the hash of that whole subtree of 2**level leaves


def leaf_hash(entry_hash: bytes) -> bytes:
    """The leaf of one entry."""
    return sha256(b"\x00" + entry_hash).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The node above two."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: the whole subtrees that its size is the sum of, and the tiles that came whole.

    Memory: 32 bytes a level. `append` costs two hashes a leaf on average.
    """

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        assert size.bit_count() == len(peaks), (size, len(peaks))
        self.size = size
        self._peaks = list(peaks)  # of the largest subtree first

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """Roots of the whole subtrees, the largest first."""
        return tuple(self._peaks)

    def append(self, node: bytes, level: int = 0) -> None:
        """One more leaf; or a whole subtree of ``2**level`` leaves, where the size is a multiple of that."""
        size = self.size >> level
        assert size << level == self.size, (self.size, level)
        self.size += 1 << level
        while size & 1:
            node = node_hash(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Many more leaves, oldest first."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """The root of the tree as it is; `EMPTY_ROOT` of none."""
        return root_of(self._peaks)


def root_of(peaks: Sequence[bytes]) -> bytes:
    """The root above whole subtrees, the largest first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def whole_subtrees(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The fewest whole subtrees, as (level, place), that cover the leaves [begin, end), in order."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        yield level, begin >> level
        begin += 1 << level


def range_hash(begin: int, end: int, hashes: Hashes) -> bytes:
    """The hash of the subtree over [begin, end), one that the tree has."""
    return root_of([hashes(level, place) for level, place in whole_subtrees(begin, end)])


def split(size: int) -> int:
    """The largest power of two below ``size``, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(place: int, size: int, hashes: Hashes) -> tuple[bytes, ...]:
    """The hashes beside the way from leaf ``place`` up to the root of the first ``size`` leaves, lowest first."""
    assert 0 <= place < size, (place, size)
    proof: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + split(end - begin)
        if place < middle:
            proof.append(range_hash(middle, end, hashes))
            end = middle
        else:
            proof.append(range_hash(begin, middle, hashes))
            begin = middle
    return tuple(reversed(proof))


def consistency_proof(old: int, new: int, hashes: Hashes) -> tuple[bytes, ...]:
    """What shows that the tree of ``old`` leaves is the beginning of the tree of ``new`` leaves; empty when equal."""
    assert 0 < old <= new, (old, new)
    proof: list[bytes] = []
    begin, end, is_known = 0, new, True
    while old != end:
        middle = begin + split(end - begin)
        if old <= middle:
            proof.append(range_hash(middle, end, hashes))
            end = middle
        else:
            proof.append(range_hash(begin, middle, hashes))
            begin, is_known = middle, False
    if not is_known:
        proof.append(range_hash(begin, end, hashes))
    return tuple(reversed(proof))


def is_included(leaf: bytes, place: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` leads from the leaf at ``place`` to ``root`` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= place < size:
        return False
    node, low, high = leaf, place, size - 1
    for beside in proof:
        if high == 0:
            return False
        if low & 1 or low == high:
            node = node_hash(beside, node)
            while not low & 1 and low:
                low, high = low >> 1, high >> 1
        else:
            node = node_hash(node, beside)
        low, high = low >> 1, high >> 1
    return high == 0 and node == root


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the first ``old`` leaves are still those of ``old_root`` (section 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    low, high = old - 1, new - 1
    while low & 1:
        low, high = low >> 1, high >> 1
    before = after = path[0]
    for beside in path[1:]:
        if high == 0:
            return False
        if low & 1 or low == high:
            before, after = node_hash(beside, before), node_hash(beside, after)
            while not low & 1 and low:
                low, high = low >> 1, high >> 1
        else:
            after = node_hash(after, beside)
        low, high = low >> 1, high >> 1
    return high == 0 and before == old_root and after == new_root


def folded(hashes: Sequence[bytes]) -> bytes:
    """The hash of the subtree above a row of hashes, as many as a power of two: those of a tile, or of a part of it."""
    assert len(hashes).bit_count() == 1, len(hashes)
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]
