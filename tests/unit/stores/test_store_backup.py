"""A backup is one moment, whole or refused; a store of either kind is made again from it."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from storerows import equivocation, job, log, quote, record, run, token_change, usage
from toycore import submit, toy_writer

from postgres import KINDS, store_url
from tieline.drivers.stores import tables as t
from tieline.drivers.stores.backup import Manifest, backed_tables, write_backup
from tieline.drivers.stores.members import Packing, members_of
from tieline.drivers.stores.restore import Backup, fill, fill_file
from tieline.drivers.stores.snapshot import whole
from tieline.drivers.stores.store import Batch, Store, StoreError
from tieline.model.error import TielineError
from tieline.registry import Key

KEY = Key(hashlib.sha256(b"exchange").digest())
OTHER = Key(hashlib.sha256(b"other").digest())
EXCHANGE = {"id": "cn.demo/exchange/main", "prefix": "cn.demo", "public": KEY.public, "session": "abc"}
BLOB = b"bytes of a blob" * 1_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of an exchange."""
    made = tmp_path / "home"
    digest = hashlib.sha256(BLOB).hexdigest()
    for name, content in {
        "exchange.json": b"the private seed",
        "admin.token": b"tl-secret",
        "limits.json": b"{}",
        "port": b"1234",
        f"blobs/{digest[:2]}/{digest[2:]}": BLOB,
        "blobs/tmp/half": b"half",
        "logs/j-1.1.0": b"hello\n",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    return made


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with a row in most tables."""
    changes: list[Any] = [
        ("exchange", EXCHANGE["id"], {"id": EXCHANGE["id"], "doc": msgspec.json.encode(EXCHANGE)}),
        token_change(),
        job("j-1", ended_ms=5, state="succeeded"),
        job("j-2"),
        run("j-1.1", "j-1"),
        usage("j-1.1"),
        record("a"),
        quote("q-1"),
        ("equivocation", "x#1", equivocation("cn.demo.lab7/pool/a")),
        ("secret", "j-2", {"job": "j-2", "sealed": bytes(range(256))}),
    ]
    store.append(Batch(log(3_000).entries, changes, [("alice k1", "d", 7, b"reply")]))
    return store


@pytest.fixture
def made(filled: Store, address: str, folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a backup of the store while it is open."""

    def make(name: str = "backup.tar", **options: bool) -> Path:
        write_backup(folder, address, KEY, "cn.demo", tmp_path / name, **options)
        return tmp_path / name

    return make


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a store of each kind can be made from a backup."""
    yield from store_url(request.param, tmp_path / "target", request, is_made=False)


def rows_of(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    with store.engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(whole(table))]
            for table in backed_tables()
            if table.name != "meta"
        }


def opened(path: Path, public: str = KEY.public) -> Backup:
    with path.open("rb") as file:
        return Backup(io.BytesIO(file.read()), public)


def refused(content: bytes, public: str = KEY.public) -> TielineError:
    with pytest.raises(TielineError) as caught:
        Backup(io.BytesIO(content), public)
    return caught.value


# -- making ------------------------------------------------------------------------------------------------------------


def test_a_store_of_either_kind_is_made_again_from_a_backup_of_either(
    made: Callable[..., Path], filled: Store, target: str
) -> None:
    fill(opened(made()), target)
    restored = Store(target).open()
    before, after = rows_of(filled), rows_of(restored)
    assert after.pop("exchange") == [
        (EXCHANGE["id"], msgspec.json.encode({**EXCHANGE, "session": ""})),
    ]
    before.pop("exchange")
    assert after == before
    assert sum(map(len, after.values())) == 3_021  # 11 of them tiles
    assert restored.position() == filled.position()
    assert restored.verify_chain().is_verified
    assert restored.noted("restored")
    assert restored.replies(["alice k1"]) == {"alice k1": ("d", 7, b"reply")}
    restored.append(log(1, 3_001, restored.position()[1]))
    restored.close()


def test_a_backup_is_readable_by_its_owner_alone_and_listed_by_any_tar(made: Callable[..., Path]) -> None:
    path = made()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as listed:
        names = listed.getnames()
    assert names[-2:] == ["manifest.json", "signature.jws"]
    assert "tables/event/000000.ndjson" in names
    assert [name for name in names if name.startswith(("blobs", "logs"))] == []
    with pytest.raises(TielineError, match="exists already"):
        made()
    assert [each.name for each in path.parent.glob(".backup*")] == []


def test_keys_travel_only_when_they_are_asked_for(made: Callable[..., Path]) -> None:
    without, with_keys = made("without.tar"), made("with.tar", has_keys=True)
    assert b"the private seed" not in without.read_bytes()
    assert b"tl-secret" not in without.read_bytes()
    assert set(opened(without).files) == {"limits.json", "port"}
    assert opened(with_keys).files["exchange.json"] == b"the private seed"
    assert opened(with_keys).manifest.has_keys


def test_blobs_and_logs_travel_when_they_are_asked_for(made: Callable[..., Path], tmp_path: Path) -> None:
    backup = opened(made(has_blobs=True))
    backup.extract(tmp_path / "again")
    digest = hashlib.sha256(BLOB).hexdigest()
    assert (tmp_path / "again" / "blobs" / digest[:2] / digest[2:]).read_bytes() == BLOB
    assert (tmp_path / "again" / "logs" / "j-1.1.0").read_bytes() == b"hello\n"
    assert not (tmp_path / "again" / "blobs" / "tmp" / "half").exists()
    assert [path for path in (tmp_path / "again").rglob("*") if path.is_file() and path.stat().st_mode & 0o077] == []


def test_a_blob_that_is_damaged_is_not_backed_up_as_if_it_were_whole(made: Callable[..., Path], folder: Path) -> None:
    digest = hashlib.sha256(BLOB).hexdigest()
    (folder / "blobs" / digest[:2] / digest[2:]).write_bytes(b"damaged")
    with pytest.raises(TielineError, match="is not what its name says"):
        made(has_blobs=True)


def test_a_backup_made_while_the_exchange_works_is_one_moment(
    store: Store, address: str, folder: Path, tmp_path: Path
) -> None:
    exchange = {"id": EXCHANGE["id"], "doc": msgspec.json.encode(EXCHANGE)}
    store.append(Batch(changes=[("exchange", str(EXCHANGE["id"]), exchange)]))
    writer = toy_writer(store).start()
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            writer.submit(submit("a", "b", "c")).result(30)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(5):
            path = tmp_path / f"{number}.tar"
            manifest = write_backup(folder, address, KEY, "cn.demo", path)
            rows = list(opened(path).rows())
            submitted = [row for name, row in rows if name == "event" and row[2] == "job_submitted"]
            assert len(submitted) == manifest.rows["job"], "the log and its tables are of the same moment"
    finally:
        is_over.set()
        worker.join(30)
        assert writer.close(30)


# -- refusing ----------------------------------------------------------------------------------------------------------


def test_a_file_that_was_changed_anywhere_is_refused(made: Callable[..., Path]) -> None:
    content = made(has_blobs=True).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as listed:
        places = [member.offset_data + member.size // 2 for member in listed if member.size]
        places += [member.offset + 20 for member in listed]
    assert len(places) > 20
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        assert refused(bytes(changed)).code == "check_failed", place


def test_a_file_that_was_cut_anywhere_is_refused(made: Callable[..., Path]) -> None:
    content = made().read_bytes()
    for end in (0, 1, 512, len(content) // 2, len(content) - 1_536, len(content) - 1_024, len(content) - 1_500):
        assert refused(content[:end]).code == "check_failed", end
    assert refused(b"no tar at all" * 1_000).code == "check_failed"


def forged(content: bytes, key: Key = KEY, **changes: Any) -> bytes:
    """A backup whose manifest was changed, and signed by ``key``."""
    from tieline.drivers.stores.backup import _seal

    file = io.BytesIO()
    packing = Packing(file)
    manifest = None
    for member in members_of(io.BytesIO(content)):
        if member.name == "manifest.json":
            manifest = msgspec.json.decode(member.read(10**7), type=Manifest)
        elif member.name != "signature.jws":
            packing.add(member.name, member.read(10**8))
    assert manifest is not None
    _seal(packing, msgspec.structs.replace(manifest, **changes), key)
    return file.getvalue()


def test_a_backup_of_a_newer_version_is_refused(made: Callable[..., Path]) -> None:
    content = made().read_bytes()
    error = refused(forged(content, revision="9999"))
    assert (error.code, "newer" in error.message) == ("version_not_supported", True)
    error = refused(forged(content, revision="0001"))
    assert (error.code, "0001" in error.message) == ("version_not_supported", True)


def test_a_backup_that_somebody_else_signed_is_refused(made: Callable[..., Path]) -> None:
    content = made().read_bytes()
    assert refused(forged(content, OTHER, public=OTHER.public)).code == "check_failed"
    assert "signature" in refused(forged(content, OTHER)).message
    assert "key" in refused(content, OTHER.public).message


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"position": 2_999}, "ends at entry"),
        ({"head": "00" * 32}, "ends at entry"),
        ({"rows": {table.name: 1 for table in backed_tables()}}, "as many rows"),
        ({"parts": ()}, "its manifest states 0"),
    ],
)
def test_what_the_exchange_signed_must_still_be_true(
    made: Callable[..., Path], changes: dict[str, Any], why: str
) -> None:
    assert why in refused(forged(made().read_bytes(), **changes)).message


def hostile(name: str, content: bytes = b"x", **fields: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        made.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        hostile("../../etc/passwd"),
        hostile("/etc/passwd"),
        hostile("files/../exchange.json"),
        hostile("files/other.json"),
        hostile("logs/.."),
        hostile("logs/a..b"),
        hostile("tables/event/000000.ndjson", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        hostile("tables/event/000000.ndjson", b"", type=tarfile.LNKTYPE, linkname="x"),
        hostile("tables/event", b"", type=tarfile.DIRTYPE),
        hostile("files/limits.json" + "/x" * 200),
        hostile("files/limits.json", bytes(2**20 + 1)),
        hostile("blobs/ab/" + "cd" * 31),
    ],
)
def test_what_no_backup_holds_is_refused(content: bytes) -> None:
    assert refused(content).code == "check_failed"


def test_a_member_that_claims_to_be_huge_is_not_waited_for() -> None:
    content = bytearray(hostile("tables/event/000000.ndjson"))
    info = tarfile.TarInfo("tables/event/000000.ndjson")
    info.size = 8 * 2**30 - 1
    content[:512] = info.tobuf(tarfile.USTAR_FORMAT)
    assert "ends in the middle" in refused(bytes(content)).message


# -- filling -----------------------------------------------------------------------------------------------------------


def test_only_an_empty_store_is_filled(made: Callable[..., Path], target: str) -> None:
    backup = opened(made())
    other = Store(target).open()
    other.append(Batch(changes=[job("j-9")]))
    other.close()
    with pytest.raises(TielineError, match="not empty") as caught:
        fill(backup, target)
    assert caught.value.code == "conflict"
    again = Store(target).open()
    assert [held.id for held in again.jobs()] == ["cn.demo/job/j-9"]
    again.close()


def test_a_store_that_cannot_be_filled_whole_stays_empty(
    made: Callable[..., Path], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = opened(made())
    rows = list(backup.rows())
    monkeypatch.setattr(backup, "rows", lambda: iter([*rows, rows[-1]]))
    with pytest.raises(StoreError):
        fill(backup, target)
    monkeypatch.undo()
    fill(backup, target)
    restored = Store(target).open()
    assert restored.position()[0] == 3_000
    restored.close()


def test_a_file_has_its_name_only_when_it_is_whole(made: Callable[..., Path], tmp_path: Path) -> None:
    backup = opened(made())
    path = tmp_path / "new" / "tieline.db"
    fill_file(backup, path)
    assert [each.name for each in path.parent.iterdir()] == ["tieline.db"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(TielineError, match="exists already"):
        fill_file(backup, path)
    restored = Store(f"sqlite:///{path}").open()
    assert restored.verify_chain().events == 3_000
    restored.close()


def test_every_table_is_in_a_backup() -> None:
    assert {table.name for table in backed_tables()} == set(t.metadata.tables) - {"alembic_version"}
