"""Parsing: what the corpus cannot say in a header: rates, secrets, pipelines, bounds, and what is never read."""

from __future__ import annotations

import msgspec
import pytest

from tieline.model.error import TielineError
from tieline.model.reason import sentence
from tieline.model.taskfile import DEFAULT_RATE, LocalFile, Rate, parse_tasks
from tieline.model.taskfile.problem import SHOWN


def one(text: str, **options):
    (parsed,) = parse_tasks(text.encode(), "t.yaml", **options)
    return parsed


def refusal(text: str) -> TielineError:
    with pytest.raises(TielineError) as caught:
        parse_tasks(text.encode(), "t.yaml")
    return caught.value


def test_prices_in_dollars_follow_the_rate_that_is_given_and_say_so():
    rate = Rate(micro_cny_per_usd=7_200_000, date="2026-03-01")
    parsed = one("run: x\nresources: {accelerators: H100:8, max_hourly_cost: 10}\n", rate=rate)
    assert parsed.task.resources[0].max_price_micro_cny == 9_000_000
    assert sentence(parsed.notes[0]) == (
        "10.00 USD per node-hour is taken as 9.00 CNY per accelerator-hour (8 to a node, 7.20 CNY/USD of 2026-03-01)"
    )


def test_a_limit_of_price_is_rounded_down_never_up():
    rate = Rate(micro_cny_per_usd=7_000_001, date="2026-03-01")
    parsed = one("run: x\nresources: {accelerators: H100:3, max_hourly_cost: 1}\n", rate=rate)
    assert parsed.task.resources[0].max_price_micro_cny == 7_000_001 // 3


def test_the_default_rate_is_dated():
    assert DEFAULT_RATE.micro_cny_per_usd > 0
    assert len(DEFAULT_RATE.date) == 10


def test_each_alternative_has_its_own_limit_of_price():
    parsed = one("run: x\nresources: {accelerators: {H100:8, A100:4}, max_hourly_cost: 8}\n")
    assert [each.max_price_micro_cny for each in parsed.task.resources] == [7_000_000, 14_000_000]
    assert len(parsed.notes) == 2


def test_a_secret_value_is_neither_in_the_task_nor_in_what_is_shown():
    parsed = one("run: x\nsecrets: {TOKEN: do-not-show-me}\n")
    assert parsed.secrets == {"TOKEN": "do-not-show-me"}
    assert "do-not-show-me" not in repr(parsed)
    assert b"do-not-show-me" not in msgspec.json.encode(parsed.task)


@pytest.mark.parametrize(
    "text",
    [
        "secrets: {TOKEN: do-not-show-me}\nrun: [x]\n",
        "secrets: {BAD-NAME: do-not-show-me}\nrun: x\n",
        "secrets: {TOKEN: {a: do-not-show-me}}\nrun: x\n",
        "secrets: {TOKEN: do-not-show-me}\nenvs: {TOKEN: do-not-show-me}\nrun: x\n",
        "type: task\nenv: [BAD-NAME=do-not-show-me]\ncommands: [x]\n",
        "type: task\nenv: [A=do-not-show-me, A=do-not-show-me]\ncommands: [x]\n",
        "type: task\nregistry_auth: {password: do-not-show-me, usrname: x}\ncommands: [x]\n",
        "secrets: {TOKEN: do-not-show-me: x}\nrun: x\n",
        "secrets:\n\tTOKEN: do-not-show-me\n",
    ],
)
def test_a_refusal_never_shows_a_secret(text):
    error = refusal(text)
    assert b"do-not-show-me" not in msgspec.json.encode(error.envelope)


def test_a_password_for_a_registry_is_not_kept_anywhere():
    text = "type: task\nimage: x\nregistry_auth: {username: me, password: do-not-show-me}\ncommands: [x]\n"
    assert b"do-not-show-me" not in msgspec.json.encode(one(text))


def test_the_tasks_of_a_pipeline_wait_for_the_one_before():
    parsed = parse_tasks(b"name: p\n---\nrun: a\n---\nrun: b\n---\nrun: c\n", "t.yaml")
    assert [(each.after, each.pipeline) for each in parsed] == [(None, "p"), (0, "p"), (1, "p")]


def test_one_document_with_a_name_alone_is_no_pipeline():
    assert "says nothing to run" in refusal("name: p\n").message


def test_a_second_document_with_a_name_alone_is_a_task_without_work():
    assert "line 3" in refusal("run: x\n---\nname: p\n").message


