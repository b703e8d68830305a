"""The container engine against a real podman, with an image made here from a static busybox."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tieline.drivers.engines import run_folder, runtime
from tieline.drivers.engines.beside import beside
from tieline.drivers.engines.container import ContainerEngine
from tieline.drivers.siteprocess.shells import Command
from tieline.model.error import TielineError
from tieline.model.relay import Purpose, Summons
from tieline.ports import Ending, Launch

FOUND = runtime.found()
BUSYBOX = shutil.which("busybox")
IMAGE = f"localhost/tieline-test-of-the-container-engine:{os.getpid()}"  # two who test on one machine share its images
APPLETS = ("cat", "echo", "env", "grep", "head", "id", "kill", "ls", "readlink", "sh", "sleep", "tr", "true", "wc")
T = TypeVar("T")

pytestmark = [
    pytest.mark.debian,
    pytest.mark.skipif(
        FOUND.kind != "podman", reason=f"no podman works here: {FOUND.why_not.get('podman', FOUND.kind)}"
    ),
    pytest.mark.skipif(not BUSYBOX, reason="no busybox to make an image of (Debian: busybox-static)"),
]


@pytest.fixture(scope="module", autouse=True)
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An image that holds nothing but busybox."""
    path = tmp_path_factory.mktemp("image") / "image.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("bin/busybox")
        content = Path(str(BUSYBOX)).read_bytes()
        info.size, info.mode = len(content), 0o755
        archive.addfile(info, io.BytesIO(content))
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name in ("tmp", "etc"):
            made = tarfile.TarInfo(name)
            made.type, made.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(made)
    subprocess.run(FOUND.words("import", str(path), IMAGE), check=True, capture_output=True, timeout=120)
    yield
    subprocess.run(FOUND.words("rmi", "--force", IMAGE), check=False, capture_output=True, timeout=120)


