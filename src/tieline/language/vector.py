"""Three-valued evaluation over columns: each node becomes one or two numpy passes over the chosen rows.

An expression is first *bound* to a table and a context (texts become codes, sets and readings become lookup tables by
code), then run over a *frame*: something that gives the columns of some rows. Unknown is None where nothing can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tieline.language.column import FlagColumn, MappingColumn
from tieline.language.context import Context
from tieline.language.table import Table
from tieline.language.tree import Among, AmongSet, And, Compare, Contains, Node, Not, Or, Ref, Relate
from tieline.language.types import Type

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
AnyCodes = NDArray[np.integer]


class Verdict(NamedTuple):
    """Per row: whether the expression holds, and whether that cannot be known. Never both."""

    yes: Flags
    unknown: Flags


class Frame(Protocol):
    """The columns of some rows of a table."""

    @property
    def length(self) -> int:
        """How many rows."""

    def integers(self, name: str) -> tuple[Integers, Flags | None]:
        """Values and which are known; None: all of them."""

    def codes(self, name: str) -> tuple[AnyCodes, bool]:
        """Codes of texts, sets or flags, and whether any may be 0 (absent)."""


Answer: TypeAlias = tuple[Flags, Flags | None]
Bound: TypeAlias = Callable[[Frame], Answer]
_UFUNC: dict[str, Callable[..., Flags]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class Rows:
    """A frame of chosen rows (gathered), or of all rows up to the table's high mark when ``rows`` is None."""

    def __init__(self, table: Table, rows: Integers | None) -> None:
        self.table = table
        self.rows = rows
        self.length = table.high if rows is None else len(rows)

    def integers(self, name: str) -> tuple[Integers, Flags | None]:
        """Values and which are known."""
        column = self.table.integers(name)
        if column is None:
            return np.zeros(self.length, np.int64), np.zeros(self.length, np.bool_)
        if self.rows is None:
            return column.array[: self.length], column.known[: self.length]
        return column.array.take(self.rows), column.known.take(self.rows)

    def codes(self, name: str) -> tuple[AnyCodes, bool]:
        """Codes, any of which may be 0."""
        column = self.table.columns[name]
        codes: AnyCodes = column.codes  # type: ignore[attr-defined]
        return (codes[: self.length] if self.rows is None else codes.take(self.rows)), True


def evaluate(node: Node, table: Table, rows: Integers | None, context: Context) -> Verdict:
    """Evaluate over ``rows``, or over all rows up to the high mark (removed ones are neither yes nor unknown)."""
    frame = Rows(table, rows)
    yes, unknown = bind(node, table, context)(frame)
    if unknown is None:
        unknown = np.zeros(frame.length, np.bool_)
    if rows is None:
        live = table.live[: table.high]
        return Verdict(yes & live, unknown & live)
    return Verdict(yes, unknown)


def bind(node: Node, table: Table, context: Context) -> Bound:
    """Resolve texts, sets and readings of ``node`` once. Valid until the table changes (`Table.version`)."""
    if isinstance(node, And):
        return _all([bind(item, table, context) for item in node.items])
    if isinstance(node, Or):
        return _any([bind(item, table, context) for item in node.items])
    if isinstance(node, Not):
        return _not(bind(node.item, table, context))
    if isinstance(node, Relate):
        return _relate(node, table, context)
    if node.ref.type is Type.TEXT:
        return _text(node, table, context)
    if isinstance(node, Contains):
        column = table.words(node.ref.name)
        return _lookup(node.ref.name, column.holders(node.word), None)
    if node.ref.type is Type.FLAG:
        assert isinstance(node, Compare)
        assert isinstance(table.columns[node.ref.name], FlagColumn)
        truth = np.array([False, not node.value, node.value], np.bool_)
        return _lookup(node.ref.name, truth if node.op == "==" else truth[[0, 2, 1]], None)
    if node.ref.is_function and node.ref.name != "metric":
        return _reading(node, table, context)
    assert isinstance(node, Compare | Among)
    return _integer(node)


def _integer(node: Compare | Among) -> Bound:
    name, test = node.ref.key, _tester(node)

    def run(frame: Frame) -> Answer:
        values, known = frame.integers(name)
        yes = test(values)
        if known is None:
            return yes, None
        yes &= known
        return yes, ~known

    return run


def _tester(node: Compare | Among) -> Callable[[Integers], Flags]:
    if isinstance(node, Compare):
        ufunc, value = _UFUNC[node.op], _clipped(node.value)
        return lambda values: ufunc(values, value)
    wanted = np.array(sorted(int(value) for value in node.values), np.int64)
    return lambda values: np.isin(values, wanted)


def _clipped(value: int | str) -> np.int64:
    return np.int64(max(-(2**63), min(2**63 - 1, int(value))))


