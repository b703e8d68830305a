"""The JSON Schema of one document of a task file, made from the same rows that read it.

It says what a schema can say: keys, types, patterns and bounds. What needs a second look (a range that runs backwards,
a path that climbs out, two fields that exclude each other) only the parser finds.
"""

from __future__ import annotations

import json
from typing import Any

from tieline.model.taskfile.dialects import EXECUTION, HEADER_KEYS, markers, table_of
from tieline.model.taskfile.fields_dstack import TYPES
from tieline.model.taskfile.shapes import Schema, nullable
from tieline.model.taskfile.values import NAME

SIZEABLE = 120  # characters of a part that is worth a name of its own


def json_schema() -> Schema:
    """The schema (draft 2020-12)."""
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tieline task file, one document",
        "description": "SkyPilot's or dstack's YAML, with Tieline's own fields in either.",
        "type": "object",
        "anyOf": [
            _header(),
            {
                "if": _is_dstack(),
                "then": {"allOf": [_dstack(kind) for kind in TYPES]},
                "else": table_of("skypilot").schema(),
            },
        ],
    }
    definitions: Schema = {}
    folded = _folded(whole, _counted(whole, {}), definitions)
    return {**folded, "$defs": definitions}


def _counted(schema: Any, counts: dict[str, int]) -> dict[str, int]:
    """How often each part of ``schema`` occurs, by its text."""
    if isinstance(schema, dict):
        text = json.dumps(schema, sort_keys=True)
        counts[text] = counts.get(text, 0) + 1
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _counted(part, counts)
    return counts


def _folded(schema: Any, counts: dict[str, int], definitions: Schema) -> Any:
    """``schema`` with every sizeable property that occurs more than once as a reference to one definition."""
    if isinstance(schema, list):
        return [_folded(part, counts, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    folded: Schema = {}
    for key, part in schema.items():
        if key == "properties":
            folded[key] = {name: _named(held, name, counts, definitions) for name, held in part.items()}
        else:
            folded[key] = _folded(part, counts, definitions)
    return folded


def _named(schema: Schema, name: str, counts: dict[str, int], definitions: Schema) -> Schema:
    """A property: itself, or a reference to the definition that it shares."""
    folded: Schema = _folded(schema, counts, definitions)
    text = json.dumps(schema, sort_keys=True)
    if counts[text] < 2 or len(text) < SIZEABLE:
        return folded
    for number in range(1, len(counts) + 1):
        label = name if number == 1 else f"{name}-{number}"
        if definitions.setdefault(label, folded) == folded:
            return {"$ref": f"#/$defs/{label}"}
    raise AssertionError(name)


def _header() -> Schema:
    """The leading document of a pipeline, which says only these."""
    properties: Schema = {name: {} for name in HEADER_KEYS}
    properties |= {"name": nullable(NAME.schema()), "execution": nullable(EXECUTION.schema())}
    return {"properties": properties, "minProperties": 1, "additionalProperties": False}


def _is_dstack() -> Schema:
    """The rule of `dialect_of`."""
    own, other = ([{"required": [name]} for name in markers(dialect)] for dialect in ("dstack", "skypilot"))
    return {"anyOf": [{"required": ["type"]}, {"anyOf": own, "not": {"anyOf": other}}]}


def _dstack(kind: str) -> Schema:
    """The fields of one value of `type`; a document without one is a task."""
    is_kind: Schema = {"properties": {"type": {"const": kind}}, "required": ["type"]}
    if kind == "task":
        others = [
            {"properties": {"type": {"const": other}}, "required": ["type"]} for other in TYPES if other != "task"
        ]
        is_kind = {"not": {"anyOf": others}}
    return {"if": is_kind, "then": table_of("dstack", kind).schema()}
