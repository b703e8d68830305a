"""The page on placing lists the steps as they are, and its weights with their defaults."""

import re
from pathlib import Path

import pytest

from tieline.model.reason import CATALOGUE
from tieline.place import Terms
from tieline.place.choose import PATIENCE_MS
from tieline.place.pipeline import STEPS
from tieline.place.queue import AGEING_MS

CONCEPTS = Path(__file__).parents[3] / "docs" / "concepts"
PAGE = (CONCEPTS / "placing.md").read_text("utf-8")


def test_the_page_lists_every_step_in_order_with_its_reasons():
    table = PAGE.split("<!-- steps -->")[1].split("<!-- end -->")[0]
    rows = [re.findall("`([a-z_]+)`", line.split("|")[2]) for line in table.splitlines() if line.count("|") == 3]
    assert rows[2:] == [list(step.codes) for step in STEPS]


def test_every_reason_of_a_step_has_its_sentences():
    assert {code for step in STEPS for code in step.codes} <= set(CATALOGUE)


def test_the_page_states_the_weights_and_times_that_are_used():
    terms = Terms()
    for name in terms.__struct_fields__:
        assert re.search(rf"\| `{name}` \| {getattr(terms, name):,}", PAGE), name
    assert (PATIENCE_MS, AGEING_MS) == (60_000, 60_000)


@pytest.mark.parametrize("name", ["placing.md", "money.md"])
def test_the_examples_of_the_page_run(name):
    found = re.findall(r"```python\n(.*?)```", (CONCEPTS / name).read_text("utf-8"), re.DOTALL)
    assert found
    for example in found:
        exec(compile(example, name, "exec"), {})  # each asserts what the page says
