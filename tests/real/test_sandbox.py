"""Attacks from inside a sandboxed task, against real bubblewrap: what a hostile task tries, and what it gets."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tieline.drivers.engines import members, run_folder, sandbox
from tieline.drivers.engines.cgroups import Cgroups
from tieline.drivers.engines.outputs import collect_outputs
from tieline.drivers.engines.process import ProcessEngine
from tieline.model.error import TielineError
from tieline.ports import Ending, Launch

BOX = sandbox.found()
GROUPS = Cgroups.found()
T = TypeVar("T")
NAP = f"8{os.getpid()}"  # seconds that no other process on this machine sleeps: what is left of a run is found by it

pytestmark = [
    pytest.mark.debian,
    pytest.mark.skipif(not BOX.works, reason=f"no sandbox works here: {'; '.join(sorted(set(BOX.why_not.values())))}"),
]


def needs(controller: str) -> pytest.MarkDecorator:
    why = GROUPS.missing.get(controller, "")
    return pytest.mark.skipif(bool(why), reason=f"no control group for {controller}: {why}")


class Site:
    """A site's data folder with keys, another run, and an engine that sandboxes everything."""

    def __init__(self, base: Path, groups: Cgroups, processes: int) -> None:
        self.base, self.groups, self.processes = base, groups, processes
        self.secret = f"secret-of-{base.name}"
        for name in ("keys/site.key", "runs/other/work/result"):
            path = base / name
            path.parent.mkdir(parents=True)
            path.write_text(self.secret)
            path.chmod(0o644)

    def launch(self, script: str, **more: Any) -> Launch:
        known: dict[str, Any] = {"run": "r1", "node": 0, "folder": str(self.base / "runs/r1"), "setup": "", "envs": {}}
        return Launch(**known | {"sandbox": "bubblewrap", "network": "none"} | more | {"script": script})

    def do(self, story: Callable[[ProcessEngine], Awaitable[T]]) -> T:
        async def whole() -> T:
            engine = ProcessEngine(hidden=(str(self.base),), groups=self.groups, processes=self.processes)
            try:
                return await story(engine)
            finally:
                await engine.close()

        return asyncio.run(whole())

    def run(self, script: str, **more: Any) -> Ending:
        launch = self.launch(script, **more)

        async def story(engine: ProcessEngine) -> Ending:
            await engine.start(launch)
            return await engine.wait(launch.folder)

        return self.do(story)

    @property
    def log(self) -> str:
        return (self.base / "runs/r1/log").read_text()

    @property
    def work(self) -> Path:
        return self.base / "runs/r1/work"


@pytest.fixture(params=["control groups", "no control groups"] if GROUPS.hierarchies else ["no control groups"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path, GROUPS if request.param == "control groups" else Cgroups(), 64)
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def grouped_site(tmp_path: Path) -> Iterator[Site]:
    """A site with control groups."""
    yield Site(tmp_path, GROUPS, 64)
    shutil.rmtree(tmp_path, ignore_errors=True)


async def until(path: Path, text: str = "") -> None:
    """Until ``path`` is there and holds ``text``."""

    def is_there() -> bool:
        return path.exists() and (not text or text in path.read_text())

    while not is_there():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)


def living(mark: str) -> list[int]:
    found = []
    for pid in members.table():
        try:
            if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def test_a_task_works_in_its_folder_as_nobody_and_its_exit_code_is_told(site: Site) -> None:
    ending = site.run("id -u; pwd; echo made >result; exit 5", setup="echo setup")
    assert (ending.exit_code, ending.phase) == (5, "run")
    assert site.log == f"setup\n65534\n{site.work}\n"
    assert (site.work / "result").read_text() == "made\n"


def test_a_failing_setup_is_told_apart(site: Site) -> None:
    ending = site.run("echo never", setup="exit 3")
    assert (ending.exit_code, ending.phase) == (3, "setup")


def test_files_that_the_site_laid_out_can_be_changed_by_the_task(site: Site) -> None:
    (site.work / "deep").mkdir(parents=True)
    (site.work / "deep/data").write_text("old")
    assert site.run("echo new >deep/data; rm -r deep/data; mkdir deep/er").exit_code == 0


