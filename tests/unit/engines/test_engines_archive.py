"""Archives: the same folder packs to the same bytes, and a hostile archive lays out nothing."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tieline.drivers.engines.archive import pack, unpack
from tieline.drivers.engines.tar import Most
from tieline.model.error import TielineError

SMALL = Most(entries=20, total_bytes=3_000_000, depth=8)


def member(name: str, content: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def pieces(content: bytes, size: int = 700) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def laid_out(folder: Path) -> dict[str, str]:
    """Every path below, with what lies there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = "folder" if path.is_dir() else path.read_bytes().decode("latin-1")
    return found


def make_folder(top: Path) -> Path:
    (top / "deep/er").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "deep/er/数据.txt").write_text("numbers")
    (top / "run.sh").write_text("#!/bin/sh\n")
    (top / "run.sh").chmod(0o4755)
    (top / ("n" * 200)).write_text("long")
    (top / "link").symlink_to("deep/er/数据.txt")
    (top / "deep/up").symlink_to("../empty")
    (top / os.fsdecode(b"odd-\xff")).write_text("not UTF-8")
    return top


def test_a_folder_comes_back_as_it_was_and_packs_to_the_same_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    first, second = make_folder(tmp_path / "first"), make_folder(tmp_path / "second")
    os.utime(second / "run.sh", (1, 1))
    (second / "run.sh").chmod(0o700)
    packed = b"".join(pack(str(first)))
    assert packed == b"".join(pack(str(second)))
    unpacked = unpack(pieces(packed), str(tmp_path / "back"))
    assert laid_out(tmp_path / "back") == laid_out(first)
    assert unpacked.entries == len(laid_out(first))
    assert (tmp_path / "back/run.sh").stat().st_mode & 0o7777 == 0o755


def test_a_packed_folder_is_read_by_others(tmp_path: Path) -> None:
    packed = b"".join(pack(str(make_folder(tmp_path / "made"))))
    (tmp_path / "theirs").mkdir()
    subprocess.run(["tar", "-xf", "-", "-C", str(tmp_path / "theirs")], input=packed, check=True)
    assert laid_out(tmp_path / "theirs") == laid_out(tmp_path / "made")


def in_two_members(content: bytes) -> bytes:
    return gzip.compress(content[:100]) + gzip.compress(content[100:])


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("squeeze", [bytes, gzip.compress, in_two_members])
def test_archives_of_other_tools_are_read_plain_and_gzipped(
    tmp_path: Path, form: int, squeeze: Callable[[bytes], bytes]
) -> None:
    name = "./" + "d" * 90 + "/" + "f" * 90
    content = tar(
        member("./", type=tarfile.DIRTYPE),
        member(name, b"x" * 5000),
        member("hard", type=tarfile.LNKTYPE, linkname=name),
        form=form,
    )
    unpack(pieces(squeeze(content)), str(tmp_path / "out"))
    assert (tmp_path / "out" / name).read_bytes() == b"x" * 5000
    assert (tmp_path / "out/hard").samefile(tmp_path / "out" / name)


def test_what_is_skipped_is_not_entered(tmp_path: Path) -> None:
    top = make_folder(tmp_path / "made")
    unpack(pack(str(top), skip=lambda path: path.split("/")[0] == "deep" or path == "link"), str(tmp_path / "back"))
    assert sorted(laid_out(tmp_path / "back")) == sorted(["empty", "run.sh", "n" * 200, os.fsdecode(b"odd-\xff")])


