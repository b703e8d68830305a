"""Compiled expressions: `compile_query` for queries over offers, `compile_policy` for owners' policies over demands.

>>> query = compile_query("npu >= 8 and price < 20 and owner in partners")
>>> [term.text for term in query.terms]
['npu >= 8', 'price < 20', 'owner in partners']
>>> query.decide({"npu": 16, "price": 3_200_000, "owner": "cn.sh.lab7"}, {"partners": ["cn.sh.lab7"]})
True
>>> query.decide({"npu": 16, "owner": "cn.sh.lab7"}, {"partners": ["cn.sh.lab7"]}) is None
True
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tieline.language import scalar
from tieline.language.attributes import KINDS, TABLES
from tieline.language.context import NOWHERE, Context
from tieline.language.tree import Among, AmongSet, And, Compare, Node, Or, Ref, Value, canonical, leaves, refs
from tieline.language.types import Type

if TYPE_CHECKING:
    from tieline.language.context import Integers
    from tieline.language.table import Table
    from tieline.language.vector import Verdict

CACHED = 1_024  # compiled expressions that are kept


class Bound(NamedTuple):
    """A term of the form ``attribute op value``: what a relaxation or a counter-offer would move."""

    ref: Ref
    op: str
    value: Value


class Term(NamedTuple):
    """One top-level conjunct, with its source text."""

    text: str
    node: Node

    @property
    def bound(self) -> Bound | None:
        """Its attribute, operator and value when it is one comparison."""
        return Bound(self.node.ref, self.node.op, self.node.value) if isinstance(self.node, Compare) else None

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of offers for which it can be true."""
        return _kinds(self.node)


class Expression:
    """A checked expression. Equal texts share one object while it is cached; it never changes."""

    __slots__ = ("node", "refs", "sets", "subject", "terms", "text")

    def __init__(self, text: str, subject: str, node: Node, terms: tuple[Term, ...]) -> None:
        self.text = text
        self.subject = subject  # offer or demand
        self.node = node
        self.terms = terms
        self.refs: tuple[Ref, ...] = tuple(dict.fromkeys(refs(node)))
        self.sets: tuple[str, ...] = tuple(
            dict.fromkeys(leaf.name for leaf in leaves(node) if isinstance(leaf, AmongSet))
        )

    def __repr__(self) -> str:
        return f"Expression({self.text!r}, {self.subject!r})"

    def evaluate(self, table: Table, rows: Integers | None = None, context: Context = NOWHERE) -> Verdict:
        """(yes, unknown), one of each per row of ``rows`` (all rows of the table when None), vectorised.

        >>> from tieline.language.attributes import OFFER
        >>> from tieline.language.table import Table
        >>> table = Table(OFFER)
        >>> _ = table.put("a", {"price": 10_000_000}), table.put("b", {})
        >>> yes, unknown = compile_query("price < 20").evaluate(table)
        >>> yes.tolist(), unknown.tolist()
        ([True, False], [False, True])
        """
        from tieline.language import vector

        return vector.evaluate(self.node, table, rows, context)

    def decide(self, values: Mapping[str, Any], sets: scalar.Sets = {}) -> bool | None:  # noqa: B006 - never changed
        """True, False or None (unknown) for one environment: attribute name -> value in base units."""
        return scalar.decide(self.node, values, sets)

    def canonical(self) -> str:
        """One text for all spellings; compiling it gives the same tree."""
        return canonical(self.node)

    def to_json(self) -> dict[str, Any]:
        """The typed tree as JSON-ready data, numbers in base units."""
        return {"subject": self.subject, "tree": msgspec.json.decode(msgspec.json.encode(self.node))}

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds for which every term can be true: nothing else needs to be considered."""
        kinds = frozenset(KINDS)
        for term in self.terms:
            kinds &= term.kinds
        return kinds


def compile_query(text: str) -> Expression:
    """Compile a query over offers. Raises TielineError `invalid_expression` with line, column and a caret."""
    return _compiled(text, "offer")


def compile_policy(text: str) -> Expression:
    """Compile an owner's policy over a demand and its user. Raises TielineError `invalid_expression`."""
    return _compiled(text, "demand")


_SIGNS = re.compile(r"[<>=≤≥≠!(]")
_JOINS = frozenset({"and", "or", "not", "in"})


def is_query(text: str) -> bool:
    """Whether ``text`` is meant as a query; otherwise it is words to be searched for. Nothing is compiled.

    >>> [is_query(text) for text in ("npu >= 8", "owner in partners", "is_emulated", "not is_emulated")]
    [True, True, True, True]
    >>> [is_query(text) for text in ("手写数字 classifier", "trained in Shanghai", "size", "")]
    [False, False, False, False]
    """
    if _SIGNS.search(text):
        return True
    words = text.split()
    known = [row for row in map(TABLES["offer"].get, words) if row is not None]
    joins = len(words) > 1 and any(word.lower() in _JOINS for word in words)
    return bool(known) and (joins or (len(words) == 1 and known[0].type is Type.FLAG))


@lru_cache(maxsize=CACHED)
def _compiled(text: str, subject: str) -> Expression:
    if not text.strip():
        return Expression(text, subject, And(()), ())
    from tieline.language.check import check
    from tieline.language.parser import parse

    node, terms = check(text, parse(text), subject)
    return Expression(text, subject, node, tuple(Term(source, part) for source, part in terms))


def _kinds(node: Node) -> frozenset[str]:
    every = frozenset(KINDS)
    if isinstance(node, Compare) and node.ref.name == "kind" and node.op == "==":
        return frozenset({str(node.value)})
    if isinstance(node, Among) and node.ref.name == "kind":
        return frozenset(str(value) for value in node.values)
    if isinstance(node, Or):
        return frozenset().union(*(_kinds(item) for item in node.items))
    if isinstance(node, And):
        return frozenset.intersection(every, *(_kinds(item) for item in node.items))
    table = TABLES["offer"]
    for ref in refs(node):
        row = table.get(ref.name)
        if row is not None and row.kinds:
            every &= frozenset(row.kinds)
    return every
