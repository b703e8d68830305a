"""Properties: no bytes break the reader, what is written comes back, and both dialects mean the same."""

from __future__ import annotations

import json
import string

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import taskfiles_expectations as corpus
from tieline.model.accelerators import ACCELERATORS
from tieline.model.error import TielineError
from tieline.model.reason import sentence
from tieline.model.task import Task
from tieline.model.taskfile import json_schema, parse_tasks
from tieline.model.taskfile.dialects import rows
from tieline.model.taskfile.fields_dstack import TYPES

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
VALIDATOR = Draft202012Validator(json_schema())

KEYS = sorted({row.path.split(".")[0].removesuffix("[]") for row in (*rows("skypilot"), *rows("dstack"))})
MARKS = [
    ": ",
    ":",
    "\n",
    "\n  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "|\n",
    ">\n",
    "'",
    '"',
    "# ",
]
BREAKS = ["---\n", "...\n", "? ", "%YAML 1.1\n", "\t", "null", "~", "1", "on", "é", "\\", "@", "$", "task"]
SCRAPS = st.sampled_from([*MARKS, *BREAKS, *KEYS])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=12)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=8)), inner, max_size=4),
    ),
    max_leaves=12,
)


def read(text: bytes) -> tuple[Task, ...]:
    """The tasks of ``text``; none where it is refused, which must be done well."""
    try:
        return tuple(parsed.task for parsed in parse_tasks(text, "t.yaml"))
    except TielineError as refusal:
        error = refusal
    assert error.code == "invalid_task"
    assert error.reasons
    for reason in error.reasons:
        assert reason.values["line"] >= 1
        assert reason.values["column"] >= 1
        assert sentence(reason).isprintable()
    assert error.message.isprintable()
    msgspec.json.encode(error.envelope)
    return ()


@given(st.binary(max_size=400))
@UNHURRIED
def test_any_bytes_are_read_or_refused(text):
    read(text)


@given(st.lists(SCRAPS, max_size=40))
@UNHURRIED
def test_any_scraps_of_yaml_are_read_or_refused(scraps):
    for task in read("".join(scraps).encode()):
        assert msgspec.convert(msgspec.to_builtins(task), Task) == task


@given(st.sampled_from(corpus.files()), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), SCRAPS), max_size=4))
@UNHURRIED
def test_any_slip_in_a_file_of_the_corpus_is_read_or_refused(path, slips):
    text = path.read_bytes()
    for place, gone, written in slips:
        start = int(place * len(text))
        text = text[:start] + written.encode() + text[start + gone :]
    for task in read(text):
        assert msgspec.convert(msgspec.to_builtins(task), Task) == task


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), st.sampled_from(["", *TYPES]))
@UNHURRIED
def test_any_value_under_any_known_key_is_read_or_refused(document, kind):
    if kind:
        document["type"] = kind
    tasks = read(json.dumps(document).encode())
    for task in tasks:
        assert msgspec.convert(msgspec.to_builtins(task), Task) == task
    if tasks:
        assert VALIDATOR.is_valid(document)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1_000_000,
        b"{" * 1_000_000,
        b"- " * 500_000,
        b"? " * 500_000,
        b"a: " * 300_000,
        b"a: |\n" + b" x\n" * 300_000,
        b"&a " * 300_000,
        b"!x " * 300_000,
        b"'" + b"a" * 1_000_000,
        b"%YAML 1.1\n" * 100_000,
        b"\n" * 1_000_000,
        b"[a," * 300_000,
        b"---\n" * 250_000,
        b"x: 1\n" * 200_000,
        b"".join(b"k%d: 1\n" % n for n in range(9_000)),
        b"run: x\nresources: {any_of: [" + b"{}," * 9_000 + b"]}",
        b"run: x\nresources: {accelerators: {" + b",".join(b"k%d: 1" % n for n in range(9_000)) + b"}}",
        b"run: x\nenvs: {A: " + b"x" * 60_000 + b"}\nfile_mounts: {~/x: " + b"$A" * 500 + b"}",
        b"type: task\ncommands: [x]\nresources: {gpu: '" + b"a," * 2_000 + b"'}",
        b"run: x\ndeadline: " + b"9" * 900_000,
        b"run: x\nname: " + b"a-" * 500_000,
        b"run: x\nowners: [" + b"a." * 400_000 + b"!]",
    ],
    ids=range(22),
)
def test_a_file_made_to_be_slow_is_refused_like_any_other(text):
    assert read(text) == ()


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}[A-Za-z0-9]", fullmatch=True)
ENV_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
LINES = st.text(string.ascii_letters + string.digits + " .-=:#{}[]&*!|>'\"%@`,?~\\/中文", max_size=40)
SURPRISES = st.sampled_from(["on", "1:30", "null", "", "0777", "~", "1e3", "=", "<<"])
KINDS = st.sampled_from([row.name for row in ACCELERATORS])
GB = 10**9

