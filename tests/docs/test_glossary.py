"""One word per concept: the words of the product stand in the glossary, with their Chinese terms, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tieline.model.evidence import Evidence
from tieline.model.job import JobState, RunState
from tieline.model.kinds import KINDS
from tieline.model.party import Role

DOCS = Path(__file__).parents[2] / "docs"
EN, ZH = DOCS / "glossary.md", DOCS / "zh" / "glossary.md"
WORDS = """
compute internet 算力互联网 · identifier 统一标识 · party 主体 · owner 提供主体 · user 用户 ·
exchange 互联互通平台 · scope 平台类别 · site 算力节点 · tier 层级 · pool 资源池 · accelerator 加速卡 ·
public compute 公共算力 · link 链路 · path 路径 · circuit 专线 · compute channel 算力大通道 · point 测量点 ·
door 直达口 · relay 中继 · latency circle 时延圈 · booking 预留 · transfer 数据传输 · offer 供给 · demand 需求 ·
quote 报价 · find 找 · place 调度 · use 用 · job 算力任务 · task 子任务 · run 运行 · plan 调度方案 ·
placement 调度结果 · queued 排队 · lost 失联 · reason 原因 · reading 测量值 · evidence 证据 · usage 计量 ·
charge 计费 · bill 账单 · voucher 算力券 · bundle 套餐 · asset 资产 · model pool 模型池 ·
agent store 智能体应用商店 · endpoint 服务端点 · situation 态势 · supervision 以网管网 · finding 研判 ·
warning 预警 · risk 风险 · incident 故障 · remedy 处置 · notice 通报 · rectification 整改 · class 分类 ·
grade 分级 · autonomy level 自智等级 · maturity 成熟度 · readiness 就绪度 · label 生成合成内容标识
"""
PAIRS = [tuple(pair.strip().rsplit(" ", 1)) for pair in WORDS.split("·")]
INSIDE = (
    "national regional industry enterprise 国家 区域 行业 企业 hub region edge 枢纽 区域 边缘 "
    "算力标识 智能体身份 入算专线 通算 智算 超算"
)


def rows(page: Path) -> dict[str, str]:
    """Second column by first."""
    found = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", page.read_text(), re.MULTILINE)
    return {first: second for first, second in found if first != "---"}


@pytest.mark.parametrize(("word", "term"), PAIRS)
def test_every_word_stands_with_its_term_in_both_languages(word, term):
    assert rows(EN).get(word) == term
    assert rows(ZH).get(term) == word


def test_both_languages_list_the_same_words():
    english, chinese = rows(EN), rows(ZH)
    del english["word"], chinese["中文"]
    assert {(term, word) for word, term in english.items()} == set(chinese.items())
    assert len(english) == len(chinese)


@pytest.mark.parametrize("page", [EN, ZH], ids=lambda page: page.parent.name)
def test_what_a_word_may_be_is_named_with_it(page):
    text = page.read_text()
    assert [word for word in INSIDE.split() if word not in text] == []
    assert [word for word in Evidence if word not in text] == []
    assert [word for word in Role if word not in text] == []


@pytest.mark.parametrize("page", [EN, ZH], ids=lambda page: page.parent.name)
def test_every_kind_is_a_word_of_the_glossary(page):
    table = rows(page)
    pairs = set(table.items()) | {(second, first) for first, second in table.items()}
    assert [kind for kind, row in KINDS.items() if (row.en, row.zh) not in pairs] == []


def test_every_state_is_drawn_and_explained():
    text = (DOCS / "concepts" / "jobs.md").read_text()
    drawn = " ".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
    assert [state for state in (*JobState, *RunState) if state not in drawn or f"| `{state}` |" not in text] == []
