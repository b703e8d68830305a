"""Syntax to typed tree: names are resolved, types and units checked, every refusal located and with a way out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from lark import Token, Tree

from tieline.language.attributes import ALIASES, TABLES, Attribute
from tieline.language.parser import MAX_DEPTH, Syntax, fail
from tieline.language.tree import Among, AmongSet, And, Compare, Contains, Node, Not, Or, Ref, Relate
from tieline.language.types import EXAMPLE, NUMERIC, UNITS, Type, read_instant, read_number
from tieline.model.accelerators import architecture, named

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_SPELLED = {"=": "==", "<>": "!=", "≤": "<=", "≥": ">=", "≠": "!="}
MAX_WORD = 400


def check(text: str, syntax: Syntax, subject: str) -> tuple[Node, tuple[tuple[str, Node], ...]]:
    """The typed tree of a parsed query, and its top-level conjuncts with their source text."""
    checker = _Checker(text, subject)
    if not syntax.children:
        return And(()), ()
    root = _child(syntax, 0)
    parts = [_child(root, i) for i in range(0, len(root.children), 2)] if root.data == "both" else [root]
    terms = []
    for part in parts:
        node = checker.node(part, 0)
        terms.append((text[part.meta.start_pos : part.meta.end_pos], node))
    return (And(tuple(node for _, node in terms)) if len(terms) > 1 else terms[0][1]), tuple(terms)


def check_ranking(text: str, syntax: Syntax) -> tuple[tuple[float, Ref], ...]:
    """The weighted attributes of a parsed ranking."""
    checker = _Checker(text, "offer")
    sign, terms = 1.0, []
    for part in syntax.children:
        if isinstance(part, Token):
            sign = -1.0 if part == "-" else 1.0
            continue
        factor, place = 1.0, None
        for item in part.children:
            assert isinstance(item, Tree)
            if item.data == "factor":
                factor = float(str(item.children[0]))
            else:
                place = item
        assert place is not None
        ref = checker.ref(place)
        if ref.type not in NUMERIC:
            checker.fail(place, f"answers are ranked by numbers, `{ref.key}` is a {ref.type}")
        terms.append((sign * factor, ref))
        sign = 1.0
    return tuple(terms)


def suggest(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """The nearest known word as a hint."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return (f"did you mean `{near[0]}`?",) if near else ()


def _child(tree: Syntax, index: int) -> Syntax:
    child = tree.children[index]
    assert isinstance(child, Tree)
    return child


