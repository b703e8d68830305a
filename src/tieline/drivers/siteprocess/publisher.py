"""Publisher: the owner's records, signed here, renewed before their lease ends, withdrawn when they are over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.home import Home
from tieline.drivers.siteprocess.patience import waited
from tieline.drivers.siteprocess.rekeying import newest, settle, usable
from tieline.model.api import RecordBody, RecordView
from tieline.model.error import TielineError
from tieline.model.record import Status
from tieline.model.spec import PoolSpec
from tieline.ports import Clock
from tieline.registry import Key, opened, sign
from tieline.site.configuration import FrontConfig
from tieline.site.fronted import MOST_BYTES, from_csv, from_json
from tieline.site.records import Head, Statement, due, front_site, front_statements, record_of

log = logging.getLogger("tieline.site")
LOOK_S = 300.0  # how often leases are looked at; a change wakes it
AGAIN_S = 5.0
UNSURE = "?"  # in the place of a key's name: nobody answered whether the revision was taken


class Publisher:
    """``statements`` says what the owner says now; what is fronted for comes beside it."""

    def __init__(
        self,
        client: HttpClient,
        home: Home,
        clock: Clock,
        is_open: asyncio.Event,
        *,
        lease_s: int,
        fronts: Sequence[FrontConfig],
        statements: Callable[[], list[Statement]],
    ) -> None:
        self.client = client
        self.home = home
        self.clock = clock
        self.is_open = is_open
        self.lease_s = lease_s
        self.fronts = fronts
        self.statements = statements
        self.heads = home.heads()
        self._is_waiting = False  # whether a next key waits for the exchange's word
        self._take_key()
        self.said = asyncio.Event()  # everything has been said once in this session
        self._fronted: dict[str, tuple[Statement, ...]] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something may have to be said."""
        self._wake.set()

    def look(self) -> None:
        """The owner may have changed its key, or made one that waits for the exchange's word: see what follows."""
        if self.home.identity_stamp() != self._stamp:
            self._take_key()
            self.wake()
        elif self.home.has_next() is not self._is_waiting:
            self._is_waiting = self.home.has_next()
            self.wake()

    def _take_key(self) -> None:
        """With which key, and under which name of it, the owner speaks now."""
        self.identity = settle(self.home)
        self._stamp = self.home.identity_stamp()
        self._is_waiting = self.home.has_next()
        self.key = Key(self.home.seed("owner"))

    async def run(self) -> None:
        """Say what is due, for ever."""
        while True:
            await self.is_open.wait()
            self._wake.clear()
            is_said = await self._publish()
            if is_said:
                self.said.set()
            await waited(self._wake, LOOK_S if is_said and not self._is_waiting else AGAIN_S)

    async def follow(self, front: FrontConfig) -> None:
        """Look at one front's list for ever; what cannot be read leaves the last good list standing."""
        while True:
            try:
                specs = await self._listed(front)
                said = front_statements(front, self.identity.owner, self.identity.owner, specs)
                if self._fronted.get(front.name) != said:
                    self._fronted[front.name] = said
                    self.wake()
            except (TielineError, OSError) as error:
                log.warning("a front cannot be read", extra={"site": front.name, "why": str(error)})
            await asyncio.sleep(front.every_s)

    async def _listed(self, front: FrontConfig) -> dict[str, PoolSpec]:
        place = front_site(front, self.identity.owner)
        if front.file:
            path = Path(self.home.folder, front.file)
            return from_csv(await asyncio.to_thread(_head_of, path), str(path), place)
        base, slash, rest = front.url.partition("://")[2].partition("/")
        scheme = front.url.partition("://")[0]
        async with HttpClient(f"{scheme}://{base}", proxy=self.client.proxy, limit_bytes=MOST_BYTES) as client:
            return from_json(await client.raw("GET", slash + rest or "/"), front.url, place)

    async def _publish(self) -> bool:
        """Sign and send what is due; whether everything was taken."""
        if not await self._follow_keys():
            return False
        now_s = self.clock.now_ms() // 1000
        fronted = [said for front in self.fronts for said in self._fronted.get(front.name, ())]
        wanted = [*self.statements(), *fronted, *self._standing()]
        is_said = True
        for said in due(wanted, self.heads, now_s, self.lease_s, self.identity.kid):
            try:
                await self._say(said, now_s)
            except TielineError as error:
                is_said = False
                log.warning("a record is not taken", extra={"site": said.id, "code": error.code, "why": error.message})
                if error.transient or error.code == "unauthenticated":
                    break
        return is_said

    async def _follow_keys(self) -> bool:
        """Take over the key that the exchange gives the prefix to, where an admin named the owner's next one.

        Whether the owner has a key that speaks for the prefix, as far as is known.
        """
        try:
            found = await newest(self.client, self.home)
        except TielineError as error:
            log.warning("the delegation was not had", extra={"site": self.identity.site, "why": error.message})
            return True
        if found.delegation != self.identity.delegation:
            self.home.revise_identity(msgspec.structs.replace(self.home.identity, delegation=found.delegation))
            self._take_key()
        if not found.delegation or usable(found, self.key.public, self.clock.now_ms() // 1000):
            return True
        why = "the owner's key speaks for its prefix no more; make another with `tieline site rekey`"
        log.warning("records cannot be signed", extra={"site": self.identity.site, "why": why})
        return False

    def _standing(self) -> list[Statement]:
        """What was said of fronts whose list was not read yet since the start stands as it was."""
        unread = {front.name for front in self.fronts if front.name not in self._fronted}
        places = {f"{self.identity.owner}/site/{name}" for name in unread}
        return [
            Statement(id=head.id, kind=head.id.split("/")[1], spec=head.spec, status=head.status)
            for head in self.heads.values()
            if (head.id in places or head.spec.get("site") in places) and head.status is not Status.WITHDRAWN
        ]

    async def _say(self, said: Statement, now_s: int) -> None:
        head = self.heads.get(said.id)
        try:
            await self._send(said, head, now_s)
        except TielineError as error:
            if error.code not in ("record_refused", "conflict"):
                raise
            known = await self._known(said.id)  # our own memory may be older than what we signed once
            if known is None and said.status is Status.WITHDRAWN:
                self._remember(said.id, None)  # what is not there any more needs no tombstone
                return
            if known is None or (head is not None and known.rev == head.rev and known.sha256 == head.sha256):
                raise
            await self._send(said, known, now_s)

    async def _send(self, said: Statement, head: Head | None, now_s: int) -> None:
        envelope = sign(record_of(said, head, now_s, self.lease_s), self.key, self.identity.kid)
        parcel = opened(envelope)
        record = parcel.record
        fresh = Head(
            id=said.id,
            rev=record.rev,
            sha256=parcel.sha256.hex(),
            exp=record.exp,
            spec=said.spec,
            status=said.status,
            kid=UNSURE,
        )
        before = self.heads.get(said.id)
        self.heads[said.id] = fresh  # should the answer be lost with us, it is remembered that something was said
        self.home.keep_heads(self.heads, is_durable=False)
        try:
            await self.client.call("POST", "/v1/records", RecordView, body=RecordBody(envelope=envelope.decode()))
        except TielineError as error:
            if not error.transient:
                self._remember(said.id, before)
            raise
        self._remember(said.id, msgspec.structs.replace(fresh, kid=self.identity.kid))

    def _remember(self, identifier: str, head: Head | None) -> None:
        """What was said last of an identifier; None: nothing."""
        if head is None:
            self.heads.pop(identifier, None)
        else:
            self.heads[identifier] = head
        self.home.keep_heads(self.heads)

    async def _known(self, identifier: str) -> Head | None:
        """The newest revision that the exchange has."""
        try:
            view = await self.client.call("GET", f"/v1/records/{identifier.replace('/', '~')}", RecordView)
            parcel = opened(view.envelope.encode())
        except TielineError:
            return None
        record = parcel.record
        return Head(
            id=record.id,
            rev=record.rev,
            sha256=parcel.sha256.hex(),
            exp=record.exp,
            spec=msgspec.json.decode(msgspec.json.encode(record.spec)),
            status=record.status,
            kid=parcel.parts.kid,
        )


def _head_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(MOST_BYTES + 1)
