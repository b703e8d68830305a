"""Which files a task leaves behind, named by paths and globs, in a folder that nobody trusts."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tieline.drivers.engines.outputs import Bounds, collect_outputs, open_inside
from tieline.model.error import TielineError


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    for name in ("model.bin", "out/a.txt", "out/b.csv", "out/deep/er/c.txt", "logs/1.log", ".hidden/key"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    return work


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (("model.bin",), ["model.bin"]),
        (("./out/", "model.bin"), ["model.bin", "out/a.txt", "out/b.csv", "out/deep/er/c.txt"]),
        (("out/*.txt",), ["out/a.txt"]),
        (("out/**/*.txt",), ["out/a.txt", "out/deep/er/c.txt"]),
        (("**/*.txt", "**/*.log"), ["logs/1.log", "out/a.txt", "out/deep/er/c.txt"]),
        (("**",), [".hidden/key", "logs/1.log", "model.bin", "out/a.txt", "out/b.csv", "out/deep/er/c.txt"]),
        ((".",), [".hidden/key", "logs/1.log", "model.bin", "out/a.txt", "out/b.csv", "out/deep/er/c.txt"]),
        (("out/?.txt", "out/d*"), ["out/a.txt", "out/deep/er/c.txt"]),
        (("model",), []),
        (("out/[a].txt",), []),
        ((), []),
    ],
)
def test_paths_folders_and_globs_name_files(work: Path, patterns: tuple[str, ...], paths: list[str]) -> None:
    found = collect_outputs(str(work), patterns)
    assert [each.path for each in found] == paths
    for each in found:
        assert each.sha256 == hashlib.sha256(each.path.encode()).hexdigest()
        assert each.size_bytes == len(each.path)


def test_links_pipes_and_what_lies_behind_them_are_left_out(work: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (work / "out/link").symlink_to(secret / "key")
    (work / "out/folder").symlink_to(secret)
    (work / "out/loop").symlink_to(".")
    os.mkfifo(work / "out/pipe")
    assert "secret" not in {path.split("/")[-1] for path, *_ in collect_outputs(str(work), ("**",))}
    assert [each.path for each in collect_outputs(str(work), ("out/*",))][:2] == ["out/a.txt", "out/b.csv"]
    assert collect_outputs(str(work), ("out/link", "out/folder/key")) == []


def test_a_work_folder_that_became_a_link_yields_nothing(work: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(work)
    assert collect_outputs(str(tmp_path / "moved"), ("**",)) == []


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../keys", "out/../../keys", "a\0b", "x" * 2000])
def test_patterns_that_leave_the_folder_are_refused(work: Path, pattern: str) -> None:
    with pytest.raises(TielineError, match="does not lie below the work folder"):
        collect_outputs(str(work), (pattern,))


def test_too_many_entries_files_or_bytes_are_refused_with_the_limit(work: Path) -> None:
    for bounds, words in (
        (Bounds(entries=3), "more than 3 entries"),
        (Bounds(files=2), "more than 2 output files"),
        (Bounds(total_bytes=20), "more than 20 bytes"),
    ):
        with pytest.raises(TielineError, match=words):
            collect_outputs(str(work), ("**",), bounds)


def test_folders_where_nothing_can_match_are_not_entered(work: Path) -> None:
    for number in range(50):
        (work / "logs" / str(number)).touch()
    bounds = Bounds(entries=12)
    assert len(collect_outputs(str(work), ("out", "model.bin"), bounds)) == 4
    with pytest.raises(TielineError, match="more than 12 entries"):
        collect_outputs(str(work), ("**/c.txt",), bounds)


def test_what_lies_too_deep_is_not_walked(work: Path) -> None:
    assert "out/deep/er/c.txt" not in [each.path for each in collect_outputs(str(work), ("**",), Bounds(depth=1))]


def test_a_file_is_opened_step_by_step_without_following_a_link(work: Path) -> None:
    with open(open_inside(str(work), "out/deep/er/c.txt")) as file:
        assert file.read() == "out/deep/er/c.txt"
    (work / "way").symlink_to("out")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        open_inside(str(work), "way/a.txt")
