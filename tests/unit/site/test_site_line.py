"""Crashes, and an exchange that is slow, silent, forgetful or false."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_exchange import (
    MACHINE,
    OWNER_FILE,
    Exchange,
    go,
    home_at,
    is_gone,
    offer,
    read,
    running,
    serving,
    site,
)  # fmt: skip

from tieline.drivers.siteprocess.home import Home
from tieline.drivers.siteprocess.process import SiteProcess
from tieline.model.error import TielineError
from tieline.model.protocol import (
    Accepted,
    Ended,
    Outcome,
    Quoted,
    Refused,
    Resync,
    Started,
)  # fmt: skip
from tieline.registry import Key
from tieline.site import Phase

# -- crashes and restarts ----------------------------------------------------------------------------------------------


def test_a_run_goes_on_without_the_process_and_the_next_one_adopts_it(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            go_on = tmp_path / "go"
            script = f"echo begun; while [ ! -e {go_on} ]; do sleep 0.02; done; echo over; exit 7"
            async with running(home):
                await exchange.until(lambda: exchange.streams)
                exchange.order(offer(script=script))
                await exchange.until(lambda: exchange.logs.get(("j-1.1", 0)) == b"begun\n")
            exchange.live = [msgspec.structs.replace(offer(script=script), state="running")]
            async with running(home) as process:
                await exchange.until(lambda: exchange.sessions == 2)
                assert process.state.runs["j-1.1"].phase is Phase.RUNNING
                go_on.touch()
                ended = await exchange.ended()
                assert (ended.state, ended.exit_codes) == ("failed", (7,))
                assert exchange.logs["j-1.1", 0] == b"begun\nover\n"
                assert len(exchange.of(Accepted)) == 1

    go(story)


def test_a_run_that_ended_while_no_process_looked_is_told_by_the_next_one(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            async with running(home):
                await exchange.until(lambda: exchange.streams)
                exchange.order(offer(script="sleep 0.3; echo late", outputs=("*",)))
                await exchange.until(lambda: exchange.of(Started))
            await asyncio.sleep(0.6)
            exchange.live = [msgspec.structs.replace(offer(outputs=("*",)), state="running")]
            async with running(home):
                assert (await exchange.ended()).state == "succeeded"
                assert exchange.logs["j-1.1", 0] == b"late\n"

    go(story)


def test_what_was_fenced_while_the_process_was_dead_is_stopped_at_the_welcome(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            async with running(home):
                await exchange.until(lambda: exchange.streams)
                exchange.order(offer(script="echo $$ > pid; exec sleep 60"))
                pid = int(await exchange.until(lambda: read(tmp_path / "runs/j-1.1/node-0/work/pid")))
            assert not is_gone(pid)
            exchange.outcome = lambda _: Outcome(is_ok=False, what="stale")
            async with running(home) as process:
                await exchange.until(lambda: is_gone(pid))
                await exchange.until(lambda: not process.state.runs)

    go(story)


def test_an_exchange_that_forgot_its_sessions_is_greeted_anew_and_nothing_is_doubled(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.order(offer(script="echo once >> times; sleep 0.5; cat times"))
            await exchange.until(lambda: exchange.of(Started))
            exchange.forget_sessions()
            exchange.live = [msgspec.structs.replace(offer(), state="running")]
            assert (await exchange.ended()).state == "succeeded"
            assert exchange.sessions == 2
            assert exchange.logs["j-1.1", 0] == b"once\n"

    go(story)


def test_a_run_of_which_nothing_is_known_here_is_said_to_be_lost(tmp_path: Path):
    async def story() -> None:
        exchange = Exchange()
        exchange.live = [msgspec.structs.replace(offer(), state="running")]
        async with site(tmp_path, exchange):
            ended = await exchange.ended()
            assert (ended.state, ended.is_start_failure) == ("failed", True)

    go(story)


def test_an_entry_of_the_journal_that_cannot_be_read_stops_nobody(tmp_path: Path):
    async def story() -> None:
        (tmp_path / "runs/j-0.1").mkdir(parents=True)
        (tmp_path / "runs/j-0.1/run.json").write_text("{ torn")
        async with site(tmp_path) as (exchange, process):
            assert process.state.runs == {}
            exchange.order(offer())
            await exchange.ended()

    go(story)


def test_a_full_disk_refuses_instead_of_accepting(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):

            def full(*_: Any, **__: Any) -> None:
                raise TielineError("storage_full", "the journal cannot be written: no space")

            real, process.journal.accept = process.journal.accept, full  # type: ignore[method-assign]
            exchange.order(offer())
            refused = (await exchange.until(lambda: exchange.of(Refused)))[0]
            assert "no space" in str(refused.reason)
            assert not exchange.of(Accepted)
            assert not process.state.runs
            process.journal.accept = real  # type: ignore[method-assign]
            exchange.order(offer("j-2.1"))
            await exchange.ended("j-2.1")

    go(story)


# -- a hostile line ----------------------------------------------------------------------------------------------------


def test_an_impostor_hears_nothing_but_hello(tmp_path: Path):
    async def story() -> None:
        exchange = Exchange(answers_as=Key(b"x" * 32))
        exchange.live = [offer()]
        async with serving(exchange):
            home = home_at(tmp_path, exchange)
            async with running(home):
                await exchange.until(lambda: exchange.sessions)
                await asyncio.sleep(0.3)
                assert set(exchange.requests) == {"POST /v1/site/sessions"}
                assert home.session() == ""

    go(story)


def test_a_stream_that_breaks_inside_an_order_is_resumed_before_it(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.order(offer("j-1.1"))
            await exchange.ended("j-1.1")
            exchange.cut_after = 200
            exchange.order(offer("j-2.1"))
            await exchange.ended("j-2.1")
            assert len(exchange.of(Accepted, "j-2.1")) == 1
            assert exchange.cursors[0] == "0"

    go(story)


def test_orders_that_are_played_again_start_nothing_again(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):
            exchange.order(offer(script=f"echo ran >> {tmp_path}/times"))
            first = await exchange.ended()
            await exchange.until(lambda: "j-1.1" in process.state.done)
            exchange.order(offer(script=f"echo ran >> {tmp_path}/times"))
            await exchange.until(lambda: len(exchange.of(Ended)) == 2)
            assert exchange.of(Ended)[1] == first
            assert (tmp_path / "times").read_text() == "ran\n"

    go(story)


def test_an_order_of_a_newer_version_is_skipped(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):

            class Dance(msgspec.Struct, tag_field="order", tag="dance"):
                steps: int = 3

            exchange.order(Dance())  # type: ignore[arg-type]
            exchange.order(offer())
            await exchange.ended()

    go(story)


def test_a_stale_outcome_starts_nothing(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):
            exchange.outcome = lambda _: Outcome(is_ok=False, what="stale")
            exchange.order(offer(script=f"touch {tmp_path}/ran"))
            await exchange.until(lambda: exchange.of(Accepted))
            await exchange.until(lambda: not process.state.runs)
            assert not (tmp_path / "ran").exists()
            assert not (tmp_path / "runs/j-1.1").exists()

    go(story)


@pytest.mark.parametrize("trouble", [500, 503, "overloaded", "storage_full", 0.4, "short"])
def test_reports_are_repeated_until_they_are_taken(tmp_path: Path, trouble: str | float):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.trouble = [trouble, trouble]
            exchange.order(offer())
            assert (await exchange.ended()).state == "succeeded"

    go(story)


def test_one_report_that_is_refused_for_good_does_not_hold_up_the_others(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):
            exchange.trouble = ["invalid_request", "invalid_request"]
            process.outbox.put(Quoted(quote="q-0"))
            process.outbox.put(Quoted(quote="q-1"))
            await exchange.until(lambda: exchange.of(Quoted))
            assert [each.quote for each in exchange.of(Quoted)] == ["q-1"]
            assert len(process.outbox) == 0

    go(story)


def test_a_version_that_is_not_shared_ends_the_process_with_a_hint(tmp_path: Path):
    async def story() -> None:
        exchange = Exchange(protocol=9)
        async with serving(exchange):
            home = home_at(tmp_path, exchange)
            process = SiteProcess(home, machine=MACHINE, is_measuring=False)
            with pytest.raises(TielineError) as caught:
                await process.run()
            assert caught.value.code == "version_not_supported"

    go(story)


def test_a_resync_opens_a_new_session(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.order(Resync(why="accepted"))
            await exchange.until(lambda: exchange.sessions == 2)
            exchange.order(offer())
            await exchange.ended()

    go(story)


def test_a_proxy_of_the_owner_s_file_is_used(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            owner_file = f"proxy: {exchange.url}\n{OWNER_FILE}"
            url, exchange.url = exchange.url, "http://exchange.invalid:7070"
            home = home_at(tmp_path, exchange, owner_file)
            async with running(home):
                await exchange.until(lambda: exchange.streams)
                exchange.order(offer())
                await exchange.ended()
            assert url

    go(story)


# -- logs --------------------------------------------------------------------------------------------------------------


def test_a_log_is_sent_no_faster_than_it_is_kept(tmp_path: Path):
    async def story() -> None:
        exchange = Exchange(log_piece=1_000)
        async with site(tmp_path, exchange):
            exchange.order(offer(script="head -c 20000 /dev/zero | tr '\\0' x"))
            await exchange.ended()
            assert exchange.logs["j-1.1", 0] == b"x" * 20_000

    go(story)


def test_a_log_that_is_full_is_not_sent_on(tmp_path: Path):
    async def story() -> None:
        exchange = Exchange(log_most=100)
        async with site(tmp_path, exchange):
            exchange.order(offer(script="head -c 20000 /dev/zero | tr '\\0' x"))
            await exchange.ended()
            assert len(exchange.logs["j-1.1", 0]) == 100
            posts = [each for each in exchange.requests if each.endswith("/log")]
            assert len(posts) <= 2

    go(story)


# -- the process as a process ------------------------------------------------------------------------------------------


def test_the_process_survives_kill_with_its_runs_and_ends_on_sigterm(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            (tmp_path / "readings.json").write_text(json.dumps({"cpu_single_bps": 1}))
            first = await spawned(home)
            await exchange.until(lambda: exchange.streams, 30)
            exchange.order(offer(script="sleep 1; echo survived; exit 4"))
            await exchange.until(lambda: exchange.of(Started))
            first.send_signal(signal.SIGKILL)
            await first.wait()
            exchange.live = [msgspec.structs.replace(offer(), state="running")]
            second = await spawned(home)
            ended = await exchange.until(lambda: exchange.of(Ended), 30)
            assert [(each.state, each.exit_codes) for each in ended] == [("failed", (4,))]
            assert exchange.logs["j-1.1", 0] == b"survived\n"
            second.send_signal(signal.SIGTERM)
            _, said = await second.communicate()
            assert second.returncode == 0
            lines = [json.loads(line) for line in said.decode().splitlines()]
            assert {line["message"] for line in lines} >= {"site ready", "session open", "site stopped"}
            assert not any("tl-bearer" in line["message"] for line in lines)

    go(story)


async def spawned(home: Home) -> asyncio.subprocess.Process:

    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tieline.drivers.siteprocess", str(home.folder), stderr=asyncio.subprocess.PIPE
    )


def test_a_site_process_imports_no_server_no_database_and_no_arrays():
    heavy = ("sqlalchemy", "alembic", "litestar", "uvicorn", "numpy", "lark", "yaml", "click", "pynvml", "joserfc")
    code = (
        f"import sys, tieline.drivers.siteprocess.entry; sys.exit(chr(32).join(set({heavy}) & set(sys.modules)) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