class Site:
    """A folder for runs and engines over it."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def launch(self, script: str, **more: Any) -> Launch:
        known: dict[str, Any] = {"run": "r1", "node": 0, "folder": str(self.base / "r1"), "setup": "", "envs": {}}
        return Launch(**known | {"sandbox": "container", "network": "none", "image": IMAGE} | more | {"script": script})

    def do(self, story: Callable[[ContainerEngine], Awaitable[T]]) -> T:
        async def whole() -> T:
            engine = ContainerEngine()
            try:
                return await story(engine)
            finally:
                await engine.close()

        return asyncio.run(whole())

    def run(self, script: str, **more: Any) -> Ending:
        launch = self.launch(script, **more)

        async def story(engine: ContainerEngine) -> Ending:
            await engine.start(launch)
            return await engine.wait(launch.folder)

        return self.do(story)

    @property
    def log(self) -> str:
        return (self.base / "r1/log").read_text()

    @property
    def work(self) -> Path:
        return self.base / "r1/work"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path)
    known = run_folder.setting(str(tmp_path / "r1"))
    left = subprocess.run(
        FOUND.words("ps", "--all", "--format", "{{.Names}}"), capture_output=True, text=True, check=True
    )
    shutil.rmtree(tmp_path, ignore_errors=True)
    assert known is None or known.container not in left.stdout, "no container is left behind"


async def until(path: Path) -> None:
    def is_there() -> bool:
        return path.exists()

    while not is_there():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.01)


def test_an_image_runs_with_its_exit_code_its_log_and_its_files(site: Site) -> None:
    ending = site.run("cat made; echo result >out; exit 5", setup="echo from setup >made")
    assert (ending.exit_code, ending.phase, ending.limit) == (5, "run", "")
    assert site.log == "from setup\n"
    assert (site.work / "out").read_text() == "result\n"


def test_a_failing_setup_is_told_apart(site: Site) -> None:
    ending = site.run("echo never", setup="exit 3")
    assert (ending.exit_code, ending.phase) == (3, "setup")


def test_an_image_that_is_nowhere_fails_and_says_so(site: Site) -> None:
    assert site.run("true", image="localhost/tieline-no-such-image:1").exit_code == 125
    assert "tieline-no-such-image" in site.log


def seen_outside(site: Site) -> list[str]:
    """All argument vectors, what podman tells of the container, and every file of the run but its log."""
    known = run_folder.setting(str(site.base / "r1"))
    assert known is not None
    told = subprocess.run(FOUND.words("inspect", known.container), capture_output=True, text=True, check=True)
    vectors = [path.read_bytes().decode("utf-8", "replace") for path in Path("/proc").glob("[0-9]*/cmdline")]
    files = [path.read_text() for path in site.base.rglob("*") if path.is_file() and path.name != "log"]
    return [told.stdout, *vectors, *files]


def test_the_environment_goes_in_unseen_and_whole(site: Site) -> None:
    secret = "s3cr3t 'of' \"this\" $test\nwith two lines"
    launch = site.launch("env; : >begun; sleep 60", envs={"KEY": secret})

    async def story(engine: ContainerEngine) -> list[str]:
        await engine.start(launch)
        await until(site.work / "begun")
        seen = seen_outside(site)
        await engine.stop(launch.folder, 5)
        return seen

    seen = site.do(story)
    assert f"KEY={secret}\n" in site.log
    assert [text for text in seen if "s3cr3t" in text] == []


def test_nothing_of_the_machine_is_seen_but_what_was_mounted(site: Site) -> None:
    (site.base / "key").write_text("secret of the site")
    readable = site.base / "data"
    readable.mkdir()
    (readable / "set").write_text("numbers\n")
    site.run(
        f"cat {readable}/set; echo x >{readable}/new; cat {site.base}/key; ls {site.base}; ls /proc | grep -c '^[0-9]';"
        "grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status | tr -s '\\t' ' '; ls -A /root /home",
        readable=(str(readable),),
    )
    assert site.log.startswith("numbers\n")
    assert "secret" not in site.log
    assert "NoNewPrivs: 1" in site.log
    assert not (readable / "new").exists()


def test_without_a_network_only_the_loopback_is_there(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        site.run("ls /sys/class/net")
        assert site.log.split() in (["lo"], [])
        del server


def test_a_memory_bomb_is_killed_and_said_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    here = site.base / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    ending = site.run("x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo never", memory_bytes=32_000_000)
    assert (ending.exit_code, ending.limit) == (137, "memory")
    assert "[tieline] ended by its memory limit of 32,000,000 bytes" in site.log
    assert list(here.iterdir()) == []  # podman's monitor leaves a note where it was started


def test_a_part_that_the_kernel_killed_is_told_where_the_rest_failed_for_it(site: Site) -> None:
    ending = site.run("sh -c 'x=$(head -c 100000000 /dev/zero | tr \\\\0 x)' || exit 4", memory_bytes=32_000_000)
    assert ending.exit_code in (4, 137)  # the kernel may take the rest too
    assert ending.limit == "memory"


def test_memory_that_no_process_holds_ends_a_run_and_is_said_so(site: Site) -> None:
    fill = "head -c 60000000 /dev/zero >/dev/shm/full && head -c 60000000 /dev/zero >/dev/shm/more; exit 4"
    ending = site.run(fill, memory_bytes=32_000_000)
    assert ending.exit_code in (4, 137)  # every process may have to go, the first one too: the files stay
    assert ending.limit == "memory"


def test_the_kernel_kills_every_part_of_a_task_before_the_process_that_tells_of_it(site: Site) -> None:
    site.run("read own </proc/self/oom_score_adj; read first </proc/1/oom_score_adj; echo $((own - first))")
    assert int(site.log) >= 300


def test_a_stop_is_no_memory_limit_though_a_part_was_killed_by_it_before(site: Site) -> None:
    first_to_go = "echo 1000 >/proc/self/oom_score_adj"
    part = f"{first_to_go}; x=$(head -c 100000000 /dev/zero | tr \\\\0 x)"
    launch = site.launch(f"sh -c '{part}'; : >begun; sleep 60", memory_bytes=32_000_000)

    async def story(engine: ContainerEngine) -> Ending:
        await engine.start(launch)
        await until(site.work / "begun")
        return await engine.stop(launch.folder, 5)

    ending = site.do(story)
    assert (ending.exit_code, ending.limit) == (143, "")


def test_stop_gives_grace_to_programs_and_their_shells(site: Site) -> None:
    launch = site.launch("sh -c \"trap 'echo saved; exit 0' TERM; : >begun; while :; do sleep 0.05; done\"; echo after")

    async def story(engine: ContainerEngine) -> Ending:
        await engine.start(launch)
        await until(site.work / "begun")
        return await engine.stop(launch.folder, 20)

    assert site.do(story).exit_code == 143
    assert "saved\n" in site.log
    assert "after" not in site.log


def test_stop_kills_what_ignores_it(site: Site) -> None:
    launch = site.launch("trap '' TERM; : >begun; while :; do sleep 1; done")

    async def story(engine: ContainerEngine) -> Ending:
        await engine.start(launch)
        await until(site.work / "begun")
        return await engine.stop(launch.folder, 0.3)

    assert site.do(story).exit_code == 137


def test_a_checkpoint_signal_reaches_the_program_that_waits_for_it_alone(site: Site) -> None:
    launch = site.launch('sh -c "trap \'exit 6\' USR1; : >begun; while :; do sleep 0.05; done"; echo "it said $?"')

    async def story(engine: ContainerEngine) -> Ending:
        await engine.start(launch)
        await until(site.work / "begun")
        await engine.signal(launch.folder, signal.SIGUSR1)
        return await engine.wait(launch.folder)

    assert site.do(story).exit_code == 0
    assert site.log == "it said 6\n"


OWNER = """
import asyncio, os, signal, sys
from tieline.drivers.engines.container import ContainerEngine
from tieline.ports import Launch

