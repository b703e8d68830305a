"""SIGKILL at random points: whatever was acknowledged is there, and the log is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from toycore import ToyView, row_of, url_of

from tieline.drivers.stores.store import Store
from tieline.model.error import TielineError
from tieline.model.job import Job

CHILD = Path(__file__).with_name("crash_child.py")
KILLS = 20
MOST_KILLS = 120  # until a planted mistake shows; where a kill falls is chance, the first that hits ends the test


class Found(NamedTuple):
    """What was wrong after a kill."""

    lost: list[str]
    not_stopped: list[str]
    chain: str
    differs: list[str]

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.not_stopped or self.chain or self.differs)


class Children:
    """Processes to be killed, forked one after the other by one that has imported everything."""

    def __init__(self, folder: Path) -> None:
        self._pipe = folder / "said"
        os.mkfifo(self._pipe)
        self._parent = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHILD.parent
        )

    def killed_after(self, url: str, lines: int, seed: int, bug: str = "") -> list[tuple[str, str]]:
        """Start a child, read ``lines`` acknowledgements, kill it, and return every one that came through."""
        assert self._parent.stdin is not None
        self._parent.stdin.write(f"{self._pipe} {url} {seed} {bug}\n")
        self._parent.stdin.flush()
        child = int(self._heard("forked"))
        said: list[str] = []
        with self._pipe.open() as pipe:
            try:
                for line in pipe:
                    said.append(line)
                    if len(said) > lines:
                        break
            finally:
                os.kill(child, signal.SIGKILL)
            said.extend(pipe.readlines())
        assert int(self._heard("ended")) == -signal.SIGKILL
        whole = [line.split() for line in said if line.endswith("\n")]
        return [(word, name) for word, name in whole if word != "opened"]

    def _heard(self, word: str) -> str:
        assert self._parent.stdout is not None
        said = self._parent.stdout.readline().split()
        assert said[:1] == [word], said
        return said[1]

    def close(self) -> None:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.close()
        assert self._parent.wait(30) == 0
        self._parent.stdout.close()


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    made = Children(tmp_path)
    yield made
    made.close()


def replayed(store: Store) -> dict[str, bytes]:
    """The job rows that follow from the log alone."""
    view = ToyView()
    rows: dict[str, bytes] = {}
    after = 0
    while entries := store.entries(after, 1_000):
        for entry in entries:
            view.apply(entry.event, entry.time_ms)
            for (table, key), doc in view.touched.items():
                if table == "job":
                    rows[key] = row_of(table, key, doc)["doc"]
            view.touched.clear()
        after = entries[-1].seq
    return rows


def opened(url: str) -> Store:
    """The store, as soon as the server has seen that the process which had it is gone."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return Store(url).open()
        except TielineError as error:
            if error.code != "conflict" or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def examined(url: str, acknowledged: list[tuple[str, str]]) -> Found:
    store = opened(url)
    with store.engine.connect() as connection:
        kept: dict[str, bytes] = dict(tuple(row) for row in connection.exec_driver_sql("SELECT id, doc FROM job").all())
    chain = store.verify_chain()
    rows = replayed(store)
    store.close()
    ended = {name for name, doc in kept.items() if msgspec.json.decode(doc, type=Job).ended_ms}
    return Found(
        lost=[name for word, name in acknowledged if word == "submitted" and name not in kept],
        not_stopped=[name for word, name in acknowledged if word == "stopped" and name not in ended],
        chain=chain.why,
        differs=sorted(name for name in {*rows, *kept} if rows.get(name) != kept.get(name)),
    )


@pytest.mark.slow
def test_nothing_that_was_acknowledged_is_lost_by_twenty_kills(address: str, children: Children) -> None:
    source = random.Random(20)
    acknowledged: list[tuple[str, str]] = []
    for seed in range(KILLS):
        acknowledged += children.killed_after(address, source.randrange(1, 600), seed)
        found = examined(address, acknowledged)
        assert found.is_clean, (seed, found)
    assert len({name for word, name in acknowledged if word == "submitted"}) > 10 * KILLS
    assert any(word == "stopped" for word, _ in acknowledged)


@pytest.mark.slow
@pytest.mark.parametrize(("bug", "what"), [("answer_early", "lost"), ("no_transaction", "differs")])
def test_a_planted_mistake_is_caught_by_the_same_examination(
    tmp_path: Path, children: Children, bug: str, what: str
) -> None:
    source = random.Random(7)
    for seed in range(MOST_KILLS):
        url = url_of(tmp_path / str(seed))
        found = examined(url, children.killed_after(url, source.randrange(1, 600), seed, bug))
        if getattr(found, what):
            return
    pytest.fail(f"{MOST_KILLS} kills did not show `{bug}`")