HOSTILE = {
    "a path that climbs": (tar(member("ok"), member("a/../../evil", b"x")), "invalid_request", "leaves its folder"),
    "an absolute path": (tar(member("/etc/evil", b"x")), "invalid_request", "absolute"),
    "a link that climbs": (tar(member("l", type=tarfile.SYMTYPE, linkname="../out")), "invalid_request", "link that"),
    "an absolute link": (tar(member("l", type=tarfile.SYMTYPE, linkname="/etc/x")), "invalid_request", "link that"),
    "a link that climbs through another link": (
        tar(
            member("d/up", type=tarfile.SYMTYPE, linkname=".."),
            member("out", type=tarfile.SYMTYPE, linkname="d/up/.."),
        ),
        "invalid_request",
        "link that leaves",
    ),
    "a file through a link": (
        tar(member("d", type=tarfile.SYMTYPE, linkname="."), member("d/file", b"x")),
        "invalid_request",
        "goes through",
    ),
    "a file through a file": (tar(member("f", b"x"), member("f/file", b"x")), "invalid_request", "goes through"),
    "a hard link out": (tar(member("h", type=tarfile.LNKTYPE, linkname="/etc/passwd")), "invalid_request", "absolute"),
    "a hard link to a link": (
        tar(member("s", type=tarfile.SYMTYPE, linkname="x"), member("h", type=tarfile.LNKTYPE, linkname="s")),
        "invalid_request",
        "no file before it",
    ),
    "a device": (tar(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)), "invalid_request", "a device"),
    "a pipe": (tar(member("pipe", type=tarfile.FIFOTYPE)), "invalid_request", "a pipe"),
    "an unknown kind": (tar(member("odd", type=b"Z")), "invalid_request", "unknown kind"),
    "a name twice": (tar(member("f", b"1"), member("./f", b"2")), "invalid_request", "twice"),
    "a link over a file": (tar(member("f"), member("f", type=tarfile.SYMTYPE)), "invalid_request", "twice"),
    "too many entries": (tar(*(member(f"f{n}") for n in range(21))), "too_large", "more than 20 entries"),
    "too many bytes": (tar(member("f", b"x" * 3_000_001)), "too_large", "more than 3,000,000 bytes"),
    "too deep": (tar(member("/".join("abcdefghi"))), "too_large", "more than 8 folders deep"),
    "a path too long": (tar(member("/".join(["p" * 250] * 5))), "too_large", "over 1,024 bytes"),
    "a name too long": (tar(member("p" * 256)), "too_large", "over 1,024 bytes"),
    "a truncated archive": (tar(member("f", b"x" * 5000))[:2000], "invalid_request", "ends early"),
    "no end mark": (tar(member("f", b"x"))[:1024], "invalid_request", "ends early"),
    "nothing": (b"", "invalid_request", "ends early"),
    "no archive": (b"hello" * 1000, "invalid_request", "not a tar stream"),
    "broken gzip": (gzip.compress(tar(member("f")))[:12] + b"\xff" * 40, "invalid_request", "not valid gzip"),
    "a gzip bomb": (gzip.compress(tar(member("f", b"\0" * 2_900_000))), "too_large", "more than 200 times"),
    "a bomb in a header": (
        gzip.compress(member("x", b"", type=tarfile.XHDTYPE, size=1 << 30)[0].tobuf() + b"\0" * 2_000_000),
        "too_large",
        "extended header",
    ),
    "a pax size that lies": (tar(member("f", b"x", pax_headers={"size": "-5"})), "invalid_request", "absurd size"),
    "a pax size beyond all": (tar(member("f", b"x", pax_headers={"size": "9" * 17})), "too_large", "more than"),
    "a pax path that climbs": (tar(member("f", b"x", pax_headers={"path": "../evil"})), "invalid_request", "leaves"),
    "a sparse file": (tar(member("f", b"x", pax_headers={"GNU.sparse.major": "1"})), "invalid_request", "sparse"),
    "a link with content": (tar(member("l", b"123", type=tarfile.SYMTYPE, linkname="x")), "invalid_request", "absurd"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_with_its_reason_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    content, code, words = HOSTILE[what]
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(TielineError) as refused:
        unpack(pieces(content, 5000), str(inside / "out"), most=SMALL)
    assert refused.value.code == code
    assert words in refused.value.message
    assert list(inside.iterdir()) == []
    assert list(tmp_path.iterdir()) == [inside]


def test_a_target_that_holds_something_is_kept_and_an_empty_one_is_filled(tmp_path: Path) -> None:
    content = tar(member("f", b"new"))
    target = tmp_path / "out"
    target.mkdir()
    unpack([content], str(target))
    with pytest.raises(TielineError, match="not an empty folder"):
        unpack([tar(member("g", b"newer"))], str(target))
    assert laid_out(tmp_path) == {"out": "folder", "out/f": "new"}


def test_modes_owners_and_times_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    unpack([tar(member("f", b"x", mode=0o6777, uid=12, gid=12))], str(tmp_path / "out"))
    status = (tmp_path / "out/f").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o755, os.geteuid())


def test_a_bomb_is_found_before_it_fills_the_memory(tmp_path: Path) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        squeezed = gzip.compress(tar(member("f", b"\0" * 20_000_000)))
        while True:
            taken += 1
            yield squeezed

    with pytest.raises(TielineError, match="times its size"):
        unpack(endless(), str(tmp_path / "out"), most=Most())
    assert taken < 3


def test_packing_refuses_what_could_not_be_unpacked(tmp_path: Path) -> None:
    top = tmp_path / "made"
    top.mkdir()
    (top / "out").symlink_to("/etc/passwd")
    with pytest.raises(TielineError, match="link that leaves its folder"):
        list(pack(str(top)))
    (top / "out").unlink()
    os.mkfifo(top / "pipe")
    with pytest.raises(TielineError, match="neither a file nor a folder nor a link"):
        list(pack(str(top)))
    (top / "pipe").unlink()
    for number in range(21):
        (top / str(number)).touch()
    with pytest.raises(TielineError, match="more than 20 entries"):
        list(pack(str(top), most=SMALL))


NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=6), st.integers(1, 1500))
def test_whatever_is_packed_comes_back_however_the_stream_is_cut(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], size: int
) -> None:
    top = tmp_path_factory.mktemp("made")
    for name, content in files.items():
        (top / name).write_bytes(content)
    packed = b"".join(pack(str(top)))
    back = tmp_path_factory.mktemp("back") / "out"
    unpack(pieces(gzip.compress(packed, 1), size), str(back))
    assert {path.name: path.read_bytes() for path in back.iterdir()} == files


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_archive_is_refused_or_unpacks_inside_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(
        tar(
            member("d", type=tarfile.DIRTYPE),
            member("d/" + "n" * 150, b"x" * 600),
            member("l", type=tarfile.SYMTYPE, linkname="d"),
            member("h", type=tarfile.LNKTYPE, linkname="d/" + "n" * 150),
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    base = tmp_path_factory.mktemp("base")
    try:
        unpack([bytes(content)], str(base / "in/out"), most=SMALL)
    except TielineError:
        assert not (base / "in/out").exists()
    assert [path.name for path in base.iterdir()] == ["in"]
