"""Work: what a simulated task does, written into its script so that nothing but the task file carries it.

``last 4000 exit 1,0`` runs for four seconds; its first run ends with 1, every later one with 0.
"""

from __future__ import annotations

import re
from typing import NamedTuple

SCRIPT = re.compile(r"last (\d+) exit ([\d,]+)")


class Work(NamedTuple):
    """How long a run lasts and how each attempt ends."""

    duration_ms: int
    exit_codes: tuple[int, ...] = (0,)

    @property
    def script(self) -> str:
        """As a task carries it."""
        return f"last {self.duration_ms} exit {','.join(map(str, self.exit_codes))}"

    def code(self, attempt: int) -> int:
        """The exit code of the attempt with this number, counted from 1 wherever it runs."""
        return self.exit_codes[min(attempt, len(self.exit_codes)) - 1]


def work_of(script: str) -> Work:
    """What ``script`` says."""
    found = SCRIPT.fullmatch(script)
    assert found is not None, script
    return Work(int(found[1]), tuple(int(code) for code in found[2].split(",")))
