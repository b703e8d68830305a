"""What a run of the process engine does, from its first line to its ending."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tieline.drivers.engines import members, run_folder, spawn
from tieline.drivers.engines.process import ProcessEngine
from tieline.model.error import TielineError
from tieline.ports import Ending

if TYPE_CHECKING:
    from tests.unit.engines.conftest import Site

NAP = f"7{os.getpid()}"  # seconds that no other process on this machine sleeps: what is left of a run is found by it

OWNER = """
import asyncio, os, signal, sys
from tieline.drivers.engines.cgroups import Cgroups
from tieline.drivers.engines.process import ProcessEngine
from tieline.ports import Launch

async def main(base, script, with_groups, duration_s):
    engine = ProcessEngine(groups=Cgroups.found() if with_groups == "yes" else Cgroups())
    await engine.start(Launch(run="r1", node=0, folder=base + "/r1", setup="", script=script, envs={},
                              duration_s=int(duration_s), grace_s=1))
    while not os.path.exists(base + "/r1/work/begun"):
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


def start_and_die(site: Site, script: str, duration_s: int = 0) -> None:
    """A site process that starts a run and is killed as soon as the run has begun."""
    with_groups = "yes" if site.groups.hierarchies else "no"
    words = [sys.executable, "-c", OWNER, str(site.base), f": >begun; {script}", with_groups, str(duration_s)]
    assert subprocess.run(words, check=False, timeout=60).returncode == -signal.SIGKILL


async def until(path: Path, text: str = "") -> None:
    """Until ``path`` is there and holds ``text``."""

    def is_there() -> bool:
        return path.exists() and (not text or text in path.read_text())

    while not is_there():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)


def living(mark: str) -> list[int]:
    """Processes whose command line holds ``mark``."""
    found = []
    for pid in members.table():
        try:
            if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def test_a_run_ends_with_its_exit_code_and_its_output_is_in_the_log(site: Site) -> None:
    ending = site.run("echo out; echo err >&2; exit 7")
    assert (ending.exit_code, ending.phase, ending.limit) == (7, "run", "")
    assert site.log() == "out\nerr\n"
    assert 0 < ending.started_ms <= ending.ended_ms


def test_a_run_that_a_signal_ends_says_128_and_the_signal(site: Site) -> None:
    assert site.run("kill -TERM $$").exit_code == 128 + signal.SIGTERM


def test_setup_runs_first_in_the_work_folder_and_a_failing_setup_ends_the_run_there(site: Site) -> None:
    ending = site.run("cat made; pwd", setup="echo made >made")
    assert (ending.exit_code, ending.phase) == (0, "run")
    assert site.log() == f"made\n{site.work()}\n"
    ending = site.run("echo never", setup="echo first; exit 3", name="r2")
    assert (ending.exit_code, ending.phase) == (3, "setup")
    assert site.log("r2") == "first\n"


