"""Tiles: the Merkle tree of the log as a store keeps it. Rows of 256 hashes that never change, and its open edge.

Level 0 holds the leaves, 256 entries to a tile; each whole tile is one hash of the level above. A tile is written in
the transaction of the entry that makes it whole. What is not whole yet stays in memory, and is made again at a start
from the last tiles and the tail of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select

from tieline.drivers.stores import tables as t
from tieline.model.error import TielineError
from tieline.registry.merkle import (
    TILE_HASHES,
    TILE_LEVELS,
    Hashes,
    consistency_proof,
    folded,
    inclusion_proof,
    leaf_hash,
    range_hash,
    whole_subtrees,
)

HASH_BYTES = 32
TILE_BYTES = TILE_HASHES * HASH_BYTES
READ_ROWS = 2_000
BUILT_ENTRIES = 32 * TILE_HASHES  # of an older log whose tiles are written in one transaction

TileRow = tuple[int, int, bytes]  # level, place, hashes: the columns of the table `tile`
Tile = Callable[[int, int], bytes]  # level, place -> the bytes of a whole tile


class Tree(NamedTuple):
    """The tree over the first ``size`` entries. ``edges`` are the hashes of the open tile of each level.

    It never changes, so any thread may ask it while the writer goes on.
    """

    size: int = 0
    edges: tuple[tuple[bytes, ...], ...] = ((),)

    def grown(self, hashes: Iterable[bytes]) -> tuple[Tree, list[TileRow]]:
        """The tree with these entries' hashes after it, and the tiles that came whole. About 2 hashes an entry."""
        edges = [list(edge) for edge in self.edges]
        before = len(edges[0])
        edges[0].extend(map(leaf_hash, hashes))
        size = self.size + len(edges[0]) - before
        rows: list[TileRow] = []
        level = 0
        while level < len(edges):
            edge = edges[level]
            first, whole = self.whole_tiles(level), len(edge) // TILE_HASHES
            if whole and level + 1 == len(edges):
                edges.append([])
            for at in range(whole):
                tile = edge[at * TILE_HASHES : (at + 1) * TILE_HASHES]
                rows.append((level, first + at, b"".join(tile)))
                edges[level + 1].append(folded(tile))
            del edge[: whole * TILE_HASHES]
            level += 1
        return Tree(size, tuple(map(tuple, edges))), rows

    def whole_tiles(self, level: int) -> int:
        """How many tiles of ``level`` are whole, and therefore stored."""
        return self.size >> TILE_LEVELS * (level + 1)

    def root(self) -> bytes:
        """The root; it needs no stored tile, since every peak of the tree lies in an open one."""
        return range_hash(0, self.size, self.hashes(_no_tile))

    def hashes(self, tile: Tile) -> Hashes:
        """The hash of any whole subtree, from the open edge or from the one tile that holds it."""

        def found(level: int, place: int) -> bytes:
            at_level, within = divmod(level, TILE_LEVELS)
            at, offset = divmod(place << within, TILE_HASHES)
            end = offset + (1 << within)
            if at == self.whole_tiles(at_level):
                return folded(self.edges[at_level][offset:end])
            return folded(split(tile(at_level, at)[offset * HASH_BYTES : end * HASH_BYTES]))

        return found


