"""Composing: bytes of YAML become nodes with positions, once, under limits, and nothing is ever constructed.

PyYAML's parser (libyaml where it is there) yields events one by one; the nodes are made here, so that depth, count and
aliases are bounded while reading and no resolver guesses types: `on`, `1:30` and `0777` stay the text that they are
until a field says what it wants. Tags are refused, duplicate keys are refused, and an alias is followed only while the
document, fully expanded, stays within its limit of nodes: no file unfolds into a billion of them.

Cost: linear in the bytes; measured about 30 ms for 1 MiB of ordinary text with libyaml.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from tieline.model.taskfile.nodes import Mapping, Mark, Node, Scalar, Sequence
from tieline.model.taskfile.problem import Problems, shown

MAX_BYTES = 2**20
MAX_DOCUMENTS = 100
MAX_DEPTH = 32
MAX_NODES = 20_000  # of all documents, aliases expanded
MAX_ALIASES = 100
STR_TAG = "tag:yaml.org,2002:str"
START = Mark(1, 1)

# YAML 1.1, section 4.1: the characters that a stream may hold.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")  # what an escape in double quotes may still smuggle in
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def compose(text: bytes, problems: Problems) -> tuple[Node, ...]:
    """The documents of ``text``, empty ones left out.

    Raises TielineError `invalid_task` where nothing more can be read; what can be read past (duplicate keys, tags) is
    noted in ``problems``.
    """
    import yaml  # here: 20 ms that only a reader of task files pays

    written = _decoded(text, problems)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder(problems)
    try:
        for event in yaml.parse(written, Loader=loader):
            builder.take(event)
    except yaml.YAMLError as error:
        _refuse_syntax(error, written, problems)
    except RecursionError:  # pragma: no cover - depth is refused before the parser nests that far
        problems.stop("task_yaml", START, what=f"nested deeper than {MAX_DEPTH} levels")
    return tuple(builder.documents)


def _decoded(text: bytes, problems: Problems) -> str:
    """``text`` as characters, if it is UTF-8 of a bearable size without control characters."""
    if len(text) > MAX_BYTES:
        problems.stop("task_yaml", START, what=f"{len(text):,} bytes; a task file holds at most {MAX_BYTES:,}")
    try:
        written = text.decode("utf-8")
    except UnicodeDecodeError as error:
        good = text[: error.start].decode("utf-8")
        what = f"byte 0x{text[error.start]:02x} is not UTF-8; save the file as UTF-8"
        problems.stop("task_yaml", _mark(good, len(good)), what=what)
    written = written.removeprefix("\ufeff")
    if bad := _UNPRINTABLE.search(written):
        name = "a NUL byte" if bad[0] == "\0" else f"control character U+{ord(bad[0]):04X}"
        problems.stop("task_yaml", _mark(written, bad.start()), what=f"{name} cannot stand in a task file")
    return written


def _mark(written: str, index: int) -> Mark:
    """The place of the character at ``index``."""
    line, start = 1, 0
    for found in _BREAK.finditer(written, 0, index):
        line, start = line + 1, found.end()
    return Mark(line, index - start + 1)


# What a parser was doing when it gave up, and what that means to an author. `{line}` is where it began.
SYNTAX = {
    "flow sequence": "a list that begins at line {line} is not closed, or a comma is missing",
    "flow mapping": "a mapping that begins at line {line} is not closed, or a comma is missing",
    "block mapping": "this does not fit the mapping that begins at line {line}; check the indentation",
    "block collection": "this does not fit the list that begins at line {line}; check the indentation",
    "quoted scalar": "a quote that begins at line {line} is not closed, or an escape is not known",
    "simple key": "a key needs `: ` after it",
    "next token": "this character cannot begin a value; put the value in quotes",
    "alias": "an alias `*` needs the name of an anchor",
    "block scalar": "the text below `|` or `>` must be indented alike",
}


def _refuse_syntax(error: Exception, written: str, problems: Problems) -> NoReturn:
    """Say a parser's error in our words, without quoting the file: it may hold secrets."""
    begun, mark = getattr(error, "context_mark", None), getattr(error, "problem_mark", None)
    mark = mark or begun
    if mark is None:
        problems.stop("task_yaml", START, what="not YAML")
    at = Mark(mark.line + 1, mark.column + 1)
    lines = _BREAK.split(written)
    line = lines[mark.line] if mark.line < len(lines) else ""
    context, problem = str(getattr(error, "context", "")), str(getattr(error, "problem", ""))
    what = next((words for doing, words in SYNTAX.items() if doing in context), "this is not YAML")
    if "\t" in line[: len(line) - len(line.lstrip())]:
        what = "a tab indents this line; YAML is indented with spaces"
    elif "mapping values are not allowed" in problem:
        what = "`: ` cannot stand inside this value; put the value in quotes, or check the indentation"
    problems.stop("task_yaml", at, what=what.format(line=begun.line + 1 if begun else at.line))


