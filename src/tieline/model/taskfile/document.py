"""Documents: a task file as a whole, one task per document, in a row when there are several."""

from __future__ import annotations

import msgspec

from tieline.model.taskfile.compose import START, compose
from tieline.model.taskfile.dialects import EXECUTION, HEADER_KEYS, dialect_of, table_of, type_of
from tieline.model.taskfile.draft import Draft
from tieline.model.taskfile.fields import Section
from tieline.model.taskfile.nodes import Mapping, Node, Scalar
from tieline.model.taskfile.parsed import DEFAULT_RATE, ParsedTask, Rate
from tieline.model.taskfile.problem import Problems
from tieline.model.taskfile.read_dstack import read_dstack
from tieline.model.taskfile.read_own import read_own
from tieline.model.taskfile.read_skypilot import read_skypilot
from tieline.model.taskfile.shapes import Reading
from tieline.model.taskfile.values import NAME


def parse_tasks(text: bytes, source: str, rate: Rate = DEFAULT_RATE) -> tuple[ParsedTask, ...]:
    """Read a task file in SkyPilot's or dstack's words, with Tieline's own fields in either.

    ``source`` is what the file is called in messages. Prices in USD are converted by ``rate``. Nothing but ``text`` is
    read: local files and secrets stay with the caller. Raises TielineError `invalid_task` with one reason per mistake,
    each with its line and column; then nothing of the file is used.
    """
    problems = Problems(source)
    documents = compose(text, problems)
    if not documents:
        problems.raise_any()
        problems.stop("task_yaml", START, what="nothing is written here; a task says at least what to `run`")
    pipeline, kind, tasks = _header(documents, problems)
    parsed: list[ParsedTask] = []
    for index, document in enumerate(tasks):
        one = _parse(document, rate, problems)
        if one is not None:
            after = index - 1 if index and kind != "parallel" else None
            parsed.append(_in_pipeline(one, pipeline, after, kind))
    problems.raise_any()
    return tuple(parsed)


def _in_pipeline(one: ParsedTask, pipeline: str, after: int | None, kind: str) -> ParsedTask:
    """A task with its place in the row; members of a group that must run side by side are nothing that runs here."""
    if kind == "parallel":
        one = msgspec.structs.replace(one, task=msgspec.structs.replace(one.task, type="job-group"))
    return msgspec.structs.replace(one, pipeline=pipeline, after=after)


def _header(documents: tuple[Node, ...], problems: Problems) -> tuple[str, str, tuple[Node, ...]]:
    """The pipeline's name and kind, and its tasks: a leading document that says only these is no task."""
    first = documents[0]
    if len(documents) < 2 or not isinstance(first, Mapping) or not first.pairs:
        return "", "serial", documents
    pairs = {key.text: value for key, value in first.pairs}
    if any(name not in HEADER_KEYS for name in pairs):
        return "", "serial", documents
    reading = Reading(problems)
    name = NAME.read(pairs["name"], "name", reading) if "name" in pairs else None
    kind = EXECUTION.read(pairs["execution"], "execution", reading) if "execution" in pairs else None
    return (name.value if name else ""), (kind.value if kind else "serial"), documents[1:]


def _parse(document: Node, rate: Rate, problems: Problems) -> ParsedTask | None:
    """One task; None after noting why there is none."""
    before = problems.count
    reading = Reading(problems)
    draft = Draft(reading=reading, at=document.at, rate=rate, before=before)
    if not isinstance(document, Mapping):
        kind = "text" if isinstance(document, Scalar) else "a list"
        problems.add("task_yaml", document.at, what=f"{kind} is no task; write `key: value`")
        return None
    dialect = dialect_of(document)
    value = table_of(dialect, type_of(document)).read(document, "", reading)
    if value is None:
        return None
    section = value.value
    read_own(section, draft)
    (read_dstack if dialect == "dstack" else read_skypilot)(section, draft)
    if problems.count == before and draft.task.get("type", "task") == "task":
        _check_runs(draft, dialect)
        _check_span(draft, section, dialect)
    return draft.finish() if problems.count == before else None


def _check_span(draft: Draft, section: Section, dialect: str) -> None:
    """Several sites are for several nodes, which reach each other by the network of their hosts."""
    if "span" not in section:
        return
    place, nodes = section["span"].at, draft.task.get("nodes", 1)
    if nodes < 2:
        field = "nodes" if dialect == "dstack" else "num_nodes"
        draft.wrong(place, "span", f"needs `{field}`, 2 or more: there is only one node, which stands at one site")
    if draft.task.get("network") == "none":
        draft.wrong(place, "span", "nodes without a network cannot reach those of other sites; leave `network` out")


def _check_runs(draft: Draft, dialect: str) -> None:
    """A task that says nothing to run is a mistake, not an idle booking."""
    if draft.task.get("run", "").strip() or draft.task.get("setup", "").strip():
        return
    field = "commands" if dialect == "dstack" else "run"
    more = "; an image's own entry point is not run, so write its command" if draft.image else ""
    draft.wrong(draft.at, field, f"is missing: the task says nothing to run{more}")
