"""Standing: one of several exchange processes on one database: it follows, it leads, and it steps down.

::

              lock taken: fill a view, start a writer, keep the first beat
    FOLLOWING ------------------------------------------------------------> LEADING
        ^                                                                      |
        +----------------------------------------------------------------------+
              the session or the term is lost: the writer has ended, streams end, the store is let go

The listener, the server and its connections stay through all of it: only the part of the `Front` changes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import logging
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tieline.api.app import OPERATIONS, api_document, make_app
from tieline.api.following.available import Available, available_at
from tieline.api.following.forwarding import Forwarder
from tieline.api.following.front import Following, Front, Leading
from tieline.api.following.local import Routes
from tieline.api.following.nonces import LedNonces, first_s
from tieline.api.following.platform import FollowingPlatform, as_store, as_writer
from tieline.api.following.sibling import Siblings
from tieline.api.following.trail import Trail
from tieline.api.serve import Server, address_of, bound, make_server
from tieline.cli.compose import (
    EVERYWHERE,
    Exchange,
    Identity,
    Options,
    announce,
    check_identity,
    issuers_of,
    limits_of,
    shared_of,
    write_private,
)
from tieline.drivers.clock import SystemClock
from tieline.drivers.garbage import collect_rarely
from tieline.drivers.stores.blobs import Blobs
from tieline.drivers.stores.disk import Disk
from tieline.drivers.stores.following import Follower
from tieline.drivers.stores.leadership import BEAT_S, Leader, Lease, Seen, Standing, beat_of
from tieline.drivers.stores.logs import Logs
from tieline.drivers.stores.store import Store
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.projection import load
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.registry import Key

Gauges = Mapping[str, tuple[str, str, Mapping[str, float]]]
RETRY_S = 0.2
BEGIN_S = 0.01
FIRST_S = 120.0  # so long a new process waits for another one to make the store
SUPERSEDED_S = 3.0  # so long after a writer's end it may take until the next one is seen
log = logging.getLogger("tieline.standing")


class Process:
    """One exchange process from its start to its end."""

    def __init__(self, folder: Path, identity: Identity, store: str, options: Options, listener: socket.socket) -> None:
        self.folder, self.identity, self.url, self.options = folder, identity, store, options
        self.listeners = [listener]
        self.limits = limits_of(folder)
        self.shared = shared_of(folder, options.shared)
        self.keys = ExchangeKeys(Key(base64.b64decode(identity.seed)), identity.prefix)
        self.siblings = Siblings(base64.b64decode(identity.seed))
        self.clock = SystemClock()
        self.routes = Routes(OPERATIONS)
        self.document = api_document()
        self.front = Front()
        self.has_tls = bool(options.certificate)
        self.address = address_of(listener, has_tls=self.has_tls)
        self.server: Server = make_server(
            cast(Any, self.front),
            cast(Any, self.front),
            certificate=Path(options.certificate) if options.certificate else None,
            key=Path(options.key) if options.key else None,
        )
        self.internal, self.certificate = self._internal()
        self._free = asyncio.Event()
        self._following: _Followed | None = None
        self._is_announced = False
        self.draining: set[asyncio.Task[None]] = set()

    def _internal(self) -> tuple[str, str]:
        """Where siblings reach this process, and the sha256 of the certificate that they find there."""
        options = self.options
        if options.internal_url:
            return options.internal_url.rstrip("/"), ""
        url = self.address
        if options.is_port_shared or options.host in EVERYWHERE:
            own = bound("127.0.0.1", 0)
            self.listeners.append(own)
            url = address_of(own, has_tls=self.has_tls)
            log.info("siblings reach this process at %s, on this machine only; --internal-url names another", url)
        return url, fingerprint(Path(options.certificate)) if self.has_tls else ""

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until nothing can be decided here any more (then 1)."""
        standing = asyncio.create_task(self._stand())
        standing.add_done_callback(lambda _: setattr(self.server, "should_exit", True))
        try:
            await self.server.serve(sockets=self.listeners)
        finally:
            standing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await standing
            if self._is_announced:
                (self.folder / "address").unlink(missing_ok=True)
        return 1 if not self.server.signals else 0

    async def _stand(self) -> None:
        try:
            while True:
                exchange = await self._elected()
                if not await self._lead(exchange):
                    log.critical("the writer ended without a successor: this process ends")
                    return
        finally:
            await self._unfollow()

    def _announce(self) -> None:
        if not self._is_announced:
            self._is_announced = True
            collect_rarely()
            announce(self.folder, self.listeners[0], has_tls=self.has_tls)

    # -- following ----------------------------------------------------------------------------------------------------

    async def _elected(self) -> Exchange:
        """Follow until the lock is ours."""
        while True:
            try:
                taken = await asyncio.to_thread(self._take)
            except TielineError as error:
                if self._following is None or not error.transient:
                    raise
                log.warning("the lock cannot be asked for: %s", error)
                taken = None
            if taken is not None:
                return taken
            if self._following is None:
                self._following = await self._follow()
                self._announce()
            self._free.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._following.is_free else None):
                    await self._free.wait()

    def _take(self) -> Exchange | None:
        """The exchange, with a writer that runs; None while another process holds the lock."""
        try:
            store = Store(self.url).open()
        except TielineError as error:
            if error.code != "conflict":
                raise
            return None
        try:
            exchange = Exchange(self.folder, self.identity, opened=store, files=self.shared)
        except BaseException:
            store.close()
            raise
        if self.options.store and not (self.folder / "store").exists():
            write_private(self.folder / "store", self.url.encode())
        return exchange

    async def _follow(self) -> _Followed:
        until_s = asyncio.get_running_loop().time() + FIRST_S
        while True:
            try:
                followed = _Followed(self)
                await followed.start()
            except TielineError as error:
                if error.code != "not_found" or asyncio.get_running_loop().time() > until_s:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                break
        if self.options.store and not (self.folder / "store").exists():
            write_private(self.folder / "store", self.url.encode())
        self.front.part, self.front.relay = followed.part, None
        return followed

    def freed(self) -> None:
        """Nobody leads: try the lock. On the loop's thread."""
        self._free.set()

    async def _unfollow(self, leader: Leader | None = None) -> None:
        followed, self._following = self._following, None
        if followed is not None:
            await followed.close(leader)

    # -- leading ------------------------------------------------------------------------------------------------------

    async def _lead(self, exchange: Exchange) -> bool:
        """Lead until this process is stopped, or its writer ends: then whether another one has taken over."""
        term = exchange.store.term
        tasks: list[asyncio.Task[Any]] = []
        began_ms = self.clock.now_ms()
        platform, sweeper = exchange.platform(self.options, self.address, began_ms)
        first_ms = 0
        if term > 1:
            platform.peer_calls.nonces = LedNonces(first_s(began_ms))
            first_ms = first_s(began_ms) * 1000
        else:
            platform.peer_calls.nonces = LedNonces(began_ms // 1000)
        platform.metrics.watch(lambda: _gauges(is_leading=True, term=term))
        try:
            await platform.start(self.document)
            lease = Lease()
            part = Leading(
                cast(Any, make_app(platform)),
                self.siblings,
                lease,
                self.clock,
                lambda: exchange.writer.position[0],
                lambda: available_at(platform.view),
                platform.closing,
                peers_from_ms=first_ms,
            )
            tasks = [asyncio.create_task(self._beat(exchange, term, lease)), asyncio.create_task(sweeper.run())]
            while not lease.holds and exchange.writer.alive:  # noqa: ASYNC110 - for one beat, once
                await asyncio.sleep(BEGIN_S)
            self.front.part, self.front.relay = part, platform.relay
            self._announce()
            log.warning("this process leads, as writer %d of the log", term)
            await self._unfollow(Leader(term=term, url=self.internal, certificate=self.certificate))
            while exchange.writer.alive:  # noqa: ASYNC110 - a thread's end wakes nobody
                await asyncio.sleep(RETRY_S)
            lease.end()
            platform.closing()
            if not await self._superseded(term):
                return False
            self._following = await self._follow()
            log.warning("another process leads: this one follows it")
            await self.front.quiet(part)
            return True
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            platform.close()
            await asyncio.to_thread(exchange.close)

    async def _beat(self, exchange: Exchange, term: int, lease: Lease) -> None:
        """Say that this process leads, again and again; the lease goes on only with what was kept."""
        beat, is_late = 0, False
        while True:
            begun_s = lease.begun()
            leader = Leader(term=term, url=self.internal, certificate=self.certificate, beat=beat)
            try:
                await asyncio.wrap_future(exchange.writer.keep([beat_of(leader)]))
            except TielineError as error:
                if not is_late:
                    log.warning("the beat of this leader was not kept: %s", error)
                is_late = True
            else:
                lease.renew(begun_s)
                beat, is_late = beat + 1, False
            await asyncio.sleep(BEAT_S)

    async def _superseded(self, term: int) -> bool:
        """Whether another writer has begun since ``term``."""

        def newest() -> int:
            follower = Follower(self.url).open()
            try:
                return follower.term()
            finally:
                follower.close()

        until_s = asyncio.get_running_loop().time() + SUPERSEDED_S
        while asyncio.get_running_loop().time() < until_s:
            with contextlib.suppress(TielineError):
                if await asyncio.to_thread(newest) != term:
                    return True
            await asyncio.sleep(RETRY_S)
        return False


class _Followed:
    """What a process has while it follows: a trail of the log, a platform on it, and a way to the leader."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.is_free = False
        self.is_over = False
        self._loop = asyncio.get_running_loop()
        self._shown = ""
        self._term = 0

    async def start(self) -> None:
        """Fill a view, and begin. Raises `not_found` while there is no store, or no exchange in it."""
        process = self.process
        self.follower = await asyncio.to_thread(Follower(process.url).open)
        try:
            self.trail = Trail(self.follower, self._new_view, load, process.clock, self._told)
            self.forwarder = Forwarder(process.siblings, process.clock, self.trail.look)
            await asyncio.to_thread(self._begin)
            await self._serve()
        except BaseException:
            await asyncio.to_thread(self.follower.close)
            raise

    def _new_view(self) -> View:
        return View(self.process.keys, self.process.limits, fetch=self.follower.jobs_named)

    def _begin(self) -> None:
        self.trail.start()
        view = self.trail.view
        if view.exchange is None:
            self.trail.close()
            raise TielineError("not_found", "the exchange was not created yet")
        try:
            check_identity(view, self.process.keys, self.follower.shown)
        except TielineError:
            self.trail.close()
            raise

    async def _serve(self) -> None:
        process = self.process
        files = process.shared or process.folder
        disk = Disk(files, process.limits.reserve_bytes)
        self.platform = FollowingPlatform(
            store=as_store(self.follower),
            writer=as_writer(self.trail),
            blobs=Blobs(files / "blobs", process.clock, disk, process.limits.blobs_bytes),
            logs=Logs(files / "logs", disk, process.limits.log_bytes, process.limits.logs_bytes),
            clock=process.clock,
            limits=process.limits,
            keys=process.keys,
            sealing_key=base64.b64decode(process.identity.sealing),
            started_ms=process.clock.now_ms(),
            url=process.options.public_url or process.address,
            scope=process.identity.scope,
            issuers=issuers_of(process.folder, process.identity.prefix),
        )
        self.platform.metrics.watch(lambda: _gauges(is_leading=False, term=self._term, passed_on=self.forwarder.open))
        await self.platform.start(process.document)
        self.part = Following(
            cast(Any, make_app(self.platform)),
            process.routes,
            self.platform,
            self.trail,
            self.forwarder,
            Available(self.forwarder.ask, self.trail, self.platform.indexing.heard),
            has_files=process.shared is not None,
        )

    def _told(self, standing: Standing, seen: Seen) -> None:
        """In the trail's thread: who leads."""
        if standing is Standing.FROZEN and seen.holder is not None:
            log.warning("writer %d has stood still: its session `%s` is ended", seen.term, seen.holder.name)
            self.follower.depose(seen.holder)
        leader = seen.leader if standing is Standing.LED else None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._turn, leader, standing)

    def _turn(self, leader: Leader | None, standing: Standing) -> None:
        self._term = leader.term if leader is not None else 0
        shown = f"{leader.url}, writer {leader.term}" if leader is not None else standing.value
        if shown != self._shown:
            self._shown = shown
            log.info("the leader is now: %s", shown)
        self.is_free = standing in (Standing.FREE, Standing.FROZEN)
        if not self.is_over:
            self.forwarder.turn(leader)
        if self.is_free:
            self.process.freed()

    async def close(self, leader: Leader | None) -> None:
        """End: streams end, and requests that wait are still answered by ``leader``, which may be this very process."""
        self.is_over = True
        if leader is None:
            await self.forwarder.close()
        else:
            self.forwarder.turn(leader)
            draining = asyncio.create_task(self.forwarder.drain())
            self.process.draining.add(draining)
            draining.add_done_callback(self.process.draining.discard)
        self.platform.closing()
        if leader is not None:
            await self.process.front.quiet(self.part)
        self.platform.close()
        await asyncio.to_thread(self.trail.close)
        gc.unfreeze()  # its view may go


def _gauges(*, is_leading: bool, term: int, passed_on: int = 0) -> Gauges:
    return {
        "leading": ("1 while this process writes", "", {"": float(is_leading)}),
        "term": ("number of the writer that leads; 0: none does", "", {"": term}),
        "passed_on": ("requests that are with the leader now", "", {"": passed_on}),
    }


def fingerprint(certificate: Path) -> str:
    """The sha256 of the first certificate of a PEM file."""
    text = certificate.read_text()
    end = "-----END CERTIFICATE-----"
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text.partition(end)[0] + end)).hexdigest()
