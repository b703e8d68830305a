"""What holds of the log whatever is asked: it is the whole truth, and no change of it goes unseen."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "stores"))

from toycore import ALICE, ToyView, load, row_of, submit, toy_writer, url_of

from tieline.drivers.stores.log import LogRow, chain, verify
from tieline.drivers.stores.store import Batch, Store, StoreError
from tieline.exchange.commands import CreateToken, StopJob
from tieline.model.error import TielineError
from tieline.model.event import CancelRequested, Entry, TokenRevoked, TokenUsed
from tieline.model.party import Role
from tieline.ports import FakeClock, FakeIds

WAIT_S = 30

command = st.one_of(
    st.tuples(st.just("submit"), st.lists(st.sampled_from(["a", "b", "refuse", "bug", "poison"]), max_size=4)),
    st.tuples(st.just("stop"), st.integers(0, 30)),
    st.tuples(st.just("token"), st.integers(0, 5)),
    st.tuples(st.just("repeat"), st.integers(0, 3)),
)
step = st.one_of(
    st.tuples(st.just("batch"), st.lists(command, min_size=1, max_size=8)),
    st.just(("fail", [])),
    st.just(("restart", [])),
)


class Story:
    """A writer that is asked, fails and restarts; and what its callers were told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.ids = FakeIds()
        self.at_s = 0.0
        self.is_failing = False
        self.jobs: list[str] = []
        self.stopped: list[str] = []
        self.keys: dict[int, list[str]] = {}
        self.open()

    def open(self) -> None:
        self.store = Store(url_of(self.folder)).open()
        append = self.store.append

        def sometimes(batch: Batch) -> None:
            if self.is_failing:
                self.is_failing = False
                raise StoreError("storage_full", "database or disk is full")
            append(batch)

        self.store.append = sometimes  # type: ignore[method-assign]
        self.writer = toy_writer(self.store, self.clock, ids=self.ids, batch=4, timer=lambda: self.at_s).start()

    def close(self) -> None:
        assert self.writer.close(WAIT_S)
        self.store.close()

    def run(self, what: str, commands: list[tuple[str, Any]]) -> None:
        self.clock.advance(7)
        self.at_s += 10.0
        if what == "restart":
            self.close()
            self.open()
        elif what == "fail":
            self.is_failing = True
        else:
            for future, kind, argument in self.asked(commands):
                try:
                    self.told(kind, argument, future.result(WAIT_S))
                except TielineError:
                    continue

    def asked(self, commands: list[tuple[str, Any]]) -> Iterator[tuple[Any, str, Any]]:
        made: list[Any] = []
        for kind, argument in commands:
            if kind == "submit":
                made.append(submit(*argument))
            elif kind == "repeat":
                made.append(submit("a", key=f"k{argument}", digest="d"))
            elif kind == "stop":
                name = self.jobs[argument % len(self.jobs)] if self.jobs else "cn.demo/job/j-none"
                made.append(StopJob(actor=ALICE, job=name))
            else:
                made.append(CreateToken(actor=ALICE, sha256=f"{argument:064}", name="n", roles=(Role.USER,)))
        for future, (kind, argument) in zip(self.writer.submit_many(made), commands, strict=True):
            yield future, kind, argument

    def told(self, kind: str, argument: Any, reply: Any) -> None:
        if kind in ("submit", "repeat"):
            names = [job.id for job in reply]
            if kind == "repeat":
                assert self.keys.setdefault(argument, names) == names, "a repeated key is answered as before"
            self.jobs += [name for name in names if name not in self.jobs]
        elif kind == "stop":
            self.stopped.append(reply.id)


@contextmanager
def story_in_a_folder() -> Iterator[Story]:
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder))
        try:
            yield story
        finally:
            story.close()


def replay(store: Store) -> tuple[ToyView, dict[str, dict[str, Any]]]:
    """The view and the rows that follow from the log alone."""
    view, rows = ToyView(), {table: {} for table in ("job", "run", "token", "usage")}
    after = 0
    while entries := store.entries(after, 50):
        for entry in entries:
            view.apply(entry.event, entry.time_ms)
            for (table, key), doc in view.touched.items():
                rows[table][key] = row_of(table, key, doc)
            view.touched.clear()
        after = entries[-1].seq
    return view, rows


