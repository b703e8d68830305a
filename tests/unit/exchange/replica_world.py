"""Exchanges that serve and follow logs, wired by a network that loses, repeats and reorders what it is told to."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tieline.exchange.commands import CreateExchange, StoreRecord, TakePage
from tieline.exchange.decide import decide
from tieline.exchange.keys import ExchangeKeys
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.event import EquivocationSeen, Event, PeerChanged, RecordsTaken, RecordStored
from tieline.model.kinds import KINDS
from tieline.model.peer import Cursor, Peer, PeerRole, PeerState
from tieline.model.record import DelegatedKey, Record, Root, Status
from tieline.model.spec import CheckpointSpec
from tieline.ports import FakeArchive, FakeClock, FakeIds
from tieline.registry import Key, follow, opened, sign
from tieline.registry.pages import CHECKPOINT_NAME, checkpoint_of
from tieline.registry.pulling import Action, FollowState, Input
from tieline.registry.serving import Grant, TailLine, answer, granted_line, tail_line

DAY_S = 86_400
START_MS = 1_790_000_000_000


def key_of(prefix: str) -> Key:
    return Key(hashlib.sha256(f"replica {prefix}".encode()).digest())


def root_of(prefix: str) -> Root:
    key = DelegatedKey(kid=f"{prefix}#exchange", public=key_of(prefix).public, nb=0, exp=253_402_300_799)
    return Root(prefix=prefix, keys=(key,))


@dataclass
class Owner:
    """Whoever holds a prefix and writes its records, each revision signed once."""

    prefix: str
    now_s: int = START_MS // 1000
    latest: dict[str, bytes] = field(default_factory=dict)

    @property
    def kid(self) -> str:
        return f"{self.prefix}#exchange"

    def write(self, name: str, *, status: Status = Status.ACTIVE, days: int = 30, **spec: Any) -> bytes:
        """The next revision of ``<kind>/<name>``."""
        identifier = f"{self.prefix}/{name}"
        before = opened(self.latest[identifier]) if identifier in self.latest else None
        envelope = self.forge(
            name,
            rev=before.record.rev + 1 if before else 1,
            prev=before.sha256.hex() if before else "",
            status=status,
            days=days,
            spec=spec,
        )
        self.latest[identifier] = envelope
        return envelope

    def forge(
        self,
        name: str,
        *,
        rev: int = 1,
        prev: str = "",
        status: Status = Status.ACTIVE,
        days: int = 30,
        spec: dict[str, Any] | None = None,
        key: Key | None = None,
    ) -> bytes:
        """Any record under this prefix, by its own key or by ``key``."""
        record = Record(
            id=f"{self.prefix}/{name}",
            kind=name.split("/")[0],
            rev=rev,
            prev=prev,
            nb=self.now_s - DAY_S,
            exp=self.now_s + days * DAY_S,
            status=status,
            spec=spec or {},
        )
        return sign(record, key or key_of(self.prefix), self.kid)

    def give(self, name: str, *, kinds: Iterable[str] = KINDS, max_records: int = 10_000) -> bytes:
        """The delegation of ``<prefix>.<name>``."""
        prefix = f"{self.prefix}.{name}"
        root = root_of(prefix)
        return self.write(
            f"owner/{name}",
            days=300,
            prefix=prefix,
            keys=[msgspec.to_builtins(key) for key in root.keys],
            kinds=sorted(kinds),
            max_records=max_records,
        )

    def checkpoint(self, page_records: int = 10) -> bytes:
        """The owner's signed list of its pages as they are now."""
        made = checkpoint_of(
            self.prefix, self.latest.values(), {self.kid: key_of(self.prefix).public}, self.now_s,
            page_records=page_records,
        )  # fmt: skip
        return self.write(CHECKPOINT_NAME, **msgspec.to_builtins(made.spec))


class Exchange:
    """A view without a store, and what a store would keep of its records."""

    def __init__(self, prefix: str, clock: FakeClock, roots: Iterable[str] = ()) -> None:
        self.prefix = prefix
        self.id = f"{prefix}/exchange/main"
        self.clock = clock
        self.ids = FakeIds(1)
        self.archive = FakeArchive(session=f"s-{prefix}")
        self.view = View(ExchangeKeys(key_of(prefix), prefix))
        self.events: list[Event] = []
        self.listeners: list[Callable[[TailLine], None]] = []
        self.do(CreateExchange(id=self.id, prefix=prefix, public=key_of(prefix).public, admin_token_sha256="0" * 64))
        for root in roots:
            self.view.catalogue.pin(root_of(root))

    def do(self, command: Any) -> Any:
        now_ms = self.clock.now_ms()
        decision = decide(self.view, command, now_ms, self.ids)
        for event in decision.events:
            self.view.apply(event, now_ms)
            self.events.append(event)
            self._keep(event)
        return decision.reply

    def store(self, *envelopes: bytes) -> None:
        for envelope in envelopes:
            self.do(StoreRecord(envelope=envelope))

    def know(self, other: Exchange) -> None:
        """Have ``other`` as an active peer, which pins its key."""
        peer = Peer(
            id=other.id, prefix=other.prefix, public=key_of(other.prefix).public, url="http://peer.example",
            role=PeerRole.PEER, state=PeerState.ACTIVE,
        )  # fmt: skip
        event = PeerChanged(peer=peer, why="test")
        self.view.apply(event, self.clock.now_ms())

    def heads(self, prefix: str = "") -> dict[str, str]:
        """Payload hash by identifier."""
        rows = self.view.catalogue.rows()
        return {row.id: row.sha256 for row in rows if not prefix or row.prefix == prefix}

    def proofs(self) -> list[EquivocationSeen]:
        return [event for event in self.events if isinstance(event, EquivocationSeen)]

    def _keep(self, event: Event) -> None:
        records: tuple[RecordStored, ...] = ()
        if isinstance(event, RecordStored):
            records = (event,)
        elif isinstance(event, RecordsTaken):
            records = event.records
        for each in records:
            prefix = each.id.partition("/")[0]
            log = self.archive.log(prefix)
            after = log.serial if log is not None else 0
            envelope = each.envelope.encode()
            serial = self.archive.put(each.id, each.sha256, envelope, each.exp, each.status)
            line = tail_line(self.archive.session, prefix, after, serial, (envelope,))
            for listener in self.listeners:
                listener(line)


