"""A backup and a restore on this machine: the folder is the right, and nothing half done stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tieline.cli.compose import Exchange, identity_of, store_of
from tieline.cli.main import tieline
from tieline.drivers.stores.store import Store
from tieline.model.error import TielineError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An exchange that was there, in the folder of `up`."""
    folder = tmp_path / "up"
    Exchange(folder / "exchange", identity_of(folder / "exchange")).close()
    return folder


def asked(*words: str) -> str:
    result = CliRunner().invoke(tieline, list(words), catch_exceptions=True)
    if isinstance(result.exception, SystemExit) and result.exception.code:
        raise AssertionError(result.output)
    return result.output


def refused(*words: str) -> str:
    result = CliRunner().invoke(tieline, list(words))
    assert result.exit_code != 0
    return result.output


def test_an_exchange_goes_on_elsewhere_from_its_backup_and_says_that_it_began_anew(home: Path, tmp_path: Path) -> None:
    file, other = str(tmp_path / "b.tar"), tmp_path / "other"
    asked("exchange", "backup", file, "--folder", str(home), "--with-keys")
    said = asked("exchange", "restore", file, "--folder", str(other))
    assert "local/exchange/main" in said
    assert {path.name for path in (other / "exchange").iterdir()} == {"exchange.json", "admin.token", "tieline.db"}
    exchange = Exchange(other / "exchange", identity_of(other / "exchange"))
    try:
        renewed = exchange.store.events(kinds=("session_renewed",))
        assert [b'"why":"restored"' in bytes(event.body) for event in renewed] == [True]
        assert exchange.store.verify_chain().is_verified
    finally:
        exchange.close()


def test_a_backup_is_made_while_the_exchange_runs(home: Path, tmp_path: Path) -> None:
    exchange = Exchange(home / "exchange", identity_of(home / "exchange"))
    try:
        said = asked("exchange", "backup", str(tmp_path / "b.tar"), "--folder", str(home))
    finally:
        exchange.close()
    assert str(home / "exchange" / "exchange.json") in said, "it says what it does not hold"


def test_a_backup_without_keys_needs_them_in_the_folder(home: Path, tmp_path: Path) -> None:
    file, other = str(tmp_path / "b.tar"), tmp_path / "other"
    asked("exchange", "backup", file, "--folder", str(home))
    assert "holds no keys" in refused("exchange", "restore", file, "--folder", str(other))
    assert not other.exists()
    (other / "exchange").mkdir(parents=True)
    (other / "exchange" / "exchange.json").write_bytes((home / "exchange" / "exchange.json").read_bytes())
    asked("exchange", "restore", file, "--folder", str(other))
    assert (other / "exchange" / "tieline.db").exists()


def test_a_backup_of_another_exchange_is_refused(home: Path, tmp_path: Path) -> None:
    file, other = str(tmp_path / "b.tar"), tmp_path / "other"
    asked("exchange", "backup", file, "--folder", str(home), "--with-keys")
    identity_of(other / "exchange")
    assert "key is not that of this folder" in refused("exchange", "restore", file, "--folder", str(other))
    assert [path.name for path in (other / "exchange").iterdir()] == ["exchange.json"]


def test_a_store_that_is_there_is_never_written_over(home: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "b.tar")
    asked("exchange", "backup", file, "--folder", str(home), "--with-keys")
    assert "has a store" in refused("exchange", "restore", file, "--folder", str(home))
    assert "exists already" in refused("exchange", "backup", file, "--folder", str(home))
    content = bytearray(Path(file).read_bytes())
    content[1_000] ^= 1
    Path(file).write_bytes(content)
    assert "no whole backup" in refused("exchange", "restore", file, "--folder", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_there_is_nothing_to_back_up_where_no_exchange_is(tmp_path: Path) -> None:
    assert "there is no exchange" in refused("exchange", "backup", str(tmp_path / "b"), "--folder", str(tmp_path))


def test_the_store_of_an_exchange_is_stated_once(tmp_path: Path) -> None:
    folder, url = tmp_path / "exchange", f"sqlite:///{tmp_path / 'elsewhere' / 'store.db'}"
    Exchange(folder, identity_of(folder), url).close()
    assert (folder / "store").stat().st_mode & 0o777 == 0o600
    assert not (folder / "tieline.db").exists()
    Exchange(folder, identity_of(folder)).close()
    opened = Store(url).open()
    assert opened.position()[0] == 2
    opened.close()
    assert store_of(folder) == store_of(folder, url) == url
    with pytest.raises(TielineError, match="has its store at"):
        store_of(folder, f"sqlite:///{tmp_path / 'third.db'}")