async def main(base, image, script, duration_s):
    await ContainerEngine().start(Launch(run="r1", node=0, folder=base + "/r1", setup="", script=script, envs={},
        sandbox="container", network="none", image=image, duration_s=int(duration_s), grace_s=1))
    while not os.path.exists(base + "/r1/work/begun"):
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


def start_and_die(site: Site, script: str, duration_s: int = 0) -> None:
    words = [sys.executable, "-c", OWNER, str(site.base), IMAGE, script, str(duration_s)]
    assert subprocess.run(words, check=False, timeout=60).returncode == -signal.SIGKILL


def test_a_container_survives_the_death_of_the_site_process_and_is_adopted(site: Site) -> None:
    start_and_die(site, ": >begun; sleep 1; echo done; exit 9")
    launch = site.launch("echo never")

    async def story(engine: ContainerEngine) -> Ending:
        assert run_folder.exited(launch.folder) is None
        await engine.start(launch)
        return await engine.wait(launch.folder)

    assert site.do(story).exit_code == 9
    assert site.log == "done\n"


def test_the_time_limit_holds_while_no_site_process_lives(site: Site) -> None:
    start_and_die(site, "trap '' TERM; : >begun; while :; do sleep 1; done", duration_s=1)
    ending = site.do(lambda engine: engine.wait(str(site.base / "r1")))
    assert (ending.exit_code, ending.limit) == (137, "time")


def test_a_killed_wrapper_is_137_and_its_container_is_removed(site: Site) -> None:
    launch = site.launch(": >begun; while :; do sleep 1; done")

    async def story(engine: ContainerEngine) -> Ending:
        await engine.start(launch)
        await until(site.work / "begun")
        who = run_folder.identity(launch.folder)
        assert who is not None
        os.kill(who.pid, signal.SIGKILL)
        return await engine.wait(launch.folder)

    assert site.do(story).exit_code == 137


def test_what_is_no_name_of_an_image_is_refused(site: Site) -> None:
    for image in ("", "--privileged", "a b", "x;reboot"):
        with pytest.raises(TielineError, match="no name of an image"):
            site.run("true", image=image)
    assert list(site.base.iterdir()) == []


def test_a_command_runs_beside_a_run_in_its_container(site: Site) -> None:
    launch = site.launch("echo mine >note; sleep 600")

    async def beside_it(engine: ContainerEngine, *words: str) -> tuple[str, str, int]:
        how = beside(engine, launch.folder, command=words)
        told = Summons(stream="0" * 32, site="s", purpose=Purpose.SHELL, run="r1", who="alice", until_ms=0)
        command = await Command.start(how, told)
        try:
            command.close_input()
            async with asyncio.timeout(120):
                out, errors = await asyncio.gather(*(reader.read() for _, reader in command.outputs))
                return out.decode(), errors.decode(), await command.process.wait()
        finally:
            await command.end()

    async def story(engine: ContainerEngine) -> None:
        await engine.start(launch)
        await until(site.work / "note")
        out, errors, code = await beside_it(engine, "sh", "-c", "cat note; echo no >&2; ls /bin | grep -c .; exit 7")
        assert (out, errors, code) == (f"mine\n{len(APPLETS) + 1}\n", "no\n", 7)
        with pytest.raises(TielineError) as caught:
            beside(engine, launch.folder, command=(), port=80)
        assert caught.value.code == "unplaceable"
        await engine.stop(launch.folder, 0.1)

    site.do(story)
