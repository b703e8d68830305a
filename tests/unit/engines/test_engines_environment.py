"""The environment that is promised to a task, and how it travels."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieline.drivers.engines.environment import device_environment, promised_environment, shell_exports


def promised(**more: object) -> dict[str, str]:
    known: dict[str, object] = {"job": "j-1", "run": "r-1", "workdir": "/w", "temporary": "/t"}
    return promised_environment(**known | more)  # type: ignore[arg-type]


def test_a_gang_of_three_finds_itself_under_every_name_that_scripts_use() -> None:
    envs = promised(node=2, addresses=("10.0.0.1", "10.0.0.2", "10.0.0.3"), accelerators_per_node=8, master_port=4000)
    lines = "10.0.0.1\n10.0.0.2\n10.0.0.3"
    expected = {
        "TIELINE_JOB_ID": "j-1",
        "TIELINE_RUN_ID": "r-1",
        "TIELINE_NODE_RANK": "2",
        "TIELINE_NUM_NODES": "3",
        "TIELINE_NODE_IPS": lines,
        "TIELINE_MASTER_ADDR": "10.0.0.1",
        "TIELINE_MASTER_PORT": "4000",
        "TIELINE_NUM_GPUS_PER_NODE": "8",
        "SKYPILOT_TASK_ID": "r-1",
        "SKYPILOT_NODE_RANK": "2",
        "SKYPILOT_NUM_NODES": "3",
        "SKYPILOT_NODE_IPS": lines,
        "SKYPILOT_NUM_GPUS_PER_NODE": "8",
        "DSTACK_RUN_ID": "r-1",
        "DSTACK_NODE_RANK": "2",
        "DSTACK_NODES_NUM": "3",
        "DSTACK_NODES_IPS": lines,
        "DSTACK_MASTER_NODE_IP": "10.0.0.1",
        "DSTACK_GPUS_PER_NODE": "8",
        "DSTACK_GPUS_NUM": "24",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "4000",
        "WORLD_SIZE": "3",
        "RANK": "2",
        "NODE_RANK": "2",
    }
    assert {name: envs.get(name) for name in expected} == expected


def test_a_task_alone_is_rank_0_of_1_and_has_no_checkpoint_folder_unless_it_declared_one() -> None:
    envs = promised()
    assert (envs["RANK"], envs["WORLD_SIZE"], envs["TIELINE_NODE_IPS"]) == ("0", "1", "127.0.0.1")
    assert "TIELINE_CHECKPOINT_DIR" not in envs
    assert promised(checkpoint="/w/ckpt")["TIELINE_CHECKPOINT_DIR"] == "/w/ckpt"


def test_of_the_sites_own_environment_only_language_and_time_zone_pass() -> None:
    envs = promised(
        site={"LANG": "zh_CN.UTF-8", "TZ": "Asia/Shanghai", "AWS_SECRET": "x", "HOME": "/root", "PATH": "/x"}
    )
    assert (envs["LANG"], envs["TZ"], envs["HOME"], envs["TMPDIR"]) == ("zh_CN.UTF-8", "Asia/Shanghai", "/w", "/t")
    assert "AWS_SECRET" not in envs
    assert "/x" not in envs["PATH"]


@pytest.mark.parametrize(
    ("vendor", "variable"),
    [
        ("nvidia", "CUDA_VISIBLE_DEVICES"),
        ("amd", "HIP_VISIBLE_DEVICES"),
        ("huawei", "ASCEND_RT_VISIBLE_DEVICES"),
        ("ascend", "ASCEND_RT_VISIBLE_DEVICES"),
        ("cambricon", "MLU_VISIBLE_DEVICES"),
        ("mthreads", "MUSA_VISIBLE_DEVICES"),
        ("kunlunxin", "XPU_VISIBLE_DEVICES"),
    ],
)
def test_devices_are_named_in_the_vendors_own_variable(vendor: str, variable: str) -> None:
    assert device_environment(vendor, (0, 3)) == {variable: "0,3", "TIELINE_DEVICES": "0,3"}
    assert device_environment(vendor, ()) == {variable: "", "TIELINE_DEVICES": ""}, "none given: none visible"


def test_devices_of_an_unknown_vendor_are_named_in_every_variable_and_silence_stays_silence() -> None:
    envs = device_environment("acme", (1,))
    assert envs["CUDA_VISIBLE_DEVICES"] == envs["ASCEND_RT_VISIBLE_DEVICES"] == "1"
    assert device_environment("", ()) == {}


VALUES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=60)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.from_regex(r"T_[A-Za-z0-9_]{0,8}", fullmatch=True), VALUES, max_size=6))
def test_whatever_a_value_holds_a_shell_reads_it_back(envs: dict[str, str]) -> None:
    read, write = os.pipe()
    with open(write, "wb") as sink:
        sink.write(shell_exports(envs))
    with open(read, "rb") as source:
        told = subprocess.run(
            ["/bin/sh", "-c", ". /dev/stdin; exec env -0"], stdin=source, capture_output=True, check=True, env={}
        )
    seen = dict(line.split("=", 1) for line in told.stdout.decode().split("\0") if line.startswith("T_"))
    assert seen == envs


def test_names_that_shells_keep_for_themselves_are_left_out() -> None:
    assert shell_exports({"UID": "0", "OPTIND": "x", "SHELLOPTS": "y", "A": "b"}) == b"export A=b\n"