def test_keys_other_runs_and_home_folders_cannot_be_read(site: Site) -> None:
    site.run(
        f"cat {site.base}/keys/site.key; cat {site.base}/runs/other/work/result; ls -A {site.base} {site.base}/runs;"
        f"ls -A /root /home; cat /etc/shadow;"
        f"find -P {site.base} /root /home /run /tmp /mnt -name '*.key' | sed s/^/found/"
    )
    assert site.secret not in site.log
    assert "found" not in site.log
    assert "root:*" not in site.log


def test_nothing_outside_the_work_folder_can_be_written(site: Site) -> None:
    places = ["/", "/etc", "/usr/bin", "/var", "/proc/sys/kernel", "/sys", str(site.base), str(site.base / "runs/r1")]
    site.run("for place in " + " ".join(places) + "; do echo x >$place/mark-of-a-task && echo wrote $place; done; true")
    assert "wrote" not in site.log
    assert [place for place in places if Path(place, "mark-of-a-task").exists()] == []


def test_processes_of_the_host_can_neither_be_seen_nor_killed(site: Site) -> None:
    neighbour = subprocess.Popen(["sleep", f"{NAP}.1"])
    try:
        site.run(f"cat /proc/[0-9]*/cmdline | tr '\\0' ' '; kill -9 {neighbour.pid}; kill -9 -1")
        assert f"{NAP}.1" not in site.log
        assert neighbour.poll() is None
    finally:
        neighbour.kill()
        neighbour.wait()


def test_without_a_network_nothing_answers_not_even_this_machine(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as hidden:
        hidden.bind(f"\0tieline-{os.getpid()}")
        hidden.listen()
        port = server.getsockname()[1]
        attempt = (
            "import socket\n"
            f"for kind, place in ((2, ('127.0.0.1', {port})), (1, chr(0) + 'tieline-{os.getpid()}')):\n"
            "    try: socket.socket(kind).connect(place); print('reached')\n"
            "    except OSError as error: print('refused')\n"
            "print(sorted(name for _, name in socket.if_nameindex()))"
        )
        readable = tuple(dict.fromkeys((sys.base_prefix, sys.prefix)))
        assert site.run(f'{sys.executable} -c "{attempt}"', readable=readable).exit_code == 0
        assert site.log.splitlines()[:2] == ["refused", "refused"]
        assert "eth" not in site.log


@pytest.mark.skipif("host" not in BOX.networks, reason=f"no sandbox with the host's network: {BOX.why_not.get('host')}")
def test_with_the_hosts_network_a_server_here_is_reached(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        attempt = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]})); print('reached')"
        readable = tuple(dict.fromkeys((sys.base_prefix, sys.prefix)))
        site.run(f'{sys.executable} -c "{attempt}"', readable=readable, network="host")
        assert site.log == "reached\n"


@needs("pids")
def test_a_fork_bomb_is_bounded_and_ends_with_the_run(grouped_site: Site) -> None:
    ending = grouped_site.run(f"exec sh -c 'while :; do sleep {NAP}.2 & echo one; done'")
    assert "Cannot fork" in grouped_site.log
    assert ending.exit_code != 0
    assert 30 < grouped_site.log.count("one") < 64
    assert living(f"{NAP}.2") == []


@needs("memory")
def test_a_memory_bomb_over_several_processes_is_killed_and_said_so(grouped_site: Site) -> None:
    hog = f"for i in 1 2 3 4; do (x=$(head -c 40000000 /dev/zero | tr '\\0' x); sleep {NAP}.3) & done; wait; exit 1"
    ending = grouped_site.run(hog, memory_bytes=64_000_000)
    assert ending.limit == "memory"
    assert "[tieline] ended by its memory limit of 64,000,000 bytes" in grouped_site.log
    assert living(f"{NAP}.3") == []


@needs("memory")
def test_shared_memory_counts_and_is_bounded(grouped_site: Site) -> None:
    grouped_site.run("head -c 200000000 /dev/zero >/dev/shm/hog; stat -c %s /dev/shm/hog", memory_bytes=64_000_000)
    assert living("/dev/shm/hog") == []
    assert "200000000" not in grouped_site.log.splitlines()


def test_a_double_forked_daemon_dies_with_the_run(site: Site) -> None:
    ending = site.run(f"(setsid sh -c 'exec sleep {NAP}.4' </dev/null >/dev/null 2>&1 &) ; sleep 0.05; exit 6")
    assert ending.exit_code == 6
    assert living(f"{NAP}.4") == []


def test_killing_everything_it_can_reach_a_task_kills_only_itself(site: Site) -> None:
    ending = site.run(f"kill -9 0; kill -9 -1; kill -9 1; kill -9 $PPID; sleep {NAP}.5")
    assert ending.exit_code == 137
    assert living(f"{NAP}.5") == []


