"""What a step of the pipeline is: one question to many pools, and the same question answered in numbers.

A step tests rows, explains the rows that it dropped, and may say which change of the ask would have kept some of them.
There is no other explanation code: reasons come from the steps that decided.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from tieline.model.reason import Reason, Relaxation, Value
from tieline.place.coded import Flags, Rows
from tieline.place.scene import Asking


class Step(ABC):
    """One line of the pipeline. Subclasses say why they exist in their first line."""

    codes: tuple[str, ...] = ()  # of the reasons that it gives
    is_lasting: ClassVar[bool] = True  # what it drops stays dropped while records and the ask stay as they are
    is_searched: ClassVar[bool] = True  # False: a search need not ask it, its posting or what is free implies it

    def asked(self, _asking: Asking) -> bool:
        """Whether it can drop anything at all."""
        return True

    @abstractmethod
    def test(self, asking: Asking, rows: Rows) -> Flags:
        """Which of ``rows`` it keeps."""

    @abstractmethod
    def explain(self, asking: Asking, rows: Rows) -> list[Reason]:
        """Why it dropped ``rows``, in reasons whose counts add up to their number."""

    def relax(self, _asking: Asking, _rows: Rows) -> Relaxation | None:
        """Which change of the ask would keep some of the rows, each of which every other step keeps."""
        return None


def reason(code: str, rows: Rows, **values: Value) -> list[Reason]:
    """One reason for all of ``rows``."""
    return [Reason(code=code, count=len(rows), values=values)]


def none_of(rows: Rows) -> Flags:
    """Nothing is kept."""
    return np.zeros(len(rows), np.bool_)
