"""What is to be run: a file, or a command with options. What is wrong is said before anything is sent."""

import click
import pytest

from tieline.cli.run import plan
from tieline.cli.taskinput import asked
from tieline.model.error import TielineError


def given(*words):
    """What these words ask for."""
    context = click.Context(plan)
    plan.parse_args(context, list(words))
    options = dict(context.params)
    what = options.pop("what")
    options.pop("as_json")
    with context:
        return asked(context, what, options)


def task_of(*words):
    (work,) = given(*words).works
    return work.task


def test_a_command_becomes_a_task_of_one_line():
    task = task_of("--", "echo", "a b", "$HOME")
    assert task.run == "echo 'a b' '$HOME'"
    assert task.name == "echo"


def test_a_command_of_one_word_is_a_script():
    assert task_of("--", "echo a | wc -c").run == "echo a | wc -c"


def test_every_option_becomes_its_field(monkeypatch):
    monkeypatch.setenv("TOKEN", "secret value")
    monkeypatch.setenv("HERE", "x")
    shape = "--accelerator A100-80GB:2 --cpus 4 --memory 16GB --nodes 3 --max-price 3.2 --name n"
    rest = "--env A=1 --env HERE --secret TOKEN --output out.txt --network none --trusted"
    terms = "--owner cn.demo.lab7 --budget 10 --deadline 2h"
    work = given(*f"{shape} {rest} {terms}".split(), "--where", "price < 20", "--image", "ubuntu", "--", "true")
    (task,) = work.tasks
    (resources,) = task.resources
    assert (resources.accelerator, resources.accelerator_count) == ("a100", 2)
    assert resources.accelerator_memory_bytes == 80 * 10**9
    assert (resources.core_count, resources.memory_bytes) == (4, 16 * 10**9)
    assert (resources.where, resources.image, resources.max_price_micro_cny) == ("price < 20", "ubuntu", 3_200_000)
    assert (task.nodes, task.name, task.envs) == (3, "n", {"A": "1", "HERE": "x"})
    assert (task.outputs, task.network, task.is_trusted) == (("out.txt",), "none", True)
    assert (task.owners, task.budget_micro_cny, task.deadline_s) == (("cn.demo.lab7",), 10_000_000, 7200)
    assert task.secrets == ("TOKEN",)
    assert work.secrets == {"TOKEN": "secret value"}
    assert "secret value" not in repr(work)
    assert "secret value" not in repr(work.tasks)


def test_a_count_alone_asks_for_any_accelerator():
    (resources,) = task_of("--count", "2", "--", "true").resources
    assert (resources.accelerator, resources.accelerator_count) == ("any", 2)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("a.yaml", "b.yaml"),
        ("a.yaml", "--", "true"),
        ("--",),
        ("a.yaml", "--cpus", "2"),
        ("--accelerator", "H100:8", "--count", "8", "--", "true"),
        ("--env", "NOT_SET_ANYWHERE", "--", "true"),
        ("--secret", "NAME=value", "--", "true"),
        ("--nodes", "0", "--", "true"),
        ("--network", "vpn", "--", "true"),
    ],
)
def test_a_wrong_line_is_a_usage_error(words):
    with pytest.raises(click.UsageError):
        given(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("--memory", "16 apples", "--", "true"),
        ("--max-price", "much", "--", "true"),
        ("--accelerator", "H100:0", "--", "true"),
        ("--accelerator", "H100:x", "--", "true"),
        ("--accelerator", ":8", "--", "true"),
        ("--name", "a b", "--", "true"),
        ("--env", "1=2", "--", "true"),
        ("--secret", "NOT_SET_ANYWHERE", "--", "true"),
        ("--deadline", "tomorrow", "--", "true"),
        ("--budget", "99999999999999999999", "--", "true"),
        ("nowhere.yaml",),
        ("/",),
    ],
)
def test_a_wrong_value_is_an_invalid_task(words):
    with pytest.raises(TielineError) as refused:
        given(*words)
    assert refused.value.code == "invalid_task"


def test_a_file_is_read_with_its_folder_its_files_and_its_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    file = tmp_path / "t.yaml"
    file.write_text(
        "workdir: src\nfile_mounts: {~/config: ./conf}\nsecrets: {HF_TOKEN: null, B: b-secret}\nrun: x\n---\nrun: y\n"
    )
    work = given(str(file), "--env", "A=1")
    first, second = work.works
    assert first.workdir == tmp_path / "src"
    assert first.files == (("config", tmp_path / "conf"),)
    assert work.secrets == {"HF_TOKEN": "hf-secret", "B": "b-secret"}
    assert first.task.envs == second.task.envs == {"A": "1"}
    assert second.workdir is None


def test_a_secret_that_is_not_set_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    file = tmp_path / "t.yaml"
    file.write_text("secrets: {HF_TOKEN: null}\nrun: x\n")
    with pytest.raises(TielineError, match="HF_TOKEN"):
        given(str(file))


def test_one_secret_with_two_values_is_refused(tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text("secrets: {A: one}\nrun: x\n---\nsecrets: {A: two}\nrun: y\n")
    with pytest.raises(TielineError, match="two values") as refused:
        given(str(file))
    assert "one" not in refused.value.message.replace("one ", "")
