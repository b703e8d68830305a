"""The emulated engine keeps the promises of a real one, by a clock that tests move."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tieline.drivers.engines.fake import FakeEngine, Script
from tieline.model.error import TielineError
from tieline.ports import Ending, FakeClock, Launch


def launch(folder: str = "/runs/r1", **more: object) -> Launch:
    known: dict[str, object] = {"run": "r1", "node": 0, "folder": folder, "setup": "", "script": "x", "envs": {}}
    return Launch(**known | more)  # type: ignore[arg-type]


def test_it_says_that_nothing_here_is_real() -> None:
    assert FakeEngine(FakeClock()).offers()["evidence"] == "emulated"


def test_a_run_ends_when_the_clock_says_so_with_what_was_scripted() -> None:
    async def story() -> None:
        clock = FakeClock()
        engine = FakeEngine(clock, lambda _: Script(duration_ms=500, exit_code=3, cpu_ms=7, max_memory_bytes=9))
        await engine.start(launch())
        waiting = asyncio.create_task(engine.wait("/runs/r1"))
        await asyncio.sleep(0)
        assert not waiting.done()
        clock.advance(500)
        engine.tick()
        at = clock.now_ms()
        expected = Ending(exit_code=3, started_ms=at - 500, ended_ms=at, cpu_ms=7, max_memory_bytes=9)
        assert await waiting == expected
        assert await engine.wait("/runs/r1") == expected

    asyncio.run(story())


def test_starting_twice_is_one_run_and_another_engine_over_the_same_world_adopts_it() -> None:
    async def story() -> None:
        clock = FakeClock()
        first = FakeEngine(clock, lambda _: Script(duration_ms=-1))
        await first.start(launch())
        clock.advance(100)
        second = FakeEngine(clock, world=first.world)
        await second.start(launch())
        assert len(first.world) == 1
        assert (await second.stop("/runs/r1", 1)).exit_code == 128 + signal.SIGTERM

    asyncio.run(story())


def test_what_ignores_the_stop_is_killed_when_its_grace_is_over() -> None:
    async def story() -> None:
        clock = FakeClock()
        engine = FakeEngine(clock, lambda _: Script(duration_ms=-1, obeys_after_ms=-1))
        await engine.start(launch())
        stopping = asyncio.create_task(engine.stop("/runs/r1", 2))
        await asyncio.sleep(0)
        clock.advance(1_999)
        engine.tick()
        await asyncio.sleep(0)
        assert not stopping.done()
        clock.advance(1)
        engine.tick()
        assert (await stopping).exit_code == 137
        assert engine.world["/runs/r1"].signals == [signal.SIGTERM, signal.SIGKILL]

    asyncio.run(story())


def test_a_time_limit_ends_a_run_and_says_so() -> None:
    async def story() -> None:
        clock = FakeClock()
        engine = FakeEngine(clock, lambda _: Script(duration_ms=10_000))
        await engine.start(launch(duration_s=3))
        clock.advance(3_000)
        ending = await engine.wait("/runs/r1")
        assert (ending.exit_code, ending.limit) == (143, "time")

    asyncio.run(story())


def test_refusals_vanishing_signals_and_the_unknown() -> None:
    async def story() -> None:
        engine = FakeEngine(FakeClock(), lambda each: Script(refuses="full" if each.node else "", duration_ms=-1))
        with pytest.raises(TielineError, match="full"):
            await engine.start(launch(node=1))
        await engine.start(launch())
        await engine.signal("/runs/r1", signal.SIGUSR1)
        assert engine.world["/runs/r1"].signals == [signal.SIGUSR1]
        engine.vanish("/runs/r1")
        assert (await engine.wait("/runs/r1")).exit_code == 137
        assert (await engine.wait("/runs/never")).exit_code == 137
        await engine.signal("/runs/never", signal.SIGTERM)

    asyncio.run(story())


def test_scripted_output_is_in_the_log(tmp_path: Path) -> None:
    async def story() -> None:
        engine = FakeEngine(FakeClock(), lambda _: Script(output="hello\n"))
        await engine.start(launch(str(tmp_path / "r1")))

    asyncio.run(story())
    assert (tmp_path / "r1/log").read_text() == "hello\n"
