"""Compose: where an exchange is put together from its parts. Nothing else knows all of them.

One folder holds everything of an exchange: ``exchange.json`` (name, keys, 0600), ``tieline.db``, ``blobs/``, ``logs/``,
``limits.json`` where limits differ from the defaults, ``oidc.json`` where identity providers are believed,
``admin.token``, the ``port`` that its sites know, the ``address`` of the running process, and ``store``, the URL of a
store that is in a database server. There several processes may stand beside each other (`cli/standing.py`), and
``shared`` names the folder of blobs and logs that they have in common.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tieline.api.app import make_app
from tieline.api.platform import Platform
from tieline.api.serve import address_of, bound, make_server, serve
from tieline.drivers.clock import SystemClock, SystemIds
from tieline.drivers.garbage import collect_rarely
from tieline.drivers.peers.federation import Federation
from tieline.drivers.peers.puller import Puller
from tieline.drivers.peers.readings import ReadingsDuty
from tieline.drivers.peers.use import Use
from tieline.drivers.peers.witness import witness_of
from tieline.drivers.stores.blobs import Blobs
from tieline.drivers.stores.disk import Disk, private_folder
from tieline.drivers.stores.logs import Logs
from tieline.drivers.stores.secrets import ended_secrets
from tieline.drivers.stores.store import Store
from tieline.drivers.stores.sweeper import Sweeper
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import CreateExchange, ForgetRecords, RenewSession
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.orders import order_of
from tieline.exchange.placing import schedule
from tieline.exchange.projection import load, rows
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.limits import Limits, conflicts, share_bytes
from tieline.registry import Key

if TYPE_CHECKING:
    from tieline.api.oidc import Issuers

EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, never bound
SWITCH_S = 0.0005  # the writer and the loop hand over to each other often: a batch must not wait 5 ms for its turn


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who an exchange is, with its private seeds; kept 0600."""

    prefix: str
    name: str
    scope: str
    seed: str  # Ed25519, base64
    sealing: str  # X25519 private, base64


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How an exchange is served."""

    host: str = "127.0.0.1"
    port: int = 0
    certificate: str = ""
    key: str = ""
    is_plain_allowed: bool = False
    public_url: str = ""  # what sites and users call, where it is not the address that is listened on
    store: str = ""  # URL of the store, where it is not the file in the folder; kept in the folder once it opened
    shared: str = ""  # folder of blobs and logs that several processes have in common; kept in the folder too
    is_port_shared: bool = False  # other processes of this machine listen on the same port
    internal_url: str = ""  # where its siblings reach this process, where that is not what it listens on


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def identity_of(folder: Path, prefix: str = "local", name: str = "main", scope: str = "enterprise") -> Identity:
    """The identity in ``folder``; made at the first start and never changed."""
    path = folder / "exchange.json"
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=Identity)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise TielineError(
                "invalid_request",
                f"`{path}` cannot be read: {error}",
                hints=("restore it from a backup: without it nobody believes this exchange",),
            ) from None
    private_folder(folder)
    made = Identity(
        prefix=prefix,
        name=name,
        scope=scope,
        seed=base64.b64encode(secrets.token_bytes(32)).decode(),
        sealing=base64.b64encode(secrets.token_bytes(32)).decode(),
    )
    write_private(path, msgspec.json.encode(made))
    return made


def limits_of(folder: Path) -> Limits:
    """The limits of ``folder``; raises TielineError for values that cannot mean anything together."""
    path = folder / "limits.json"
    try:
        limits = msgspec.json.decode(path.read_bytes(), type=Limits) if path.exists() else Limits()
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise TielineError("invalid_request", f"`{path}`: {error}", where="limits.json") from None
    wrong = conflicts(limits)
    if wrong:
        raise TielineError("invalid_request", f"`{path}`: {'; '.join(wrong)}", where="limits.json")
    return limits


def store_of(folder: Path, stated: str = "") -> str:
    """The URL of the store of ``folder``: as it was kept, as ``stated`` at the first start, or the file in the folder.

    Raises `conflict` when another store than the one that this exchange has is stated: it would begin again with
    nothing, and its peers would take that for a fraud.
    """
    kept, file = "", folder / "tieline.db"
    if (folder / "store").exists():
        kept = (folder / "store").read_text().strip()
    elif file.exists():
        kept = f"sqlite:///{file}"
    if stated and kept and stated != kept:
        raise TielineError(
            "conflict",
            f"the exchange in `{folder}` has its store at `{kept}`",
            hints=("tieline exchange backup FILE  # then restore it into the other store",),
        )
    return kept or stated or f"sqlite:///{file}"


def shared_of(folder: Path, stated: str = "") -> Path | None:
    """The folder of blobs and logs that the processes of one exchange share; None where each has its own.

    Raises `conflict` when another one than the one that was kept is stated, `invalid_request` where it is not there.
    """
    path = folder / "shared"
    kept = path.read_text().strip() if path.exists() else ""
    named = str(Path(stated).resolve()) if stated else ""
    if named and kept and named != kept:
        raise TielineError("conflict", f"the exchange in `{folder}` has its blobs and logs in `{kept}`", where="shared")
    found = kept or named
    if not found:
        return None
    if not Path(found).is_dir():
        raise TielineError("invalid_request", f"the shared folder `{found}` is not there", where="shared")
    if not kept:
        write_private(path, found.encode())
    return Path(found)


def issuers_of(folder: Path, prefix: str) -> Issuers | None:
    """The identity providers of ``folder``; None where it names none, and nothing of theirs is loaded then."""
    if not (folder / "oidc.json").exists():
        return None
    from tieline.api.oidc import Issuers

    return Issuers.of(folder, prefix)


class Exchange:
    """One exchange in this process: opened, served, closed."""

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        store: str = "",
        *,
        opened: Store | None = None,
        files: Path | None = None,
    ) -> None:
        """``opened``: its store, which this process is the writer of already. ``files``: where blobs and logs lie."""
        self.folder = folder
        self.files = files or folder
        self.identity = identity
        self.limits = limits_of(folder)
        self.issuers = issuers_of(folder, identity.prefix)
        self.keys = ExchangeKeys(Key(base64.b64decode(identity.seed)), identity.prefix)
        self.clock = SystemClock()
        self._view: View | None = None
        disk = Disk(self.files, self.limits.reserve_bytes)
        self.store = opened or Store(store_of(folder, store)).open()
        if store and not (folder / "store").exists():
            write_private(folder / "store", store.encode())
        self.writer: Writer[View] = Writer(
            self.store,
            self._new_view,
            decide,
            schedule,
            rows,
            load,
            self.clock,
            SystemIds(self.clock),
            order_of=order_of,
            aside=ended_secrets,
            room=disk.check,
            batch=self.limits.batch,
            queue=self.limits.queue,
            tick_ms=self.limits.tick_ms,
            idempotency_ms=self.limits.idempotency_s * 1000,
        ).start()
        limits = self.limits
        self.blobs = Blobs(self.files / "blobs", self.clock, disk, limits.blobs_bytes, share_bytes(limits)).open()
        self.logs = Logs(self.files / "logs", disk, self.limits.log_bytes, self.limits.logs_bytes).open()
        try:
            self._create()
        except BaseException:
            self.close()
            raise

    def _new_view(self) -> View:
        """An empty view; when it replaces one that could not be kept, sessions go on."""
        view, before = View(self.keys, self.limits, fetch=self.store.jobs_named), self._view
        if before is not None:
            view.carry(before)
        self._view = view
        return view

    def _create(self) -> None:
        """Give a new exchange its name and its first admin; the admin's token is written once, for this user alone."""
        if self.writer.position[0]:
            check_identity(self._view, self.keys, self.store.shown)
            if not self._view or not self._view.exchange or not self._view.exchange.session:
                why = "restored" if self.store.noted("restored") else "upgraded"
                renewed = RenewSession(session=secrets.token_hex(8), why=why)
                self.writer.submit(renewed).result(30)
            return
        token = "tl-" + secrets.token_urlsafe(24)
        write_private(self.folder / "admin.token", token.encode())
        self.writer.submit(
            CreateExchange(
                id=f"{self.identity.prefix}/exchange/{self.identity.name}",
                prefix=self.identity.prefix,
                public=self.keys.key.public,
                admin_token_sha256=hashlib.sha256(token.encode()).hexdigest(),
                session=secrets.token_hex(8),
            )
        ).result(30)

    def platform(self, options: Options, url: str, started_ms: int = 0) -> tuple[Platform, Sweeper]:
        """What its API needs, and what lets go of what is not kept."""
        sweeper = Sweeper(self.store, self.writer, self.blobs, self.logs, self.limits, self.clock, self._forget)
        platform = Platform(
            store=self.store,
            writer=self.writer,
            blobs=self.blobs,
            logs=self.logs,
            clock=self.clock,
            limits=self.limits,
            keys=self.keys,
            sealing_key=base64.b64decode(self.identity.sealing),
            started_ms=started_ms or self.clock.now_ms(),
            url=options.public_url or url,
            scope=self.identity.scope,
            issuers=self.issuers,
            collected=lambda: sweeper.collected,
        )
        platform.federation = Federation(platform, (Puller, Use, ReadingsDuty, witness_of(platform)))
        return platform, sweeper

    async def serve(self, options: Options, listener: socket.socket) -> None:
        """Answer until SIGTERM or SIGINT."""
        platform, sweeper = self.platform(options, address_of(listener, has_tls=bool(options.certificate)))
        server = make_server(
            make_app(platform),
            platform,
            certificate=Path(options.certificate) if options.certificate else None,
            key=Path(options.key) if options.key else None,
        )
        sweeping = asyncio.create_task(sweeper.run())
        watching = asyncio.create_task(self._watch(server))
        try:
            await serve(server, listener)
        finally:
            for task in (sweeping, watching):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _forget(self, ids: Sequence[str]) -> int:
        gone: int = await asyncio.wrap_future(self.writer.submit(ForgetRecords(ids=tuple(ids))))
        return gone

    async def _watch(self, server: object) -> None:
        """A process whose writer died answers nothing useful: end it, so that whoever supervises it starts it anew."""
        while self.writer.alive:  # noqa: ASYNC110 - a thread's end wakes nobody
            await asyncio.sleep(1)
        server.should_exit = True  # type: ignore[attr-defined]

    def close(self) -> None:
        """Finish what was taken in, and let go of the store."""
        self.writer.close()
        self.store.close()