def test_mistakes_of_all_documents_are_told_together():
    error = refusal("run: x\nnmae: a\n---\nrun: y\nnum_nodes: 0\n")
    assert [reason.values["line"] for reason in error.reasons] == [2, 5]
    assert error.message.startswith("`t.yaml`: 2 problems, the first at line 2")
    assert error.where == "t.yaml:2:1"
    assert error.hints


def test_a_flood_of_mistakes_is_listed_in_part_and_counted_in_full():
    error = refusal("run: x\n" + "".join(f"key{n}: 1\n" for n in range(500)))
    assert len(error.reasons) == SHOWN
    assert "500 problems" in error.message


def test_reasons_are_said_in_chinese_too():
    error = refusal("run: x\nacelerators: 1\nnum_nodes: 0\n")
    assert sentence(error.reasons[0], "zh").startswith("第 2 行第 1 列：")
    assert "`num_nodes`" in sentence(error.reasons[1], "zh")


def test_nothing_is_read_but_the_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parsed = one("workdir: ./missing\nfile_mounts: {~/a: /no/such/file}\nrun: x\n")
    assert parsed.workdir == "./missing"
    assert parsed.files == (LocalFile(path="a", source="/no/such/file"),)
    assert parsed.task.workdir is None
    assert parsed.task.mounts == ()


def test_a_parsed_task_can_be_stored_and_read_back():
    parsed = one("run: x\nsecrets: [A]\nresources: {accelerators: [H100:8, A100]}\n")
    assert msgspec.json.decode(msgspec.json.encode(parsed), type=type(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("run: x\nfile_mounts: {" + ", ".join(f"~/f{n}: x" for n in range(257)) + "}\n", "257 entries"),
        ("run: x\nenvs: {" + ", ".join(f"E{n}: x" for n in range(513)) + "}\n", "513 entries"),
        ("run: x\nsecrets: [" + ", ".join(f"S{n}" for n in range(65)) + "]\n", "65 items"),
        ("run: x\nresources: {accelerators: [" + ", ".join(f"k{n}" for n in range(65)) + "]}\n", "65 items"),
        ("run: x\nlabels: {" + ", ".join(f"l{n}: x" for n in range(65)) + "}\n", "65 entries"),
        ("run: " + "x" * 262_145 + "\n", "262,145 characters"),
        ("run: x\nenvs: {A: " + "x" * 65_537 + "}\n", "65,537 characters"),
        ("run: x\nwhere: " + "x" * 4_001 + "\n", "4,001 characters"),
        ("run: x\nwhere: " + "x" * 3_990 + "\nnetwork: {from: a, rtt: 1ms}\n", "with what `network` adds"),
        ("run: x\noutputs: [" + "x" * 1_025 + "]\n", "1,024 bytes"),
        ("run: x\nfile_mounts: {~/x: " + "x" * 1_025 + "}\n", "1,025 characters"),
        ("run: x\nname: " + "x" * 64 + "\n", "64 characters"),
        ("run: x\nresources: {infra: " + "x" * 201 + "}\n", "200 characters"),
        (
            "type: task\ncommands: [x]\nbackends: [" + "a," * 9 + "]\nregions: [" + "b," * 9 + "]\n",
            "more than 64 places",
        ),
        ("type: task\nworking_dir: ../x\ncommands: [x]\n", "climbs out"),
        ("type: task\ncommands: [" + "x, " * 257 + "]\n", "257 items"),
    ],
)
def test_sizes_and_counts_are_bounded(text, what):
    assert what in refusal(text).message


def test_alternatives_multiply_only_up_to_their_bound():
    kinds = ", ".join(f"k{n}" for n in range(20))
    entries = ", ".join(["{cpus: 1}"] * 20)
    error = refusal(f"run: x\nresources: {{accelerators: [{kinds}], any_of: [{entries}]}}\n")
    assert "alternatives of resources; at most 64" in error.message


def test_commands_keep_their_order_their_shell_and_their_failure():
    import subprocess

    parsed = one("type: task\ncommands:\n  - cd /\n  - export A=1\n  - 'echo $PWD $A'\n  - 'false'\n  - echo never\n")
    ended = subprocess.run(["bash", "-c", parsed.task.run], capture_output=True, text=True, check=False)
    assert ended.stdout == "/ 1\n"
    assert ended.returncode == 1
