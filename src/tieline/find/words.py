"""Words in English and Chinese: which rows hold them, and how well they answer.

Latin words are taken whole, folded (case, width, plural) and found by their beginning; runs of Chinese, Japanese and
Korean are cut into overlapping pairs, because they are written without spaces: trigrams would miss words of two
characters such as 推理. A word of a query is found in a row that holds at least half of its pieces; a row answers
when one word is found, and the order is by how much of the query is found, rare pieces counting more (inverse document
frequency).
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from math import log2

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
MAX_WORDS = 16  # of a query
MAX_TEXT = 8_000  # characters of one row that are read
MAX_PIECES = 512  # of one row
MAX_BEGUN = 64  # words of the vocabulary that one beginning stands for
MIN_BEGINNING = 3
_RUN = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]+|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]+"
)


def folded(text: str) -> str:
    """One form for full and half width, and for upper and lower case."""
    return unicodedata.normalize("NFKC", text[:MAX_TEXT]).casefold()


def words(text: str) -> list[str]:
    """The words of ``text`` as they stand, folded.

    >>> words("Handwritten-digits, 手写数字 MNIST")
    ['handwritten', 'digit', '手写数字', 'mnist']
    """
    return [_singular(run) for run in _RUN.findall(folded(text))]


def pieces(word: str) -> tuple[str, ...]:
    """What is looked up for one word: itself, or its overlapping pairs of characters.

    >>> pieces("手写数字"), pieces("digit")
    (('手写', '写数', '数字'), ('digit',))
    """
    if word[0] < "\u3040" or len(word) == 1:
        return (word,)
    return tuple(word[at : at + 2] for at in range(len(word) - 1))


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _indexed(text: str) -> Iterable[str]:
    for word in words(text):
        yield from pieces(word)
        if len(word) > 1 and word[0] >= "\u3040":
            yield from word  # a query of one character


class Words:
    """An inverted index. Documents are numbered upwards and never again; a row that changes is a new document."""

    def __init__(self) -> None:
        self._documents: dict[str, array[int]] = {}  # piece -> documents, ascending
        self._vocabulary: list[str] | None = None  # sorted; made when a beginning is looked up
        self._row_of = array("q")  # document -> row, -1: no more
        self._document_of: dict[int, int] = {}
        self._texts: dict[int, str] = {}  # row -> its text

    def __len__(self) -> int:
        return len(self._document_of)

    def put(self, row: int, text: str) -> None:
        """Read the text of a row, instead of what it said before."""
        if self._texts.get(row) == text:
            return
        self.remove(row)
        document = len(self._row_of)
        found = dict.fromkeys(_indexed(text))
        for piece in list(found)[:MAX_PIECES]:
            held = self._documents.get(piece)
            if held is None:
                held = self._documents[piece] = array("i")
                self._vocabulary = None
            held.append(document)
        self._row_of.append(row)
        self._document_of[row] = document
        self._texts[row] = text

    def remove(self, row: int) -> None:
        """Forget a row."""
        document = self._document_of.pop(row, None)
        if document is None:
            return
        del self._texts[row]
        self._row_of[document] = -1
        if len(self._row_of) > 2 * len(self._document_of) + 1_024:
            self._renumber()

    def scores(self, query: str) -> tuple[Integers, NDArray[np.float64]]:
        """Rows in which a word of ``query`` is found, ascending, and how well they answer (more is better)."""
        total = np.zeros(len(self._row_of), np.float64)
        for word in list(dict.fromkeys(words(query)))[:MAX_WORDS]:
            total += self._of_word(word)
        found = np.flatnonzero(total)
        rows = np.frombuffer(self._row_of, np.int64)[found] if len(found) else found
        live = rows >= 0
        rows, scores = rows[live], total[found][live]
        order = np.argsort(rows, kind="stable")
        return rows[order].astype(np.int64), scores[order]

    def _of_word(self, word: str) -> NDArray[np.float64]:
        """Per document: how much of one word it holds, 0 below half of its pieces."""
        size = len(self._row_of)
        held, score = np.zeros(size, np.int64), np.zeros(size, np.float64)
        parts = pieces(word)
        for piece in parts:
            documents = self._of_piece(piece)
            if documents is None:
                continue
            weight = 1.0 + log2(1 + size / len(documents))
            held[documents] += 1
            score[documents] += weight
        score[2 * held < len(parts)] = 0.0
        return score / len(parts)

    def _of_piece(self, piece: str) -> Integers | None:
        lists = [self._documents[name] for name in self._begun_by(piece) if name in self._documents]
        if not lists:
            return None
        if len(lists) == 1:
            return np.frombuffer(lists[0], np.int32).astype(np.int64)
        return np.unique(np.concatenate([np.frombuffer(one, np.int32) for one in lists])).astype(np.int64)

    def _begun_by(self, piece: str) -> list[str]:
        """The pieces of the vocabulary that ``piece`` stands for: itself, and Latin words that begin with it."""
        if piece[0] >= "\u3040" or len(piece) < MIN_BEGINNING:
            return [piece]
        if self._vocabulary is None:
            self._vocabulary = sorted(self._documents)
        start = bisect_left(self._vocabulary, piece)
        stop = bisect_left(self._vocabulary, piece + "\uffff", start)
        return self._vocabulary[start : min(stop, start + MAX_BEGUN)]

    def _renumber(self) -> None:
        texts: Mapping[int, str] = dict(sorted(self._texts.items()))
        self.__init__()  # type: ignore[misc]
        for row, text in texts.items():
            self.put(row, text)
