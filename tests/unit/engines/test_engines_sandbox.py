"""The sandbox's argument vector and filter, as they are written; what they do is tested in `tests/real`."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tieline.drivers.engines import seccomp
from tieline.drivers.engines.sandbox import Sandbox, View, device_files, has_own_files

PLAIN = Sandbox(program="/usr/bin/bwrap", networks=("none", "host"))
ROOT = Sandbox(program="/usr/bin/bwrap", setpriv="/usr/bin/setpriv", networks=("none", "host"))


def view(tmp_path: Path, **more: object) -> View:
    runs = tmp_path / "site/runs/r1"
    runs.mkdir(parents=True, exist_ok=True)
    known: dict[str, object] = {
        "work": f"{runs}/work",
        "temporary": f"{runs}/tmp",
        "scripts": (f"{runs}/run.sh",),
        "hidden": (str(tmp_path / "site"),),
    }
    return View(**known | more)  # type: ignore[arg-type]


def test_a_run_outlives_the_site_so_its_sandbox_does_not_die_with_its_parent(tmp_path: Path) -> None:
    for sandbox in (PLAIN, ROOT):
        assert "--die-with-parent" not in sandbox.command(view(tmp_path))


def test_the_root_is_read_only_and_what_hides_the_site_comes_before_what_is_the_runs_own(tmp_path: Path) -> None:
    words = PLAIN.command(view(tmp_path))
    site, work = str(tmp_path / "site"), f"{tmp_path}/site/runs/r1/work"
    assert words[words.index("--ro-bind") :][:3] == ["--ro-bind", "/", "/"]
    hidden = next(index for index, word in enumerate(words) if word == "--tmpfs" and words[index + 1] == site)
    shown = next(index for index, word in enumerate(words) if word == "--bind" and words[index + 1] == work)
    assert words.index("--ro-bind") < hidden < shown
    made = [words[index + 1] for index, word in enumerate(words) if word == "--dir" and index > hidden]
    assert made[-2:] == [f"{site}/runs", f"{site}/runs/r1"], "passable for the user inside"
    assert words[-1] == "--"


def test_a_readable_folder_never_uncovers_what_lies_hidden_below_it(tmp_path: Path) -> None:
    words = PLAIN.command(view(tmp_path, readable=("/", str(tmp_path))))
    places = [
        (words[index], words[index + 1]) for index in range(len(words)) if words[index] in ("--tmpfs", "--ro-bind-try")
    ]
    assert places.index(("--ro-bind-try", str(tmp_path))) < places.index(("--tmpfs", str(tmp_path / "site")))
    assert ("--ro-bind-try", "/") not in places


@pytest.mark.parametrize(("network", "is_cut"), [("none", True), ("host", False), ("anything else", True)])
def test_only_the_hosts_network_by_name_leaves_the_network_open(tmp_path: Path, network: str, is_cut: bool) -> None:
    assert ("--unshare-net" in PLAIN.command(view(tmp_path, network=network))) is is_cut


def test_root_becomes_nobody_for_real_and_others_in_a_name_space(tmp_path: Path) -> None:
    as_root, as_user = ROOT.command(view(tmp_path)), PLAIN.command(view(tmp_path))
    assert "--unshare-user" not in as_root
    assert as_root[as_root.index("--") + 1 :] == [
        "/usr/bin/setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--no-new-privs",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]
    assert as_user[as_user.index("--unshare-user") :][:5] == ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    assert as_user[-1] == "--"
    for words in (as_root, as_user):
        assert words[words.index("--cap-drop") + 1] == "ALL"


def test_device_files_are_those_of_the_given_devices_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"/dev/nvidia1", "/dev/nvidia2", "/dev/nvidiactl", "/dev/kfd", "/dev/dri"}
    monkeypatch.setattr(Path, "exists", lambda path: str(path) in present)
    assert device_files("nvidia", (2, 5)) == ("/dev/nvidia2", "/dev/nvidiactl")
    assert device_files("nvidia", ()) == ()
    assert device_files("amd", (0,)) == ("/dev/kfd", "/dev/dri")
    assert device_files("acme", (0,)) == ()
    assert has_own_files("nvidia", (1, 2))
    assert not has_own_files("nvidia", (1, 5))
    assert not has_own_files("amd", (0,))


def evaluate(program: bytes, architecture: int, number: int, first: int = 0, second: int = 0) -> int:
    """A second reading of classic BPF, small enough to be checked by eye."""
    words = {0: number, 4: architecture, 16: first, 24: second}
    steps = [struct.unpack("=HBBI", program[at : at + 8]) for at in range(0, len(program), 8)]
    at, value = 0, 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        if code == seccomp.LOAD:
            value = words[operand]
        elif code == seccomp.RETURN:
            return int(operand)
        else:
            holds = {
                seccomp.EQUAL: value == operand,
                seccomp.AT_LEAST: value >= operand,
                seccomp.ANY_BIT: bool(value & operand),
            }[code]
            at += yes if holds else no


@pytest.mark.parametrize("name", sorted(seccomp.MACHINES))
def test_the_filter_denies_what_it_names_and_nothing_else(name: str) -> None:
    machine, program = seccomp.MACHINES[name], seccomp.program(name)
    denied, absent = seccomp.ERRNO | 1, seccomp.ERRNO | 38
    for number in range(600):
        expected = seccomp.ALLOW
        if number in machine.denied:
            expected = denied
        elif number in seccomp.ABSENT:
            expected = absent
        assert evaluate(program, machine.audit, number) == expected, number
    for number in (machine.clone, machine.unshare):
        assert evaluate(program, machine.audit, number, first=0x10000000 | 17) == denied
        assert evaluate(program, machine.audit, number, first=0x20000) == seccomp.ALLOW
    assert evaluate(program, machine.audit, machine.ioctl, second=0x5412) == denied
    assert evaluate(program, machine.audit, machine.ioctl, second=0x541C) == denied
    assert evaluate(program, machine.audit, machine.ioctl, second=0x5401) == seccomp.ALLOW
    assert evaluate(program, 0x40000003, 4) == absent, "another architecture's calls"
    assert evaluate(program, machine.audit, 0x40000000 | 1) == absent, "x32"


def test_an_architecture_whose_numbers_are_not_known_has_no_filter() -> None:
    assert seccomp.program("sparc") == b""
