"""The site process on a real machine, against an exchange that is scripted, slow, silent, forgetful or false."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from scripted_exchange import (
    CORES,
    MACHINE,
    OWNER_FILE,
    SITE,
    Exchange,
    home_at,
    running,
    serving,
    site,
)  # fmt: skip
from site_offers import ask, core_offer

from tieline.drivers.siteprocess import change, has_joined, join_site, owner_key, owner_seed
from tieline.drivers.siteprocess.home import Home
from tieline.drivers.siteprocess.process import SiteProcess
from tieline.model.error import TielineError
from tieline.model.jointoken import JoinToken
from tieline.model.protocol import (
    Accepted,
    Beaten,
    CheckpointKept,
    Drain,
    Ended,
    Offer,
    Outcome,
    Quoted,
    Refused,
    Resync,
    Started,
    Stop,
)  # fmt: skip
from tieline.model.record import Status
from tieline.model.task import Checkpoint, Mount, Resources, Task
from tieline.registry import Key
from tieline.site import Phase

T = TypeVar("T")


def go(work: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(work(), 60)

    return asyncio.run(bounded())


def offer(run: str = "j-1.1", script: str = "true", **fields: Any) -> Offer:
    """One trusted core that runs ``script``."""
    made = core_offer(run, pool=CORES, price_micro_cny_per_unit_hour=100_000, **fields)
    return msgspec.structs.replace(made, task=msgspec.structs.replace(made.task, run=script))


def tar_of(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return True


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_is_accepted_started_and_ended_with_its_log_results_and_use(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            script = "echo hello; echo $TIELINE_RUN_ID; mkdir -p out; printf 42 > out/answer; sleep 0.2"
            exchange.order(offer(script=script, outputs=("out",)))
            ended = await exchange.ended()
            assert [type(each) for each in exchange.seen] == [Accepted, Started, Ended]
            assert (ended.state, ended.exit_codes, ended.reason) == ("succeeded", (0,), None)
            assert ended.duration_ms >= 200
            assert exchange.logs["j-1.1", 0] == b"hello\nj-1.1\n"
            (output,) = ended.outputs
            assert (output.path, exchange.blobs[output.sha256]) == ("out/answer", b"42")

    go(story)


def test_a_folder_is_emptied_once_the_end_was_taken_and_remembered_for_a_while(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path, owner_file=OWNER_FILE + "limits: {kept_runs: 1}\n") as (exchange, process):
            exchange.order(offer(script="echo x > big"))
            await exchange.ended()
            await exchange.until(lambda: "j-1.1" in process.state.done)
            await exchange.until(lambda: not (tmp_path / "runs/j-1.1/node-0/work").exists())
            assert (tmp_path / "runs/j-1.1/run.json").exists()
            exchange.order(offer("j-2.1"))
            await exchange.ended("j-2.1")
            await exchange.until(lambda: not (tmp_path / "runs/j-1.1").exists())

    go(story)


def test_a_failure_brings_its_exit_code_and_its_log(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.order(offer(script="echo oops >&2; exit 3"))
            ended = await exchange.ended()
            assert (ended.state, ended.exit_codes) == ("failed", (3,))
            assert ended.reason is not None
            assert ended.reason.code == "exit_code"
            assert exchange.logs["j-1.1", 0] == b"oops\n"

    go(story)


def test_secrets_reach_the_task_and_no_disk(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.outcome = lambda report: Outcome(
                is_ok=True, sealed=exchange.sealed(API_KEY="hunter2-secret") if isinstance(report, Accepted) else ""
            )
            exchange.order(offer(script="echo ${#API_KEY}; sleep 0.3", secrets=("API_KEY",)))
            await exchange.until(lambda: exchange.of(Started))
            assert not holding(tmp_path, b"hunter2-secret")
            assert (await exchange.ended()).state == "succeeded"
            assert exchange.logs["j-1.1", 0] == b"14\n"
            assert not holding(tmp_path, b"hunter2-secret")

    go(story)


def holding(folder: Path, text: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_secrets_that_do_not_open_are_a_start_failure(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.outcome = lambda _: Outcome(is_ok=True, sealed="AAAA")
            exchange.order(offer(secrets=("API_KEY",)))
            ended = await exchange.ended()
            assert (ended.state, ended.is_start_failure) == ("failed", True)
            assert "do not open" in str(ended.reason)

    go(story)


def test_many_runs_at_once_all_end_and_nothing_is_left(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):
            for number in range(8):
                exchange.order(offer(f"j-{number}.1", script=f"echo {number}"))
            for number in range(8):
                assert (await exchange.ended(f"j-{number}.1")).state == "succeeded"
            exchange.order(offer("j-9.1", core_count=9))
            refused = await exchange.until(lambda: exchange.of(Refused))
            assert refused[0].reason.code == "cores_total"
            await exchange.until(lambda: not process.state.runs)
            assert not process.attempts

    go(story)


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_a_workdir_and_mounts_are_laid_out_before_setup(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            workdir = exchange.put(tar_of(**{"train.sh": "cat data/one.txt extra/two.txt", "data/one.txt": "one "}))
            extra, single = exchange.put(tar_of(**{"two.txt": "two "})), exchange.put(b"three")
            task_fields = {
                "workdir": Mount(path=".", sha256=workdir, is_archive=True),
                "mounts": (
                    Mount(path="extra", sha256=extra, is_archive=True),
                    Mount(path="deep/er/three.txt", sha256=single, size_bytes=5),
                ),
            }
            exchange.order(offer(script="sh train.sh; cat deep/er/three.txt", **task_fields))
            assert (await exchange.ended()).state == "succeeded"
            assert exchange.logs["j-1.1", 0] == b"one two three"
            fetched = [each for each in exchange.requests if each.startswith("GET /v1/blobs")]
            exchange.order(offer("j-2.1", script="cat data/one.txt", **task_fields))
            assert (await exchange.ended("j-2.1")).state == "succeeded"
            assert fetched == [each for each in exchange.requests if each.startswith("GET /v1/blobs")], "not kept"

    go(story)


@pytest.mark.parametrize(
    ("mount", "says"),
    [
        (Mount(path="../../x", sha256="0" * 64), "does not lie below"),
        (Mount(path="/etc/passwd", sha256="0" * 64), "does not lie below"),
        (Mount(path="x", sha256="1" * 64), "not_found"),
        (Mount(path=".", sha256="0" * 64), "names no file"),
        (Mount(path="x", sha256="0" * 64, size_bytes=1), "over 1 bytes"),
        (Mount(path="x", sha256="0" * 64, is_archive=True), "archive"),
    ],
)
def test_bytes_that_cannot_be_laid_out_are_a_start_failure(tmp_path: Path, mount: Mount, says: str):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            digest = exchange.put(b"no archive" * 200)
            real = msgspec.structs.replace(mount, sha256=mount.sha256 if mount.sha256[0] == "1" else digest)
            exchange.order(offer(mounts=(real,)))
            ended = await exchange.ended()
            assert (ended.state, ended.is_start_failure) == ("failed", True)
            assert says in str(ended.reason)

    go(story)


def test_bytes_other_than_promised_are_never_used(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            digest = exchange.put(b"good")
            exchange.lies_about[digest] = b"evil"
            exchange.order(offer(mounts=(Mount(path="x", sha256=digest),)))
            assert "other bytes" in str((await exchange.ended()).reason)
            assert list((tmp_path / "cache").iterdir()) == []
            exchange.lies_about.clear()
            exchange.order(offer("j-2.1", script="cat x", mounts=(Mount(path="x", sha256=digest),)))
            assert (await exchange.ended("j-2.1")).state == "succeeded"

    go(story)


def test_a_link_in_the_workdir_does_not_lead_a_mount_outside(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path / "home") as (exchange, _):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                info = tarfile.TarInfo("down")
                info.type, info.linkname = tarfile.SYMTYPE, "sub"
                archive.addfile(info)
            digest, single = exchange.put(buffer.getvalue()), exchange.put(b"x")
            exchange.order(
                offer(
                    workdir=Mount(path=".", sha256=digest, is_archive=True),
                    mounts=(Mount(path="down/file", sha256=single),),
                )
            )
            assert "does not lie below" in str((await exchange.ended()).reason)

    go(story)


def test_results_that_are_too_large_fail_the_run_and_say_so(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path, owner_file=OWNER_FILE + "limits: {outputs: 10B}\n") as (exchange, _):
            exchange.order(offer(script="head -c 100 /dev/zero > big", outputs=("big",)))
            ended = await exchange.ended()
            assert (ended.state, ended.outputs) == ("failed", ())
            assert ended.reason is not None
            assert ended.reason.code == "outputs_not_kept"

    go(story)


# -- gangs -------------------------------------------------------------------------------------------------------------


def test_a_gang_gets_ranks_addresses_and_one_meeting_place(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            script = 'echo "$TIELINE_NODE_RANK/$TIELINE_NUM_NODES $MASTER_ADDR:$MASTER_PORT" $TIELINE_NODE_IPS > who'
            exchange.order(offer(script=script, nodes=3, outputs=("who",)))
            ended = await exchange.ended()
            assert ended.exit_codes == (0, 0, 0)
            said = [exchange.blobs[output.sha256].decode().split() for output in ended.outputs]
            assert [words[0] for words in said] == ["0/3", "1/3", "2/3"]
            assert [output.node for output in ended.outputs] == [0, 1, 2]
            assert len({words[1] for words in said}) == 1
            assert said[0][2:] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]

    go(story)


def test_a_gang_is_whole_or_not_at_all(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            script = 'if [ "$TIELINE_NODE_RANK" = 1 ]; then sleep 0.2; exit 5; fi; echo $$ > pid; exec sleep 60'
            exchange.order(offer(script=script, nodes=3, grace_s=2))
            ended = await exchange.ended()
            assert ended.state == "failed"
            assert ended.exit_codes[1] == 5
            assert all(code > 128 for code in (ended.exit_codes[0], ended.exit_codes[2]))
            assert ended.reason is not None
            assert ended.reason.values["exit_code"] == 5

    go(story)


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_a_stop_gives_grace_and_then_none(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
            exchange.order(offer(script=script))
            await exchange.until(lambda: exchange.logs.get(("j-1.1", 0)) == b"up\n")
            exchange.order(Stop(run="j-1.1", epoch=1, why="asked"))
            ended = await exchange.ended()
            assert ended.state == "stopped"
            said = exchange.logs["j-1.1", 0]
            assert said.startswith(b"up\n")
            assert said.endswith(b"bye\n")
            stubborn = "trap '' TERM; echo up; while :; do sleep 0.05; done"
            exchange.order(offer("j-2.1", script=stubborn, grace_s=1))
            await exchange.until(lambda: exchange.logs.get(("j-2.1", 0)) == b"up\n")
            exchange.order(Stop(run="j-2.1", epoch=1))
            assert (await exchange.ended("j-2.1")).exit_codes == (137,)

    go(story)


def test_a_stop_while_bytes_are_on_the_way_leaves_nothing_running(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):
            digest = exchange.put(b"x")
            exchange.lies_about[digest] = b""
            real = process.cache._download

            async def slow(*given: Any) -> None:
                await asyncio.sleep(30)
                await real(*given)

            process.cache._download = slow  # type: ignore[method-assign]
            exchange.order(offer(mounts=(Mount(path="x", sha256=digest),)))
            await exchange.until(lambda: "j-1.1" in process.attempts)
            exchange.order(Stop(run="j-1.1", epoch=1))
            ended = await exchange.ended()
            assert (ended.state, ended.exit_codes) == ("stopped", ())

    go(story)


def test_a_run_is_stopped_at_its_time_limit_even_when_the_exchange_is_gone(tmp_path: Path):
    async def story() -> None:
        limited = offer(script="echo $$ > pid; exec sleep 60", stop_after_s=1, grace_s=1)
        async with site(tmp_path) as (exchange, process):
            exchange.order(limited)
            await exchange.until(lambda: exchange.of(Started))
            exchange.is_down = True
            exchange.forget_sessions()
            await exchange.until(lambda: process.state.runs["j-1.1"].phase is Phase.ENDED)
            assert is_gone(int(read(tmp_path / "runs/j-1.1/node-0/work/pid")))
            exchange.live = [msgspec.structs.replace(limited, state="running")]
            exchange.is_down = False
            ended = await exchange.ended()
            assert ended.state == "stopped"
            assert ended.reason is not None
            assert ended.reason.code == "limit_reached"

    go(story)


def test_a_run_that_a_heartbeat_names_stale_is_ended_at_once(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.order(offer(script="echo $$ > pid; exec sleep 60", grace_s=60))
            pid = int(await exchange.until(lambda: read(tmp_path / "runs/j-1.1/node-0/work/pid")))
            exchange.beaten = Beaten(stale=("j-1.1",))
            ended = await exchange.ended()
            assert ended.state == "stopped"
            assert is_gone(pid)
            assert exchange.beats[-1].runs in (("j-1.1",), ())

    go(story)


def test_a_newer_epoch_starts_when_the_older_one_is_gone(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.order(offer("j-1.1", script="exec sleep 60"))
            await exchange.until(lambda: exchange.of(Started, "j-1.1"))
            exchange.order(offer("j-1.2", script="echo newer"))
            assert (await exchange.ended("j-1.2")).state == "succeeded"
            names = [(type(each), each.run) for each in exchange.seen if isinstance(each, Started | Ended)]
            assert names.index((Ended, "j-1.1")) < names.index((Started, "j-1.2"))

    go(story)


# -- checkpoints -------------------------------------------------------------------------------------------------------

COUNTING = """
mkdir -p ck; n=$(cat ck/n 2>/dev/null || echo 0); echo "from $n"
trap 'echo asked > ck/asked; echo $n > ck/n' USR1
while [ $n -lt 400 ]; do n=$((n+1)); echo $n > ck/.n; mv ck/.n ck/n; sleep 0.02; done
"""


def test_a_checkpoint_goes_up_on_its_period_and_at_a_stop_and_comes_back(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            keeping = Checkpoint(path="ck", every_s=1)
            exchange.order(offer(script=COUNTING, checkpoint=keeping, grace_s=1))
            first = (await exchange.until(lambda: exchange.of(CheckpointKept)))[0]
            assert first.sha256 in exchange.blobs
            exchange.order(Stop(run="j-1.1", epoch=1))
            ended = await exchange.ended()
            assert ended.checkpoint in exchange.blobs
            with tarfile.open(fileobj=io.BytesIO(exchange.blobs[ended.checkpoint])) as archive:
                names = archive.getnames()
                reached = int(archive.extractfile("n").read())  # type: ignore[union-attr]
            assert "asked" in names, "the task was not asked for a last checkpoint"
            again = offer("j-1.2", script=COUNTING.replace("400", str(reached + 2)), checkpoint=keeping)
            exchange.order(restored(again, ended.checkpoint))
            assert (await exchange.ended("j-1.2")).state == "succeeded"
            assert exchange.logs["j-1.2", 0] == f"from {reached}\n".encode()

    go(story)


def restored(made: Offer, checkpoint: str) -> Offer:
    """The same offer that starts from a checkpoint (`checkpoint` is also a field of the task)."""
    return msgspec.structs.replace(made, checkpoint=checkpoint)


def test_a_checkpoint_can_be_asked_for_at_any_time(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):
            exchange.order(offer(script=COUNTING, checkpoint=Checkpoint(path="ck", every_s=3_600)))
            await exchange.until(lambda: exchange.logs.get(("j-1.1", 0)))
            process.checkpoint_now()
            await exchange.until(lambda: exchange.of(CheckpointKept))
            exchange.order(Stop(run="j-1.1", epoch=1, is_fenced=True))
            await exchange.ended()

    go(story)


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


def read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""


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


# -- the owner ---------------------------------------------------------------------------------------------------------


def test_the_records_are_published_before_the_first_beat_and_go_on_after_a_loss_of_memory(
    tmp_path: Path,
):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            async with running(home):
                await exchange.until(lambda: exchange.beats)
                assert {SITE, CORES} <= set(exchange.records)
                beat = exchange.beats[0]
                assert [(pool.pool, pool.cores) for pool in beat.pools] == [(CORES, 8)]
                await exchange.until(lambda: len(exchange.beats) >= 3)
                assert [
                    later.seq > earlier.seq for earlier, later in zip(exchange.beats, exchange.beats[1:], strict=False)
                ]
            posts = exchange.record_posts
            async with running(home):
                await exchange.until(lambda: exchange.sessions == 2)
                await asyncio.sleep(0.2)
                assert exchange.record_posts == posts, "nothing had changed"
            (tmp_path / "records.json").unlink()
            (tmp_path / "site.yaml").write_text(OWNER_FILE.replace("0.1", "0.2"))
            async with running(Home(tmp_path)):
                price = "price_micro_cny_per_accelerator_hour"
                await exchange.until(lambda: exchange.records[CORES].spec.get(price) == 200_000)
                assert exchange.records[CORES].rev == 2

    go(story)


def test_a_pool_that_is_not_offered_any_more_is_withdrawn(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            async with running(home):
                await exchange.until(lambda: CORES in exchange.records)
            (tmp_path / "site.yaml").write_text("pools: [{name: other, cores: 1}]")
            async with running(Home(tmp_path)):
                await exchange.until(lambda: exchange.records[CORES].status is Status.WITHDRAWN)

    go(story)


def test_machines_that_install_nothing_are_fronted_for(tmp_path: Path):
    async def story() -> None:
        fronts = "fronts: [{name: cloud1, file: cloud1.csv, every: 1s}]\n"
        tmp_path.joinpath("cloud1.csv").write_text("name,cores\ncpus,64\n")
        async with site(tmp_path, owner_file=OWNER_FILE + fronts) as (exchange, _):
            place = "cn.demo.lab7/site/cloud1"
            await exchange.until(lambda: "cn.demo.lab7/pool/cloud1-cpus" in exchange.records)
            assert exchange.records[place].spec["declared_by"] == "cn.demo.lab7"
            tmp_path.joinpath("cloud1.csv").write_text("name,cores\ncpus,zero\n")
            await asyncio.sleep(1.2)
            assert exchange.records["cn.demo.lab7/pool/cloud1-cpus"].status is Status.ACTIVE
            tmp_path.joinpath("cloud1.csv").write_text("name,cores\nmore,65\n")
            gone = "cn.demo.lab7/pool/cloud1-cpus"
            await exchange.until(lambda: exchange.records[gone].status is Status.WITHDRAWN)

    go(story)


def test_a_question_is_answered_by_the_owner_s_rules(tmp_path: Path):
    async def story() -> None:
        counter = OWNER_FILE.replace("price: 0.1", "price: 0.1, counter: {price_floor: 0.05}")
        async with site(tmp_path, owner_file=counter) as (exchange, _):
            task = Task(run="x", is_trusted=True, resources=(Resources(core_count=1),))
            exchange.order(ask(pool=CORES, task=task, asked_price_micro_cny_per_unit_hour=10_000))
            quoted = (await exchange.until(lambda: exchange.of(Quoted)))[0]
            assert (quoted.is_refused, quoted.price_micro_cny_per_unit_hour) == (False, 50_000)

    go(story)


def test_draining_is_the_owner_s_word_with_and_without_the_exchange(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):
            view = await asyncio.to_thread(change, tmp_path, "drain")
            assert (view.id, exchange.changes) == (SITE, ["drain"])
            await exchange.until(lambda: process.state.is_drained_by_owner)
            exchange.order(offer())
            refused = (await exchange.until(lambda: exchange.of(Refused)))[0]
            assert refused.reason.code == "site_draining"
            await exchange.until(lambda: exchange.beats[-1].health == "draining")
            assert exchange.beats[-1].pools[0].cores == 0
            await exchange.until(lambda: exchange.records[SITE].status is Status.DRAINING)
            await asyncio.to_thread(change, tmp_path, "undrain")
            await exchange.until(lambda: not process.state.is_drained_by_owner)
            exchange.order(offer("j-2.1"))
            await exchange.ended("j-2.1")

    go(story)


def test_a_drain_from_the_exchange_is_obeyed_too(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, _):
            exchange.order(Drain(is_draining=True))
            exchange.order(offer())
            assert (await exchange.until(lambda: exchange.of(Refused)))[0].reason.code == "site_draining"

    go(story)


def test_a_word_that_was_given_while_nobody_listened_is_told_at_the_next_welcome(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            home.mark("draining", is_set=True)
            async with running(home):
                await exchange.until(lambda: exchange.changes == ["drain"])

    go(story)


def test_the_owner_s_command_opens_a_session_of_its_own_where_no_process_runs(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home_at(tmp_path, exchange)
            await asyncio.to_thread(change, tmp_path, "drain")
            assert (exchange.changes, exchange.sessions) == (["drain"], 1)

    go(story)


def test_a_site_that_left_ends_its_process_and_does_not_start_again(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            home = home_at(tmp_path, exchange)
            process = SiteProcess(home, machine=MACHINE, is_measuring=False)
            task = asyncio.create_task(process.run())
            await exchange.until(lambda: exchange.streams)
            await asyncio.to_thread(change, tmp_path, "leave")
            await asyncio.wait_for(task, 10)
            assert exchange.changes == ["leave"]
            with pytest.raises(TielineError, match="has left"):
                await SiteProcess(home, machine=MACHINE).run()

    go(story)


def test_an_unknown_change_is_refused(tmp_path: Path):
    with pytest.raises(TielineError, match="is not drain"):
        change(tmp_path, "explode")


def test_only_one_process_runs_a_site(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (_, process):
            with pytest.raises(TielineError, match="another process"):
                await SiteProcess(process.home, machine=MACHINE).run()

    go(story)


def test_a_folder_that_has_not_joined_says_how(tmp_path: Path):
    with pytest.raises(TielineError, match="no site has joined") as caught:
        SiteProcess(Home(tmp_path))
    assert caught.value.hints


# -- joining -----------------------------------------------------------------------------------------------------------


def token_of(exchange: Exchange, **fields: str) -> str:
    values = {"url": exchange.url, "fingerprint": exchange.key.fingerprint, "secret": "s3cret", "owner": "cn.demo.lab7"}
    return str(JoinToken(**(values | fields)))


def test_a_site_joins_with_a_token_and_pins_the_exchange(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            joined = await join_site(tmp_path / "gz1", token=token_of(exchange))
            assert (joined.site, joined.is_admitted) == (SITE, True)
            assert exchange.joins[0].token == "s3cret"
            home = Home(tmp_path / "gz1")
            assert (home.identity.public, home.identity.kid) == (exchange.key.public, "cn.demo.lab7#join")
            assert has_joined(tmp_path / "gz1")
            for name in ("owner", "site", "sealing"):
                path = tmp_path / "gz1/keys" / name
                assert path.stat().st_mode & 0o777 == 0o600
            assert owner_key(tmp_path / "gz1").public == Key(owner_seed(tmp_path / "gz1")).public
            assert b"s3cret" not in (tmp_path / "gz1/identity.json").read_bytes()

    go(story)


def test_a_token_of_another_exchange_does_not_give_its_secret_away(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            with pytest.raises(TielineError) as caught:
                await join_site(tmp_path, token=token_of(exchange, fingerprint="0" * 32))
            assert caught.value.code == "token_refused"
            assert exchange.joins == []
            assert not has_joined(tmp_path)

    go(story)


def test_a_site_without_a_token_waits(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            joined = await join_site(tmp_path / "gz2", url=exchange.url, owner="lab8", name="hall-1")
            assert (joined.site, joined.is_admitted) == ("cn.demo.lab8/site/hall-1", False)

    go(story)


def test_a_delegation_by_another_key_is_not_believed(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange(answers_as=Key(b"x" * 32))) as exchange:
            with pytest.raises(TielineError) as caught:
                await join_site(tmp_path / "gz1", token=token_of(exchange))
            assert caught.value.code == "record_refused"
            assert not has_joined(tmp_path / "gz1")

    go(story)


@pytest.mark.parametrize("fields", [{"owner": "Lab 7"}, {"name": "a.b"}, {"name": "x" * 64}])
def test_names_that_cannot_be_are_refused_before_anything_is_sent(tmp_path: Path, fields: dict[str, str]):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            with pytest.raises(TielineError, match="lower-case"):
                await join_site(tmp_path / "gz1", token=token_of(exchange), **fields)
            assert exchange.joins == []

    go(story)


def test_an_owner_with_a_key_keeps_it(tmp_path: Path):
    async def story() -> None:
        async with serving(Exchange()) as exchange:
            await join_site(tmp_path / "gz1", token=token_of(exchange), seed=b"o" * 32)
            assert owner_seed(tmp_path / "gz1") == b"o" * 32
            with pytest.raises(TielineError, match="another owner"):
                await join_site(tmp_path / "gz1", token=token_of(exchange), seed=b"p" * 32)

    go(story)


def test_words_that_are_no_token_are_refused(tmp_path: Path):
    with pytest.raises(TielineError, match="no join token"):
        go(lambda: join_site(tmp_path, token="tl1.!!!"))


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
    import sys

    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tieline.drivers.siteprocess", str(home.folder), stderr=asyncio.subprocess.PIPE
    )


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path: Path) -> AsyncIterator[None]:  # type: ignore[misc]
    """Whatever a test leaves running below its folder is ended."""
    yield  # type: ignore[misc]
    deadline = time.monotonic() + 5
    for path in tmp_path.rglob("identity"):
        with contextlib.suppress(OSError, ValueError):
            pid = json.loads(path.read_text().splitlines()[0])["pid"]
            while pid and not is_gone(pid) and time.monotonic() < deadline:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                time.sleep(0.02)
