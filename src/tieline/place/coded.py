"""A column of values as small integers, so that a question about a value is asked once for each distinct one."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Word = TypeVar("Word", bound=Hashable)
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
SMALL = 64  # distinct words up to which all are asked, rather than those that the rows hold


class Coded(Generic[Word]):
    """Codes per row, and each word with the number of rows that hold it; a word that no row holds is forgotten."""

    def __init__(self, empty: Word) -> None:
        self.codes: NDArray[np.int32] = np.zeros(0, np.int32)
        self.words: list[Word] = [empty]  # code 0, held by every row that was never put
        self._counts: list[int] = [0]
        self._code: dict[Word, int] = {empty: 0}
        self._unused: list[int] = []

    def grow(self, size: int) -> None:
        """Make room for ``size`` rows."""
        self.codes = np.concatenate([self.codes, np.zeros(size - len(self.codes), np.int32)])

    def put(self, row: int, word: Word) -> None:
        """Set the word of one row."""
        code = self._code.get(word)
        if code is None:
            if self._unused:
                code = self._unused.pop()
                self.words[code] = word
            else:
                code = len(self.words)
                self.words.append(word)
                self._counts.append(0)
            self._code[word] = code
        before = int(self.codes[row])
        self.codes[row] = code
        self._counts[code] += 1
        if before:
            self._counts[before] -= 1
            if not self._counts[before]:
                del self._code[self.words[before]]
                self.words[before] = self.words[0]
                self._unused.append(before)

    def clear(self, row: int) -> None:
        """Set the row to the empty word."""
        self.put(row, self.words[0])

    def of(self, row: int) -> Word:
        """The word of one row."""
        return self.words[int(self.codes[row])]

    def test(self, rows: Rows, question: Callable[[Word], bool]) -> Flags:
        """The answer to ``question`` for each row; it is asked once per distinct word."""
        codes = self.codes[rows]
        if len(self.words) <= SMALL:
            return np.fromiter((question(word) for word in self.words), np.bool_, len(self.words))[codes]
        distinct, place = np.unique(codes, return_inverse=True)
        return np.fromiter((question(self.words[code]) for code in distinct), np.bool_, len(distinct))[place]

    def distinct(self, rows: Rows) -> list[tuple[Word, Rows]]:
        """Each distinct word of the rows with the rows that hold it, in order of code."""
        codes = self.codes[rows]
        return [(self.words[code], rows[codes == code]) for code in np.unique(codes)]
