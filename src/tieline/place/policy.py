"""An owner's policy, compiled once when its pool's record arrives and shared by all pools that say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tieline.language import Expression, compile_policy, scalar
from tieline.model.error import TielineError

UNREADABLE: Final = "(unreadable)"


class OwnerPolicy:
    """The text, the owner's named set `partners`, and what it compiles to. Equal where text and partners are."""

    __slots__ = ("_key", "expression", "partners", "speaks_of_trust", "text")

    def __init__(self, text: str = "", partners: tuple[str, ...] = ()) -> None:
        self.text = text.strip()
        self.partners = partners if self.text else ()
        self.expression = _compiled(self.text)
        self.speaks_of_trust = (
            any(ref.name == "is_trusted" for ref in self.expression.refs) if self.expression else False
        )
        self._key = (self.text, self.partners)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnerPolicy) and self._key == other._key

    def admits(self, values: Mapping[str, Any]) -> bool | None:
        """Whether it holds for a demand's ``values``; None where that cannot be known, or where it does not compile."""
        if not self.text:
            return True
        return None if self.expression is None else self.expression.decide(values, {"partners": self.partners})

    def binding(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """(reason code, term) of its first term that is false, else of the first that is unknown."""
        if self.expression is None:
            return "policy_unknown", UNREADABLE
        unknown = ""
        for term in self.expression.terms:
            holds = scalar.decide(term.node, values, {"partners": self.partners})
            if holds is False:
                return "policy_not_met", term.text
            if holds is None:
                unknown = unknown or term.text
        return "policy_unknown", unknown


def _compiled(text: str) -> Expression | None:
    """None where a record carries a text that does not compile: then it admits nothing."""
    try:
        return compile_policy(text)
    except TielineError:
        return None
