"""`schema`: the JSON Schema of task files, for editors."""

from __future__ import annotations

from tieline.cli.face import show_json, verb


@verb("schema")
def schema() -> None:
    """JSON Schema (draft 2020-12) of one document of a task file."""
    from tieline.model.taskfile import json_schema

    show_json(json_schema())
