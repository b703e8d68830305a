"""Search by words, in English and Chinese."""

from __future__ import annotations

import pytest

from tieline.find import Index, find
from tieline.find.words import MAX_PIECES, MAX_TEXT, Words, pieces, words
from tieline.model.spec import AgentSpec, DatasetSpec, ModelSpec, PoolSpec


@pytest.fixture
def index():
    made = Index()
    made.put_record(
        "cn.a/dataset/digits",
        DatasetSpec(title="手写数字图片", description="Handwritten digits, 8x8 pixels", tags=("vision", "图像")),
    )
    made.put_record("cn.a/model/digit-classifier", ModelSpec(title="Digit classifier 数字分类", task="classification"))
    made.put_record("cn.a/model/weld", ModelSpec(title="焊缝质检模型", description="工业质检"))
    made.put_record("cn.a/agent/planner", AgentSpec(title="Route planner", skills=("planning", "推理")))
    made.put_record("cn.a/pool/p", PoolSpec(accelerator="a100", accelerator_count=8, title="Inference pool 推理资源"))
    return made


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("digit classifier", ["digit-classifier", "digits"]),
        ("DIGITS", ["digits", "digit-classifier"]),
        ("classif", ["digit-classifier"]),
        ("手写数字 分类", ["digits", "digit-classifier"]),
        ("手写数字识别", ["digits"]),
        ("质检", ["weld"]),
        ("推理", ["planner", "p"]),
        ("图", ["digits"]),
        ("ｖｉｓｉｏｎ", ["digits"]),
        ("planning", ["planner"]),
        ("a100", ["p"]),
        ("焊缝 planner", ["weld", "planner"]),
        ("量子", []),
        ("zzz", []),
        ("!!! ...", []),
    ],
)
def test_things_are_found_by_their_words(index, query, expected):
    answer = find(index, words=query)
    assert {offer.id.rsplit("/", 1)[-1] for offer in answer.offers} == set(expected)
    assert answer.considered == 5
    assert sum(reason.count for reason in answer.reasons) == 5 - answer.matched
    assert all(offer.score > 0 for offer in answer.offers)


def test_more_of_the_words_come_first(index):
    assert find(index, words="digit classifier").offers[0].id == "cn.a/model/digit-classifier"
    assert find(index, words="手写数字 vision").offers[0].id == "cn.a/dataset/digits"


def test_words_and_an_expression_narrow_together(index):
    answer = find(index, "kind in [model, agent]", words="数字 推理")
    assert {offer.id for offer in answer.offers} == {"cn.a/model/digit-classifier", "cn.a/agent/planner"}
    answer = find(index, words="数字", kind="model")
    assert [offer.id for offer in answer.offers] == ["cn.a/model/digit-classifier"]
    assert [(reason.code, reason.count) for reason in answer.reasons] == [("words_not_met", 1)]
    answer = find(index, "accelerator == h20", words="推理")
    assert (answer.matched, [reason.code for reason in answer.reasons]) == (0, ["query_not_met"])


def test_an_order_by_price_still_puts_the_better_match_first_among_equals(index):
    answer = find(index, words="digit classifier", order="price")
    assert [offer.id.rsplit("/", 1)[-1] for offer in answer.offers] == ["digit-classifier", "digits"]


def test_words_follow_records_that_change_and_go(index):
    index.put_record("cn.a/model/weld", ModelSpec(title="renamed"))
    assert find(index, words="质检").matched == 0
    assert find(index, words="renamed").matched == 1
    index.remove("cn.a/model/weld")
    assert find(index, words="renamed").matched == 0
    index.put_record("cn.b/model/new", ModelSpec(title="takes the row"))
    assert find(index, words="renamed").matched == 0
    assert find(index, words="takes").matched == 1


def test_documents_are_numbered_anew_once_most_are_gone():
    held = Words()
    for number in range(5_000):
        held.put(number % 7, f"text {number} 数字")
    assert len(held) == 7
    rows, scores = held.scores("数字")
    assert rows.tolist() == list(range(7))
    assert (scores > 0).all()
    assert held.scores("4999")[0].tolist() == [4_999 % 7]
    assert held.scores("1")[0].tolist() == []


def test_texts_are_read_up_to_a_bound():
    held = Words()
    held.put(0, "x" * MAX_TEXT + " beyond")
    held.put(1, " ".join(f"w{number}" for number in range(MAX_PIECES + 9)))
    assert held.scores("beyond")[0].tolist() == []
    assert held.scores(f"w{MAX_PIECES + 3}")[0].tolist() == []
    assert held.scores("w3 " * 10_000)[0].tolist() == [1]


def test_words_are_cut_where_each_language_wants_it():
    assert words("GPU-服务器 classes 8x8") == ["gpu", "服务器", "classe", "8x8"]
    assert pieces("服务器") == ("服务", "务器")
    assert pieces("器") == ("器",)
    assert pieces("classe") == ("classe",)
