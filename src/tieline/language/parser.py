"""Text to syntax: the LALR grammar, with every failure located.

The parse is linear in the text (LALR(1) over a regular lexer). Length, depth and the number of nodes are bounded.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import NoReturn

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from tieline.model.error import TielineError

MAX_LENGTH = 4_000
MAX_DEPTH = 64
MAX_NODES = 1_000

_EXPECTED = {  # what a person calls the grammar's terminals
    "AND": "`and`",
    "OR": "`or`",
    "NOT": "`not`",
    "IN": "`in`",
    "COMPARE": "a comparison",
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a text in quotes",
    "SIGN": "a sign",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "COMMA": "`,`",
    "STAR": "`*`",
    "$END": "the end",
}
Syntax = Tree[Token]


@cache
def _grammar() -> Lark:
    text = (files("tieline.language") / "grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", start=["query", "ranking"], propagate_positions=True, maybe_placeholders=False)


def parse(text: str, start: str = "query") -> Syntax:
    """The syntax tree of ``text``. Raises TielineError `invalid_expression` with the position."""
    if len(text) > MAX_LENGTH:
        raise TielineError(
            "invalid_expression",
            f"the expression has {len(text):,} characters, at most {MAX_LENGTH:,} are allowed",
            where=f"line 1, column {MAX_LENGTH + 1}",
        )
    _bound_depth(text)
    try:
        tree = _grammar().parse(text, start=start)
    except UnexpectedInput as error:
        _explain(text, error)
    nodes = sum(1 for _ in tree.iter_subtrees())
    if nodes > MAX_NODES:
        raise TielineError(
            "invalid_expression",
            f"the expression has {nodes:,} parts, at most {MAX_NODES:,} are allowed",
            where="line 1, column 1",
            hints=("put long lists of owners into a named set: `owner in partners`",),
        )
    return tree


def fail(text: str, start: int, message: str, end: int | None = None, hints: tuple[str, ...] = ()) -> NoReturn:
    """Refuse ``text`` at ``start``: the message shows the line with carets below it."""
    start = min(start, len(text))
    line = text.count("\n", 0, start) + 1
    begin = text.rfind("\n", 0, start) + 1
    column = start - begin + 1
    stop = text.find("\n", start)
    whole = text[begin : stop if stop >= 0 else len(text)]
    first = max(0, column - 61)  # a long line is shown around the place
    shown = whole[first : first + 100]
    width = max(1, min((end or start + 1) - start, len(shown) - (column - 1 - first)))
    pointer = " " * sum(2 if wide(letter) else 1 for letter in shown[: column - 1 - first]) + "^" * width
    raise TielineError(
        "invalid_expression", f"{message}\n  {shown}\n  {pointer}", where=f"line {line}, column {column}", hints=hints
    )


def wide(letter: str) -> bool:
    """Whether a terminal gives ``letter`` two columns (CJK)."""
    return letter >= "\u1100" and (
        "\u2e80" <= letter <= "\ua4cf" or "\uac00" <= letter <= "\ud7a3" or "\uf900" <= letter <= "\uffe6"
    )


def _bound_depth(text: str) -> None:
    """Refuse deep nesting before anything recursive sees it."""
    depth, quote, skip = 0, "", False
    for position, letter in enumerate(text):
        if quote:
            if skip:
                skip = False
            elif letter == "\\":
                skip = True
            elif letter == quote:
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter in "([":
            depth += 1
            if depth > MAX_DEPTH:
                fail(text, position, f"nested deeper than {MAX_DEPTH}")
        elif letter in ")]":
            depth -= 1


def _explain(text: str, error: UnexpectedInput) -> NoReturn:
    """Say what stands where it cannot, and what could stand there."""
    accepts: set[str] = set()
    found = ""
    position: int = len(text)
    end: int = position + 1
    if isinstance(error, UnexpectedToken):
        token = error.token
        accepts = set(error.accepts or error.expected)
        if token.type != "$END":
            found = f"`{token}`"
            position = token.start_pos or 0
            end = position + len(token)
    elif isinstance(error, UnexpectedCharacters):
        position = int(error.pos_in_stream or 0)
        end = position + 1
        found = f"`{text[position]}`"
        accepts = set(error.allowed or ())
        if text[position] in "\"'":
            fail(text, position, "the quote is not closed on this line", end)
    wanted = sorted({_EXPECTED[name] for name in accepts if name in _EXPECTED and name != "SIGN"})
    message = f"{found or 'the end of the expression'} cannot stand here"
    if wanted:
        message += f": expected {', '.join(wanted)}"
    hints: tuple[str, ...] = ()
    if found == "`&`":
        hints = ("write `and`",)
    elif found == "`|`":
        hints = ("write `or`",)
    elif found == "`!`":
        hints = ("write `not`",)
    elif isinstance(error, UnexpectedToken) and error.token.type == "COMPARE":
        hints = ("comparisons do not chain: write `1 < x and x < 3`",)
    fail(text, position, message, end, hints)