def test_the_environment_is_what_was_launched_and_nothing_of_the_sites_own(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_SECRET", "leaks")
    odd = "two\nlines 'quoted' \"$HOME\" `date` \\ 联络线 \udcff"
    ending = site.run("env -0", envs={"ODD": odd, "UID": "7", "OPTIND": "no number"})
    assert ending.exit_code == 0
    content = (site.base / "r1" / "log").read_bytes().split(b"\0")
    assert f"ODD={odd}".encode("utf-8", "surrogateescape") in content
    names = {line.partition(b"=")[0].decode() for line in content if line.strip()}
    assert names <= {"ODD", "PATH", "PWD", "OLDPWD", "SHLVL", "_", "TIELINE_MARK"}


def test_no_open_file_of_the_site_process_reaches_a_task(site: Site) -> None:
    reading, writing = os.pipe()
    try:
        os.set_inheritable(writing, True)
        site.run("readlink /proc/$$/fd/*")
        assert str(Path(f"/proc/self/fd/{writing}").readlink()) not in site.log().splitlines()
    finally:
        os.close(reading)
        os.close(writing)


def test_a_secret_is_in_no_file_and_on_no_argument_vector(site: Site) -> None:
    secret = "s3cr3t-value-of-this-test"
    launch = site.launch('test -n "$KEY" && : >begun; sleep 60', envs={"KEY": secret})

    async def story(engine: ProcessEngine) -> tuple[list[str], list[int]]:
        await engine.start(launch)
        await until(site.work() / "begun")
        holding = [str(path) for path in site.base.rglob("*") if path.is_file() and secret in path.read_text()]
        vectors = living(secret)
        await engine.stop(launch.folder, 5)
        return holding, vectors

    assert site.do(story) == ([], [])


def test_devices_are_named_to_the_vendors_library_and_hidden_when_none_are_given(site: Site) -> None:
    site.run('echo "$ASCEND_RT_VISIBLE_DEVICES|${CUDA_VISIBLE_DEVICES-unset}"', devices=(3, 1), vendor="ascend")
    assert site.log() == "1,3|unset\n"
    site.run('echo "${CUDA_VISIBLE_DEVICES-unset}"', vendor="nvidia", envs={"CUDA_VISIBLE_DEVICES": "0"}, name="r2")
    assert site.log("r2") == "\n"


def test_starting_twice_runs_once(site: Site) -> None:
    launch = site.launch("echo once >>count; sleep 0.2")

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        await engine.start(launch)
        other = site.engine()
        await other.start(launch)
        first, second = await asyncio.gather(engine.wait(launch.folder), other.wait(launch.folder))
        await engine.start(launch)
        await other.close()
        assert first == second
        return await engine.wait(launch.folder)

    assert site.do(story).exit_code == 0
    assert (site.work() / "count").read_text() == "once\n"


def test_two_site_processes_that_start_the_same_run_at_once_run_it_once(site: Site) -> None:
    async def story(engine: ProcessEngine) -> None:
        other = site.engine()
        for turn in range(20):
            launch = site.launch("echo once >>count", name=f"t{turn}")
            await asyncio.gather(engine.start(launch), other.start(launch))
            ends = await asyncio.gather(engine.wait(launch.folder), other.wait(launch.folder))
            assert [end.exit_code for end in ends] == [0, 0]
            assert (site.work(f"t{turn}") / "count").read_text() == "once\n"
        await other.close()

    site.do(story)


def test_a_site_process_that_comes_late_to_a_start_does_not_undo_what_was_written(site: Site) -> None:
    launch = site.launch("exit 5")

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        while run_folder.exited(launch.folder) is None:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        spawn.spawn(launch, engine.way)  # as if it had looked before the first one was there
        return await engine.wait(launch.folder)

    assert site.do(story).exit_code == 5


def test_a_start_that_was_cut_off_before_anything_ran_is_made_good(site: Site) -> None:
    (site.base / "r1").mkdir()
    (site.base / "r1/run.sh").write_text("exi")
    (site.base / "r1/exit").write_text("")
    before_ms = time.time_ns() // 1_000_000
    ending = site.run("exit 5")
    assert ending.exit_code == 5
    (site.base / "r2").mkdir()
    for path in (site.base / "r1").iterdir():
        if path.name in ("launch", "run.sh", "exit"):
            path.rename(site.base / "r2" / path.name)
            os.utime(site.base / "r2" / path.name, (1, 1))
    (site.base / "r2/exit").unlink()
    assert site.run("exit 5", name="r2").started_ms >= before_ms - 20, "not when the first attempt was made"


def test_a_run_survives_the_death_of_the_site_process_and_is_adopted_with_its_exit_code(site: Site) -> None:
    start_and_die(site, "echo one; sleep 0.5; echo two; exit 9")
    launch = site.launch("echo never")

    async def story(engine: ProcessEngine) -> Ending:
        assert run_folder.exited(launch.folder) is None
        await engine.start(launch)
        return await engine.wait(launch.folder)

    ending = site.do(story)
    assert (ending.exit_code, ending.phase) == (9, "run")
    assert site.log() == "one\ntwo\n"


def test_a_run_that_ended_while_no_site_process_lived_tells_its_exit_code(site: Site) -> None:
    start_and_die(site, "exit 11")
    deadline = time.monotonic() + 20
    while run_folder.exited(str(site.base / "r1")) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert site.do(lambda engine: engine.wait(str(site.base / "r1"))).exit_code == 11


def test_the_time_limit_holds_while_no_site_process_lives(site: Site) -> None:
    start_and_die(site, f"trap '' TERM; sleep {NAP}.1 & wait; sleep {NAP}.1", duration_s=1)
    deadline = time.monotonic() + 20
    while run_folder.exited(str(site.base / "r1")) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert living(f"{NAP}.1") == []
    ending = site.do(lambda engine: engine.wait(str(site.base / "r1")))
    assert (ending.exit_code, ending.limit) == (137, "time")
    assert "[tieline] ended by its time limit of 1 s" in site.log()


def test_a_killed_wrapper_is_137_and_nothing_of_the_run_is_left(site: Site) -> None:
    launch = site.launch(f"sleep {NAP}.2 & setsid sleep {NAP}.2 & : >begun; wait")

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        await until(site.work() / "begun")
        who = run_folder.identity(launch.folder)
        assert who is not None
        os.kill(who.pid, signal.SIGKILL)
        return await engine.wait(launch.folder)

    assert site.do(story).exit_code == 137
    assert living(f"{NAP}.2") == []


def test_what_a_run_leaves_in_the_background_dies_with_it(site: Site) -> None:
    assert site.run(f"sleep {NAP}.3 & setsid sleep {NAP}.3 >/dev/null 2>&1 & exit 0").exit_code == 0
    assert living(f"{NAP}.3") == [] or not site.groups.hierarchies


def test_a_process_that_got_the_number_of_a_dead_wrapper_is_neither_adopted_nor_killed(site: Site) -> None:
    innocent = subprocess.Popen(["sleep", f"{NAP}.4"], start_new_session=True)
    try:
        site.run("echo hello")
        (site.base / "r1" / "exit").unlink()
        run_folder.put(str(site.base / "r1"), "identity", b'{"pid":%d,"start_ticks":1}' % innocent.pid)
        assert site.do(lambda engine: engine.wait(str(site.base / "r1"))).exit_code == 137
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_what_was_never_started_ended_with_137(site: Site) -> None:
    assert site.do(lambda engine: engine.wait(str(site.base / "never"))).exit_code == 137


def test_stop_gives_the_whole_group_its_grace(site: Site) -> None:
    program = "import signal,sys,time\nsignal.signal(15, lambda *a: (open('saved','w').close(), sys.exit(0)))\n"
    launch = site.launch(f"{sys.executable} -c \"{program}open('begun','w').close()\ntime.sleep(60)\"\necho after")

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        await until(site.work() / "begun")
        return await engine.stop(launch.folder, 10)

    ending = site.do(story)
    assert ending.exit_code == 128 + signal.SIGTERM
    assert (site.work() / "saved").exists()
    assert "after" not in site.log()


def test_stop_kills_what_ignores_it_after_the_grace(site: Site) -> None:
    launch = site.launch(f"trap '' TERM; : >begun; sleep {NAP}.5; sleep {NAP}.5; sleep {NAP}.5")

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        await until(site.work() / "begun")
        return await engine.stop(launch.folder, 0.2)

    assert site.do(story).exit_code == 137
    assert living(f"{NAP}.5") == []


def test_stop_right_after_start_and_stop_of_what_ended_both_answer(site: Site) -> None:
    launch = site.launch(f"sleep {NAP}.6")

    async def story(engine: ProcessEngine) -> tuple[Ending, Ending]:
        await engine.start(launch)
        return await engine.stop(launch.folder, 5), await engine.stop(launch.folder, 5)

    first, second = site.do(story)
    assert first == second
    assert first.exit_code == 128 + signal.SIGTERM


def test_a_checkpoint_signal_reaches_the_program_and_does_not_kill_the_shell_that_waits_for_it(site: Site) -> None:
    program = "import signal,sys\nsignal.signal(10, lambda *a: sys.exit(5))\nopen('begun','w').close()\nsignal.pause()"
    launch = site.launch(f'{sys.executable} -c "{program}"\necho "it said $?"')

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        await until(site.work() / "begun")
        await engine.signal(launch.folder, signal.SIGUSR1)
        ending = await engine.wait(launch.folder)
        await engine.signal(launch.folder, signal.SIGUSR1)
        return ending

    assert site.do(story).exit_code == 0
    assert site.log() == "it said 5\n"


def test_an_interrupt_is_not_ignored_by_a_task(site: Site) -> None:
    launch = site.launch(f"exec {sys.executable} -c \"open('begun','w').close()\nimport time;time.sleep(60)\"")

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        await until(site.work() / "begun")
        await engine.signal(launch.folder, signal.SIGINT)
        return await engine.wait(launch.folder)

    assert site.do(story).exit_code == 130
    assert "KeyboardInterrupt" in site.log()


def test_the_log_is_cut_at_its_limit_and_says_so_while_the_run_goes_on(site: Site) -> None:
    ending = site.run("head -c 3000000 /dev/zero | tr '\\0' x; : >done", log_bytes=4096)
    assert ending.exit_code == 0
    assert (site.work() / "done").exists()
    log = site.log()
    assert log[:4096] == "x" * 4096
    assert log[4096:] == "\n[tieline] the log is cut here, at its limit of 4096 bytes\n"


def test_a_stray_that_holds_the_log_open_does_not_hold_up_the_ending(site: Site) -> None:
    ending = site.run(f"setsid sleep {NAP}.7 & exit 4")
    assert ending.exit_code == 4
    assert living(f"{NAP}.7") == []


def test_a_memory_bomb_ends_by_its_memory_limit(site: Site) -> None:
    hog = f'{sys.executable} -c "x = bytearray(300_000_000); import time; time.sleep(60)"'
    ending = site.run(hog, memory_bytes=100_000_000)
    assert ending.exit_code != 0
    if site.groups.hierarchies:
        assert (ending.exit_code, ending.limit) == (137, "memory")
        assert "[tieline] ended by its memory limit of 100,000,000 bytes" in site.log()
        assert 50_000_000 < ending.max_memory_bytes <= 100_000_000
    else:
        assert "MemoryError" in site.log()


def test_memory_use_and_cpu_time_are_told(site: Site) -> None:
    ending = site.run(f'{sys.executable} -c "x = bytearray(60_000_000)\nfor i in range(3_000_000): pass"')
    assert ending.cpu_ms >= 50
    if site.groups.hierarchies:
        assert ending.max_memory_bytes > 60_000_000


def test_too_much_disk_ends_the_run(site: Site) -> None:
    ending = site.run(
        f"for i in 1 2 3; do head -c 600000 /dev/urandom >$i; done; sleep {NAP}.8", disk_bytes=1_000_000, grace_s=1
    )
    assert (ending.exit_code, ending.limit) == (143, "disk")
    assert "ended by its disk limit of 1,000,000 bytes" in site.log()


def test_one_file_cannot_outgrow_the_disk_limit_even_unwatched(site: Site) -> None:
    ending = site.run("exec head -c 50000000 /dev/zero >big", disk_bytes=1_000_000)
    assert (ending.exit_code, ending.limit) == (128 + signal.SIGXFSZ, "disk")
    assert (site.work() / "big").stat().st_size <= 1_001_000


def test_the_time_limit_ends_the_run_after_its_grace(site: Site) -> None:
    ending = site.run("trap 'echo saving; exit 0' TERM; while :; do sleep 0.1; done", duration_s=1, grace_s=5)
    assert ending.limit == "time"
    assert "saving" in site.log()


def test_two_hundred_at_once_all_end_well(site: Site) -> None:
    async def story(engine: ProcessEngine) -> set[int]:
        async def one(number: int) -> int:
            launch = site.launch("/bin/true", name=f"r{number}")
            await engine.start(launch)
            return (await engine.wait(launch.folder)).exit_code

        return set(await asyncio.gather(*(one(number) for number in range(200))))

    assert site.do(story) == {0}


def test_what_cannot_be_run_as_asked_is_refused_and_nothing_is_left_behind(site: Site) -> None:
    for more, code in (
        ({"image": "debian:12"}, "unplaceable"),
        ({"network": "none"}, "unplaceable"),
        ({"sandbox": "container"}, "unplaceable"),
        ({"folder": "relative"}, "invalid_request"),
    ):
        with pytest.raises(TielineError) as refused:
            site.run("true", **more)
        assert refused.value.code == code
    assert list(site.base.iterdir()) == []


def test_a_full_disk_does_not_lose_the_exit_code(site: Site) -> None:
    site.run("exit 6")
    told = (site.base / "r1" / "exit").read_text()
    assert len(told) == 512, "the space was set aside before the start"
    assert told.startswith('{"exit_code":6,')


SHELLS = [path for path in map(shutil.which, ("dash", "bash", "busybox")) if path]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_wrapper_keeps_its_promises_under_every_shell_that_is_called_sh(
    site: Site, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    monkeypatch.setattr(spawn, "SHELL", shell)
    ending = site.run('echo "$A"; exit 7', setup="echo first", envs={"A": "two\nlines", "UID": "1"})
    assert (ending.exit_code, ending.phase) == (7, "run")
    assert site.log() == "first\ntwo\nlines\n"
    assert site.run("true", setup="exit 3", name="r2").phase == "setup"
    cut = site.run("head -c 100000 /dev/zero | tr '\\0' x", log_bytes=4096, name="r3")
    assert cut.exit_code == 0
    assert site.log("r3").endswith("x\n[tieline] the log is cut here, at its limit of 4096 bytes\n")
    late = site.run(f"sleep {NAP}.9 & sleep {NAP}.9", duration_s=1, grace_s=1, name="r4")
    assert (late.exit_code, late.limit) == (143, "time")
    assert living(f"{NAP}.9") == []
    assert site.run("kill -KILL $$", name="r5").exit_code == 137
    assert site.run("head -c 9000000 /dev/zero >big", disk_bytes=1_000_000, name="r6").limit == "disk"


def test_closing_the_engine_leaves_runs_alone(site: Site) -> None:
    launch = site.launch(": >begun; sleep 0.3; exit 8")

    async def start(engine: ProcessEngine) -> None:
        await engine.start(launch)
        await until(site.work() / "begun")

    site.do(start)
    assert site.do(lambda engine: engine.wait(launch.folder)).exit_code == 8
