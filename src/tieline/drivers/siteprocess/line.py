"""Line: the site's one session with its exchange. It dials out, proves itself, checks who answers, and dials again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

import msgspec

from tieline import __version__
from tieline.drivers.http import HttpClient
from tieline.drivers.http.backoff import Backoff
from tieline.drivers.siteprocess.home import Identity
from tieline.model.error import TielineError
from tieline.model.protocol import PROTOCOL, PROTOCOL_LEAST, WELCOME, Hello, Orders, Proof, Resync, Signed, Welcome
from tieline.ports import Clock
from tieline.registry import Key, open_statement, sign_statement, verify_statement

log = logging.getLogger("tieline.site")
SILENCE_S = 40.0  # the exchange says something every 15 s
HELLO_S = 15.0
RETRY_MOST_S = 5.0  # until the exchange has said how long it waits
SHORT_S = 5.0  # a session that ends sooner does not count as a success
orders = msgspec.json.Decoder(Orders)


class Line:
    """``welcomed``, ``ordered`` and ``cut`` are called as things happen; `renew` asks for a new session."""

    def __init__(
        self,
        client: HttpClient,
        identity: Identity,
        key: Key,
        clock: Clock,
        *,
        welcomed: Callable[[Welcome], None],
        ordered: Callable[[Orders], None],
        cut: Callable[[str], None],
    ) -> None:
        self.client = client
        self.identity = identity
        self.key = key
        self.clock = clock
        self.welcomed = welcomed
        self.ordered = ordered
        self.cut = cut
        self.backoff = Backoff(first_s=0.2, most_s=RETRY_MOST_S)
        self._renewed = asyncio.Event()

    def renew(self) -> None:
        """The session is not what it was: open a new one."""
        self._renewed.set()

    async def run(self) -> None:
        """Hold a session for ever. Raises TielineError for what waiting cannot mend: no shared version, a wrong key."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            why = "the session ended"
            try:
                welcome = await self.open()
                log.info("session open", extra={"site": self.identity.site, "count": len(welcome.orders)})
                self.welcomed(welcome)
                why = await self._follow(welcome)
                if loop.time() - began > SHORT_S:
                    self.backoff.reset()
            except TielineError as error:
                why = error.message
                if error.code == "version_not_supported":
                    raise
                if error.code == "check_failed":  # somebody else answers: never talk to it, but look again later
                    self.backoff.tries = max(self.backoff.tries, 6)
            self.cut(why)
            wait_s = self.backoff.next_s()
            log.warning("no session", extra={"why": why, "wait_ms": int(wait_s * 1000)})
            await asyncio.sleep(wait_s)

    async def open(self) -> Welcome:
        """Say hello and check the welcome. Raises TielineError; `check_failed` when the pinned key did not answer."""
        nonce = os.urandom(16).hex()
        hello = Hello(
            site=self.identity.site,
            nonce=nonce,
            at_ms=self.clock.now_ms(),
            protocols=tuple(range(PROTOCOL, PROTOCOL_LEAST - 1, -1)),
            version=__version__,
        )
        statement = sign_statement(hello, self.key, f"{self.identity.owner}#site", "site-hello").decode()
        self.client.bearer = ""
        welcome = await self.client.call(
            "POST", "/v1/site/sessions", Welcome, body=Signed(statement=statement), key=None, total_s=HELLO_S
        )
        self._check(welcome, nonce)
        self.client.bearer = welcome.bearer
        self.backoff.most_s = min(30.0, max(1.0, welcome.lease_ms / 2_000))  # back in time to keep the runs
        self._renewed.clear()
        return welcome

    def _check(self, welcome: Welcome, nonce: str) -> None:
        try:
            verify_statement(welcome.proof.encode(), self.identity.public, WELCOME)
            proof, _ = open_statement(welcome.proof.encode(), WELCOME, Proof)
        except TielineError as error:
            raise TielineError(
                "check_failed",
                f"`{self.identity.url}` does not hold the key of {self.identity.exchange}: {error.message}",
            ) from None
        if proof.nonce != nonce or proof.exchange != self.identity.exchange:
            raise TielineError("check_failed", f"`{self.identity.url}` gave the proof of another session")
        if not PROTOCOL_LEAST <= welcome.protocol <= PROTOCOL:
            raise TielineError(
                "version_not_supported",
                f"the exchange speaks protocol {welcome.protocol}, this site {PROTOCOL_LEAST} to {PROTOCOL}",
                hints=("upgrade the older end",),
            )

    async def _follow(self, welcome: Welcome) -> str:
        """Take orders until the session is over; why it is."""
        listening = asyncio.create_task(self._listen(str(welcome.cursor)))
        renewed = asyncio.create_task(self._renewed.wait())
        try:
            await asyncio.wait((listening, renewed), return_when=asyncio.FIRST_COMPLETED)
            return listening.result() if listening.done() else "the session was not accepted any more"
        finally:
            for task in (listening, renewed):
                task.cancel()
            await asyncio.gather(listening, renewed, return_exceptions=True)

    async def _listen(self, cursor: str) -> str:
        """The stream of orders, made again where it broke while the session still stands."""
        while True:
            before = cursor
            try:
                async with contextlib.aclosing(
                    self.client.listen("/v1/site/stream", cursor, silence_s=SILENCE_S)
                ) as stream:
                    async for event in stream:
                        if event.event != "order":
                            continue
                        order = self._read(event.data)
                        if isinstance(order, Resync):
                            return f"the exchange asked for a new session: {order.why}"
                        if order is not None:
                            self.ordered(order)
                        cursor = event.id or cursor
            except TielineError as error:
                if cursor == before or not error.transient:
                    return error.message
            if cursor == before:
                return "the stream of orders ended"

    def _read(self, data: bytes) -> Orders | None:
        """An order; None for one of a newer version, which is skipped."""
        try:
            order: Orders = orders.decode(data)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            log.error("an order cannot be read", extra={"why": str(error)})  # noqa: TRY400 - said
            return None
        return order
