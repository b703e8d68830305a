"""Doorkeeper: the site's door, open while the owner's file names one and the owner has not closed it since."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tieline.drivers.doors.guard import Guard
from tieline.model.error import TielineError
from tieline.ports import Clock
from tieline.registry import Key
from tieline.site.configuration import DoorConfig

if TYPE_CHECKING:
    from tieline.drivers.doors.chunks import Chunks
    from tieline.drivers.doors.door import Door, Meets

log = logging.getLogger("tieline.site")
CLOSED = "door-closed"  # the owner's marker


class Doorkeeper:
    """``key`` is the site's, ``public`` the pinned key of its exchange, ``folder`` the site's own."""

    def __init__(
        self,
        config: DoorConfig | None,
        folder: Path,
        site: str,
        key: Key,
        public: str,
        clock: Clock,
        meets: Meets | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.site = site
        self.key = key
        self.public = public
        self.clock = clock
        self.meets = meets
        self.door: Door | None = None
        self._inner: Door | None = None  # listens to nobody: for what comes through the relay
        self.guard = Guard(site, public, clock)  # for as long as the process lives: a knock counts once
        self._is_refused = False
        self._chunks: Chunks | None = None  # of both doors: one counts what is on its way

    @property
    def url(self) -> str:
        """Where the door is; empty while it is closed."""
        return self.door.url if self.door is not None else ""

    async def look(self) -> bool:
        """Open or close as the owner says now; whether that changed what the site's record states."""
        is_wanted = self.config is not None and not (self.folder / CLOSED).exists()
        if not is_wanted:
            self._is_refused = False
        if is_wanted and self.door is None and not self._is_refused:
            return await self._open()
        if not is_wanted and self.door is not None:
            await self.close()
            return True
        return False

    async def _open(self) -> bool:
        assert self.config is not None
        door = self._made(self.config)
        try:
            self.door = await door.open()
        except (TielineError, OSError) as error:
            self._is_refused = True  # until the owner closes it or starts the site anew
            log.error("the door stays closed", extra={"site": self.site, "why": str(error)})  # noqa: TRY400 - no defect
        return self.door is not None

    async def inner(self) -> Door:
        """The door for streams of the relay: the open one, or one that listens to nobody."""
        if self.door is not None:
            return self.door
        if self._inner is None:
            self._inner = await self._made(self.config or DoorConfig()).prepare()
        return self._inner

    def _made(self, config: DoorConfig) -> Door:
        from tieline.drivers.doors.door import Door, chunks_of  # here: a site without a door does not pay for it

        if self._chunks is None:
            self._chunks = chunks_of(self.folder, config)
        return Door(config, self.site, self.key, self.public, self.clock, self._chunks, self.guard, self.meets)

    async def close(self) -> None:
        """Listen no more."""
        door, self.door = self.door, None
        if door is not None:
            await door.close()
            log.info("door closed", extra={"site": self.site})

    async def end(self) -> None:
        """Nothing is answered any more, through the relay neither."""
        await self.close()
        inner, self._inner = self._inner, None
        if inner is not None:
            await inner.close()
