from __future__ import annotations

from typing import Any

import pytest
from toycore import ALICE, ToyView, submit, toy_writer
from writerparts import WAIT_S, Gate, done, refused

from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import CreateToken, PlanTasks
from tieline.model.error import TielineError
from tieline.model.job import Job
from tieline.model.party import Actor, Role, Token
from tieline.ports import FakeClock


def test_a_repeated_key_is_answered_as_before_and_done_once(writer: Writer[ToyView], store: Store) -> None:
    first = done(writer.submit(submit("a", key="k", digest="d")))
    second = done(writer.submit(submit("a", key="k", digest="d")))
    assert second == first
    assert isinstance(second[0], Job)
    assert store.counts()["jobs"] == 1
    assert writer.meters.replays == 1


def test_a_key_repeated_within_one_batch_is_done_once(writer: Writer[ToyView], store: Store) -> None:
    futures = writer.submit_many([submit("a", key="k", digest="d"), submit("a", key="k", digest="d")])
    assert done(futures[0]) == done(futures[1])
    assert store.counts()["jobs"] == 1


def test_a_key_is_remembered_over_a_restart(store: Store, address: str, clock: FakeClock) -> None:
    writer = toy_writer(store, clock).start()
    token = done(
        writer.submit(CreateToken(actor=ALICE, key="k", digest="d", sha256="ab", name="n", roles=(Role.USER,)))
    )
    writer.close(WAIT_S)
    store.close()
    again = Store(address).open()
    writer = toy_writer(again, clock).start()
    repeated = CreateToken(actor=ALICE, key="k", digest="d", sha256="cd", name="n", roles=(Role.USER,))
    assert done(writer.submit(repeated)) == token
    assert isinstance(token, Token)
    writer.close(WAIT_S)
    again.close()


@pytest.mark.parametrize("is_one_batch", [True, False])
def test_a_key_used_for_another_request_is_a_conflict(
    writer: Writer[ToyView], store: Store, is_one_batch: bool
) -> None:
    commands = [submit("a", key="k", digest="d"), submit("b", key="k", digest="other")]
    if is_one_batch:
        futures = writer.submit_many(commands)
    else:
        futures = [writer.submit(commands[0])]
        done(futures[0])
        futures.append(writer.submit(commands[1]))
    assert len(done(futures[0])) == 1
    assert refused(futures[1]).code == "idempotency_conflict"
    assert store.counts()["jobs"] == 1


def test_two_callers_may_use_the_same_key(writer: Writer[ToyView], store: Store) -> None:
    mine = submit("a", key="k", digest="d")
    theirs = type(mine)(actor=Actor(name="bob"), key="k", digest="d", tasks=mine.tasks)
    assert done(writer.submit(mine)) != done(writer.submit(theirs))
    assert store.counts()["jobs"] == 2


def test_a_question_needs_no_key_and_may_have_one(writer: Writer[ToyView], gate: Gate) -> None:
    look = PlanTasks(actor=ALICE, key="k", digest="d", tasks=())
    assert [done(writer.submit(look)) for _ in range(2)] == [1, 2]
    assert gate.batches == []


def test_a_refused_request_may_be_sent_again_with_its_key(writer: Writer[ToyView]) -> None:
    assert refused(writer.submit(submit("refuse", key="k", digest="d"))).code == "unplaceable"
    assert len(done(writer.submit(submit("a", key="k", digest="d")))) == 1


def test_a_key_is_forgotten_after_its_time(store: Store, clock: FakeClock) -> None:
    writer = toy_writer(store, clock, idempotency_ms=1_000).start()
    first = done(writer.submit(submit("a", key="k", digest="d")))
    clock.advance(1_000)
    assert done(writer.submit(submit("a", key="k", digest="d"))) == first
    clock.advance(1)
    assert done(writer.submit(submit("b", key="k", digest="other"))) != first
    writer.close(WAIT_S)


def test_an_answer_that_this_version_cannot_read_is_a_conflict(writer: Writer[ToyView], store: Store) -> None:
    done(writer.keep([("idempotency", "alice k", row := idempotency_row())]))
    assert row["reply"] == b"{}"
    assert refused(writer.submit(submit("a", key="k", digest="d"))).code == "idempotency_conflict"
    assert store.counts()["jobs"] == 0


def idempotency_row() -> dict[str, Any]:
    return {"key": "alice k", "digest": "d", "time_ms": FakeClock().at_ms, "reply": b"{}"}


def test_a_key_that_is_too_long_is_refused(writer: Writer[ToyView]) -> None:
    with pytest.raises(TielineError, match="256 characters") as caught:
        writer.submit(submit("a", key="k" * 256))
    assert caught.value.code == "invalid_request"
