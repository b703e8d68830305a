"""The tree over a log, against the recursive definition of RFC 9162 and with everything that a liar could alter."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieline.registry import merkle

MOST = 300

# The test vectors of certificate-transparency: leaves as raw bytes, roots of the first n of them.
INPUTS = tuple(
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
)
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """Section 2.1.1, word by word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(place: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Section 2.1.3.1, word by word."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if place < k:
        return [*naive_path(place, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(place - k, leaves[k:]), naive_root(leaves[:k])]


def naive_growth(old: int, leaves: Sequence[bytes], *, is_whole: bool = True) -> list[bytes]:
    """Section 2.1.4.1, word by word."""
    if old == len(leaves):
        return [] if is_whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if old <= k:
        return [*naive_growth(old, leaves[:k], is_whole=is_whole), naive_root(leaves[k:])]
    return [*naive_growth(old - k, leaves[k:], is_whole=False), naive_root(leaves[:k])]


LEAVES = tuple(merkle.leaf_hash(sha256(at.to_bytes(4, "big")).digest()) for at in range(MOST))


def hashes(level: int, place: int) -> bytes:
    return naive_root(LEAVES[place << level : place + 1 << level])


def altered(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8 % len(value)] ^= 1 << bit % 8
    return bytes(changed)


def test_the_roots_are_those_of_certificate_transparency() -> None:
    frontier = merkle.Frontier()
    assert frontier.root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for entry, root in zip(INPUTS, ROOTS, strict=True):
        frontier.append(merkle.leaf_hash(entry))
        assert frontier.root().hex() == root


def test_every_small_tree_has_the_root_and_the_proofs_of_the_definition() -> None:
    for size in range(1, 34):
        root = naive_root(LEAVES[:size])
        for place in range(size):
            proof = merkle.inclusion_proof(place, size, hashes)
            assert list(proof) == naive_path(place, LEAVES[:size])
            assert merkle.is_included(LEAVES[place], place, size, proof, root)
        for old in range(1, size + 1):
            growth = merkle.consistency_proof(old, size, hashes)
            assert list(growth) == naive_growth(old, LEAVES[:size])
            assert merkle.is_consistent(old, naive_root(LEAVES[:old]), size, root, growth)


@given(st.lists(st.integers(0, 60), max_size=5))
def test_any_schedule_of_appends_gives_the_root_of_the_definition(schedule: list[int]) -> None:
    frontier, size = merkle.Frontier(), 0
    for count in schedule:
        frontier.extend(LEAVES[size : size + count])
        size += count
        assert frontier.root() == naive_root(LEAVES[:size])
        frontier = merkle.Frontier(frontier.size, frontier.peaks)
    assert frontier.size == size
    assert len(frontier.peaks) == size.bit_count()


@given(st.integers(1, MOST), st.data())
def test_any_altered_bit_of_an_inclusion_fails(size: int, data: st.DataObject) -> None:
    place, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 255))
    root, proof = naive_root(LEAVES[:size]), merkle.inclusion_proof(place, size, hashes)
    assert merkle.is_included(LEAVES[place], place, size, proof, root)
    assert not merkle.is_included(altered(LEAVES[place], bit), place, size, proof, root)
    assert not merkle.is_included(LEAVES[place], place, size, proof, altered(root, bit))
    for at in range(len(proof)):
        wrong = (*proof[:at], altered(proof[at], bit), *proof[at + 1 :])
        assert not merkle.is_included(LEAVES[place], place, size, wrong, root)
    assert not merkle.is_included(LEAVES[place], place, size, (*proof, root), root)
    if proof:
        assert not merkle.is_included(LEAVES[place], place, size, proof[:-1], root)
    other = data.draw(st.integers(0, size - 1))
    if other != place:
        assert not merkle.is_included(LEAVES[place], other, size, proof, root)


@given(st.integers(1, MOST), st.data())
def test_any_altered_bit_of_a_growth_fails(new: int, data: st.DataObject) -> None:
    old, bit = data.draw(st.integers(1, new)), data.draw(st.integers(0, 255))
    before, after = naive_root(LEAVES[:old]), naive_root(LEAVES[:new])
    proof = merkle.consistency_proof(old, new, hashes)
    assert merkle.is_consistent(old, before, new, after, proof)
    assert not merkle.is_consistent(old, altered(before, bit), new, after, proof)
    assert not merkle.is_consistent(old, before, new, altered(after, bit), proof)
    for at in range(len(proof)):
        wrong = (*proof[:at], altered(proof[at], bit), *proof[at + 1 :])
        assert not merkle.is_consistent(old, before, new, after, wrong)
    assert not merkle.is_consistent(old, before, new, after, (*proof, after))
    if proof:
        assert not merkle.is_consistent(old, before, new, after, proof[:-1])


def test_a_tree_that_was_rewritten_does_not_extend_the_old_one() -> None:
    forged = (*LEAVES[:50], merkle.leaf_hash(b"forged"), *LEAVES[51:200])

    def forged_hashes(level: int, place: int) -> bytes:
        return naive_root(forged[place << level : place + 1 << level])

    proof = merkle.consistency_proof(100, 200, forged_hashes)
    assert merkle.is_consistent(100, naive_root(forged[:100]), 200, naive_root(forged), proof)
    assert not merkle.is_consistent(100, naive_root(LEAVES[:100]), 200, naive_root(forged), proof)


@pytest.mark.parametrize(
    ("old", "new", "proof", "is_good"),
    [
        (0, 0, (), True),
        (0, 7, (), True),
        (0, 7, (bytes(32),), False),
        (7, 7, (), True),
        (7, 7, (bytes(32),), False),
        (8, 7, (), False),
        (-1, 7, (), False),
        (3, 7, (), False),
    ],
)
def test_growth_from_nothing_to_itself_and_backwards(
    old: int, new: int, proof: tuple[bytes, ...], is_good: bool
) -> None:
    before, after = naive_root(LEAVES[: max(0, old)]), naive_root(LEAVES[:new])
    assert merkle.is_consistent(old, before, new, after, proof) is is_good


@pytest.mark.parametrize("place", [-1, 7, 8])
def test_no_leaf_is_included_beyond_the_tree(place: int) -> None:
    proof = merkle.inclusion_proof(6, 7, hashes)
    assert not merkle.is_included(LEAVES[6], place, 7, proof, naive_root(LEAVES[:7]))


@given(st.integers(1, MOST), st.data())
def test_a_range_leads_to_the_root_with_the_subtrees_beside_it(size: int, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, size))
    begin = data.draw(st.integers(0, end))
    frontier = merkle.Frontier(begin, [hashes(*each) for each in merkle.whole_subtrees(0, begin)])
    frontier.extend(LEAVES[begin:end])
    for level, place in merkle.whole_subtrees(end, size):
        frontier.append(hashes(level, place), level)
    assert (frontier.size, frontier.root()) == (size, naive_root(LEAVES[:size]))


def test_a_whole_tile_stands_for_the_subtree_below_it() -> None:
    assert merkle.folded(LEAVES[: merkle.TILE_HASHES]) == naive_root(LEAVES[: merkle.TILE_HASHES])
