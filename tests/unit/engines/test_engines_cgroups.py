"""Control groups: found in both versions, limits in the right files, use read back.

The trees are stand-ins laid out in a folder as the kernel lays them out; the real ones are used by the process engine's
own tests.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tieline.drivers.engines import cgroups
from tieline.drivers.engines.cgroups import Cgroups

LINE = "{number} 1 0:{number} {root} {point} rw,relatime - {kind} {kind} rw,{options}\n"


def stand_in(tmp_path: Path, mounts: list[tuple[str, str, str]], own: str) -> tuple[Path, Path]:
    """A process folder and the folder of mounts; each mount is (name, kind, controller)."""
    proc, tree = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    lines, groups = "", ""
    for number, (name, kind, controller) in enumerate(mounts, start=30):
        (tree / name / own.lstrip("/")).mkdir(parents=True)
        lines += LINE.format(number=number, root="/", point=tree / name, kind=kind, options=controller)
        groups += f"{0 if kind == 'cgroup2' else number}:{controller if kind == 'cgroup' else ''}:{own}\n"
    (proc / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + lines)
    (proc / "cgroup").write_text(groups)
    return proc, tree


def version_2(tmp_path: Path, controllers: str = "cpu memory pids", processes: str = "") -> tuple[Path, Path]:
    proc, tree = stand_in(tmp_path, [("unified", "cgroup2", "nsdelegate")], "/site.service")
    home = tree / "unified/site.service"
    for folder in (home, home / cgroups.PARENT):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text(controllers)
        (folder / "cgroup.procs").write_text(processes)
    return proc, home


def test_version_1_groups_are_made_below_the_sites_own_with_their_limits(tmp_path: Path) -> None:
    proc, tree = stand_in(tmp_path, [(name, "cgroup", name) for name in cgroups.CONTROLLERS], "/site")
    found = Cgroups.found(str(proc))
    assert found.versions() == dict.fromkeys(cgroups.CONTROLLERS, "cgroup v1")
    for controller, files in {
        "memory": ("memory.limit_in_bytes",),
        "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
        "pids": ("pids.max",),
    }.items():
        group = tree / controller / "site/tieline/run"
        group.mkdir(parents=True)
        for file in files:
            (group / file).touch()
    folders = found.create("run", memory_bytes=1000, core_count=3, processes=64, is_accounted=True)
    assert folders == tuple(str(tree / name / "site/tieline/run") for name in ("pids", "memory", "cpu", "cpuacct"))
    assert (tree / "memory/site/tieline/run/memory.limit_in_bytes").read_text() == "1000"
    assert (tree / "cpu/site/tieline/run/cpu.cfs_quota_us").read_text() == "300000"
    assert (tree / "pids/site/tieline/run/pids.max").read_text() == "64"
    assert not (tree / "memory/site/tieline/run/memory.memsw.limit_in_bytes").exists(), (
        "a kernel without swap accounting"
    )


def test_version_2_keeps_all_limits_in_one_group_and_kills_it_whole(tmp_path: Path) -> None:
    proc, home = version_2(tmp_path)
    found = Cgroups.found(str(proc))
    assert found.versions() == dict.fromkeys(("pids", "memory", "cpu"), "cgroup v2")
    group = home / "tieline/run"
    group.mkdir()
    for file in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"):
        (group / file).touch()
    assert found.create("run", memory_bytes=1000, core_count=2, processes=64) == (str(group),)
    texts = {path.name: path.read_text() for path in group.iterdir()}
    assert texts == {
        "memory.max": "1000",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "200000 100000",
        "pids.max": "64",
    }


def test_a_controller_that_is_not_delegated_is_named_and_the_others_serve(tmp_path: Path) -> None:
    proc, _ = version_2(tmp_path, controllers="memory pids")
    found = Cgroups.found(str(proc))
    assert sorted(found.hierarchies) == ["memory", "pids"]
    assert "`cpu` is not delegated" in found.missing["cpu"]


def test_a_site_that_moved_into_its_leaf_before_finds_the_same_place_again(tmp_path: Path) -> None:
    proc, home = version_2(tmp_path)
    (proc / "cgroup").write_text(f"0::/site.service/{cgroups.OWN}\n")
    assert Cgroups.found(str(proc)).hierarchies["memory"].base == str(home / "tieline")


def test_without_any_mount_every_controller_says_why(tmp_path: Path) -> None:
    proc, _ = stand_in(tmp_path, [], "/")
    found = Cgroups.found(str(proc))
    assert (found.hierarchies, set(found.missing.values())) == ({}, {"no hierarchy is mounted"})
    assert found.create("run", memory_bytes=1, core_count=1, processes=1) == ()


def test_use_is_read_from_either_version(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "cpuacct.usage").write_text("2500000000\n")
    (one / "memory.max_usage_in_bytes").write_text("4096\n")
    (one / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (two / "cpu.stat").write_text("usage_usec 7000\nuser_usec 1\n")
    (two / "memory.peak").write_text("8192\n")
    (two / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert cgroups.spent((str(one),)) == cgroups.Spent(2500, 4096, 2)
    assert cgroups.spent((str(two),)) == cgroups.Spent(7, 8192, 1)
    assert cgroups.spent((str(tmp_path / "gone"),)) == cgroups.Spent()


def test_on_this_machine_a_group_is_made_joined_counted_and_removed() -> None:
    found = Cgroups.found()
    if "pids" not in found.hierarchies:
        pytest.skip(f"no control group can be made here: {found.missing['pids']}")
    folders = found.create(f"test-{os.getpid()}", memory_bytes=50_000_000, processes=9, is_accounted=True)
    try:
        join = "".join(f"echo 0 >{folder}/cgroup.procs;" for folder in folders)
        child = subprocess.Popen(["/bin/sh", "-c", f"{join} exec sleep 60"])
        while cgroups.processes_in(folders) != [child.pid]:
            time.sleep(0.01)
        child.kill()
        child.wait()
        assert cgroups.processes_in(folders) == []
    finally:
        while not cgroups.remove(folders):
            time.sleep(0.01)


def test_members_never_include_the_numbers_that_mean_many(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n1\n77\n")
    assert cgroups.processes_in((str(tmp_path),)) == [77]
    assert cgroups.processes_in((str(tmp_path / "gone"),)) == []
    assert cgroups.processes_in(()) == []


def test_groups_that_nobody_concluded_are_tidied_away_once_they_are_old_and_empty(tmp_path: Path) -> None:
    proc, home = version_2(tmp_path)
    for name, age_s in (("old", 7_200), ("new", 0), ("busy", 7_200)):
        group = home / "tieline" / name
        group.mkdir()
        if name == "busy":
            (group / "inside").mkdir()
        os.utime(group, (time.time() - age_s, time.time() - age_s))
    Cgroups.found(str(proc))
    assert sorted(path.name for path in (home / "tieline").iterdir() if path.is_dir()) == ["busy", "new"]


def test_removing_says_whether_all_are_gone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "busy/inside").mkdir(parents=True)
    assert cgroups.remove((str(tmp_path / "empty"), str(tmp_path / "gone")))
    assert not cgroups.remove((str(tmp_path / "busy"),))


def test_limits_above_the_site_bound_what_it_may_offer(tmp_path: Path) -> None:
    proc, home = version_2(tmp_path)
    (home / "memory.max").write_text("8000000\n")
    (home / "cpu.max").write_text("350000 100000\n")
    above = home.parent
    (above / "cgroup.procs").touch()
    (above / "memory.max").write_text("5000000\n")
    (above / "cpu.max").write_text("max 100000\n")
    assert cgroups.own_limits(str(proc)) == (5_000_000, 3)
    assert cgroups.own_limits(str(tmp_path / "nowhere")) == (0, 0)


def test_the_groups_of_another_process_are_found(tmp_path: Path) -> None:
    folders = cgroups.of_process(os.getpid())
    assert all(Path(folder).is_dir() for folder in folders)
    assert cgroups.of_process(2**30) == ()
