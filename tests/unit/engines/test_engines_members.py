"""Which processes are a run's, which signals they get, and how much a folder holds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tieline.drivers.engines import members
from tieline.drivers.engines.disk import used_bytes

CATCHES = "import os, signal; signal.signal(10, lambda *a: os._exit(0)); print('ready', flush=True); signal.pause()"


@pytest.fixture
def sleeper() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield child  # type: ignore[misc]
    child.kill()
    child.wait()


def test_a_process_is_known_by_number_and_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    seen = members.process(sleeper.pid)
    assert seen is not None
    assert (seen.parent, seen.session, seen.group) == (os.getpid(), sleeper.pid, sleeper.pid)
    assert members.is_alive(sleeper.pid, seen.start_ticks)
    assert not members.is_alive(sleeper.pid, seen.start_ticks + 1), "the number came round again"
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not members.is_alive(sleeper.pid, seen.start_ticks), "a zombie does not run"
    assert members.process(2**30) is None


def command_lines() -> list[tuple[int, list[str]]]:
    found = []
    for pid in members.table():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if len(words) > 2 and words[1]:
            found.append((pid, words))
    return found


def test_a_session_holds_its_processes_and_those_that_left_with_its_mark() -> None:
    inside, away, gone = (f"6{number}.{os.getpid():08}" for number in range(3))  # as no other process on this machine
    script = f"sleep {inside} & setsid sleep {away} & env -i setsid sleep {gone} & echo $!; wait"
    leader = subprocess.Popen(
        ["/bin/sh", "-c", script], start_new_session=True, env={"PATH": os.environ["PATH"], "M": "1"}, stdout=-1
    )
    lines: dict[str, int] = {}
    try:
        assert leader.stdout is not None
        leader.stdout.readline()
        while len(lines) < 3:  # until each has become what it will be
            lines = {words[1]: pid for pid, words in command_lines() if words[0] == "sleep" and words[1] in script}
            time.sleep(0.01)
        known = members.process(leader.pid)
        assert known is not None
        found = set(members.of_session(leader.pid, known.start_ticks, "M=1", members.table()))
        assert {leader.pid, lines[inside], lines[away]} <= found
        assert lines[gone] not in found, "without mark and session only a control group finds it"
        wrong = members.of_session(leader.pid, known.start_ticks + 1, "", members.table())
        assert wrong == [], "another process leads a session of that number now"
        assert set(members.descendants(leader.pid, members.table())) >= {leader.pid, lines[inside]}
    finally:
        members.kill([*lines.values(), leader.pid])
        leader.wait()
        assert leader.stdout is not None
        leader.stdout.close()


def test_numbers_that_mean_many_are_never_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    signalled: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: signalled.append(pid))
    members.kill([0, 1, -1, -5, 4_000_000])
    members.send([0, 1, -1, -5, 4_000_001], signal.SIGTERM, is_sandboxed=False)
    assert signalled == [4_000_000, 4_000_001]


def test_a_checkpoint_signal_goes_only_to_who_catches_it(sleeper: subprocess.Popen[bytes]) -> None:
    catcher = subprocess.Popen([sys.executable, "-c", CATCHES], stdout=-1)
    try:
        assert catcher.stdout is not None
        catcher.stdout.readline()
        assert members.send([catcher.pid, sleeper.pid], signal.SIGUSR1, is_sandboxed=False) == 1
        assert sleeper.poll() is None
        assert catcher.wait(10) == 0
    finally:
        catcher.kill()
        catcher.wait()
        assert catcher.stdout is not None
        catcher.stdout.close()


def test_a_folder_is_measured_in_blocks_without_following_links_and_hard_links_count_once(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_bytes(b"x" * 1_000_000)
    plain = asyncio.run(used_bytes((str(tmp_path),), 10**9))
    assert 1_000_000 <= plain <= 1_100_000
    (tmp_path / "link").symlink_to("/")
    os.link(tmp_path / "deep/file", tmp_path / "twin")
    assert abs(asyncio.run(used_bytes((str(tmp_path),), 10**9)) - plain) < 10_000
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(10**12)
    assert asyncio.run(used_bytes((str(tmp_path),), 10**9)) < 1_200_000


def test_measuring_stops_once_it_is_enough_and_a_folder_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).write_bytes(b"x" * 100_000)
    assert 150_000 < asyncio.run(used_bytes((str(tmp_path),), 150_000)) < 400_000
    assert asyncio.run(used_bytes((str(tmp_path / "gone"),), 1)) == 0
