"""Platform: what handlers need of the running exchange, and nothing of how it is made (cli/up.py composes it)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import msgspec

from tieline.api.facts import Facts
from tieline.api.heading import Heading
from tieline.api.hub import HEAD, Hub, Mailbox, log_name
from tieline.api.indexing import Indexing
from tieline.api.metrics import Metrics, watch_writer
from tieline.api.peercaller import PeerCalls
from tieline.api.rates import Rates
from tieline.api.relaying import Relay
from tieline.api.sealing import for_branch
from tieline.api.tailing import Tail
from tieline.drivers.peers.federation import Federation
from tieline.drivers.peers.signing import Signer
from tieline.drivers.stores.archive import StoredArchive
from tieline.drivers.stores.blobs import Blobs
from tieline.drivers.stores.heads import kept, newest_heads
from tieline.drivers.stores.inbox import Aside
from tieline.drivers.stores.logs import Logs
from tieline.drivers.stores.store import Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import Command
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.view import ExchangeRow, View
from tieline.model.api import LogKept
from tieline.model.audit import HeadView, LogHead
from tieline.model.error import TielineError
from tieline.model.limits import Limits
from tieline.model.peer import Introduction, PeerState
from tieline.model.peering import BranchView
from tieline.model.protocol import WELCOME, Offer, Proof
from tieline.model.reason import Reason
from tieline.model.task import Task
from tieline.ports import Archive, Clock
from tieline.registry import sealing_public, sign_statement

if TYPE_CHECKING:
    from tieline.api.oidc import Issuers
    from tieline.registry.follow import Standing

T = TypeVar("T")
P = ParamSpec("P")
READERS = 4
SHOW_S = 2.0  # how long an answer waits until what it changed is seen by every later question


@dataclass(kw_only=True)
class Platform:
    """One running exchange as its API sees it. `start` and `close` are called by the application, on its loop."""

    store: Store
    writer: Writer[View]
    blobs: Blobs
    logs: Logs
    clock: Clock
    limits: Limits
    keys: ExchangeKeys
    sealing_key: bytes  # X25519 private key that secrets are sealed to
    started_ms: int
    url: str = ""  # where the exchange is reached, for join tokens
    scope: str = "enterprise"
    issuers: Issuers | None = None  # identity providers that are believed; None: local tokens only
    collected: Callable[[], Mapping[str, int]] = dict  # what the sweeper removed so far
    hub: Hub = field(default_factory=Hub)
    facts: Facts = field(default_factory=Facts)
    metrics: Metrics = field(default_factory=Metrics)
    federation: Federation | None = None  # the pullers of this process; None: another process runs them, or nobody
    rates: Rates = field(init=False)
    peer_calls: PeerCalls = field(init=False)
    tail: Tail = field(init=False)
    indexing: Indexing = field(init=False)
    heading: Heading = field(init=False)
    relay: Relay = field(init=False)
    document: bytes = field(init=False, default=b"")
    task_schema: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Make what is derived."""
        self.rates = Rates(self.limits)
        self.indexing = Indexing(self)
        self.heading = Heading(self)
        self.relay = Relay(self)
        self.peer_calls = PeerCalls(self.started_ms // 1000)
        self.tail = Tail(self)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="tieline-read")

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self, document: Mapping[str, Any]) -> None:
        """Begin to listen to the writer, on the loop that serves."""
        self.document = msgspec.json.encode(document)
        self.task_schema = msgspec.json.schema(Task)
        listeners = [self.facts.note, self.indexing.note, self.tail.note]
        self.hub.listeners[:] = listeners if self.federation is None else [*listeners, self.federation.note]
        self.writer.subscribe(self.hub.take_entries)
        self.writer.subscribe_orders(self.hub.take_orders)
        self.hub.start(lambda: self.writer.position[0])
        await self.indexing.start()
        watch_writer(self)
        self.heading.start()
        if self.federation is not None:
            self.federation.start()

    def closing(self) -> None:
        """The process is about to end: end streams and waits. May be called twice."""
        self.indexing.is_given_up = True
        self.heading.close()
        self.relay.close()
        self.hub.close()
        self.tail.close()
        if self.federation is not None:
            self.federation.close()

    def close(self) -> None:
        """Let go of what `start` took; the store and the writer belong to whoever made them."""
        self.closing()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- who this is --------------------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """The view, for look-ups of single names: it is the writer's. Raises TielineError when there is none."""
        try:
            return self.writer.view
        except AssertionError:
            raise TielineError("overloaded", "the state cannot be read from the store now") from None

    @property
    def exchange(self) -> ExchangeRow:
        """Name and prefix."""
        row = self.view.exchange
        if row is None:
            raise TielineError("overloaded", "this exchange has not been created yet")
        return row

    @cached_property
    def fingerprint(self) -> str:
        """Of the signing key: what a site pins."""
        return self.keys.key.fingerprint

    @cached_property
    def sealing_public(self) -> str:
        """What secrets are sealed to."""
        return sealing_public(self.sealing_key)

    @cached_property
    def token_seed(self) -> bytes:
        """Only this exchange can derive it; tokens that were asked for with an idempotency key come from it."""
        return hashlib.sha256(b"tieline token seed\n" + self.sealing_key).digest()

    def prove(self, nonce: str) -> str:
        """The proof in a welcome: the site's nonce, signed by the key that the site pinned."""
        proof = Proof(nonce=nonce, exchange=self.exchange.id)
        return sign_statement(proof, self.keys.key, self.keys.kid, WELCOME).decode()

    @cached_property
    def signer(self) -> Signer:
        """Signs what is said to peers."""
        return Signer(self.exchange.id, self.keys.key, self.keys.kid, self.clock)

    @cached_property
    def archive(self) -> Archive:
        """The logs of records, for whoever follows them."""
        return StoredArchive(self.store.engine)

    def introduced(self, nonce: str) -> Introduction:
        """What this exchange says of itself before it is a peer."""
        row = self.exchange
        return Introduction(
            id=row.id,
            prefix=row.prefix,
            public=self.keys.key.public,
            url=self.url,
            nonce=nonce,
            at_ms=self.clock.now_ms(),
            scope=self.scope,
        )

    def with_standing(self, branch: BranchView) -> BranchView:
        """A branch with what only this process knows of it: its puller's state, and how it calls us."""
        federation, peer = self.federation, branch.exchange
        now_ms = self.clock.now_ms()
        shown = msgspec.structs.replace(branch, calls=self.peer_calls.of(peer))
        tallies = [self.peer_calls.tally(peer)]
        if federation is not None:
            tallies.append(federation.tally(peer))
            shown = with_puller(shown, federation.standing(peer), federation.error(peer), now_ms)
        rejected: dict[str, int] = {}
        for code, count in (item for tally in tallies for item in tally.rejected.items()):
            rejected[code] = rejected.get(code, 0) + count
        stale_ms = max(0, now_ms - (shown.heard_ms or shown.since_ms))
        return msgspec.structs.replace(
            shown,
            stale_ms=stale_ms,
            freshness=freshness_of(shown, stale_ms <= self.limits.lease_ms),
            rejected=dict(sorted(rejected.items())),
            in_bytes=sum(tally.in_bytes for tally in tallies),
            out_bytes=sum(tally.out_bytes for tally in tallies),
        )

    # -- asking -------------------------------------------------------------------------------------------------------

    async def ask(self, command: Command, aside: Aside | None = None) -> Any:
        """The reply to a command, once what follows from it is kept."""
        return await self.writer.ask(command, aside)

    async def ask_many(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands, in order. Raises the first refusal, after all were decided."""
        if not commands:
            return []
        replies = await asyncio.gather(*self.writer.ask_many(commands), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return replies

    async def shown(self) -> None:
        """Wait until everything that was committed so far is in the index and in what streams see."""
        wanted = self.writer.position[0]
        while self.hub.head < wanted and not self.hub.is_closed:
            with self.hub.waiting(HEAD) as more:
                if not await self.within(more, SHOW_S):
                    return

    async def within(self, future: asyncio.Future[None], timeout_s: float) -> bool:
        """Whether ``future`` was done in time; it is not cancelled."""
        done, _ = await asyncio.wait((future,), timeout=timeout_s)
        return bool(done)

    async def read(self, question: Callable[P, T], *args: P.args, **names: P.kwargs) -> T:
        """Ask the store in a thread: a database is never called on the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, partial(question, *args, **names))

    async def learn(self, jobs: Sequence[str]) -> None:
        """Look up whose jobs (short names) these are."""
        if jobs:
            prefix = self.exchange.prefix
            for job, user, project in await self.read(_whose, self.store, prefix, jobs):
                self.facts.learn(job, user, project)

    # -- what runs elsewhere ------------------------------------------------------------------------------------------

    def open_orders(self, station: str) -> Mailbox:
        """What the log orders of ``station`` from now on; an older reader of it ends. On the loop's thread."""
        mailbox = Mailbox()
        if not self.hub.open_line(station, self.hub.head, mailbox):
            raise TielineError("overloaded", f"the orders to `{station}` cannot be followed now")
        return mailbox

    def close_orders(self, station: str, orders: Mailbox) -> None:
        """No more."""
        self.hub.close_line(station, orders)

    async def sealed_for(self, offer: Offer) -> str:
        """What the run of an offer to a peer is given, sealed to its site; empty when there is nothing."""
        return await for_branch(self, offer)

    async def keep_log(self, run: str, node: int, offset: int, content: bytes) -> LogKept:
        """Keep what a run printed, and wake who reads it."""
        kept = await self.logs.append(run, node, offset, content)
        self.hub.tell(log_name(run))
        return kept

    # -- logs of others -----------------------------------------------------------------------------------------------

    async def witnessed(self, exchange: str, after_ms: int) -> HeadView | None:
        """The head of another exchange's log that was kept last; None where none was after ``after_ms``."""
        found = await self.read(newest_heads, self.store.engine, exchange, after_ms)
        return found[0] if found else None

    async def keep_head(self, head: LogHead, statement: bytes) -> None:
        """Keep the head of another exchange's log, once it was checked."""
        await asyncio.wrap_future(self.writer.keep([kept(head, statement, self.clock.now_ms())]))

    # -- sums ---------------------------------------------------------------------------------------------------------

    def sizes(self) -> dict[str, int]:
        """Bytes by what they are used for. Touches the disk: call it by `read`."""
        files = {"blobs_bytes": self.blobs.bytes_kept, "logs_bytes": self.logs.bytes_kept}
        return {"free_bytes": self.blobs.free_bytes(), **self.store.sizes(), **files}

    def limit_values(self) -> dict[str, int]:
        """Every limit of the configuration."""
        return {name: int(getattr(self.limits, name)) for name in self.limits.__struct_fields__}


