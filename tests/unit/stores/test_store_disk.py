from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from toycore import submit, toy_writer, url_of
from writerparts import WAIT_S, Timer, done, ids, refused

from postgres import Postgres
from tieline.drivers.stores.disk import Disk
from tieline.drivers.stores.failure import code_of
from tieline.drivers.stores.store import Store
from tieline.model.error import TielineError
from tieline.ports import FakeClock


def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A disk of this size."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "3m")


@pytest.fixture
def roomy_disk(postgres: Postgres) -> Iterator[Path]:
    """A disk with room for a database and little more, where the server reaches it."""
    yield from mounted(postgres.folder / "disk", "32m")
    (postgres.folder / "disk").rmdir()


@pytest.mark.root
def test_a_full_disk_refuses_changes_keeps_what_was_acknowledged_and_recovers(small_disk: Path) -> None:
    timer = Timer()
    store = Store(url_of(small_disk)).open()
    writer = toy_writer(store, FakeClock(), timer=timer).start()
    kept = ids(done(writer.submit(submit("first"))))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(store.disk.free_bytes() - 600_000))
    for _ in range(500):
        future = writer.submit(submit(*["t"] * 50))
        if future.exception(WAIT_S) is not None:
            assert refused(future).code == "storage_full"
            break
        kept += ids(future.result())
    assert not writer.is_writable
    timer.at_s += 1.5
    assert refused(writer.submit(submit(*["t"] * 50))).code == "storage_full", "still full: the probe does not fit"
    assert sorted(writer.view.jobs) == sorted(kept)
    ballast.unlink()
    timer.at_s += 1.5
    kept += ids(done(writer.submit(submit("after"))))
    assert writer.close(WAIT_S)
    store.close()
    again = Store(url_of(small_disk)).open()
    assert again.verify_chain().is_verified
    assert sorted(row["id"] for row in again.tables()["job"]) == sorted(kept)
    again.close()


def test_room_is_what_lies_above_the_reserve(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 0)
    disk.check()
    free = disk.free_bytes()
    assert free > 0
    disk = Disk(tmp_path, 2**62)
    assert disk.room_bytes() < 0
    with pytest.raises(TielineError, match="are kept in reserve, 10 B were asked for") as caught:
        disk.check(10)
    assert caught.value.code == "storage_full"
    assert caught.value.hints


def test_an_error_of_the_system_is_told_apart_from_a_full_disk(tmp_path: Path) -> None:
    import errno

    disk = Disk(tmp_path, 0)
    assert code_of(OSError(errno.ENOSPC, "no space"), disk) == "storage_full"
    assert code_of(OSError(errno.EDQUOT, "quota"), disk) == "storage_full"
    assert code_of(OSError(errno.EIO, "broken"), disk) == "internal"
    assert code_of(KeyError("x"), disk) == "internal"


@pytest.mark.root
def test_a_full_disk_of_the_server_refuses_changes_keeps_what_was_acknowledged_and_recovers(
    roomy_disk: Path, postgres: Postgres
) -> None:
    os.chown(roomy_disk, postgres.folder.stat().st_uid, -1)
    with postgres.admin() as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{roomy_disk}'")
        connection.execute("CREATE DATABASE small OWNER tieline TEMPLATE template0 TABLESPACE small")
    url = postgres.url("small")
    timer = Timer()
    store = Store(url).open()
    writer = toy_writer(store, FakeClock(), timer=timer).start()
    kept = ids(done(writer.submit(submit("first"))))
    ballast = roomy_disk / "ballast"
    free = os.statvfs(roomy_disk)
    ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 1_000_000)))
    for _ in range(500):
        future = writer.submit(submit(*["t"] * 50))
        if future.exception(WAIT_S) is not None:
            assert refused(future).code == "storage_full"
            break
        kept += ids(future.result())
    assert not writer.is_writable
    assert sorted(writer.view.jobs) == sorted(kept)
    ballast.unlink()
    timer.at_s += 1.5
    kept += ids(done(writer.submit(submit("after"))))
    assert writer.close(WAIT_S)
    assert store.verify_chain().is_verified
    assert sorted(row["id"] for row in store.tables()["job"]) == sorted(kept)
    store.close()
    postgres.drop("small")
    with postgres.admin() as connection:
        connection.execute("DROP TABLESPACE small")
