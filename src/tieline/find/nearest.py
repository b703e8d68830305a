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

    @property
    def is_settled(self) -> bool:
        """Whether nothing nearer can be seen: a whole number that only just fails."""
        node = self.term.node
        if self.best is None or not isinstance(node, Compare):
            return False
        asked = int(node.value)
        return self.best == {"<": asked, "<=": asked + 1, ">": asked, ">=": asked - 1}.get(node.op)

    def see(self, losers: Frame) -> None:
        """Look at rows for which the term is false."""
        if self._is_text:
            self._see_words(losers)
        elif self._read is not None:
            values, known = self._read(losers)
            self._see_numbers(values if known is None else values.compress(known))

    def _see_numbers(self, values: Integers) -> None:
        node = self.term.node
        assert isinstance(node, Compare)
        if not len(values):
            return
        if node.op in ("<", "<="):
            found = int(values.min())
            self.best = found if self.best is None else min(self.best, found)
        elif node.op in (">", ">="):
            found = int(values.max())
            self.best = found if self.best is None else max(self.best, found)
        else:
            wanted = int(node.value)
            found = int(values[np.abs(values - wanted).argmin()])
            if self.best is None or abs(found - wanted) < abs(self.best - wanted):
                self.best = found

    def _see_words(self, losers: Frame) -> None:
        node = self.term.node
        assert isinstance(node, Compare | Among)
        column = self._table.texts(node.ref.name)
        counts = np.bincount(losers.codes(node.ref.name)[0], minlength=1)
        for code in np.flatnonzero(counts).tolist():
            if code:
                self.words[column.texts[code]] += int(counts[code])

    @property
    def text(self) -> str:
        """As a person reads it; empty where nothing is near."""
        if self._is_text:
            words = sorted(self.words.items(), key=lambda pair: (-pair[1], pair[0]))
            return ", ".join(word for word, _ in words[:SHOWN])
        if self.best is None or not isinstance(self.term.node, Compare):
            return ""
        return show(self.term.node.ref.type, self.best)