class Proofs:
    """Proofs over ``tree`` from the tiles behind ``engine``. Each reads some two tiles for each doubling of the log."""

    def __init__(self, engine: Engine, tree: Tree) -> None:
        self._engine, self.tree = engine, tree
        self.tiles_read = 0
        self._known: dict[tuple[int, int], bytes] = {}
        self._hashes = tree.hashes(self._tile)

    def root(self, size: int) -> bytes:
        """The root of the first ``size`` entries. Raises `invalid_request` for more than there are."""
        self._check(size, 0)
        return range_hash(0, size, self._hashes)

    def inclusion(self, seq: int, size: int) -> tuple[bytes, ...]:
        """That entry ``seq`` (from 1) is among the first ``size``."""
        self._check(size, 1)
        self._check(seq, 1, size)
        return inclusion_proof(seq - 1, size, self._hashes)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """That the first ``old`` entries are the beginning of the first ``new``; nothing has to be shown from 0."""
        self._check(new, 0)
        self._check(old, 0, new)
        return consistency_proof(old, new, self._hashes) if old else ()

    def around(self, begin: int, end: int, size: int) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """The subtrees left of the entries above ``begin`` up to ``end``, and right of them up to ``size``."""
        self._check(size, 0)
        self._check(end, 0, size)
        self._check(begin, 0, end)
        left = tuple(self._hashes(level, place) for level, place in whole_subtrees(0, begin))
        return left, tuple(self._hashes(level, place) for level, place in whole_subtrees(end, size))

    def _check(self, value: int, least: int, most: int | None = None) -> None:
        most = self.tree.size if most is None else most
        if not least <= value <= most:
            raise TielineError("invalid_cursor", f"`{value}` is no position from {least} to {most:,} of the log")

    def _tile(self, level: int, place: int) -> bytes:
        found = self._known.get((level, place))
        if found is None:
            with self._engine.connect() as connection:
                found = self._known[level, place] = stored_tile(connection, level, place)
            self.tiles_read += 1
        return found


def stored_tile(connection: Connection, level: int, place: int) -> bytes:
    """A whole tile. Raises `check_failed` when it is not there as it was written."""
    query = select(t.tile.c.hashes).where(t.tile.c.level == level, t.tile.c.place == place)
    found = connection.execute(query).scalar()
    if not isinstance(found, bytes) or len(found) != TILE_BYTES:
        raise TielineError("check_failed", f"tile {place} of level {level} of the log's tree is missing or was changed")
    return found


def tree_of(connection: Connection) -> Tree:
    """The tree over what tiles are stored for; the entries that follow must be grown onto it (`tail`).

    Raises `check_failed` when tiles are missing, or go beyond the end of the log: then its end was cut.
    """
    size = TILE_HASHES * _count(connection, 0)
    edges: list[tuple[bytes, ...]] = [()]
    level, below = 0, size // TILE_HASHES
    while below:
        whole = _count(connection, level + 1)
        if whole != below // TILE_HASHES:
            raise TielineError(
                "check_failed", f"the log's tree has {whole} tiles of level {level + 1}: some are missing"
            )
        places = range(whole * TILE_HASHES, below)
        edges.append(tuple(folded(split(stored_tile(connection, level, place))) for place in places))
        level, below = level + 1, whole
    end = connection.execute(select(func.max(t.event.c.seq))).scalar() or 0
    if size > end:
        raise TielineError(
            "check_failed",
            f"the log ends at entry {end}, but its tree has {size:,} entries: the end is missing",
            hints=("restore the store's folder from a copy, as a whole",),
        )
    return Tree(size, tuple(edges))


def tail(connection: Connection, after: int) -> Iterator[bytes]:
    """The hashes of the entries above ``after``, page by page."""
    page = select(t.event.c.seq, t.event.c.hash).order_by(t.event.c.seq)
    while rows := connection.execute(page.where(t.event.c.seq > after).limit(READ_ROWS)).fetchall():
        for seq, value in rows:
            if seq != after + 1 or not isinstance(value, bytes) or len(value) != HASH_BYTES:
                raise TielineError("check_failed", f"entry {after + 1} of the log is missing or was changed")
            after = seq
            yield value


def built(engine: Engine, keep: Callable[[list[TileRow]], None]) -> Tree:
    """The tree of the whole log. Tiles that an older version did not write are given to ``keep``, some at a time."""
    with engine.connect() as connection:
        tree = tree_of(connection)
        hashes = tail(connection, tree.size)
        while page := list(islice(hashes, BUILT_ENTRIES)):
            tree, rows = tree.grown(page)
            if rows:
                keep(rows)
    return tree


def split(data: bytes) -> list[bytes]:
    """The hashes in some bytes of a tile."""
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def _count(connection: Connection, level: int) -> int:
    """How many tiles a level has; they must be the first ones."""
    query = select(func.count(), func.max(t.tile.c.place)).where(t.tile.c.level == level)
    count, last = connection.execute(query).one()
    if count != (0 if last is None else last + 1):
        raise TielineError("check_failed", f"of {last + 1} tiles of level {level} of the log's tree {count} are there")
    return int(count)


def _no_tile(level: int, place: int) -> bytes:
    raise AssertionError((level, place))
