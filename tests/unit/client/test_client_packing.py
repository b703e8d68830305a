"""What a task takes along: the same content is the same bytes, and nothing leaves that should stay."""

import io
import os
import tarfile

import pytest

from tieline.client import packing
from tieline.client.packing import digest_of, packed, packed_files
from tieline.model.error import TielineError


def names(folder):
    with packed(folder) as archive, tarfile.open(fileobj=archive) as tar:
        return tar.getnames()


def fill(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_the_same_content_has_the_same_hash_whenever_and_by_whomever_it_was_written(tmp_path):
    for copy in ("one", "two"):
        fill(tmp_path / copy, "b.txt", "a/c.txt")
    os.utime(tmp_path / "two" / "b.txt", (1, 1))
    (tmp_path / "two" / "b.txt").chmod(0o600)
    digests = set()
    for copy in ("one", "two"):
        with packed(tmp_path / copy) as archive:
            digests.add(digest_of(archive))
    assert len(digests) == 1


def test_other_content_has_another_hash(tmp_path):
    fill(tmp_path, "a")
    with packed(tmp_path) as archive:
        before = digest_of(archive)
    (tmp_path / "a").chmod(0o755)
    with packed(tmp_path) as archive:
        assert digest_of(archive) != before


def test_what_is_ignored_stays_at_home(tmp_path):
    fill(tmp_path, ".git/config", "keep.py", "out/big.bin", "a/out/x", "b/__pycache__/m.pyc", "secret.env")
    assert sorted(names(tmp_path)) == ["a/out/x", "keep.py", "out/big.bin", "secret.env"]
    (tmp_path / ".gitignore").write_text("# comment\n\nout/\n*.env\n__pycache__\n")
    assert names(tmp_path) == [".gitignore", "keep.py"]
    (tmp_path / ".tielineignore").write_text("keep.py\n")
    assert "keep.py" not in names(tmp_path)
    assert "out/big.bin" in names(tmp_path)


def test_a_link_within_goes_along_and_one_that_leads_out_is_refused(tmp_path):
    fill(tmp_path, "a/x")
    (tmp_path / "a" / "l").symlink_to("../a/x")
    assert names(tmp_path) == ["a/l", "a/x"]
    for target in ("/etc/passwd", "../../x", "../.."):
        (tmp_path / "a" / "out").unlink(missing_ok=True)
        (tmp_path / "a" / "out").symlink_to(target)
        with pytest.raises(TielineError, match="leads out") as refused:
            packed(tmp_path)
        assert refused.value.code == "invalid_task"


def test_what_is_no_file_is_left_out(tmp_path):
    fill(tmp_path, "x")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == ["x"]


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(TielineError, match="no folder"):
        packed(tmp_path / "none")


def test_too_many_files_and_too_many_bytes_are_refused_with_a_way_out(tmp_path, monkeypatch):
    fill(tmp_path, "a", "b", "c")
    monkeypatch.setattr(packing, "MOST_FILES", 2)
    with pytest.raises(TielineError, match="more than 2 files") as refused:
        packed(tmp_path)
    assert refused.value.code == "too_large"
    assert ".tielineignore" in refused.value.hints[0]
    monkeypatch.setattr(packing, "MOST_FILES", 100)
    monkeypatch.setattr(packing, "MOST_BYTES", 2)
    with pytest.raises(TielineError, match="more than 0 MiB"):
        packed(tmp_path)


def test_a_refusal_leaves_no_file_open(tmp_path, monkeypatch):
    made = []

    def temporary():
        made.append(io.BytesIO())
        return made[-1]

    monkeypatch.setattr(packing.tempfile, "TemporaryFile", temporary)
    (tmp_path / "out").symlink_to("/etc/passwd")
    with pytest.raises(TielineError, match="leads out"):
        packed(tmp_path)
    assert [file.closed for file in made] == [True]


def test_bytes_become_an_archive_without_a_folder():
    with packed_files({"b": b"2", "a": b"1"}) as archive, tarfile.open(fileobj=archive) as tar:
        assert tar.getnames() == ["a", "b"]
        assert tar.extractfile("b").read() == b"2"
