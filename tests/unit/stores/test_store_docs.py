from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from storerows import log, tampered

from tieline.drivers.stores.store import Store
from tieline.drivers.stores.sweeper import COUNTED
from tieline.model.limits import reference

DOCS = Path(__file__).parents[3] / "docs"


def test_every_limit_stands_in_the_documentation_with_its_default() -> None:
    text = (DOCS / "operate" / "storage.md").read_text()
    for row in reference():
        unit = row.unit or "count"
        line = f"| `{row.name}` | {row.default:,} | {row.least:,} | {row.most:,} | {unit} | {row.meaning} |"
        assert line in text, line


def test_everything_that_is_collected_stands_in_the_documentation() -> None:
    text = (DOCS / "operate" / "storage.md").read_text()
    for word in COUNTED:
        assert re.search(word.replace("_", " ").removesuffix("s").removesuffix(" byte"), text), word


def documented_check() -> Any:
    text = (DOCS / "internals" / "event-log.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "event-log.md", "exec"), names)
    return names["check"]


def test_the_check_in_the_documentation_agrees_with_ours(file_store: Store) -> None:
    file_store.append(log(300))
    found = file_store.verify_chain()
    assert (
        documented_check()(str(file_store.path)) == (found.events, found.head) == (300, file_store.position()[1].hex())
    )


def test_the_check_in_the_documentation_finds_a_change(file_store: Store) -> None:
    file_store.append(log(300))
    tampered(file_store, "UPDATE event SET actor = 'eve' WHERE seq = 77")
    with pytest.raises(AssertionError, match="entry 77 was changed"):
        documented_check()(str(file_store.path))
    assert file_store.verify_chain().broken_at == 77
