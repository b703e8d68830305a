"""Accelerators: one spelling for many, and any word allowed."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tieline.model.accelerators import (
    ACCELERATORS,
    ARCHITECTURES,
    GB,
    VENDORS,
    Named,
    architecture,
    known,
    named,
    nearest,
)


@pytest.mark.parametrize(
    ("text", "kind", "memory_gb"),
    [
        ("H100", "h100", 0),
        ("h100", "h100", 0),
        ("A100-80GB", "a100", 80),
        ("A100-40GB", "a100", 40),
        ("NVIDIA A100-SXM4-80GB", "a100", 80),
        ("NVIDIA H100 80GB HBM3", "h100", 80),
        ("NVIDIA GeForce RTX 4090", "rtx-4090", 0),
        ("RTX4090", "rtx-4090", 0),
        ("Tesla V100-SXM2-32GB", "v100", 32),
        ("NVIDIA GH200 480GB", "gh200", 0),
        ("AMD Instinct MI300X", "mi300x", 0),
        ("Ascend 910B", "ascend-910b", 0),
        ("Ascend910B4", "ascend-910b", 0),
        ("昇腾910B", "ascend-910b", 0),
        ("MLU370-X8", "mlu370", 0),
        ("K100_AI", "dcu-k100-ai", 0),
        ("MTT S4000", "mtt-s4000", 0),
        ("MetaX C500", "metax-c500", 0),
        ("昆仑芯P800", "kunlun-p800", 0),
        ("天垓150", "iluvatar-bi150", 0),
        ("燧原S60", "enflame-s60", 0),
        ("PPU", "thead-ppu", 0),
        ("tpu-v5e", "tpu-v5e", 0),
    ],
)
def test_spellings_of_people_drivers_and_peers_mean_one_kind(text, kind, memory_gb):
    assert named(text) == Named(kind, memory_gb * GB, is_known=True)


@pytest.mark.parametrize("text", ["any", "gpu", "npu"])
def test_words_for_any_kind_are_known(text):
    assert named(text) == Named(text, 0, is_known=True)


def test_a_name_that_is_not_known_is_a_kind_of_its_own():
    assert named("Foo Bar_9") == Named("foo-bar-9", 0, is_known=False)
    assert known("foo-bar-9") is None


@pytest.mark.parametrize("text", ["", " ", "寒武纪", "a;b", "x" * 65, "a\nb", "-", 'h100"'])
def test_what_can_be_no_word_is_refused(text):
    with pytest.raises(ValueError, match="no name of an accelerator"):
        named(text)


def test_the_nearest_kind_is_a_hint():
    assert nearest("h10o") == "h100"
    assert nearest("ascend910") == "ascend-910"
    assert nearest("zzzzzz") == ""


def test_every_row_is_a_word_of_a_record_and_no_spelling_is_taken_twice():
    spellings = Counter(re.sub(r"\W|_", "", text) for row in ACCELERATORS for text in (row.name, *row.aliases))
    assert [text for text, count in spellings.items() if count > 1] == []
    for row in ACCELERATORS:
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", row.name)
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", row.vendor)
        assert VENDORS[row.vendor] == row.vendor
        assert known(row.name) == row
        assert named(row.name).kind == row.name
        assert row.memory_bytes % GB == 0


def test_the_vendors_of_the_table_are_those_that_users_name():
    domestic = {row.vendor for row in ACCELERATORS if row.is_domestic}
    asked = ("huawei", "cambricon", "hygon", "moore-threads", "metax", "kunlunxin", "iluvatar", "enflame", "thead")
    assert [vendor for vendor in asked if vendor not in domestic] == []
    assert {"nvidia", "amd", "google"} <= {row.vendor for row in ACCELERATORS} - domestic


def test_instruction_sets_are_named_as_the_kernel_does():
    assert architecture("ARM") == "aarch64"
    assert architecture(" amd64 ") == "x86_64"
    assert {architecture(word) for word in ARCHITECTURES} == set(ARCHITECTURES.values())
    with pytest.raises(ValueError, match="no instruction set"):
        architecture("z80")
