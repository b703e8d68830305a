"""The JSON Schema: valid, of a bearable size, and of one mind with the parser wherever a schema can say it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import taskfiles_expectations as corpus
from tieline.model.error import TielineError
from tieline.model.taskfile import json_schema
from tieline.model.taskfile.compose import compose
from tieline.model.taskfile.nodes import Mapping, Node, Scalar
from tieline.model.taskfile.problem import Problems

VALIDATOR = Draft202012Validator(json_schema())


def test_the_schema_is_a_valid_schema_of_its_draft():
    Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_definition_is_used_and_every_reference_has_one():
    schema = json_schema()
    text = json.dumps(schema)
    references = set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', text))
    assert references == set(schema["$defs"])


def test_the_schema_is_the_same_every_time():
    assert json.dumps(json_schema()) == json.dumps(json_schema())


@pytest.mark.parametrize("path", corpus.files(), ids=lambda path: path.stem)
def test_the_schema_and_the_parser_are_of_one_mind(path):
    stated = corpus.expectation(path)
    try:
        documents = compose(path.read_bytes(), Problems(path.name))
    except TielineError:
        return  # no document, nothing for a schema to see
    mistakes = [mistake for document in documents for mistake in VALIDATOR.iter_errors(_json(document))]
    if stated.is_refused and not stated.is_schema_blind:
        assert mistakes
    else:
        assert mistakes == []


@pytest.mark.parametrize(
    "task",
    [
        {"run": "x", "nmae": "y"},
        {"run": "x", "num_nodes": 0},
        {"run": "x", "num_nodes": 1.5},
        {"run": "x", "resources": {"cpus": "four"}},
        {"run": "x", "resources": {"memory": "1 parsec"}},
        {"run": "x", "envs": {"A-B": "1"}},
        {"run": "x", "resources": {"any_of": [{"gpu": "A100"}]}},
        {"type": "task", "commands": ["x"], "nodes": 0},
        {"type": "task", "commands": "x"},
        {"type": "task", "run": "x"},
        {"type": "fleet", "commands": ["x"]},
        {"commands": ["x"], "scaling": {"metric": "rps"}},
        {"run": "x", "trusted": "maybe"},
        {"run": "x", "deadline": -1},
        {"run": "x", "retry": 1001},
        {"run": "x", "network": "carrier pigeon"},
        [],
        "echo hi",
    ],
)
def test_the_schema_refuses_what_cannot_be(task):
    assert not VALIDATOR.is_valid(task)


@pytest.mark.parametrize(
    "task",
    [
        {"run": "x", "name": None},
        {"run": "x", "resources": {"accelerators": None, "cpus": 4, "memory": "32+", "use_spot": False}},
        {"type": "task", "commands": ["x"], "resources": {"gpu": 2, "memory": "8GB..", "cpu": "arm:4"}},
        {"type": "service", "commands": ["x"], "replicas": "0..4", "scaling": {"metric": "rps", "target": 10}},
        {"name": "pipeline", "execution": "serial"},
        {"run": "x", "retry": {"limit": 3}, "owners": "cn.demo.lab1", "data": {"id": "cn.demo.lab1/dataset/a"}},
    ],
)
def test_the_schema_accepts_what_can_be(task):
    assert list(VALIDATOR.iter_errors(task)) == []


def _json(node: Node) -> Any:
    """What an editor's validator sees: YAML 1.2's core schema."""
    if isinstance(node, Mapping):
        return {key.text: _json(value) for key, value in node.pairs}
    if not isinstance(node, Scalar):
        return [_json(item) for item in node.items]
    if node.is_null:
        return None
    if not node.is_plain:
        return node.text
    if node.text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return node.text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]+", node.text):
        return int(node.text[:30])
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", node.text):
        return float(node.text)
    return node.text
