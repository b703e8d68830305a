"""The log's tree in a store: tiles with their entries, proofs from few of them, starts, upgrades, and what was cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from storerows import log, tampered

from tieline.drivers.stores import tables as t
from tieline.drivers.stores.store import Batch, Store, StoreError
from tieline.drivers.stores.tiles import TILE_BYTES, Proofs, TileRow, Tree, split
from tieline.model.error import TielineError
from tieline.registry import merkle
from tieline.registry.merkle import is_consistent, is_included, leaf_hash

HASHES = tuple(row.hash for row in log(70_000).entries)  # type: ignore[attr-defined]


def root_of(size: int) -> bytes:
    frontier = merkle.Frontier()
    frontier.extend(map(leaf_hash, HASHES[:size]))
    return frontier.root()


def stored_tiles(store: Store) -> list[TileRow]:
    with store.engine.connect() as connection:
        rows = connection.execute(select(t.tile).order_by(t.tile.c.level, t.tile.c.place)).all()
    return [(level, place, bytes(hashes)) for level, place, hashes in rows]


def filled(store: Store, count: int, batch: int = 500) -> None:
    rows = log(count).entries
    for at in range(0, count, batch):
        store.append(Batch(rows[at : at + batch]))


@given(st.lists(st.integers(0, 700), max_size=8))
def test_any_batches_make_the_same_tree_and_tiles(counts: list[int]) -> None:
    tree, tiles, size = Tree(), [], 0
    for count in counts:
        tree, rows = tree.grown(HASHES[size : size + count])
        tiles += rows
        size += count
    assert tree.root() == root_of(size)
    assert (tree, sorted(tiles)) == (Tree().grown(HASHES[:size])[0], sorted(Tree().grown(HASHES[:size])[1]))
    assert len(tiles) == size // 256
    assert all(len(hashes) == TILE_BYTES for _, _, hashes in tiles)


def test_a_second_level_of_tiles_comes_whole_with_its_last_leaf() -> None:
    tree, tiles = Tree().grown(HASHES[:65_535])
    assert max(level for level, _, _ in tiles) == 0
    tree, tiles = tree.grown(HASHES[65_535:65_536])
    assert [(level, place) for level, place, _ in tiles] == [(0, 255), (1, 0)]
    assert merkle.folded(split(tiles[1][2])) == root_of(65_536) == tree.root()


def test_tiles_are_kept_with_the_entries_that_make_them_whole(store: Store) -> None:
    filled(store, 255)
    assert stored_tiles(store) == []
    store.append(log(300, 256, HASHES[254]))
    assert [(level, place) for level, place, _ in stored_tiles(store)] == [(0, 0), (0, 1)]
    assert split(stored_tiles(store)[1][2]) == [leaf_hash(each) for each in HASHES[256:512]]
    assert store.tree.root() == root_of(555)


def test_a_batch_that_is_not_kept_leaves_the_tree_as_it_was(store: Store) -> None:
    filled(store, 200)
    before = store.tree
    rows = log(100, 201, HASHES[199]).entries
    with pytest.raises(StoreError):
        store.append(Batch([*rows, rows[-1]]))  # one number twice
    assert (store.tree, stored_tiles(store)) == (before, [])
    store.append(Batch(rows))
    assert store.tree.root() == root_of(300)


def test_entries_that_do_not_follow_are_not_kept(store: Store) -> None:
    filled(store, 10)
    with pytest.raises(StoreError, match="does not follow"):
        store.append(log(1, 12, HASHES[10]))
    assert store.position()[0] == 10


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1_300])
def test_a_start_finds_the_tree_again(store: Store, address: str, size: int) -> None:
    filled(store, size)
    tree = store.tree
    store.close()
    again = Store(address).open()
    assert again.tree == tree
    again.append(log(1, size + 1, HASHES[size - 1] if size else bytes(32)))
    assert again.tree.root() == root_of(size + 1)
    again.close()


def test_an_older_store_gets_its_tiles_at_the_next_start(store: Store, address: str) -> None:
    filled(store, 20_000)
    tiles = stored_tiles(store)
    store.close()
    tampered(store, "DELETE FROM tile")
    again = Store(address).open()
    assert stored_tiles(again) == tiles
    assert again.tree.root() == root_of(20_000)
    again.close()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("DELETE FROM tile WHERE place = 1", "of 5 tiles"),
        ("DELETE FROM event WHERE seq > 1200", "the end is missing"),
    ],
)
def test_a_log_without_all_of_its_tree_does_not_open(store: Store, address: str, statement: str, why: str) -> None:
    filled(store, 1_300)
    hash_there = store.log_rows(1_199, 1)[0].hash
    store.close()
    tampered(store, statement)
    if "event" in statement:  # whoever cut the log also wrote another end
        end = (1_200).to_bytes(8, "big") + hash_there
        value = f"'\\x{end.hex()}'" if store.is_server else f"x'{end.hex()}'"
        tampered(store, f"UPDATE meta SET value = {value} WHERE key = 'head'")
    with pytest.raises(TielineError, match=why) as caught:
        Store(address).open()
    assert caught.value.code == "check_failed"


def test_proofs_hold_and_read_a_few_tiles(store: Store) -> None:
    size = 20_000
    filled(store, size, 5_000)
    root = root_of(size)
    for seq in (1, 2, 256, 257, 9_999, 19_968, 19_969, size):
        proofs = Proofs(store.engine, store.tree)
        assert is_included(leaf_hash(HASHES[seq - 1]), seq - 1, size, proofs.inclusion(seq, size), root)
        assert proofs.tiles_read <= 2
    for old in (1, 255, 256, 257, 12_345, 19_999, size):
        proofs = Proofs(store.engine, store.tree)
        assert proofs.root(old) == root_of(old)
        assert is_consistent(old, root_of(old), size, root, proofs.consistency(old, size))
        assert proofs.tiles_read <= 6


def test_the_subtrees_around_a_range_lead_to_the_root(store: Store) -> None:
    filled(store, 1_300)
    left, right = Proofs(store.engine, store.tree).around(300, 900, 1_250)
    frontier = merkle.Frontier(300, left)
    frontier.extend(map(leaf_hash, HASHES[300:900]))
    for (level, _), node in zip(merkle.whole_subtrees(900, 1_250), right, strict=True):
        frontier.append(node, level)
    assert frontier.root() == root_of(1_250)


def test_nothing_is_proved_of_what_is_not_there(store: Store) -> None:
    filled(store, 10)
    proofs = Proofs(store.engine, store.tree)
    for ask in (
        lambda: proofs.inclusion(11, 10),
        lambda: proofs.inclusion(0, 10),
        lambda: proofs.inclusion(1, 11),
        lambda: proofs.consistency(9, 8),
        lambda: proofs.root(11),
        lambda: proofs.around(5, 4, 10),
    ):
        with pytest.raises(TielineError, match="no position"):
            ask()


def test_a_tile_that_was_altered_proves_nothing(store: Store) -> None:
    filled(store, 600)
    other = f"'\\x{bytes(TILE_BYTES).hex()}'" if store.is_server else f"zeroblob({TILE_BYTES})"
    tampered(store, f"UPDATE tile SET hashes = {other} WHERE place = 0")
    proofs = Proofs(store.engine, store.tree)
    assert not is_included(leaf_hash(HASHES[9]), 9, 600, proofs.inclusion(10, 600), root_of(600))
    tampered(store, "UPDATE tile SET hashes = substr(hashes, 1, 32) WHERE place = 0")
    with pytest.raises(TielineError, match="was changed"):
        Proofs(store.engine, store.tree).inclusion(10, 600)
