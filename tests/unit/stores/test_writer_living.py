from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from toycore import ALICE, ToyView, no_schedule, submit, toy_writer
from writerparts import LOOK, WAIT_S, Gate, Timer, done, full, ids, refused

from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import StopJob
from tieline.model.error import TielineError
from tieline.ports import FakeClock, FakeIds


def test_closing_finishes_what_waits_and_takes_nothing_more(store: Store, clock: FakeClock) -> None:
    gate = Gate(store)
    writer = toy_writer(store, clock, batch=4).start()
    gate.open.clear()
    futures = [writer.submit(submit("a"))]
    assert gate.reached.wait(WAIT_S)
    futures += [writer.submit(submit(f"t{n}")) for n in range(10)]
    closing = threading.Thread(target=writer.close)
    closing.start()
    gate.open.set()
    closing.join(WAIT_S)
    assert [len(done(future)) for future in futures] == [1] * 11
    with pytest.raises(TielineError, match="stopping"):
        writer.submit(LOOK)
    assert not writer.alive
    assert store.counts()["jobs"] == 11


def test_a_restart_goes_on_from_what_was_kept(store: Store, address: str, clock: FakeClock) -> None:
    writer = toy_writer(store, clock).start()
    jobs = [done(writer.submit(submit(f"t{n}")))[0] for n in range(6)]
    for job in jobs[:3]:
        done(writer.submit(StopJob(actor=ALICE, job=job.id)))
    before = (dict(writer.view.jobs), dict(writer.view.runs), writer.position)
    writer.close(WAIT_S)
    store.close()
    again = Store(address).open()
    writer = toy_writer(again, clock, ids=FakeIds(seed=1)).start()
    assert (writer.view.jobs, writer.view.runs, writer.position) == before
    done(writer.submit(submit("next")))
    assert again.verify_chain().is_verified
    writer.close(WAIT_S)
    again.close()


def test_an_event_loop_awaits_its_answers(writer: Writer[ToyView], store: Store) -> None:
    async def story() -> None:
        jobs = await asyncio.gather(*(writer.ask(submit(f"t{n}")) for n in range(20)))
        assert {len(found) for found in jobs} == {1}
        with pytest.raises(TielineError, match="asked to be refused"):
            await writer.ask(submit("refuse"))
        first, second = writer.ask_many([submit("x"), LOOK])
        assert len(await first) == 1
        assert await second == 1

    asyncio.run(story())
    assert store.counts()["jobs"] == 21


def test_a_caller_that_went_away_is_not_missed(writer: Writer[ToyView], gate: Gate, store: Store) -> None:
    async def story() -> None:
        gate.open.clear()
        gone = asyncio.ensure_future(writer.ask(submit("gone")))
        stays = asyncio.ensure_future(writer.ask(submit("stays")))
        await asyncio.to_thread(gate.reached.wait, WAIT_S)
        gone.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        assert len(await stays) == 1

    asyncio.run(story())
    assert store.counts()["jobs"] == 2, "what was asked for is done"


def test_a_loop_that_was_closed_is_not_missed(writer: Writer[ToyView], gate: Gate) -> None:
    async def leave() -> None:
        gate.open.clear()
        writer.ask_many([submit("a")])
        await asyncio.to_thread(gate.reached.wait, WAIT_S)

    asyncio.run(leave())
    gate.open.set()
    assert done(writer.submit(LOOK)) == 1


def test_many_threads_may_ask_at_once(writer: Writer[ToyView], store: Store) -> None:
    found: list[str] = []

    def ask() -> None:
        for _ in range(10):
            found.extend(ids(done(writer.submit(submit("a")))))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(found) == sorted(ids(store.jobs()))
    assert len(found) == 40


def test_a_view_is_not_scheduled_while_nothing_can_be_kept(store: Store, clock: FakeClock) -> None:
    passes = []

    def counting(view: ToyView, now_ms: int, ids: Any, limit: int) -> list[Any]:
        passes.append(now_ms)
        return no_schedule(view, now_ms, ids, limit)

    gate = Gate(store)
    writer = toy_writer(store, clock, schedule=counting, timer=Timer()).start()
    gate.failures = [full()]
    assert refused(writer.submit(submit("a"))).code == "storage_full"
    passes.clear()
    done(writer.submit(LOOK))
    assert passes == []
    writer.close(WAIT_S)
