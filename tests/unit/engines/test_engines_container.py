"""The container engine against stand-ins of the clients (shell scripts that note how they were called and run the
task's shell on this machine). What real ones do is tested in `tests/real/test_container_engine.py`.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tieline.drivers.engines import run_folder, runtime
from tieline.drivers.engines.cgroups import Cgroups
from tieline.drivers.engines.container import ContainerEngine
from tieline.drivers.engines.runtime import Runtime
from tieline.model.error import TielineError
from tieline.ports import Ending, Launch

T = TypeVar("T")

# A stand-in, not a container runtime: `run` and `exec` start the words after the image here, without isolation.
STAND_IN = """#!/bin/sh
here=${0%/*}
{ for word; do printf '%s\\035' "$word"; done; printf '\\036'; } >>"$here/calls"
case $1 in
  version) [ -e "$here/server" ] && echo 27.0 || { echo 'Cannot connect to the server' >&2; exit 1; } ;;
  --version) echo 'stand-in 1.0' ;;
  run | exec)
    while [ $# -gt 0 ] && [ "$1" != -c ]; do
      [ "$1" != /bin/sh ] || is_entry=yes
      shift
    done
    echo $$ >"$here/pid"
    exec /bin/sh "$@" ;;
  kill) shift 2; kill -"$1" "$(cat "$here/pid")" ;;
  inspect) echo true ;;
  rm) : ;;
esac
"""


class Client:
    """A stand-in on disk."""

    def __init__(self, base: Path, kind: str) -> None:
        base.mkdir()
        self.path = base / kind
        self.path.write_text(STAND_IN)
        self.path.chmod(0o755)
        self.kind = kind

    @property
    def runtime(self) -> Runtime:
        return Runtime(self.kind, str(self.path), "stand-in 1.0", networks=("host", "none"))

    @property
    def calls(self) -> list[list[str]]:
        text = (self.path.parent / "calls").read_text()
        return [call.split("\x1d")[:-1] for call in text.split("\x1e")[:-1]]

    def call(self, verb: str) -> list[str]:
        return next(call for call in self.calls if call[0] == verb)


@pytest.fixture(params=["docker", "podman", "apptainer"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    return Client(tmp_path / "bin", request.param)


@pytest.fixture
def docker(tmp_path: Path) -> Client:
    return Client(tmp_path / "bin", "docker")


def launch(tmp_path: Path, script: str, **more: Any) -> Launch:
    known: dict[str, Any] = {"run": "r1", "node": 0, "folder": str(tmp_path / "r1"), "setup": "", "envs": {}}
    return Launch(**known | {"sandbox": "container", "image": "debian:12"} | more | {"script": script})


def do(client: Client, story: Callable[[ContainerEngine], Awaitable[T]]) -> T:
    async def whole() -> T:
        engine = ContainerEngine(containers=client.runtime, groups=Cgroups(), processes=500)
        try:
            return await story(engine)
        finally:
            await engine.close()

    return asyncio.run(whole())


def run(client: Client, tmp_path: Path, script: str, **more: Any) -> Ending:
    asked = launch(tmp_path, script, **more)

    async def story(engine: ContainerEngine) -> Ending:
        await engine.start(asked)
        return await engine.wait(asked.folder)

    return do(client, story)


def test_setup_and_run_tell_exit_code_phase_log_and_environment(client: Client, tmp_path: Path) -> None:
    envs = {"KEY": "two\nlines", "PATH": "/usr/bin:/bin"}
    ending = run(client, tmp_path, 'cat made; echo "$KEY"; exit 4', setup="echo from setup >made", envs=envs)
    assert (ending.exit_code, ending.phase) == (4, "run")
    assert (tmp_path / "r1/log").read_text() == "from setup\ntwo\nlines\n"
    failed = run(client, tmp_path, "echo never", setup="exit 3", folder=str(tmp_path / "r2"))
    assert (failed.exit_code, failed.phase) == (3, "setup")


def test_no_value_of_the_environment_is_on_an_argument_vector(client: Client, tmp_path: Path) -> None:
    run(client, tmp_path, "true", envs={"KEY": "s3cr3t"})
    assert "s3cr3t" not in str(client.calls)
    holding = [path for path in (tmp_path / "r1").rglob("*") if path.is_file() and "s3cr3t" in path.read_text()]
    assert holding == []


def test_a_server_is_told_every_limit_and_gives_as_little_as_works(docker: Client, tmp_path: Path) -> None:
    run(
        docker,
        tmp_path,
        "true",
        network="none",
        memory_bytes=10**9,
        core_count=3,
        disk_bytes=10**8,
        readable=("/usr",),
        devices=(2, 0),
        vendor="nvidia",
        setup="true",
    )
    call = docker.call("run")
    text = " ".join(call[: call.index("-c")])
    base = tmp_path / "r1"
    for words in (
        f"--name {run_folder.setting(str(base)).container} --interactive --log-driver none",  # type: ignore[union-attr]
        "--network none --hostname run",
        "--cap-drop ALL --security-opt no-new-privileges --pids-limit 500",
        "--memory 1000000000 --memory-swap 1000000000",
        "--cpus 3",
        "--ulimit fsize=100000000:100000000",
        f"--mount type=bind,src={base}/work,dst={base}/work ",
        f"--mount type=bind,src={base}/tmp,dst=/tmp ",
        f"--mount type=bind,src={base}/run.sh,dst={base}/run.sh,ro",
        f"--mount type=bind,src={base}/setup.sh,dst={base}/setup.sh,ro",
        "--mount type=bind,src=/usr,dst=/usr,ro",
        '--gpus "device=0,2"',
        "--entrypoint /bin/sh debian:12",
    ):
        assert words in text
    assert "--privileged" not in text
    assert [call[0] for call in docker.calls] == ["run", "rm"]


def test_podman_names_devices_by_the_container_device_interface(tmp_path: Path) -> None:
    podman = Client(tmp_path / "bin", "podman")
    run(podman, tmp_path, "echo $CUDA_VISIBLE_DEVICES", devices=(3, 1), vendor="nvidia")
    assert "--device\nnvidia.com/gpu=1\n--device\nnvidia.com/gpu=3" in "\n".join(podman.call("run"))
    assert (tmp_path / "r1/log").read_text() == "0,1\n", "the container holds only these two"


def test_apptainer_is_given_binds_and_no_network(tmp_path: Path) -> None:
    apptainer = Client(tmp_path / "bin", "apptainer")
    run(apptainer, tmp_path, "true", network="none", devices=(0,), vendor="amd")
    call = " ".join(apptainer.call("exec"))
    base = tmp_path / "r1"
    for words in (
        "exec --containall --cleanenv --writable-tmpfs",
        f"--bind {base}/work:{base}/work:rw",
        f"--bind {base}/run.sh:{base}/run.sh:ro",
        "--net --network none",
        "--rocm",
        "docker://debian:12 /bin/sh -c",
    ):
        assert words in call


def test_memory_that_the_runtime_saw_run_out_is_the_limit_that_ended_it(docker: Client, tmp_path: Path) -> None:
    ending = run(docker, tmp_path, "kill -KILL $$", memory_bytes=10**8)
    assert (ending.exit_code, ending.limit) == (137, "memory")
    assert "memory limit of 100,000,000 bytes" in (tmp_path / "r1/log").read_text()


def test_stop_signals_through_the_client_and_takes_the_container_away(docker: Client, tmp_path: Path) -> None:
    asked = launch(tmp_path, "trap 'exit 0' TERM; : >begun; while :; do sleep 0.05; done")

    async def story(engine: ContainerEngine) -> Ending:
        await engine.start(asked)
        while not (tmp_path / "r1/work/begun").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        return await engine.stop(asked.folder, 10)

    assert do(docker, story).exit_code == 0
    name = run_folder.setting(asked.folder).container  # type: ignore[union-attr]
    assert ["kill", "--signal", "15", name] in docker.calls
    assert docker.calls[-1] == ["rm", "--force", name]


OWNER = """
import asyncio, os, signal, sys
from tieline.drivers.engines.cgroups import Cgroups
from tieline.drivers.engines.container import ContainerEngine
from tieline.drivers.engines.runtime import Runtime
from tieline.ports import Launch

async def main(kind, program, base):
    engine = ContainerEngine(containers=Runtime(kind, program, networks=("host",)), groups=Cgroups())
    await engine.start(Launch(run="r1", node=0, folder=base, setup="", script=": >begun; sleep 0.4; exit 9", envs={},
                              sandbox="container", image="debian:12"))
    while not os.path.exists(os.path.join(base, "work", "begun")):
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_container_is_adopted_after_the_death_of_the_site_process(client: Client, tmp_path: Path) -> None:
    words = [sys.executable, "-c", OWNER, client.kind, str(client.path), str(tmp_path / "r1")]
    assert subprocess.run(words, check=False, timeout=60).returncode == -signal.SIGKILL
    asked = launch(tmp_path, "echo never")

    async def story(engine: ContainerEngine) -> Ending:
        await engine.start(asked)
        return await engine.wait(asked.folder)

    assert do(client, story).exit_code == 9
    assert len([call for call in client.calls if call[0] in ("run", "exec")]) == 1


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"image": "--privileged"}, "invalid_task"),
        ({"image": ""}, "invalid_task"),
        ({"sandbox": "none"}, "unplaceable"),
        ({"network": "lan"}, "unplaceable"),
        ({"folder": "/runs/a,b"}, "invalid_request"),
    ],
)
def test_what_cannot_be_run_as_asked_is_refused(
    docker: Client, tmp_path: Path, more: dict[str, str], code: str
) -> None:
    with pytest.raises(TielineError) as refused:
        run(docker, tmp_path, "true", **more)
    assert refused.value.code == code
    assert not (tmp_path / "r1").exists()


def test_where_no_runtime_works_nothing_is_offered_and_the_reasons_are_told(tmp_path: Path) -> None:
    async def story() -> None:
        none = Runtime(why_not={"podman": "not installed", "docker": "no server"})
        engine = ContainerEngine(containers=none, groups=Cgroups())
        assert engine.offers() == {}
        assert engine.why_not["docker"] == "no server"
        with pytest.raises(
            TielineError, match=r"no container runtime works here \(podman: not installed; docker"
        ) as seen:
            await engine.start(launch(tmp_path, "true"))
        assert seen.value.reasons[0].code == "image_not_offered"

    asyncio.run(story())


def test_a_client_without_its_server_is_not_offered_and_one_with_it_is(
    docker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{docker.path.parent}:/nowhere")
    runtime.found.cache_clear()
    try:
        found = runtime.found()
        assert not found.works
        assert found.why_not == {
            "podman": "not installed",
            "docker": "Cannot connect to the server",
            "apptainer": "not installed",
        }
        (docker.path.parent / "server").touch()
        runtime.found.cache_clear()
        assert (runtime.found().kind, runtime.found().networks) == ("docker", ("host", "none"))
    finally:
        runtime.found.cache_clear()
