from __future__ import annotations

import pytest
from toycore import ALICE, ToyView, submit, toy_writer
from writerparts import LOOK, WAIT_S, Gate, done, refused

from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import StopJob
from tieline.model.error import TielineError
from tieline.model.job import JobState
from tieline.ports import FakeClock


def test_a_full_queue_refuses_with_a_time_to_retry(writer: Writer[ToyView], gate: Gate) -> None:
    gate.open.clear()
    first = writer.submit(submit("a"))
    assert gate.reached.wait(WAIT_S)
    waiting = [writer.submit(LOOK) for _ in range(40)]
    with pytest.raises(TielineError, match="retry after") as caught:
        writer.submit(LOOK)
    assert caught.value.code == "overloaded"
    assert int(caught.value.reasons[0].values["wait_us"]) >= 50_000
    assert (writer.queue_depth, writer.meters.overloads) == (40, 1)
    gate.open.set()
    assert [done(future) for future in waiting] == list(range(1, 41))
    assert done(first)
    assert done(writer.submit(LOOK)) == 41


def test_new_work_is_refused_while_there_is_room_for_what_must_end(writer: Writer[ToyView], gate: Gate) -> None:
    gate.open.clear()
    (job,) = done_later = [writer.submit(submit("a"))]
    assert gate.reached.wait(WAIT_S)
    taken = [writer.submit(submit(f"t{n}")) for n in range(30)]
    with pytest.raises(TielineError, match="of 30 that may"):
        writer.submit(submit("one too many"))
    stop = writer.submit(StopJob(actor=ALICE, job="cn.demo/job/none"))
    gate.open.set()
    assert all(len(done(future)) == 1 for future in [*taken, *done_later, job])
    assert refused(stop).code == "not_found"


def test_several_commands_are_taken_in_together_or_not_at_all(
    writer: Writer[ToyView], gate: Gate, store: Store
) -> None:
    gate.open.clear()
    first = writer.submit(submit("a"))
    assert gate.reached.wait(WAIT_S)
    with pytest.raises(TielineError):
        writer.submit_many([submit("b")] * 31)
    assert writer.queue_depth == 0
    gate.open.set()
    done(first)
    assert store.counts()["jobs"] == 1


def test_new_work_is_refused_while_the_disk_is_low_and_old_work_may_end(store: Store, clock: FakeClock) -> None:
    looks = []

    def room() -> None:
        looks.append(1)
        if is_low:
            raise TielineError("storage_full", "1 MB of disk are free", hints=("tieline status",))

    is_low = False
    writer = toy_writer(store, clock, room=room).start()
    (job,) = done(writer.submit(submit("a")))
    is_low = True
    looks.clear()
    first, stop, second = writer.submit_many(
        [submit("b"), StopJob(actor=ALICE, job=job.id), submit("c")],
    )
    assert [refused(first).code, refused(second).code] == ["storage_full", "storage_full"]
    assert done(stop).state is JobState.CANCELLED
    assert writer.is_writable
    assert looks == [1], "asked once for a batch"
    writer.close(WAIT_S)
