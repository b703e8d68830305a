"""Headers of the task files in `tests/taskfiles/`: what a file is for and what must come of it.

The leading comment lines of a file are its header. One line, one statement:

    ## free words: what the file is about
    # expect: parses | refused
    # refused: line 7, column 3: unknown key ...   one of the reasons, whole; all of them must be stated
    # not applied: resources.disk_tier             a field of `Task.not_applied`; all of them must be stated
    # note: task_price                             a note's code; all of them must be stated
    # plan: kind_not_offered                       the reason by which planning refuses it (read by the planner's test)
    # schema: accepts                              a refused file that a JSON Schema cannot refuse
    # tasks: 3                                     how many there are (1 where nothing is said)
    # task.nodes: 2                                a value: `task`, `tasks[i]`, `resources` and `parsed` are the roots

A value is compared as JSON where it reads as JSON, as text otherwise.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

FOLDER = Path(__file__).parent / "taskfiles"
_STEP = re.compile(r'\.?([A-Za-z_]\w*)|\[(\d+)\]|\["([^"]+)"\]')
_ROOTS = ("task", "tasks", "resources", "parsed")


class Expectation(NamedTuple):
    """What the header of one file says."""

    name: str
    is_refused: bool
    refused: tuple[str, ...] = ()
    not_applied: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    plan: str = ""
    is_schema_blind: bool = False
    tasks: int = 1
    values: tuple[tuple[str, Any], ...] = ()


def files() -> list[Path]:
    """Every file of the corpus, by name."""
    return sorted(FOLDER.glob("*.yaml"))


def expectation(path: Path) -> Expectation:
    """The header of ``path``; ValueError for a line that states nothing."""
    stated: dict[str, list[str]] = {}
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("##"):
            continue
        key, colon, value = line[1:].strip().partition(": ")
        if not colon:
            raise ValueError(f"{path.name}: `{line}` states nothing")
        stated.setdefault(key, []).append(value.strip())
    expect = stated.pop("expect", [""])[0]
    if expect not in ("parses", "refused"):
        raise ValueError(f"{path.name}: `# expect:` says neither parses nor refused")
    made = Expectation(
        name=path.name,
        is_refused=expect == "refused",
        refused=tuple(stated.pop("refused", ())),
        not_applied=tuple(stated.pop("not applied", ())),
        notes=tuple(stated.pop("note", ())),
        plan=stated.pop("plan", [""])[0],
        is_schema_blind=stated.pop("schema", [""])[0] == "accepts",
        tasks=int(stated.pop("tasks", ["1"])[0]),
        values=tuple((key, _value(values[0])) for key, values in stated.items()),
    )
    unknown = [key for key, _ in made.values if not key.startswith(_ROOTS)]
    if unknown:
        raise ValueError(f"{path.name}: unknown statements {unknown}")
    return made


def value_at(parsed: tuple[Any, ...], path: str) -> Any:
    """The value at ``path`` of what a file was parsed to, in JSON's own types."""
    root, rest = re.fullmatch(r"([a-z]+)(.*)", path).groups()  # type: ignore[union-attr]
    found: Any = {
        "task": parsed[0].task,
        "tasks": [one.task for one in parsed],
        "resources": parsed[0].task.resources,
        "parsed": parsed[0],
    }[root]
    for name, index, key in _STEP.findall(rest):
        found = getattr(found, name) if name else found[int(index)] if index else found[key]
    return msgspec.json.decode(msgspec.json.encode(found))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