def _whose(store: Store, prefix: str, jobs: Sequence[str]) -> list[tuple[str, str, str]]:
    found = []
    for job in jobs:
        known = store.job(f"{prefix}/job/{job}")
        found.append((job, known.user, known.project) if known is not None else (job, "", ""))
    return found


def freshness_of(branch: BranchView, is_heard: bool) -> str:
    """How fresh what is known of a branch is, in one word; nothing for one that is not active."""
    if branch.state is not PeerState.ACTIVE:
        return ""
    if branch.silence is not None:
        return "frozen" if branch.silence.is_frozen else "silent"
    return "fresh" if is_heard or branch.is_listening else "stale"


def with_puller(branch: BranchView, standing: Standing | None, error: Reason | None, now_ms: int) -> BranchView:
    """A branch with what its tasks know of it."""
    if standing is None:
        return msgspec.structs.replace(branch, error=error)
    return msgspec.structs.replace(
        branch,
        logs=standing.logs,
        serial=standing.serial,
        lag=standing.lag,
        lag_ms=max(0, now_ms - standing.behind_since_ms) if standing.behind_since_ms else 0,
        is_listening=standing.is_listening,
        heard_ms=max(branch.heard_ms, standing.heard_ms),
        stored=standing.stored,
        parked=standing.parked,
        equivocations=standing.equivocations,
        refused=dict(standing.refused),
        paused=standing.paused,
        error=standing.error or error,
        fault=branch.fault or standing.fault,
    )