def stored(store: Store) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    with store.engine.connect() as connection:
        for table, key in (("job", "id"), ("run", "id"), ("token", "sha256"), ("usage", "run")):
            rows = connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()
            found[table] = {row[key]: dict(row) for row in rows}
    return found


def state(view: ToyView) -> tuple[Any, ...]:
    return view.jobs, view.runs, view.tokens


@settings(max_examples=60, deadline=None)
@given(st.lists(step, max_size=12))
def test_the_projections_the_view_and_a_fresh_load_all_equal_a_replay_of_the_log(steps: list[Any]) -> None:
    with story_in_a_folder() as story:
        for what, commands in steps:
            story.run(what, commands)
        view, rows = replay(story.store)
        assert stored(story.store) == rows
        assert state(story.writer.view) == state(view)
        loaded = ToyView()
        load(loaded, story.store.tables(), story.clock.at_ms)
        assert state(loaded) == state(view)


@settings(max_examples=60, deadline=None)
@given(st.lists(step, max_size=12))
def test_what_was_acknowledged_is_in_the_log_once_and_the_chain_holds(steps: list[Any]) -> None:
    with story_in_a_folder() as story:
        for what, commands in steps:
            story.run(what, commands)
        found = story.store.verify_chain()
        assert found.is_verified, found.why
        subjects = {kind: [] for kind in ("job_submitted", "job_ended")}
        after = 0
        while events := story.store.events(after, 50):
            for event in events:
                subjects.setdefault(event.kind, []).append(event.subject)
            after = events[-1].seq
        assert after == found.events == story.writer.position[0]
        assert sorted(subjects["job_submitted"]) == sorted(story.jobs)
        assert sorted(subjects["job_ended"]) == sorted(story.stopped)


event = st.one_of(
    st.builds(TokenUsed, id=st.text(max_size=20), by=st.text(max_size=20)),
    st.builds(TokenRevoked, id=st.text(max_size=5), at_ms=st.integers(0, 2**53)),
    st.builds(CancelRequested, job=st.text(max_size=20), by=st.text(max_size=5), why=st.text(max_size=30)),
)


@st.composite
def logs(draw: st.DrawFn) -> list[LogRow]:
    facts = draw(st.lists(event, min_size=1, max_size=12))
    actors = draw(st.lists(st.text(max_size=8), min_size=len(facts), max_size=len(facts)))
    pairs = zip(facts, actors, strict=True)
    return chain([Entry(seq=n, time_ms=n * 3, actor=actor, event=fact) for n, (fact, actor) in enumerate(pairs, 1)])


@given(logs())
def test_every_honest_log_verifies(rows: list[LogRow]) -> None:
    assert verify(rows, anchors={len(rows): rows[-1].hash}).is_verified


@given(logs(), st.data())
def test_no_flipped_bit_goes_unseen(rows: list[LogRow], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from(["body", "hash", "actor", "time_ms", "subject", "kind"]))
    value = getattr(rows[at], name)
    if isinstance(value, bytes):
        bit = data.draw(st.integers(0, len(value) * 8 - 1))
        changed: Any = bytearray(value)
        changed[bit // 8] ^= 1 << (bit % 8)
        changed = bytes(changed)
    else:
        changed = value + 1 if isinstance(value, int) else value + "x"
    rows[at] = rows[at]._replace(**{name: changed})
    found = verify(rows)
    assert (found.is_verified, found.broken_at, found.events) == (False, at + 1, at)


@given(logs(), st.data())
def test_no_missing_repeated_or_exchanged_entry_goes_unseen(rows: list[LogRow], data: st.DataObject) -> None:
    head = {len(rows): rows[-1].hash}
    at = data.draw(st.integers(0, len(rows) - 1))
    what = data.draw(st.sampled_from(["drop", "repeat", "exchange", "cut"]))
    changed = list(rows)
    if what == "drop":
        del changed[at]
    elif what == "repeat":
        changed.insert(at, rows[at])
    elif what == "cut":
        del changed[at:]
    else:
        other = data.draw(st.integers(0, len(rows) - 1).filter(lambda place: place != at or len(rows) == 1))
        changed[at], changed[other] = rows[other], rows[at]
    found = verify(changed, anchors=head)
    assert found.is_verified == (changed == rows)