def test_no_privilege_is_held_and_none_can_be_gained(site: Site) -> None:
    site.run("grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t' ' '")
    lines = dict(line.split(": ") for line in site.log.splitlines())
    assert {int(lines[f"Cap{name}"], 16) for name in ("Inh", "Prm", "Eff", "Amb")} == {0}
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")


def test_what_hides_the_sites_folders_cannot_be_taken_away(site: Site) -> None:
    site.run(
        f"unshare -Urm umount {site.base}; unshare -Ur id; umount -l {site.base}; nsenter -t 1 -m ls {site.base};"
        f"cat {site.base}/keys/site.key; ls {site.base}/keys"
    )
    assert site.secret not in site.log
    assert "site.key\n" not in site.log.replace(f"{site.base}/keys/site.key", "")


def test_the_kernels_key_rings_are_out_of_reach(site: Site) -> None:
    call = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True);"
        "print(libc.syscall(NUMBER, 0, -3, 1), ctypes.get_errno())"
    )
    number = {"x86_64": "250", "aarch64": "219"}.get(os.uname().machine)
    if number is None:
        pytest.skip(f"no system call numbers for {os.uname().machine}")
    readable = tuple(dict.fromkeys((sys.base_prefix, sys.prefix)))
    site.run(f'{sys.executable} -c "{call.replace("NUMBER", number)}"', readable=readable)
    assert site.log == "-1 1\n"


def test_no_descriptor_of_the_wrapper_is_left_open_and_no_disk_is_a_device_here(site: Site) -> None:
    site.run("readlink /proc/$$/fd/* /proc/self/fd/*; ls /dev; hostname")
    lines = site.log.splitlines()
    opened = {line for line in lines if "/" in line or ":" in line}
    allowed = {"/dev/null", f"{site.base}/runs/r1/run.sh"}
    assert {line for line in opened - allowed if not line.startswith(("pipe:", "/proc/"))} == set()
    assert len({line for line in opened if line.startswith("pipe:")}) == 1, "the log's, for writing"
    assert not {"vda", "sda", "nvme0n1", "mem", "kmsg"} & set(lines)
    assert socket.gethostname() not in lines


def seen_outside(where: str) -> list[str]:
    """The environment of every process of the run that is not the task's, and all argument vectors."""
    who = run_folder.identity(where)
    outside = [run_folder.task(where), run_folder.sandbox_init(where), who.pid if who else 1]
    vectors = [Path(f"/proc/{pid}/cmdline") for pid in members.table()]
    return [
        *(Path(f"/proc/{pid}/environ").read_text() for pid in outside),
        *(path.read_text() for path in vectors if path.exists()),
    ]


def test_the_tasks_environment_acts_inside_only(site: Site) -> None:
    envs = {
        "LD_PRELOAD": str(site.work / "evil.so"),
        "BASH_ENV": str(site.work / "evil.sh"),
        "SECRET": f"value-{NAP}.6",
    }
    launch = site.launch("echo >begun; sleep 60", envs=envs)

    async def story(engine: ProcessEngine) -> list[str]:
        await engine.start(launch)
        await until(site.work / "begun")
        seen = seen_outside(launch.folder)
        await engine.stop(launch.folder, 5)
        return seen

    assert [text for text in site.do(story) if f"{NAP}.6" in text or "evil.so" in text] == []


def test_readable_folders_are_seen_and_cannot_be_written(site: Site) -> None:
    shared = site.base / "shared" / "data"
    shared.mkdir(parents=True)
    (shared / "set").write_text("numbers")
    shared.chmod(0o777)
    site.run(f"cat {shared}/set; echo x >{shared}/new || echo refused; ls {site.base}/keys", readable=(str(shared),))
    assert site.log.startswith("numbers")
    assert "refused" in site.log
    assert "site.key\n" not in site.log
    assert not (shared / "new").exists()


def test_an_output_that_links_out_of_the_work_folder_is_not_collected(site: Site) -> None:
    site.run(
        f"mkdir out; ln -s {site.base}/keys/site.key out/key; ln -s {site.base}/keys out/keys; ln -s / out/root;"
        "mkfifo out/pipe; echo fine >out/fine; ln -s fine out/link"
    )
    assert [found.path for found in collect_outputs(str(site.work), ("out/**",))] == ["out/fine"]