class _Checker:
    """Holds the text for messages and the table for names."""

    def __init__(self, text: str, subject: str) -> None:
        self.text = text
        self.subject = subject
        self.table = TABLES[subject]

    def fail(self, part: Syntax, message: str, hints: tuple[str, ...] = ()) -> NoReturn:
        """Refuse at ``part``."""
        fail(self.text, part.meta.start_pos, message, part.meta.end_pos, hints)

    def node(self, part: Syntax, depth: int) -> Node:
        """The typed node of a condition."""
        if depth > MAX_DEPTH:
            self.fail(part, f"nested deeper than {MAX_DEPTH}")
        if part.data in ("both", "either"):
            items = tuple(self.node(item, depth + 1) for item in part.children if isinstance(item, Tree))
            return And(items) if part.data == "both" else Or(items)
        if part.data == "negation":
            return Not(self.node(_child(part, 1), depth + 1))
        if part.data == "compare":
            return self.compare(part)
        if part.data == "among":
            return self.among(part)
        return self.flag(_child(part, 0))

    def flag(self, place: Syntax) -> Node:
        """A bare attribute or function: it must be true or false."""
        if place.data == "call" and str(place.children[0]) in ("has", "含有"):
            self.ref(place)
            return Contains(Ref("tags", Type.WORDS), self.word(_child(place, 1)))
        ref = self.ref(place)
        if ref.type is not Type.FLAG:
            example = f"{ref.key} == {EXAMPLE.get(ref.type, '...')}"
            if ref.type is Type.WORDS:
                example = f"word in {ref.key}"
            self.fail(place, f"`{ref.key}` is a {ref.type}, not true or false", (f"write `{example}`",))
        return Compare(ref, "==", True)

    def compare(self, part: Syntax) -> Node:
        """``left op right`` with its attribute brought to the left."""
        left, right = _child(part, 0), _child(part, 2)
        op = str(part.children[1])
        op = _SPELLED.get(op, op)
        if left.data in ("number", "text"):
            if right.data in ("number", "text"):
                self.fail(part, "both sides are fixed: one side must be an attribute")
            left, right, op = right, left, _FLIPPED[op]
        ref = self.ref(left)
        if ref.type is Type.WORDS:
            self.fail(left, f"`{ref.key}` is a set of words", (f"write `word in {ref.key}`",))
        if ref.type in (Type.TEXT, Type.FLAG) and op not in ("==", "!="):
            self.fail(part, f"`{ref.key}` is a {ref.type}: it has no order, only `==`, `!=` and `in`")
        if ref.type is Type.TEXT:
            return Compare(ref, op, self.text_of(ref, right))
        if ref.type is Type.FLAG:
            value = str(right.children[0]).lower() if right.data == "name" else ""
            if value not in ("true", "false"):
                self.fail(right, f"`{ref.key}` is true or false")
            return Compare(ref, op, value == "true")
        if right.data in ("name", "call"):
            other = self.ref(right)
            if other.type is not ref.type:
                self.fail(right, f"`{ref.key}` is a {ref.type}, `{other.key}` is a {other.type}")
            return Relate(ref, op, other)
        return Compare(ref, op, self.number(right, ref))

    def among(self, part: Syntax) -> Node:
        """``x [not] in container``."""
        place, container = _child(part, 0), _child(part, -1)
        node = self._among(place, container)
        return Not(node) if len(part.children) == 4 else node

    def _among(self, place: Syntax, container: Syntax) -> Node:
        if container.data == "named":
            name = str(container.children[0])
            row = self._row(name)
            if row is not None and row.type is Type.WORDS:
                return Contains(Ref(row.name, row.type), self.word(place))
            if row is not None:
                self.fail(container, f"`{name}` is a {row.type}, not a set", (f"write `{name} == ...`",))
            ref = self.ref(place)
            if ref.type is not Type.TEXT:
                self.fail(place, f"named sets hold texts, `{ref.key}` is a {ref.type}")
            return AmongSet(ref, name)
        ref = self.ref(place)
        items = [item for item in container.children if isinstance(item, Tree)]
        if ref.type is Type.TEXT:
            return Among(ref, tuple(dict.fromkeys(self.text_of(ref, item) for item in items)))
        if ref.type in NUMERIC:
            return Among(ref, tuple(dict.fromkeys(self.number(item, ref) for item in items)))
        hints = (f"write `word in {ref.key}`",) if ref.type is Type.WORDS else ()
        return self.fail(place, f"`{ref.key}` is a {ref.type}", hints)

    def ref(self, place: Syntax) -> Ref:
        """The attribute that a name or a call means."""
        if place.data not in ("name", "call"):
            self.fail(place, "an attribute must stand here")
        name = str(place.children[0])
        row = self._row(name)
        if row is None:
            known = list(self.table)
            self.fail(place, f"`{name[:60]}` is not an attribute of {self._speaker()}", suggest(name, known))
        if place.data == "name":
            if row.argument:
                self.fail(place, f"`{row.name}` is a function", (f"write `{row.name}({row.argument})`",))
            return Ref(row.name, row.type)
        if not row.argument:
            self.fail(place, f"`{row.name}` is not a function", (f"write `{row.name}`",))
        argument = self.word(_child(place, 1))
        if row.name == "evidence":
            meant = self._row(argument)
            if meant is None:
                self.fail(_child(place, 1), f"`{argument[:60]}` is not an attribute", suggest(argument, self.table))
            argument = meant.name
        return Ref(row.name, row.type, argument, is_function=True)

    def word(self, place: Syntax) -> str:
        """A text: in quotes, or a bare word."""
        if place.data == "text":
            raw = str(place.children[0])[1:-1]
            word = _unescape(raw)
        elif place.data == "name":
            word = str(place.children[0])
        else:
            source = self.text[place.meta.start_pos : place.meta.end_pos]
            self.fail(place, "a text must stand here", (f'write `"{source[:40]}"`',))
        if len(word) > MAX_WORD:
            self.fail(place, f"a text has at most {MAX_WORD} characters")
        return word

    def text_of(self, ref: Ref, place: Syntax) -> str:
        """A text that ``ref`` is compared with; one spelling for the many that accelerators and processors have."""
        word = self.word(place)
        if ref.is_function:
            return word
        try:
            if ref.name == "accelerator" and word:
                return named(word).kind
            return architecture(word) if ref.name == "architecture" else word
        except ValueError:
            return word  # no owner can have said it either

    def number(self, place: Syntax, ref: Ref) -> int:
        """A number of ``ref``'s type in base units."""
        if ref.type is Type.INSTANT:
            try:
                return read_instant(self.word(place))
            except (ValueError, OverflowError):
                self.fail(place, f"`{ref.key}` is an instant", (f"write it as {EXAMPLE[ref.type]}",))
        if place.data != "number":
            self.fail(place, f"`{ref.key}` is a {ref.type}", (f"write `{ref.key} < {EXAMPLE[ref.type]}`",))
        parts = {token.type: str(token) for token in place.children if isinstance(token, Token)}
        number, unit = parts["NUMBER"], parts.get("NAME", "")
        if parts.get("SIGN") == "-":
            number = "-" + number
        try:
            return read_number(ref.type, number, unit)
        except ValueError as error:
            owners = [kind for kind, units in UNITS.items() if unit and unit in units]
            message = f"`{ref.key}`: {error}"
            if owners and ref.type not in owners:
                message = f"`{ref.key}` is a {ref.type}, `{unit}` counts a {owners[0]}"
            self.fail(place, message, (f"write `{ref.key} < {EXAMPLE[ref.type]}`",))

    def _row(self, name: str) -> Attribute | None:
        return self.table.get(name) or self.table.get(ALIASES[self.subject].get(name, ""))

    def _speaker(self) -> str:
        return "offers" if self.subject == "offer" else "demands"


def _unescape(raw: str) -> str:
    letters, skip = [], False
    for letter in raw:
        if letter == "\\" and not skip:
            skip = True
            continue
        letters.append(letter)
        skip = False
    return "".join(letters)
