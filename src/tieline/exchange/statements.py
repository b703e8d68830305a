"""Statements: batches of readings as their sites signed them, kept while one reading in them is the newest of its way.

They are what is passed on to peers: whoever has a site's record can check them, and nobody has to believe who passes
them on. Each has a serial, so that a peer asks for what came since. Bounded in bytes, for each site and in all; the
oldest goes, and its readings then count here alone. What came over one peer takes no room of others: the newest stays
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

MOST_SITE_BYTES: Final = 2**20
MOST_PEER_BYTES: Final = 2**26  # of all sites behind one peer
MOST_BYTES: Final = 2**28
PAGE_BYTES: Final = 2**20
PAGE: Final = 256  # statements


class _Kept(NamedTuple):
    site: str
    text: str
    via: str  # the peer over which it came; empty: it is of a site of ours


class Page(NamedTuple):
    """Some of the statements, oldest first; ``after`` is where to go on."""

    statements: tuple[str, ...]
    after: int
    is_more: bool


class Statements:
    """Every statement that is kept. ``began_ms`` names the numbering: a process that starts begins another one."""

    def __init__(self) -> None:
        self.began_ms = 0
        self.serial = 0
        self.size_bytes = 0
        self._kept: dict[int, _Kept] = {}  # by serial, in this order
        self._live: dict[int, int] = {}  # how many readings in it are the newest
        self._of: dict[str, dict[int, None]] = {}  # site -> serials, in order
        self._bytes: dict[str, int] = {}  # of a site
        self._via_bytes: dict[str, int] = {}  # of what came over a peer

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, site: str, text: str, count: int, via: str = "") -> int:
        """Keep a statement with ``count`` readings that are the newest; its serial. 0: it found no room."""
        size = len(text)
        while self._of.get(site) and self._bytes[site] + size > MOST_SITE_BYTES:
            self._drop(next(iter(self._of[site])))
        if via and self._via_bytes.get(via, 0) + size > MOST_PEER_BYTES:
            return 0
        self.serial += 1
        while self._kept and self.size_bytes + size > MOST_BYTES:
            self._drop(next(iter(self._kept)))
        self._kept[self.serial] = _Kept(site, text, via)
        self._live[self.serial] = count
        self._of.setdefault(site, {})[self.serial] = None
        self._bytes[site] = self._bytes.get(site, 0) + size
        if via:
            self._via_bytes[via] = self._via_bytes.get(via, 0) + size
        self.size_bytes += size
        return self.serial

    def release(self, serial: int) -> None:
        """A reading in it is not the newest any more; one without any is let go."""
        left = self._live.get(serial)
        if left is None:
            return
        if left > 1:
            self._live[serial] = left - 1
        else:
            self._drop(serial)

    def forget(self, site: str) -> None:
        """Nothing of a site is passed on any more."""
        for serial in list(self._of.get(site, ())):
            self._drop(serial)

    def page(self, after: int, sites: Iterable[str], is_shown: Callable[[str], bool]) -> Page:
        """What came after a serial, of ``sites`` (none: of all) that are shown."""
        texts: list[str] = []
        size = 0
        for serial in self._since(after, tuple(dict.fromkeys(sites))):
            site, text, _ = self._kept[serial]
            if not is_shown(site):
                continue
            size += len(text)
            if texts and (len(texts) == PAGE or size > PAGE_BYTES):
                return Page(tuple(texts), after, is_more=True)
            texts.append(text)
            after = serial
        return Page(tuple(texts), max(after, self.serial), is_more=False)

    def _since(self, after: int, sites: tuple[str, ...]) -> Iterator[int]:
        found: list[int] = []
        for serials in [self._of[site] for site in sites if site in self._of] if sites else [self._kept]:
            for serial in reversed(serials):
                if serial <= after:
                    break
                found.append(serial)
        return iter(sorted(found))

    def _drop(self, serial: int) -> None:
        site, text, via = self._kept.pop(serial)
        del self._live[serial]
        self._of[site].pop(serial)
        self._bytes[site] -= len(text)
        self.size_bytes -= len(text)
        if not self._of[site]:
            del self._of[site], self._bytes[site]
        if via:
            self._via_bytes[via] -= len(text)
            if not self._via_bytes[via]:
                del self._via_bytes[via]
