"""Columns of a table: integers with a mask, and codes of interned texts, sets of words and mappings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Codes = NDArray[np.int32]
Flags = NDArray[np.bool_]
SLACK = 4_096  # interned values that are tolerated beyond twice the rows before unused ones are dropped


class Column(Protocol):
    """One attribute of every row."""

    def grow(self, capacity: int) -> None:
        """Make room."""

    def set(self, row: int, value: Any) -> None:
        """Store a value."""

    def set_slice(self, start: int, values: Sequence[Any] | NDArray[Any]) -> None:
        """Store values from row ``start`` on."""

    def clear(self, row: int) -> None:
        """Make the value absent."""

    def get(self, row: int) -> Any:
        """The value, None where absent."""


class IntegerColumn:
    """int64 values and which of them are known. The value of an unknown one is 0."""

    def __init__(self, capacity: int) -> None:
        self.array: Integers = np.zeros(capacity, np.int64)
        self.known: Flags = np.zeros(capacity, np.bool_)

    def grow(self, capacity: int) -> None:
        """Make room."""
        more = capacity - len(self.array)
        self.array = np.concatenate([self.array, np.zeros(more, np.int64)])
        self.known = np.concatenate([self.known, np.zeros(more, np.bool_)])

    def set(self, row: int, value: int) -> None:
        """Store a value; OverflowError over 63 bits."""
        self.array[row] = value
        self.known[row] = True

    def set_many(self, rows: Integers, values: Integers, known: Flags | None = None) -> None:
        """Store many values at once."""
        self.array[rows] = values
        self.known[rows] = True if known is None else known

    def set_slice(self, start: int, values: Sequence[Any] | NDArray[Any]) -> None:
        """Store values from row ``start`` on; None is absent."""
        stop = start + len(values)
        if isinstance(values, np.ndarray):
            self.array[start:stop] = values
            self.known[start:stop] = True
        else:
            self.array[start:stop] = [value or 0 for value in values]
            self.known[start:stop] = [value is not None for value in values]

    def clear(self, row: int) -> None:
        """Make the value absent."""
        self.array[row] = 0
        self.known[row] = False

    def get(self, row: int) -> int | None:
        """The value, None where absent."""
        return int(self.array[row]) if self.known[row] else None


class FlagColumn:
    """0 absent, 1 false, 2 true."""

    def __init__(self, capacity: int) -> None:
        self.codes: NDArray[np.int8] = np.zeros(capacity, np.int8)

    def grow(self, capacity: int) -> None:
        """Make room."""
        self.codes = np.concatenate([self.codes, np.zeros(capacity - len(self.codes), np.int8)])

    def set(self, row: int, value: bool) -> None:
        """Store a value."""
        self.codes[row] = 2 if value else 1

    def set_slice(self, start: int, values: Sequence[Any] | NDArray[Any]) -> None:
        """Store values from row ``start`` on; None is absent."""
        self.codes[start : start + len(values)] = [0 if value is None else 2 if value else 1 for value in values]

    def clear(self, row: int) -> None:
        """Make the value absent."""
        self.codes[row] = 0

    def get(self, row: int) -> bool | None:
        """The value, None where absent."""
        return (None, False, True)[int(self.codes[row])]


class TextColumn:
    """int32 codes of interned texts; the empty text is absent (code 0)."""

    def __init__(self, capacity: int) -> None:
        self.codes: Codes = np.zeros(capacity, np.int32)
        self.texts: list[str] = [""]
        self.generation = 0  # grows when codes are given anew
        self._code: dict[str, int] = {"": 0}

    def code(self, text: str) -> int:
        """The code of ``text``, -1 when no row ever had it."""
        return self._code.get(text, -1)

    def grow(self, capacity: int) -> None:
        """Make room."""
        self.codes = np.concatenate([self.codes, np.zeros(capacity - len(self.codes), np.int32)])

    def set(self, row: int, value: str) -> None:
        """Store a text."""
        self.codes[row] = self._intern(value)

    def set_slice(self, start: int, values: Sequence[Any] | NDArray[Any]) -> None:
        """Store texts from row ``start`` on; None and empty are absent."""
        intern = self._intern
        self.codes[start : start + len(values)] = [intern(value or "") for value in values]

    def clear(self, row: int) -> None:
        """Make the value absent."""
        self.codes[row] = 0

    def get(self, row: int) -> str | None:
        """The text, None where absent."""
        return self.texts[self.codes[row]] or None

    def _intern(self, text: str) -> int:
        code = self._code.get(text)
        if code is None:
            if len(self.texts) > 2 * len(self.codes) + SLACK:
                self._drop_unused()
            code = self._code[text] = len(self.texts)
            self.texts.append(text)
        return code

    def _drop_unused(self) -> None:
        used, codes = np.unique(np.append(self.codes, 0), return_inverse=True)
        self.texts = [self.texts[code] for code in used]
        self._code = {text: code for code, text in enumerate(self.texts)}
        self.codes = codes[:-1].astype(np.int32)
        self.generation += 1


class WordsColumn:
    """int32 codes of interned sets of words. Absent is code 0; the empty set is a value like others."""

    empty: ClassVar[tuple[str, ...] | None] = ()

    def __init__(self, capacity: int) -> None:
        self.codes: Codes = np.zeros(capacity, np.int32)
        self.sets: list[tuple[str, ...]] = [()]
        self.generation = 0
        self._code: dict[tuple[str, ...], int] = {}
        self._holders: dict[str, list[int]] = {}  # word -> codes of the sets that hold it

    def holders(self, word: str) -> Flags:
        """For each set code, whether the set holds ``word``."""
        truth = np.zeros(len(self.sets), np.bool_)
        truth[self._holders.get(word, [])] = True
        return truth

    def grow(self, capacity: int) -> None:
        """Make room."""
        self.codes = np.concatenate([self.codes, np.zeros(capacity - len(self.codes), np.int32)])

    def set(self, row: int, value: Collection[str]) -> None:
        """Store a set."""
        self.codes[row] = self._intern(tuple(sorted(set(value))))

    def set_slice(self, start: int, values: Sequence[Any] | NDArray[Any]) -> None:
        """Store sets from row ``start`` on; None is absent."""
        for row, value in enumerate(values, start):
            if value is None:
                self.codes[row] = 0
            else:
                self.set(row, value)

    def clear(self, row: int) -> None:
        """Make the value absent."""
        self.codes[row] = 0

    def get(self, row: int) -> Any:
        """The words in order, None where absent."""
        code = int(self.codes[row])
        return self.sets[code] if code else None

    def _intern(self, words: tuple[str, ...]) -> int:
        code = self._code.get(words)
        if code is None:
            if len(self.sets) > 2 * len(self.codes) + SLACK:
                self._drop_unused()
            code = self._add(words)
        return code

    def _add(self, words: tuple[str, ...]) -> int:
        code = self._code[words] = len(self.sets)
        self.sets.append(words)
        for word in words:
            self._holders.setdefault(word, []).append(code)
        return code

    def _drop_unused(self) -> None:
        used, codes = np.unique(np.append(self.codes, 0), return_inverse=True)
        sets = [self.sets[code] for code in used]
        self.sets, self._code, self._holders = [()], {}, {}
        for words in sets[1:]:
            self._add(words)
        self.codes = codes[:-1].astype(np.int32)
        self.generation += 1


class MappingColumn(WordsColumn):
    """A mapping of words to words per row, kept as the set of ``key`` and ``key=value`` words."""

    def set(self, row: int, value: Any) -> None:
        """Store a mapping."""
        assert isinstance(value, Mapping)
        words = {entry for key, text in value.items() for entry in (f"{key}", f"{key}={text}")}
        self.codes[row] = self._intern(tuple(sorted(words)))

    def get(self, row: int) -> dict[str, str] | None:
        """The mapping, None where absent."""
        words = super().get(row)
        if words is None:
            return None
        pairs = (word.partition("=") for word in words)
        return {key: text for key, equals, text in pairs if equals}

    def entry(self, row: int, key: str) -> str | None:
        """The value of one key in one row."""
        return (self.get(row) or {}).get(key)
