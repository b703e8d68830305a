"""Following: reading a store along while another process writes it. Takes no lock and changes nothing.

How a process follows and takes over::

    follower = Follower(url).open()
    with follower.snapshot() as moment:            # position and rows of one moment
        after, head = moment.position()
        fill(view, moment.tables())
    while not asked_to_lead:
        follower.wait(after, timeout_s=0.5)        # wakes at a commit (NOTIFY), else polls
        for row in follower.log_rows(after):       # applied in order, to the end
            ...
        lookout.judge(follower.seen(), now_s)      # who leads, or whether nobody does (`leadership.py`)
    Store(url).open()                              # raises `conflict` while another process holds the writer's lock

The lock is a session of the writer: when it dies, `holder` is None within a moment. A writer whose process stands
still (SIGSTOP) keeps its session; `depose` ends that session, and with it whatever the writer had not committed. When
it wakes up, it finds a higher `term` in the store, gets `not_leader`, and never writes again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.exc import DatabaseError

from tieline.drivers.stores import tables as t
from tieline.drivers.stores.database import Database, database_of
from tieline.drivers.stores.leadership import Seen, leader_of
from tieline.drivers.stores.reader import Reader
from tieline.drivers.stores.snapshot import Snapshot, snapshot_of
from tieline.drivers.stores.store import meta_of, opening_error
from tieline.model.error import TielineError

if TYPE_CHECKING:
    from tieline.drivers.stores.postgresql import Holder

POLL_S = 0.1
LISTEN_S = 1.0  # how long a NOTIFY is trusted to come before the position is looked at anyway


class Follower(Reader):
    """The questions of `Reader` on the store at ``url``, and what a process needs that follows its writer."""

    def __init__(self, url: str) -> None:
        self._database: Database = database_of(url)
        self._listening: Any = None
        self._is_closed = False

    @property
    def shown(self) -> str:
        """Where the store is, for people."""
        return self._database.shown

    def open(self) -> Follower:
        """Raises `not_found` when no writer has made the store yet, `version_not_supported` when its shape is another.

        `store_unreachable` when a server does not answer, `internal` when it is no store.
        """
        path = getattr(self._database, "path", None)
        if path is not None and not path.exists():
            raise TielineError("not_found", f"there is no store at `{path}`")
        super().__init__(self._database.reading())
        try:
            self._check_shape()
        except BaseException as error:
            self.close()
            if isinstance(error, DatabaseError):
                raise opening_error(self._database, error) from error
            raise
        return self

    def _check_shape(self) -> None:
        from sqlalchemy import inspect

        with self._engine.connect() as connection:
            if t.alembic_version.name not in inspect(connection).get_table_names():
                raise TielineError("not_found", f"there is no store in `{self.shown}` yet: its writer makes it")
            stored = connection.execute(select(t.alembic_version.c.version_num)).scalar()
        if stored != t.REVISION:
            raise TielineError(
                "version_not_supported",
                f"the store has revision `{stored}`, this version reads `{t.REVISION}`: its writer upgrades it",
            )

    def close(self) -> None:
        """Let go of every connection; `wait` in another thread ends, and opens none anew."""
        self._is_closed = True
        self._deafen()
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.dispose()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """One moment: its position and its rows belong together, while the writer goes on."""
        with snapshot_of(self._engine) as snapshot:
            yield snapshot

    def wait(self, after: int, timeout_s: float) -> int:
        """Block until the log is longer than ``after`` entries or the time is over; returns its length.

        For one thread at a time. Raises what reading the position raises while the server is away.
        """
        deadline = time.monotonic() + timeout_s
        while not self._is_closed:
            heard = self._listen()
            seq = self.position()[0]
            left_s = deadline - time.monotonic()
            if seq > after or left_s <= 0:
                return seq
            if heard is None:
                time.sleep(min(POLL_S, left_s))
                continue
            try:
                for _ in heard.notifies(timeout=min(LISTEN_S, left_s), stop_after=1):
                    pass
            except Exception:  # noqa: BLE001 - the connection broke: look again, and listen anew
                self._deafen()
                time.sleep(min(POLL_S, left_s))
        return after

    def _listen(self) -> Any:
        """The connection that hears of commits; None where the database cannot tell, or does not answer."""
        listening = getattr(self._database, "listening", None)
        if self._listening is None and listening is not None:
            with suppress(Exception):
                self._listening = listening()
            if self._is_closed:  # meanwhile
                self._deafen()
        return self._listening

    def _deafen(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            with suppress(Exception):
                listening.close()

    # -- the writer ---------------------------------------------------------------------------------------------------

    def term(self) -> int:
        """The number of the newest writer (`Store.term`); 0 for a file."""
        with self._engine.connect() as connection:
            return int.from_bytes(meta_of(connection, "term") or b"", "big")

    def holder(self) -> Holder | None:
        """The session that holds the writer's lock; None when nobody does, so that `Store.open` may succeed.

        Of a server's store only: a file has no followers that could take over.
        """
        from tieline.drivers.stores.postgresql import holder

        with self._engine.connect() as connection:
            return holder(connection)

    def seen(self) -> Seen:
        """Term, leader and holder at once: what a lookout judges by. Of a server's store only."""
        from tieline.drivers.stores.postgresql import holder

        with self._engine.connect() as connection:
            found = holder(connection)
            term = int.from_bytes(meta_of(connection, "term") or b"", "big")
            return Seen(term, leader_of(connection), found)

    def sizes(self) -> dict[str, int]:
        """Bytes of the database."""
        return self._database.sizes(self._engine)

    def depose(self, found: Holder) -> bool:
        """End the session of a writer that answers nobody. True when the server was told to end it."""
        from tieline.drivers.stores.postgresql import depose

        with self._engine.connect() as connection:
            return depose(connection, found)
