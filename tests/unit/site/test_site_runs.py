"""A run on a real machine: bytes, gangs, stops, checkpoints, results."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_exchange import (
    OWNER_FILE,
    go,
    is_gone,
    offer,
    read,
    site,
    tar_of,
)  # fmt: skip

from tieline.model.peer import METER
from tieline.model.protocol import (
    Accepted,
    Beaten,
    CheckpointKept,
    Ended,
    Offer,
    Outcome,
    Refused,
    Started,
    Stop,
)  # fmt: skip
from tieline.model.task import Checkpoint, Mount
from tieline.registry import verify_statement
from tieline.site import Phase

# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_is_accepted_started_and_ended_with_its_log_results_and_use(tmp_path: Path):
    async def story() -> None:
        async with site(tmp_path) as (exchange, process):
            script = "echo hello; echo $TIELINE_RUN_ID; mkdir -p out; printf 42 > out/answer; sleep 0.2"
            exchange.order(offer(script=script, outputs=("out",)))
            ended = await exchange.ended()
            assert [type(each) for each in exchange.seen] == [Accepted, Started, Ended]
            assert (ended.state, ended.exit_codes, ended.reason) == ("succeeded", (0,), None)
            assert ended.duration_ms >= 200
            said = verify_statement(ended.receipt.encode(), process.key.public, METER)
            assert (said["run"], said["epoch"], said["duration_ms"]) == ("j-1.1", 1, ended.duration_ms)
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
