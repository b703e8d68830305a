"""What a query says about kind and accelerator, which choose postings, and what is left to be tested row by row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tieline.find.index import Index
from tieline.find.posting import Posting
from tieline.language.attributes import TABLES
from tieline.language.expression import Expression, Term
from tieline.language.tree import Among, Compare
from tieline.model.error import TielineError


class Narrowed(NamedTuple):
    """A query over an index. Only offers of a kind that has every attribute of the query are considered."""

    kinds: tuple[str, ...]
    chooser: Term | None  # the term that names accelerators
    accelerators: frozenset[str]  # that it names
    terms: tuple[Term, ...]  # the others, as written

    @property
    def every(self) -> tuple[Term, ...]:
        """All terms, in the order in which they are counted."""
        return (self.chooser, *self.terms) if self.chooser else self.terms

    def chosen(self, postings: Iterable[Posting]) -> list[Posting]:
        """The postings in which a row can match."""
        if self.chooser is None:
            return list(postings)
        return [posting for posting in postings if posting.accelerator in self.accelerators]


def narrow(expression: Expression, kind: str = "") -> Narrowed:
    """Split ``expression``; ``kind`` restricts it further when it is not empty."""
    kinds = expression.kinds & {kind} if kind else expression.kinds
    chooser: Term | None = None
    accelerators: frozenset[str] = frozenset()
    terms = []
    for term in expression.terms:
        node = term.node
        names = _names(node, "accelerator")
        if chooser is None and names is not None:
            chooser, accelerators = term, names
        elif _names(node, "kind") is None:
            terms.append(term)
    return Narrowed(tuple(sorted(kinds)), chooser, accelerators, tuple(terms))


def check_sets(expression: Expression, known: Iterable[str]) -> None:
    """Refuse a query that speaks of a named set which the asker has not. Raises TielineError `invalid_expression`."""
    names = sorted(known)
    for name in expression.sets:
        if name not in names:
            at = expression.text.find(name)
            listed = ", ".join(f"`{one}`" for one in names) or "none"
            raise TielineError(
                "invalid_expression",
                f"`{name}` is not a named set here; there are: {listed}",
                where=f"line 1, column {at + 1}",
                hints=(f'a list is written `[{name}]`, one text `== "{name}"`',),
            )


def check_kind(kind: str) -> None:
    """Refuse a kind that cannot be found. Raises TielineError `invalid_request`."""
    from tieline.language.attributes import KINDS

    if kind and kind not in KINDS:
        raise TielineError(
            "invalid_request", f"`{kind[:40]}` is no kind that can be found: {', '.join(KINDS)}", where="kind"
        )


def mixed(expression: Expression) -> str:
    """The attributes of a query which no kind has together."""
    table = TABLES["offer"]
    found = [f"`{ref.key}` ({', '.join(table[ref.name].kinds)})" for ref in expression.refs if table[ref.name].kinds]
    return ", ".join(found) or "`kind`"


def _names(node: object, attribute: str) -> frozenset[str] | None:
    """The values that ``node`` admits when it is an equality or a list on ``attribute``."""
    if isinstance(node, Compare) and node.op == "==" and node.ref.name == attribute:
        return frozenset({str(node.value)})
    if isinstance(node, Among) and node.ref.name == attribute:
        return frozenset(str(value) for value in node.values)
    return None


def postings_of(index: Index, narrowed: Narrowed) -> tuple[list[Posting], list[Posting]]:
    """(postings in which a row can match, the other ones of the kinds considered)."""
    every = index.postings_of(narrowed.kinds)
    chosen = narrowed.chosen(every)
    if len(chosen) == len(every):
        return chosen, []
    held = {id(posting) for posting in chosen}
    return chosen, [posting for posting in every if id(posting) not in held]
