"""The corpus: every file in `tests/taskfiles/` comes out as its header says."""

from __future__ import annotations

import pytest

import taskfiles_expectations as corpus
from tieline.model.error import TielineError
from tieline.model.reason import CATALOGUE, sentence
from tieline.model.taskfile import parse_tasks
from tieline.model.taskfile.compose import compose
from tieline.model.taskfile.dialects import dialect_of, rows, type_of
from tieline.model.taskfile.fields_dstack import DSTACK, TYPES
from tieline.model.taskfile.fields_own import OWN
from tieline.model.taskfile.fields_skypilot import SKYPILOT
from tieline.model.taskfile.nodes import Mapping, Node, Sequence
from tieline.model.taskfile.problem import Problems

FILES = corpus.files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_the_corpus_comes_out_as_its_header_says(path):
    stated = corpus.expectation(path)
    if stated.is_refused:
        with pytest.raises(TielineError) as caught:
            parse_tasks(path.read_bytes(), path.name)
        assert caught.value.code == "invalid_task"
        assert [sentence(reason) for reason in caught.value.reasons] == list(stated.refused)
        assert stated.refused[0] in caught.value.message
        assert caught.value.where.startswith(f"{path.name}:")
        return
    parsed = parse_tasks(path.read_bytes(), path.name)
    assert len(parsed) == stated.tasks
    assert sorted({one.field for task in parsed for one in task.task.not_applied}) == sorted(stated.not_applied)
    assert sorted({note.code for task in parsed for note in task.notes}) == sorted(stated.notes)
    for name, value in stated.values:
        assert corpus.value_at(parsed, name) == value, name


def test_the_corpus_is_as_large_as_promised_and_states_only_known_reasons():
    stated = [corpus.expectation(path) for path in FILES]
    assert len(stated) >= 70
    assert sum(one.is_refused for one in stated) >= 30
    assert {one.plan for one in stated if one.plan} <= set(CATALOGUE)


def test_every_field_of_every_dialect_stands_in_some_file_that_parses():
    used: set[tuple[str, str]] = set()
    for path in FILES:
        if corpus.expectation(path).is_refused:
            continue
        for document in compose(path.read_bytes(), Problems(path.name)):
            if isinstance(document, Mapping):
                dialect = dialect_of(document)
                known = {row.path for row in rows(dialect, type_of(document))}
                used |= {(dialect, name) for name in _paths(document, "", known)}
    own = {row.path for row in OWN}
    missing = [row.path for row in OWN if not {("skypilot", row.path), ("dstack", row.path)} & used]
    missing += [row.path for row in SKYPILOT if row.path not in own and not _is_covered("skypilot", row.path, used)]
    missing += [row.path for row in DSTACK if row.path not in own and not _is_covered("dstack", row.path, used)]
    assert missing == []


def test_every_condition_that_a_file_of_the_corpus_makes_is_one_of_the_language():
    from tieline.language import compile_query

    conditions = {
        resources.where
        for path in FILES
        if not corpus.expectation(path).is_refused
        for parsed in parse_tasks(path.read_bytes(), path.name)
        for resources in parsed.task.resources
        if resources.where
    }
    assert len(conditions) >= 7
    for condition in sorted(conditions):
        assert compile_query(condition)


def test_every_type_of_dstack_has_a_file():
    texts = [path.read_text(errors="replace") for path in FILES]
    assert [kind for kind in TYPES if not any(f"\ntype: {kind}\n" in text for text in texts)] == []


def _is_covered(dialect: str, path: str, used: set[tuple[str, str]]) -> bool:
    """An alternative's field is the same row as the one outside."""
    plain = path.replace("any_of[].", "").replace("ordered[].", "")
    return (dialect, path) in used or (plain != path and (dialect, plain) in used)


def _paths(node: Node, path: str, known: set[str]) -> set[str]:
    """The rows that ``node`` touches: `a.b`, `a[]`, `a.*`."""
    if isinstance(node, Sequence):
        return {path, f"{path}[]"} | {found for item in node.items for found in _paths(item, f"{path}[]", known)}
    if isinstance(node, Mapping):
        found = {path}
        for key, value in node.pairs:
            inner = f"{path}.{key.text}" if path else key.text
            is_free = inner not in known and not any(name.startswith((f"{inner}.", f"{inner}[")) for name in known)
            found |= _paths(value, f"{path}.*" if is_free else inner, known)
        return found
    return {path, f"{path}[]"}  # a lone item may stand without its list