def _relate(node: Relate, table: Table, context: Context) -> Bound:
    ufunc = _UFUNC[node.op]
    left, right = integers_of(node.left, table, context), integers_of(node.right, table, context)

    def run(frame: Frame) -> Answer:
        one, one_known = left(frame)
        two, two_known = right(frame)
        yes = ufunc(one, two)
        if one_known is None and two_known is None:
            return yes, None
        known = one_known if two_known is None else two_known if one_known is None else one_known & two_known
        assert known is not None
        return yes & known, ~known

    return run


def integers_of(ref: Ref, table: Table, context: Context) -> Callable[[Frame], tuple[Integers, Flags | None]]:
    """Reads a numeric attribute or reading from a frame."""
    if not ref.is_function or ref.name == "metric":
        return lambda frame: frame.integers(ref.key)
    values, known = _readings(ref, table, context)

    def run(frame: Frame) -> tuple[Integers, Flags | None]:
        codes, _ = frame.codes("site")
        return values.take(codes), known.take(codes)

    return run


def _reading(node: Node, table: Table, context: Context) -> Bound:
    assert isinstance(node, Compare | Among)
    values, known = _readings(node.ref, table, context)
    yes = _tester(node)(values) & known
    return _lookup("site", yes, ~known)


def _readings(ref: Ref, table: Table, context: Context) -> tuple[Integers, Flags]:
    column = table.texts("site")
    return context.reading(ref.name, ref.argument, column.texts)


def _lookup(name: str, yes: Flags, unknown: Flags | None) -> Bound:
    """Truth by code. ``unknown`` None: only code 0 is unknown."""
    certain = unknown is None or not unknown[1:].any()
    yes[0] = False

    def run(frame: Frame) -> Answer:
        codes, may_be_absent = frame.codes(name)
        answer = yes.take(codes)
        if certain:
            return answer, (codes == 0) if may_be_absent else None
        assert unknown is not None
        return answer, unknown.take(codes)

    return run


def _equal(name: str, code: int, is_equal: bool) -> Bound:
    def run(frame: Frame) -> Answer:
        codes, may_be_absent = frame.codes(name)
        if not may_be_absent:
            return (codes == code) if is_equal else (codes != code), None
        absent = codes == 0
        return (codes == code) if is_equal else (codes != code) & ~absent, absent

    return run


def _text(node: Node, table: Table, context: Context) -> Bound:
    assert isinstance(node, Compare | Among | AmongSet)
    if node.ref.is_function:
        return _mapping(node, table, context)
    column = table.texts(node.ref.name)
    if isinstance(node, Compare):
        return _equal(node.ref.name, column.code(str(node.value)), node.op == "==")
    words = _members(node, context)
    if words is None:
        return lambda frame: (np.zeros(frame.length, np.bool_), np.ones(frame.length, np.bool_))
    codes = [code for code in map(column.code, words) if code > 0]
    if len(codes) == 1:
        return _equal(node.ref.name, codes[0], is_equal=True)
    truth = np.zeros(len(column.texts), np.bool_)
    truth[codes] = True
    return _lookup(node.ref.name, truth, None)


def _mapping(node: Compare | Among | AmongSet, table: Table, context: Context) -> Bound:
    column = table.columns[node.ref.name]
    assert isinstance(column, MappingColumn)
    key = node.ref.argument
    known = column.holders(key)
    words = (str(node.value),) if isinstance(node, Compare) else _members(node, context)
    if words is None:
        return lambda frame: (np.zeros(frame.length, np.bool_), np.ones(frame.length, np.bool_))
    yes = np.zeros_like(known)
    for word in words:
        yes |= column.holders(f"{key}={word}")
    if isinstance(node, Compare) and node.op == "!=":
        yes = known & ~yes
    return _lookup(node.ref.name, yes, ~known)


def _members(node: Among | AmongSet, context: Context) -> tuple[str, ...] | None:
    if isinstance(node, Among):
        return tuple(str(value) for value in node.values)
    found = context.sets.get(node.name)
    return None if found is None else tuple(sorted(found))


def _not(item: Bound) -> Bound:
    def run(frame: Frame) -> Answer:
        yes, unknown = item(frame)
        return (~yes, None) if unknown is None else (~(yes | unknown), unknown)

    return run


def _all(items: list[Bound]) -> Bound:
    if not items:
        return lambda frame: (np.ones(frame.length, np.bool_), None)

    def run(frame: Frame) -> Answer:
        yes, unknown = items[0](frame)
        for item in items[1:]:
            more, more_unknown = item(frame)
            if unknown is None and more_unknown is None:
                yes = yes & more
                continue
            possible = _or(yes, unknown) & _or(more, more_unknown)
            yes = yes & more
            unknown = possible & ~yes
        return yes, unknown

    return run


def _any(items: list[Bound]) -> Bound:
    def run(frame: Frame) -> Answer:
        yes, unknown = items[0](frame)
        for item in items[1:]:
            more, more_unknown = item(frame)
            yes = yes | more
            if unknown is not None or more_unknown is not None:
                unknown = _or(np.zeros_like(yes) if unknown is None else unknown, more_unknown) & ~yes
        return yes, unknown

    return run


def _or(one: Flags, two: Flags | None) -> Flags:
    return one if two is None else one | two