class Following:
    """One exchange follows another through the real machine; what travels waits in `mail` until it is delivered."""

    def __init__(
        self, ours: Exchange, theirs: Exchange, seed: int = 0, *, grant: Grant | None = None, chaos: bool = False
    ) -> None:
        self.ours, self.theirs = ours, theirs
        self.grant = grant or Grant()
        self.random = random.Random(seed)
        self.chaos = chaos  # lose, repeat and reorder
        self.is_cut = False
        self.mail: list[Input] = []
        self.blames: list[str] = []
        self.counts: dict[str, int] = {}
        self.twist: Callable[[Any], Any] = lambda reply: reply  # what a hostile peer does to its answers
        self.is_tail_open = False
        ours.know(theirs)
        theirs.listeners.append(self._said)
        self.state: FollowState
        self.begin()

    def begin(self) -> None:
        """Begin, or begin again after a restart: only the committed cursors are left."""
        cursors = [cursor for (peer, _), cursor in self.ours.view.cursors.items() if peer == self.theirs.id]
        self.mail.clear()
        self.is_tail_open = False
        kinds, prefixes = self.grant.kinds, self.grant.prefixes
        self.state, actions = follow.begin(
            self.theirs.id, cursors, self.ours.clock.now_ms(), kinds=kinds, prefixes=prefixes
        )
        self.carry_out(actions)

    def hear(self, what: Input) -> None:
        self.state, actions = follow.step(self.state, what, self.ours.clock.now_ms())
        self.carry_out(actions)

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            name = type(action).__name__
            if isinstance(action, follow.Ask):
                name = type(action.request).__name__
            self.counts[name] = self.counts.get(name, 0) + 1
            match action:
                case follow.Ask():
                    self._ask(action)
                case follow.Take():
                    self._take(action)
                case follow.Listen():
                    self._listen()
                case follow.Hush():
                    self.is_tail_open = False
                case follow.Blame(reason=reason):
                    self.blames.append(reason.code)

    def _listen(self) -> None:
        if self.is_cut:
            self.mail.append(follow.TailEnded(reason=UNREACHABLE))
        else:
            self.is_tail_open = True
            self.mail.append(follow.TailOpened())

    def _ask(self, action: follow.Ask) -> None:
        if self.is_cut and not action.is_own:
            self.mail.append(follow.Failed(ask=action.ask, reason=UNREACHABLE, is_peer=True))
            return
        archive = self.ours.archive if action.is_own else self.theirs.archive
        grant = Grant() if action.is_own else self.grant
        try:
            reply = answer(archive, action.request, grant)
            if not action.is_own:
                reply = self.twist(reply)
        except TielineError as error:
            self.mail.append(follow.Failed(ask=action.ask, reason=follow.reason_of(error)))
            return
        self.mail.append(follow.Answered(ask=action.ask, answer=reply))

    def _take(self, action: follow.Take) -> None:
        command = TakePage(
            peer=self.theirs.id, prefix=action.prefix, session=action.session, serial=action.serial,
            envelopes=action.envelopes, checkpoint=action.checkpoint, page=action.page,
        )  # fmt: skip
        try:
            taken = self.ours.do(command)
        except TielineError as error:
            self.mail.append(follow.NotTaken(take=action.take, reason=follow.reason_of(error)))
            return
        self.counts["proved"] = self.counts.get("proved", 0) + taken.is_proved
        self.mail.append(
            follow.Taken(
                take=action.take,
                stored=taken.stored,
                unchanged=taken.unchanged,
                parked=taken.parked,
                equivocations=taken.equivocations,
                refused=taken.refused,
            )
        )

    def _said(self, line: TailLine) -> None:
        granted = granted_line(line, self.grant)
        if self.is_tail_open and not self.is_cut and granted is not None:
            self.mail.append(follow.TailSaid(line=granted))

    def run(self, steps: int = 20_000, until_ms: int = 0) -> None:
        """Deliver what waits, and let time pass to the next thing that is due, until nothing is for a minute."""
        clock = self.ours.clock
        until_ms = until_ms or clock.now_ms() + 50_000
        for _ in range(steps):
            if self.mail:
                self.hear(self._next())
                continue
            at_ms = follow.next_ms(self.state)
            if at_ms is None or at_ms > until_ms:
                return
            clock.at_ms = max(clock.at_ms, at_ms)
            self.hear(follow.Ticked())
        raise AssertionError(f"it never rests: {self.counts}")

    def _next(self) -> Input:
        if not self.chaos:
            return self.mail.pop(0)
        at = self.random.randrange(len(self.mail))
        what = self.mail[at]
        if self.random.random() < 0.2:
            return what  # and once more later
        del self.mail[at]
        if self.random.random() < 0.1 and isinstance(what, follow.TailSaid | follow.Answered):
            return follow.Ticked()  # it is lost
        return what


UNREACHABLE = follow.reason_of(TielineError("exchange_unreachable", "no route"))

__all__ = ["CheckpointSpec", "Cursor", "Exchange", "Following", "Owner", "key_of", "root_of"]
