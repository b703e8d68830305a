"""Guard: what stands at a door. It believes the pinned exchange's passes, and each knock once."""

from __future__ import annotations

from collections import Counter, OrderedDict

from tieline.model.door import KNOCK_HEADER, PASS_HEADER, PASS_MOST_MS, Knock, Pass, Right
from tieline.model.error import TielineError
from tieline.ports import Clock
from tieline.registry.passes import SKEW_MS, checked_knock, checked_pass

MOST_KNOCKS = 65_536
KNOCKS_EACH = MOST_KNOCKS // 4  # of one holder
KNOCK_MS = 2 * SKEW_MS + 1_000  # one that comes as early as can be is believed so long
KEEP_MS = PASS_MOST_MS + 2 * SKEW_MS
HEADER_BYTES = 7_000


class Guard:
    """``public`` is the exchange's pinned key, ``site`` whose door this is. Nothing is kept over a restart: a knock
    lives for a minute, and what was made before this door opened is refused."""

    def __init__(self, site: str, public: str, clock: Clock) -> None:
        self.site = site
        self.public = public
        self.clock = clock
        self.opened_ms = clock.now_ms()
        self.refused: Counter[str] = Counter()  # error code -> requests
        self._knocks: OrderedDict[str, tuple[int, str]] = OrderedDict()  # nonce -> when it was used, by whom
        self._of: Counter[str] = Counter()  # holder -> how many of these
        self._moved: OrderedDict[str, tuple[int, int]] = OrderedDict()  # pass -> until when, bytes

    def admit(self, headers: dict[str, str], method: str, path: str, right: Right) -> tuple[Pass, Knock]:
        """The pass and the knock of a request. Raises TielineError `unauthenticated`, `forbidden`, `overloaded`."""
        try:
            return self._admit(headers, method, path, right)
        except TielineError as error:
            self.refused[error.code] += 1
            raise

    def _admit(self, headers: dict[str, str], method: str, path: str, right: Right) -> tuple[Pass, Knock]:
        texts = [headers.get(name.lower(), "") for name in (PASS_HEADER, KNOCK_HEADER)]
        if not all(texts) or max(map(len, texts)) > HEADER_BYTES:
            raise TielineError("unauthenticated", f"this door needs the headers `{PASS_HEADER}` and `{KNOCK_HEADER}`")
        now_ms = self.clock.now_ms()
        given = checked_pass(texts[0], self.public, self.site, right, now_ms)
        knock = checked_knock(texts[1], given, method, path, now_ms)
        if knock.at_ms < self.opened_ms:
            raise TielineError("unauthenticated", "the knock is older than this door")
        if knock.nonce in self._knocks:
            raise TielineError("unauthenticated", "the knock was used before")
        self._remember(knock.nonce, given.holder, now_ms)
        return given, knock

    def _remember(self, nonce: str, holder: str, now_ms: int) -> None:
        while self._knocks and now_ms - next(iter(self._knocks.values()))[0] > KNOCK_MS:
            _, (_, its) = self._knocks.popitem(last=False)
            self._of[its] -= 1
            if not self._of[its]:
                del self._of[its]
        if len(self._knocks) >= MOST_KNOCKS or self._of[holder] >= KNOCKS_EACH:
            most = KNOCKS_EACH if self._of[holder] >= KNOCKS_EACH else MOST_KNOCKS
            raise TielineError("overloaded", f"{most:,} requests are remembered here; retry in two minutes")
        self._knocks[nonce] = now_ms, holder
        self._of[holder] += 1

    def spend(self, given: Pass, size: int) -> None:
        """Count bytes against a pass. Raises TielineError `forbidden` where they are more than it is good for."""
        now_ms = self.clock.now_ms()
        while self._moved and next(iter(self._moved.values()))[0] < now_ms - KEEP_MS:
            self._moved.popitem(last=False)
        used = self._moved.get(given.id, (0, 0))[1] + size
        if used > given.most_bytes:
            self.refused["forbidden"] += 1
            raise TielineError("forbidden", f"{used:,} bytes are over the {given.most_bytes:,} of the pass")
        if given.id not in self._moved and len(self._moved) >= MOST_KNOCKS:
            raise TielineError("overloaded", f"{MOST_KNOCKS:,} passes are counted here; retry in a minute")
        self._moved[given.id] = (given.until_ms, used)
