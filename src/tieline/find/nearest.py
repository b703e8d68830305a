"""The value that comes nearest to holding: what a term's losers have, as a number or as the words most of them say."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tieline.language.context import Context
from tieline.language.expression import Term
from tieline.language.table import Table
from tieline.language.tree import Among, Compare
from tieline.language.types import NUMERIC, Type, show
from tieline.language.vector import Frame, integers_of

Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]
MOST_WORDS = 4_096  # a text with more different values than that (a title) has no nearest one
SHOWN = 3


class Nearest:
    """Watches the losers of one term, chunk by chunk."""

    def __init__(self, term: Term, table: Table, context: Context) -> None:
        self.term = term
        self.best: int | None = None
        self.words: Counter[str] = Counter()
        self._table = table
        node = term.node
        self._is_text = (
            isinstance(node, Compare | Among)
            and node.ref.type is Type.TEXT
            and not node.ref.is_function
            and len(table.texts(node.ref.name).texts) <= MOST_WORDS
        )
        self.is_number = isinstance(node, Compare) and node.ref.type in NUMERIC and node.op != "!="
        self._read = integers_of(node.ref, table, context) if self.is_number and isinstance(node, Compare) else None

    def see(self, frame: Frame, losers: Flags) -> None:
        """Look at the rows of ``frame`` for which the term is false."""
        if self._is_text:
            self._see_words(frame, losers)
        elif self._read is not None:
            values, known = self._read(frame)
            if known is not None:
                losers = losers & known
            self._see_numbers(values, losers)

    def _see_numbers(self, values: Integers, losers: Flags) -> None:
        node = self.term.node
        assert isinstance(node, Compare)
        info = np.iinfo(np.int64)
        if node.op in ("<", "<="):
            found = int(np.where(losers, values, info.max).min(initial=info.max))
            self.best = found if self.best is None else min(self.best, found)
        elif node.op in (">", ">="):
            found = int(np.where(losers, values, info.min).max(initial=info.min))
            self.best = found if self.best is None else max(self.best, found)
        else:
            wanted, candidates = int(node.value), values[losers]
            if len(candidates):
                found = int(candidates[np.abs(candidates - wanted).argmin()])
                if self.best is None or abs(found - wanted) < abs(self.best - wanted):
                    self.best = found

    def _see_words(self, frame: Frame, losers: Flags) -> None:
        node = self.term.node
        assert isinstance(node, Compare | Among)
        column = self._table.texts(node.ref.name)
        counts = np.bincount(frame.codes(node.ref.name)[0][losers], minlength=1)
        for code in np.flatnonzero(counts).tolist():
            if code:
                self.words[column.texts[code]] += int(counts[code])

    @property
    def text(self) -> str:
        """As a person reads it; empty where nothing is near."""
        if self._is_text:
            return ", ".join(
                word for word, _ in sorted(self.words.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN]
            )
        info = np.iinfo(np.int64)
        if self.best is None or self.best in (info.max, info.min) or not isinstance(self.term.node, Compare):
            return ""
        return show(self.term.node.ref.type, self.best)