class _Open:
    """A collection that is still being read."""

    __slots__ = ("anchor", "at", "children", "height", "is_mapping", "size")

    def __init__(self, *, is_mapping: bool, at: Mark, anchor: str | None) -> None:
        self.is_mapping = is_mapping
        self.at = at
        self.anchor = anchor
        self.children: list[Node] = []
        self.size = 1
        self.height = 1


class _Builder:
    """Makes nodes of events. ``anchors`` holds each finished node with its size and height, fully expanded."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.documents: list[Node] = []
        self.open: list[_Open] = []
        self.anchors: dict[str, tuple[Node, int, int]] = {}
        self.nodes = 0
        self.aliases = 0
        self.begun = 0

    def take(self, event: Any) -> None:
        """Take one event of the parser."""
        kind = type(event).__name__
        at = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        if kind == "ScalarEvent":
            self._check_tag(event, at, allowed=STR_TAG)
            if _UNSPEAKABLE.search(event.value):
                self.problems.add("task_yaml", at, what="an escape makes a NUL or half of a character; leave it out")
            node = Scalar(text=event.value, is_plain=event.implicit[0] and event.tag is None, at=at)
            self._count(1, at)
            self._attach(node, 1, 1, event.anchor)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._check_tag(event, at, allowed=None)
            self._count(1, at)
            if len(self.open) >= MAX_DEPTH:
                self.problems.stop("task_yaml", at, what=f"nested deeper than {MAX_DEPTH} levels")
            self.open.append(_Open(is_mapping=kind == "MappingStartEvent", at=at, anchor=event.anchor))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            done = self.open.pop()
            finished = self._mapping(done) if done.is_mapping else Sequence(tuple(done.children), done.at)
            self._attach(finished, done.size, done.height, done.anchor)
        elif kind == "AliasEvent":
            self._follow(event.anchor, at)
        elif kind == "DocumentStartEvent":
            self._begin(at)

    def _begin(self, at: Mark) -> None:
        self.anchors.clear()  # an alias never reaches into another document
        self.begun += 1
        if self.begun > MAX_DOCUMENTS:
            self.problems.stop("task_yaml", at, what=f"more than {MAX_DOCUMENTS} documents")

    def _check_tag(self, event: Any, at: Mark, allowed: str | None) -> None:
        """Tags construct objects elsewhere; here the field decides, so only `!!str` may stand."""
        if event.tag is not None and event.tag not in (allowed, "!"):
            tag = shown(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self.problems.add("task_yaml", at, what=f"tag `{tag}` is not accepted; leave it out")

    def _count(self, size: int, at: Mark) -> None:
        self.nodes += size
        if self.nodes > MAX_NODES:
            self.problems.stop("task_yaml", at, what=f"more than {MAX_NODES:,} values, aliases expanded")

    def _attach(self, node: Node, size: int, height: int, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = (node, size, height)
        if not self.open:
            if not (isinstance(node, Scalar) and node.is_null):
                self.documents.append(node)
            return
        parent = self.open[-1]
        parent.children.append(node)
        parent.size += size
        parent.height = max(parent.height, height + 1)

    def _follow(self, anchor: str, at: Mark) -> None:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            self.problems.stop("task_yaml", at, what=f"more than {MAX_ALIASES} aliases")
        if anchor not in self.anchors:
            what = f"alias `*{shown(anchor)}` names no anchor that is finished before it"
            self.problems.stop("task_yaml", at, what=what)
        node, size, height = self.anchors[anchor]
        if len(self.open) + height > MAX_DEPTH:
            self.problems.stop("task_yaml", at, what=f"nested deeper than {MAX_DEPTH} levels")
        self._count(size, at)
        self._attach(node, size, height, None)

    def _mapping(self, done: _Open) -> Mapping:
        """The pairs of a finished mapping: keys are text and unique; `<<` merges what its alias holds (YAML 1.1)."""
        own: dict[str, tuple[Scalar, Node]] = {}
        merged: dict[str, tuple[Scalar, Node]] = {}
        for key, value in zip(done.children[::2], done.children[1::2], strict=True):
            if not isinstance(key, Scalar):
                self.problems.add("task_yaml", key.at, what="a key must be text")
            elif key.is_plain and key.text == "<<":
                self._merge(value, merged)
            elif key.text in own:
                first = own[key.text][0].at
                self.problems.add("task_duplicate", key.at, key=shown(key.text), first=str(first))
            else:
                own[key.text] = (key, value)
        pairs = {**{name: pair for name, pair in merged.items() if name not in own}, **own}
        return Mapping(tuple(pairs.values()), done.at)

    def _merge(self, value: Node, merged: dict[str, tuple[Scalar, Node]]) -> None:
        sources = value.items if isinstance(value, Sequence) else (value,)
        for source in sources:
            if isinstance(source, Mapping):
                for key, held in source.pairs:
                    merged.setdefault(key.text, (key, held))
            else:
                self.problems.add("task_yaml", source.at, what="`<<` merges mappings only")
