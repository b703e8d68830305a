"""Problems: everything that is wrong with a task file, collected before anything is refused."""

from __future__ import annotations

from typing import NoReturn

from tieline.model.error import TielineError
from tieline.model.reason import Reason, sentence
from tieline.model.taskfile.nodes import Mark

SHOWN = 50  # problems that are listed; the rest is counted
SHOWN_CHARACTERS = 60  # of what the file says, in a message
HINT = "`tieline schema` prints every field as a JSON Schema; docs/reference/task-file.md lists them"


def shown(text: str, most: int = SHOWN_CHARACTERS) -> str:
    """``text`` fit for a message: one line, cut, control characters escaped."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() and c != "`" else repr(c)[1:-1].replace("`", "'") for c in cut)


class Problems:
    """What is wrong, in the order in which it was met."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.reasons: list[Reason] = []
        self.count = 0

    def add(self, code: str, at: Mark, **values: str | int) -> None:
        """Note one problem at ``at``; ``code`` is one of the reason catalogue."""
        self.count += 1
        if len(self.reasons) < SHOWN:
            self.reasons.append(Reason(code=code, values={"line": at.line, "column": at.column, **values}))

    def value(self, at: Mark, field: str, what: str) -> None:
        """Note that ``field`` has a value that cannot be: ``what`` says why and how to mend it."""
        self.add("task_value", at, field=field, what=what)

    def raise_any(self) -> None:
        """Refuse the whole file with everything that was noted; nothing happens when there is nothing."""
        if self.count:
            self._refuse()

    def stop(self, code: str, at: Mark, **values: str | int) -> NoReturn:
        """Note a problem after which nothing more can be read, and refuse."""
        self.add(code, at, **values)
        self._refuse()

    def _refuse(self) -> NoReturn:
        reasons = sorted(self.reasons, key=lambda reason: (reason.values["line"], reason.values["column"]))
        first = sentence(reasons[0])
        many = f"{self.count:,} problems, the first at " if self.count > 1 else ""
        line, column = reasons[0].values["line"], reasons[0].values["column"]
        raise TielineError(
            "invalid_task",
            f"`{shown(self.source)}`: {many}{first}",
            reasons=tuple(reasons),
            hints=(HINT,),
            where=f"{self.source}:{line}:{column}",
        )
