"""Owner: signs records and brings them to its exchange, in order, until each is taken or refused for good.

What an owner does dishonestly (sign twice, come back from a withdrawal), and what strangers do in its name, is here
too: nothing of that may ever be kept.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from tieline.exchange import commands as ask
from tieline.model.error import TielineError
from tieline.model.party import Actor, Role
from tieline.model.record import Record, Status
from tieline.registry import Key, sign
from tieline.registry.canonical import encoded
from tieline.sim.network import Respond
from tieline.sim.user import TRANSIENT

if TYPE_CHECKING:
    from tieline.sim.world import World

LEASE_S = 86_400
DATASETS = 3
STRANGER = Key(hashlib.sha256(b"stranger").digest())
SOMEBODY = Actor(name="somebody", roles=(Role.USER,))


class Page(msgspec.Struct, frozen=True):
    """One revision that the owner signed."""

    record: Record
    envelope: bytes


class SimOwner:
    """One owner under one exchange: the key that its prefix was delegated to, and everything it ever signed."""

    def __init__(self, world: World, name: str, exchange: str, prefix: str) -> None:
        self.world, self.name, self.exchange, self.prefix = world, name, exchange, prefix
        self.is_up = True
        self.keys = [Key(hashlib.sha256(f"owner {name}".encode()).digest())]
        self.kid = f"{prefix}#k1"
        world.truth.keys[self.kid] = self.keys[0].public_bytes
        self.actor = Actor(name=name, roles=(Role.OWNER,), owner=prefix)
        self.pages: dict[str, list[Page]] = {}  # by identifier, oldest first
        self._queue: deque[tuple[str, int]] = deque()  # identifier, place among its pages
        self._is_sending = False
        self.disputed: dict[str, None] = {}  # what it signed two payloads of as one revision
        self.thefts = 0
        self.is_to_renew = False  # its exchange means to give its prefix to a second key
        self.stolen: tuple[Key, str] | None = None

    def serve(self, _source: str, _kind: str, _what: Any, respond: Respond) -> None:
        """Nobody calls an owner."""
        respond(None)

    # -- honest -------------------------------------------------------------------------------------------------------

    def sign(self, name: str, spec: dict[str, Any], status: Status = Status.ACTIVE) -> Page:
        """The next revision of ``<kind>/<name>``."""
        identifier = f"{self.prefix}/{name}"
        before = self.pages.setdefault(identifier, [])
        nb = self.world.now_s() - 60
        record = Record(
            id=identifier,
            kind=name.partition("/")[0],
            rev=len(before) + 1,
            prev=sha256_of(before[-1].record) if before else "",
            nb=nb,
            exp=nb + LEASE_S,
            status=status,
            spec=spec,
        )
        page = Page(record, sign(record, self.keys[-1], self.kid))
        before.append(page)
        return page

    def publish(self, name: str, spec: dict[str, Any], status: Status = Status.ACTIVE) -> None:
        """Sign the next revision and bring it to the exchange."""
        page = self.sign(name, spec, status)
        self._queue.append((page.record.id, page.record.rev - 1))
        self._send()

    def revise(self, number: int) -> None:
        """One of its records, anew; what was withdrawn stays so."""
        names = [name for name, pages in self.pages.items() if pages[-1].record.status is Status.ACTIVE]
        if len(names) < DATASETS or number % 4 == 0:
            fresh = f"dataset/d{len(self.pages)}"
            self.publish(fresh, {"size_bytes": number, "licence": "none"})
        else:
            record = self.pages[names[number % len(names)]][-1].record
            spec = {**record.spec, **({"size_bytes": number} if record.kind == "dataset" else {})}
            self.publish(record.id.partition("/")[2], spec)

    def withdraw(self, number: int) -> None:
        """A dataset; now and then a pool, under the jobs that run there."""
        names = [
            name
            for name, pages in self.pages.items()
            if pages[-1].record.status is Status.ACTIVE
            and (pages[-1].record.kind == "dataset" or (number % 5 == 0 and pages[-1].record.kind == "pool"))
        ]
        if names:
            record = self.pages[names[number % len(names)]][-1].record
            self.publish(record.id.partition("/")[2], record.spec, Status.WITHDRAWN)

    def renew_key(self, key: Key, kid: str) -> None:
        """The exchange delegated to a new key: everything is said once more with it.

        What the old key signed stays where it is held, and is taken by nobody who does not hold it yet.
        """
        if len(self.keys) > 1:
            return
        self.keys.append(key)
        self.kid = kid
        for name, pages in list(self.pages.items()):
            record = pages[-1].record
            self.publish(name.partition("/")[2], record.spec, record.status)

    def publish_again(self) -> None:
        """Whatever the exchange does not hold as it was signed last (it may have been set back)."""
        for name, pages in self.pages.items():
            if not any(waiting == name for waiting, _ in self._queue):
                self._queue.append((name, len(pages) - 1))
        self._send()

    @property
    def is_done(self) -> bool:
        """Whether everything was brought."""
        return not self._queue

    def _send(self) -> None:
        if self._is_sending or not self._queue:
            return
        self._is_sending = True
        name, place = self._queue[0]
        page = self.pages[name][place]
        command = ask.StoreRecord(actor=self.actor, envelope=page.envelope)
        self.world.network.call(
            self.name, self.exchange, "command", command, lambda reply: self._sent(name, place, reply)
        )

    def _sent(self, name: str, place: int, reply: Any) -> None:
        self._is_sending = False
        if reply is None or (isinstance(reply, TielineError) and reply.code in TRANSIENT):
            self.world.timeline.after(800, self._send)
            return
        self._queue.popleft()
        rule = reply.reasons[0].code if isinstance(reply, TielineError) and reply.reasons else ""
        if rule in ("rev_skips", "prev_wrong"):  # the exchange was set back: it needs what came before
            held = int(reply.reasons[0].values.get("held", 0))
            self._queue.extendleft((name, each) for each in range(place, held - 1, -1))
        elif rule == "rev_form" or (rule == "key_revoked" and self._sign_again(name, place)):
            self._queue.appendleft((name, place))
        self._send()

    def _sign_again(self, name: str, place: int) -> bool:
        """The same payload under the new key, where there is one; the hash of the payload stays."""
        page = self.pages[name][place]
        envelope = sign(page.record, self.keys[-1], self.kid)
        if envelope == page.envelope:
            return False
        self.pages[name][place] = Page(page.record, envelope)
        return True

    # -- dishonest, and strangers -------------------------------------------------------------------------------------

    def resurrect(self, number: int) -> None:
        """Publish something that was withdrawn as if it never had been."""
        names = [name for name, pages in self.pages.items() if pages[-1].record.status is Status.WITHDRAWN]
        if names:
            record = self.pages[names[number % len(names)]][-1].record
            again = msgspec.structs.replace(record, rev=record.rev + 1, prev=sha256_of(record), status=Status.ACTIVE)
            self._slip("withdrawn record published again", sign(again, self.keys[-1], self.kid))

    def equivocate(self, number: int) -> None:
        """Another payload as the newest revision of something, to whichever exchange."""
        record = self._one(number)
        if record is not None:
            self.disputed[record.id] = None
            self._slip(
                "two payloads signed as one revision",
                sign(msgspec.structs.replace(record, exp=record.exp + 1 + number), self.keys[-1], self.kid),
                number,
            )

    def replay(self, number: int) -> None:
        """Somebody sends an old revision again."""
        names = [name for name, pages in self.pages.items() if len(pages) > 1]
        if names:
            pages = self.pages[names[number % len(names)]]
            self._slip("old revision sent again", pages[number % (len(pages) - 1)].envelope)

    def forge(self, number: int) -> None:
        """A stranger signs the next revision with a key of its own."""
        record = self._one(number)
        if record is not None and record.status is Status.ACTIVE:
            forged = msgspec.structs.replace(record, rev=record.rev + 1, prev=sha256_of(record))
            self._slip("record forged", sign(forged, STRANGER, self.kid))

    def change_bytes(self, number: int) -> None:
        """The next revision with the signature of the one before it."""
        record = self._one(number)
        if record is None or record.status is not Status.ACTIVE:
            return
        changed = msgspec.structs.replace(record, rev=record.rev + 1, prev=sha256_of(record))
        good = self.pages[record.id][-1].envelope
        other = sign(changed, STRANGER, self.kid)
        self._slip(
            "record with changed bytes", other[: other.rindex(b'"signature"')] + good[good.rindex(b'"signature"') :]
        )

    def steal(self, number: int) -> None:
        """A thief signs something new with the first key that this owner had."""
        self.stolen = (self.keys[0], f"{self.prefix}#k1")
        self.thefts += 1
        nb = self.world.now_s() - 30
        record = Record(
            id=f"{self.prefix}/dataset/stolen{self.thefts}", kind="dataset", rev=1, nb=nb, exp=nb + LEASE_S,
            spec={"size_bytes": number, "licence": "none"},
        )  # fmt: skip
        envelope = sign(record, *self.stolen)
        self.world.truth.by_thieves[envelope.decode()] = self.stolen[1]
        self._slip("record signed with a stolen key", envelope)

    def _one(self, number: int) -> Record | None:
        names = list(self.pages)
        return self.pages[names[number % len(names)]][-1].record if names else None

    def _slip(self, what: str, envelope: bytes, number: int = -1) -> None:
        """Send a record that is not as it should be: home, or to the exchange of that number."""
        self.world.faults[what] += 1
        exchanges = list(self.world.exchanges)
        to = self.exchange if number < 0 else exchanges[number % len(exchanges)]
        command = ask.StoreRecord(actor=SOMEBODY, envelope=envelope)
        self.world.network.call(self.name, to, "command", command, lambda _: None)


def sha256_of(record: Record) -> str:
    """The sha256 of the record's payload, in hex."""
    return hashlib.sha256(encoded(record, "payload")).hexdigest()