def check_identity(view: View | None, keys: ExchangeKeys, shown: str) -> None:
    """Raise `conflict` for a store that belongs to an exchange with another key: two would answer by one log."""
    row = view.exchange if view is not None else None
    if row is not None and row.public != keys.key.public:
        raise TielineError(
            "conflict",
            f"the store `{shown}` belongs to `{row.id}`, which has another key than this folder",
            hints=("copy exchange.json from the folder of that exchange",),
        )


def port_of(folder: Path) -> int:
    """The port that the exchange of ``folder`` had before: its sites will look for it there. 0 at the first start."""
    try:
        return int((folder / "port").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def run_exchange(folder: Path, options: Options, *, prefix: str, name: str, scope: str) -> int:
    """Serve the exchange of ``folder`` until it is told to stop; writes ``address`` once it answers."""
    import uvloop

    from tieline.drivers.jsonlog import log_to

    log_to()
    sys.setswitchinterval(SWITCH_S)
    if options.host in EVERYWHERE and not options.public_url:
        raise TielineError(
            "invalid_request",
            f"`{options.host}` is no address that a site can call: join tokens would carry it",
            where="host",
            hints=("tieline up --host 0.0.0.0 --public-url https://exchange.example",),
        )
    listener = bound(
        options.host,
        options.port or port_of(folder),
        has_tls=bool(options.certificate),
        is_plain_allowed=options.is_plain_allowed,
        is_shared=options.is_port_shared,
    )
    identity, store = identity_of(folder, prefix, name, scope), store_of(folder, options.store)
    if is_server(store):
        from tieline.cli.standing import Process

        return uvloop.run(Process(folder, identity, store, options, listener).run())
    exchange = Exchange(folder, identity, options.store)
    collect_rarely()
    announce(folder, listener, has_tls=bool(options.certificate))
    try:
        uvloop.run(exchange.serve(options, listener))
    finally:
        (folder / "address").unlink(missing_ok=True)
        exchange.close()
    return 0


def announce(folder: Path, listener: socket.socket, *, has_tls: bool) -> None:
    """Say in the folder where the exchange answers."""
    write_private(folder / "port", str(listener.getsockname()[1]).encode())
    write_private(folder / "address", address_of(listener, has_tls=has_tls).encode())


def is_server(store: str) -> bool:
    """Whether a store's URL names a database server, where several processes may follow each other."""
    return not store.startswith("sqlite:")