def test_a_sandboxed_run_is_stopped_with_grace_and_a_checkpoint_signal_reaches_it(site: Site) -> None:
    launch = site.launch(
        "trap 'echo checkpoint' USR1; trap 'echo saved; exit 0' TERM; : >begun;"
        "while :; do read -t 0.05; done </dev/zero"
    )

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        await until(site.work / "begun")
        await engine.signal(launch.folder, signal.SIGUSR1)
        await until(site.base / "runs/r1/log", "checkpoint")
        return await engine.stop(launch.folder, 10)

    assert site.do(story).exit_code == 0
    assert site.log == "checkpoint\nsaved\n"


def test_a_sandboxed_run_that_ignores_the_stop_is_killed(site: Site) -> None:
    launch = site.launch(f"trap '' TERM; : >begun; while :; do sleep {NAP}.7; done")

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        await until(site.work / "begun")
        return await engine.stop(launch.folder, 0.2)

    assert site.do(story).exit_code == 137
    assert living(f"{NAP}.7") == []


def test_a_sandboxed_run_whose_wrapper_is_killed_leaves_nothing(site: Site) -> None:
    launch = site.launch(f": >begun; setsid sleep {NAP}.8 & sleep {NAP}.8")

    async def story(engine: ProcessEngine) -> Ending:
        await engine.start(launch)
        await until(site.work / "begun")
        who = run_folder.identity(launch.folder)
        assert who is not None
        os.kill(who.pid, signal.SIGKILL)
        return await engine.wait(launch.folder)

    assert site.do(story).exit_code == 137
    assert living(f"{NAP}.8") == []


OWNER = """
import asyncio, os, signal, sys
from tieline.drivers.engines.cgroups import Cgroups
from tieline.drivers.engines.process import ProcessEngine
from tieline.ports import Launch

async def main(base, groups, script, duration_s):
    engine = ProcessEngine(hidden=(base,), groups=Cgroups.found() if groups == "yes" else Cgroups())
    await engine.start(Launch(run="r1", node=0, folder=base + "/runs/r1", setup="", script=script, envs={},
                              sandbox="bubblewrap", network="none", duration_s=int(duration_s), grace_s=1))
    while not os.path.exists(base + "/runs/r1/work/begun"):
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


def start_and_die(site: Site, script: str, duration_s: int = 0) -> None:
    words = [sys.executable, "-c", OWNER, str(site.base), "yes" if site.groups.hierarchies else "no", script]
    assert subprocess.run([*words, str(duration_s)], check=False, timeout=60).returncode == -signal.SIGKILL


def test_a_sandboxed_run_survives_the_death_of_the_site_process_and_is_adopted(site: Site) -> None:
    start_and_die(site, ": >begun; sleep 0.4; echo done; exit 9")
    launch = site.launch("echo never")

    async def story(engine: ProcessEngine) -> Ending:
        assert run_folder.exited(launch.folder) is None
        await engine.start(launch)
        return await engine.wait(launch.folder)

    assert site.do(story).exit_code == 9
    assert site.log == "done\n"


def test_the_time_limit_of_a_sandboxed_run_holds_while_no_site_process_lives(site: Site) -> None:
    start_and_die(
        site, f": >begun; trap '' TERM; (setsid sleep {NAP}.9 &); while :; do sleep {NAP}.9; done", duration_s=1
    )
    deadline = time.monotonic() + 20
    while run_folder.exited(str(site.base / "runs/r1")) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert living(f"{NAP}.9") == []
    ending = site.do(lambda engine: engine.wait(str(site.base / "runs/r1")))
    assert (ending.exit_code, ending.limit) == (137, "time")


def test_untrusted_work_is_refused_where_no_sandbox_works(tmp_path: Path) -> None:
    async def story() -> None:
        engine = ProcessEngine(box=sandbox.Sandbox(why_not={"none": "not here", "host": "not here"}), groups=Cgroups())
        assert engine.offers()["sandbox"] == ""
        assert engine.offers()["networks"] == "host"
        launch = Launch(
            run="r1", node=0, folder=str(tmp_path / "r1"), setup="", script="echo", envs={}, sandbox="bubblewrap"
        )
        with pytest.raises(TielineError, match="no sandbox works here: not here") as refused:
            await engine.start(launch)
        assert refused.value.reasons[0].code == "sandbox_missing"

    asyncio.run(story())
    assert list(tmp_path.iterdir()) == []
