"""The journal: what is written is read again after any crash, torn lines and foreign files included."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from site_offers import NOW_MS, core_offer

from tieline.drivers.siteprocess.journal import Journal, remove
from tieline.model.error import TielineError
from tieline.model.protocol import Ended
from tieline.site import Done, Held, Phase

HELD = Held(offer=core_offer(), phase=Phase.ACCEPTING, offered_ms=NOW_MS)
RUNNING = msgspec.structs.replace(HELD, phase=Phase.RUNNING, launched_ms=NOW_MS, started_ms=NOW_MS + 5)
DONE = Done(ended=Ended(run="j-1.1", epoch=1, state="succeeded"))


def journal(folder: Path, kept: int = 9) -> Journal:
    return Journal(folder / "runs", kept)


def test_what_was_written_is_read(tmp_path: Path):
    first = journal(tmp_path)
    first.accept([HELD])
    assert journal(tmp_path).read() == [HELD]
    first.note(RUNNING)
    assert journal(tmp_path).read() == [RUNNING]
    ended = msgspec.structs.replace(RUNNING, phase=Phase.ENDED, ended=DONE.ended)
    first.note(ended)
    assert journal(tmp_path).read() == [ended]
    first.forget("j-1.1", DONE)
    assert journal(tmp_path).read() == [DONE]


def test_a_torn_last_line_is_as_if_it_was_not_written(tmp_path: Path):
    first = journal(tmp_path)
    first.accept([HELD])
    first.note(RUNNING)
    path = tmp_path / "runs/j-1.1/progress"
    whole = path.read_bytes()
    for cut in range(1, 40):
        path.write_bytes(whole + whole[:cut])
        assert journal(tmp_path).read() == [RUNNING]
    path.write_bytes(whole[:10])
    assert journal(tmp_path).read() == [HELD]


def test_an_acceptance_that_was_not_written_whole_is_none(tmp_path: Path):
    journal(tmp_path).accept([HELD])
    path = tmp_path / "runs/j-1.1/run.json"
    path.rename(path.with_name("run.json.part"))
    assert journal(tmp_path).read() == []


def test_only_so_many_ended_runs_are_kept_oldest_gone_first(tmp_path: Path):
    first = journal(tmp_path, kept=2)
    for number in range(4):
        held = msgspec.structs.replace(HELD, offer=core_offer(f"j-{number}.1"))
        first.accept([held])
        first.forget(held.run, Done(ended=Ended(run=held.run, epoch=1, state="failed")))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["j-2.1", "j-3.1"]
    again = journal(tmp_path, kept=1)
    assert [entry.ended.run for entry in again.read() if isinstance(entry, Done)] == ["j-2.1", "j-3.1"]
    again.forget("j-3.1", Done(ended=Ended(run="j-3.1", epoch=1, state="failed")))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["j-3.1"]


def test_a_run_that_never_began_leaves_nothing(tmp_path: Path):
    first = journal(tmp_path)
    first.accept([HELD])
    first.forget("j-1.1", None)
    assert list((tmp_path / "runs").iterdir()) == []
    first.forget("j-1.1", DONE)
    assert list((tmp_path / "runs").iterdir()) == []


def test_folders_that_a_task_locked_are_removed_too(tmp_path: Path):
    locked = tmp_path / "a/b"
    locked.mkdir(parents=True)
    (locked / "file").write_text("x")
    locked.chmod(0)
    remove(str(tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path):
    first = journal(tmp_path)
    (tmp_path / "runs/j-1.1").write_text("a file where a folder must be")
    with pytest.raises(TielineError) as caught:
        first.accept([HELD])
    assert caught.value.code == "storage_full"
    with pytest.raises(TielineError):
        first.note(RUNNING)
