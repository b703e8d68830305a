"""Probing: the site measures what the plan of its exchange names, evenly over its time, and brings signed readings."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from tieline.drivers.http import HttpClient
from tieline.drivers.http.client import is_loopback
from tieline.drivers.siteprocess.home import Identity
from tieline.drivers.siteprocess.patience import waited
from tieline.model.error import TielineError
from tieline.model.measuring import ReadingsTaken
from tieline.model.protocol import Signed
from tieline.model.reading import READINGS, Method, Probe, ProbePlan, Reading, ReadingBatch
from tieline.model.reason import Reason
from tieline.ports import Clock
from tieline.registry import Key, sign_statement

log = logging.getLogger("tieline.site")
AT_ONCE = 4  # probes
SPACING_S = 1.0  # most between two probes: what is few is done soon
AGAIN_S = 30.0
OLDER_S = 600.0  # an exchange that knows no probes may be upgraded
LEAST_S = 1.0
TURN_S = 20.0  # between two plans with something in them; with the next two, what a site does for anybody
TURN_PROBES = 64
TURN_BYTES = 8_000_000
BATCH = 64  # readings in one statement
HELD = 2_048  # newest readings that a new session is told again
POST_S = 10.0


class Probing:
    """``is_open`` while there is a session; `renewed` when a new one began, which knows nothing of earlier readings.

    ``inner``: networks inside the owner's, which are probed although nobody else can reach them.
    """

    def __init__(
        self,
        client: HttpClient,
        identity: Identity,
        key: Key,
        clock: Clock,
        is_open: asyncio.Event,
        inner: Sequence[str] = (),
    ) -> None:
        self.client = client
        self.site = identity.site
        self.key = key
        self.kid = f"{identity.owner}#site"
        self.clock = clock
        self.is_open = is_open
        self.inner = tuple(inner)
        self.undone: Counter[str] = Counter()  # probes that were not sent, by reason
        self.newest: dict[tuple[str, Method], Reading] = {}  # oldest first
        self._seq = 0
        self._unsaid: list[Reading] = []
        self._undone_said = 0
        self._is_renewed = False
        self._wake = asyncio.Event()

    def renewed(self) -> None:
        """Everything that is held is said again."""
        self._is_renewed = True
        self._wake.set()

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            await self.is_open.wait()
            self._wake.clear()
            await waited(self._wake, await self._turn())

    async def _turn(self) -> float:
        """One plan, and how long to wait for the next, in seconds."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            await self._say_again()
            plan = await self.client.call("GET", "/v1/site/probes", ProbePlan, total_s=POST_S)
            await self._measure(plan)
            await self._say()
        except TielineError as error:
            if error.code in ("not_found", "method_not_allowed"):
                return OLDER_S
            log.warning("readings wait", extra={"code": error.code, "why": error.message})
            return AGAIN_S
        least_s = TURN_S if plan.probes else LEAST_S
        return max(least_s, plan.again_ms / 1_000 - (loop.time() - began_s))

    async def _measure(self, plan: ProbePlan) -> None:
        """Every probe once, a few at a time; what was measured is brought as it comes."""
        if not plan.probes:
            return
        from tieline.drivers.probes.addresses import Addresses  # here: who measures nothing does not pay for it
        from tieline.drivers.probes.prober import Prober, bounded

        addresses = Addresses(self.inner, is_local=is_loopback(self.client.base_url))
        prober = Prober(self.site, self.key, self.kid, self.clock, addresses, self.client)
        spacing_s = min(SPACING_S, plan.again_ms / 2_000 / len(plan.probes))
        room, left_bytes = asyncio.Semaphore(AT_ONCE), TURN_BYTES
        tasks: list[asyncio.Task[None]] = []

        async def measure(probe: Probe) -> None:
            try:
                self._keep(await prober.measure(probe))
            except TielineError as error:
                self.undone[error.reasons[0].code if error.reasons else "probe_senseless"] += 1
                log.warning("a probe is not sent", extra={"site": probe.target, "why": error.message})
            finally:
                room.release()

        try:
            for probe in plan.probes[:TURN_PROBES]:
                left_bytes -= bounded(probe).most_bytes
                if left_bytes < 0:
                    log.warning("a plan of probes is over what a site measures", extra={"size_bytes": TURN_BYTES})
                    break
                await room.acquire()
                tasks.append(asyncio.create_task(measure(probe)))
                if len(self._unsaid) >= BATCH:
                    await self._say()
                await asyncio.sleep(spacing_s)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, reading: Reading) -> None:
        key = reading.target, reading.method
        self.newest.pop(key, None)
        self.newest[key] = reading
        while len(self.newest) > HELD:
            del self.newest[next(iter(self.newest))]
        self._unsaid = [*self._unsaid[-HELD:], reading]

    async def _say_again(self) -> None:
        if self._is_renewed:
            self._is_renewed = False
            self._undone_said = 0
            self._unsaid = list(self.newest.values())
            await self._say()

    async def _say(self) -> None:
        """Bring what was not brought yet. Raises TielineError; then it is brought the next time."""
        while self._unsaid or self._undone_said < self.undone.total():
            batch = self._unsaid[:BATCH]
            await self._post(batch)
            self._unsaid = self._unsaid[len(batch) :]

    async def _post(self, readings: Sequence[Reading]) -> None:
        now_ms = self.clock.now_ms()
        self._seq = max(self._seq + 1, now_ms)  # grows over restarts too, as clocks do
        told = self.undone.total()
        undone = tuple(Reason(code=code, count=count) for code, count in sorted(self.undone.items()))
        batch = ReadingBatch(site=self.site, seq=self._seq, at_ms=now_ms, readings=tuple(readings), undone=undone)
        statement = sign_statement(batch, self.key, self.kid, READINGS).decode()
        taken = await self.client.call(
            "POST", "/v1/site/readings", ReadingsTaken, body=Signed(statement=statement), key=None, total_s=POST_S
        )
        self._undone_said = told
        for reason in taken.refuted:
            log.warning("a reading was refuted", extra={"code": reason.code, "count": reason.count})
