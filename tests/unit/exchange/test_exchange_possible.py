"""What was found possible is not looked for again, and no longer than the pools stay as they are."""

from typing import Any

import pytest
from exchange_world import PREFIX, World, task

from tieline.exchange import jobs
from tieline.exchange.possible import MOST_SHAPES, Possible
from tieline.model.error import TielineError
from tieline.model.event import RecordStored
from tieline.model.task import Span

SMALL = {"core_count": 4, "memory_bytes": 8 * 10**9}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the demands for which a pool was looked for."""
    seen: list[str] = []
    real = jobs.is_possible

    def counted(demand: Any, *args: Any, **named: Any) -> bool:
        seen.append(demand.name)
        return real(demand, *args, **named)

    monkeypatch.setattr(jobs, "is_possible", counted)
    return seen


def test_equal_tasks_are_looked_at_once_and_others_each(world: World, looks: list[str]) -> None:
    world.join("lab7", "gz1", **SMALL)
    for name in ("a", "b"):
        world.submit(task(name, cores=2))
    assert looks == ["a"]
    world.submit(task("c", cores=3))
    world.submit(task("d", cores=3, max_duration_s=9))
    assert looks == ["a", "c", "d"]


def test_a_pool_that_shrank_is_looked_at_again(world: World, looks: list[str]) -> None:
    world.join("lab7", "gz1", **SMALL)
    world.submit(task("a", cores=4))
    (stored,) = [event for event in world.events if isinstance(event, RecordStored) and event.kind == "pool"]
    smaller = {"site": f"{PREFIX}.lab7/site/gz1", "sandbox": "bubblewrap", **SMALL, "core_count": 2}
    world.register("lab7", "pool/gz1", smaller, rev=2, prev=stored.sha256)
    with pytest.raises(TielineError) as refused:
        world.submit(task("b", cores=4))
    assert (refused.value.code, looks) == ("unplaceable", ["a", "b"])


def test_where_owners_read_names_another_name_is_another_task(world: World, looks: list[str]) -> None:
    world.join("lab7", "gz1", **SMALL, policy="name == 'good'")
    world.submit(task("good"))
    with pytest.raises(TielineError):
        world.submit(task("bad"))
    world.submit(task("good"))
    assert looks == ["good", "bad"]


def test_what_rests_on_the_time_is_looked_at_each_time(world: World, looks: list[str]) -> None:
    world.join("lab7", "gz1", **SMALL)
    for name in ("a", "b"):
        world.submit(task(name, deadline_s=60))
    assert looks == ["a", "b"]


def test_what_rests_on_the_network_is_looked_at_each_time(world: World, looks: list[str]) -> None:
    world.join("lab7", "gz1", **SMALL)
    for name in ("a", "b"):
        world.submit(task(name, nodes=2, span=Span(rtt_us=1_000)))
    assert looks == ["a", "b"]


def test_no_more_is_kept_than_so_many_shapes() -> None:
    possible = Possible()
    for shape in range(1, MOST_SHAPES + 2):
        assert not possible.has(shape, 1)
        possible.add(shape)
    assert possible.has(MOST_SHAPES + 1, 1)
    assert not possible.has(1, 1)
    assert not possible.has(MOST_SHAPES + 1, 2)