ASKS = st.fixed_dictionaries(
    {
        "name": NAMES,
        "run": LINES.filter(str.strip),
        "nodes": st.integers(1, 100_000),
        "envs": st.dictionaries(ENV_NAMES, st.one_of(LINES, SURPRISES), max_size=5),
        "kind": KINDS,
        "count": st.integers(1, 10_000),
        "cores": st.integers(0, 10_000),
        "memory_gb": st.integers(0, 10_000),
        "disk_gb": st.integers(0, 10_000),
        "priority": st.integers(-1_000, 1_000),
        "deadline_s": st.integers(1, 31_536_000),
        "budget": st.integers(1, 10**12),
        "labels": st.dictionaries(WORDS, LINES, max_size=4),
        "owners": st.lists(st.from_regex(r"[a-z0-9]{1,5}(\.[a-z0-9]{1,5}){0,3}", fullmatch=True), max_size=3),
        "outputs": st.lists(st.from_regex(r"[a-z]{1,5}(/[a-z*]{1,5}){0,2}", fullmatch=True), max_size=3),
        "limit": st.integers(0, 1_000),
        "codes": st.lists(st.integers(0, 255), max_size=3, unique=True),
    }
)  # fmt: skip


def own_fields(ask: dict) -> dict:
    """The fields that both dialects share."""
    return {
        "name": ask["name"],
        "priority": ask["priority"],
        "deadline": f"{ask['deadline_s']}s",
        "budget": f"{ask['budget'] // 10**6}.{ask['budget'] % 10**6:06d}",
        "labels": ask["labels"],
        "owners": ask["owners"],
        "outputs": ask["outputs"],
        "retry": {"limit": ask["limit"], "on_exit_codes": ask["codes"]},
    }


def as_skypilot(ask: dict) -> dict:
    """``ask`` in SkyPilot's words."""
    resources = {
        "accelerators": f"{ask['kind'].upper()}:{ask['count']}",
        "cpus": f"{ask['cores']}+",
        "memory": ask["memory_gb"],
        "disk_size": f"{ask['disk_gb']}GB",
    }
    return own_fields(ask) | {"run": ask["run"], "num_nodes": ask["nodes"], "envs": ask["envs"], "resources": resources}


def as_dstack(ask: dict) -> dict:
    """``ask`` in dstack's words."""
    resources = {
        "gpu": {"name": ask["kind"], "count": ask["count"]},
        "cpu": f"{ask['cores']}..",
        "memory": f"{ask['memory_gb']}GB..",
        "disk": f"{ask['disk_gb']}GB..",
    }
    words = {
        "type": "task",
        "commands": [ask["run"]],
        "nodes": ask["nodes"],
        "env": ask["envs"],
        "resources": resources,
    }
    return own_fields(ask) | words


@given(ASKS)
@UNHURRIED
def test_what_is_asked_comes_back_and_both_dialects_mean_the_same(ask):
    documents = [as_skypilot(ask), as_dstack(ask)]
    tasks = [read(json.dumps(document, ensure_ascii=False).encode())[0] for document in documents]
    assert tasks[0] == tasks[1]
    task, resources = tasks[0], tasks[0].resources[0]
    assert (task.name, task.run, task.nodes, task.envs) == (ask["name"], ask["run"], ask["nodes"], ask["envs"])
    assert (resources.accelerator, resources.accelerator_count) == (ask["kind"], ask["count"])
    assert (resources.core_count, resources.memory_bytes) == (ask["cores"], ask["memory_gb"] * GB)
    assert resources.disk_bytes == ask["disk_gb"] * GB
    assert (task.priority, task.deadline_s, task.budget_micro_cny) == (
        ask["priority"],
        ask["deadline_s"],
        ask["budget"],
    )
    assert (list(task.owners), list(task.outputs), task.labels) == (ask["owners"], ask["outputs"], ask["labels"])
    assert (task.retry.limit, list(task.retry.on_exit_codes)) == (ask["limit"], ask["codes"])
    assert all(VALIDATOR.is_valid(document) for document in documents)


@given(ASKS, st.text(string.ascii_lowercase, min_size=1, max_size=8), st.integers(0, 20))
@UNHURRIED
def test_a_key_that_nobody_knows_is_always_found_where_it_stands(ask, key, place):
    document = list(as_skypilot(ask).items())
    key = f"zz{key}zz"
    place = min(place, len(document))
    document.insert(place, (key, 1))
    text = "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in document)
    with pytest.raises(TielineError) as caught:
        parse_tasks(text.encode(), "t.yaml")
    (reason,) = caught.value.reasons
    assert (reason.values["line"], reason.values["column"], reason.values["key"]) == (place + 1, 1, key)
