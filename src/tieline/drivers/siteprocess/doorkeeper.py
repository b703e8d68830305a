"""Doorkeeper: the site's door, open while the owner's file names one and the owner has not closed it since."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tieline.model.error import TielineError
from tieline.ports import Clock
from tieline.registry import Key
from tieline.site.configuration import DoorConfig

if TYPE_CHECKING:
    from tieline.drivers.doors.door import Door

log = logging.getLogger("tieline.site")
CLOSED = "door-closed"  # the owner's marker


class Doorkeeper:
    """``key`` is the site's, ``public`` the pinned key of its exchange, ``folder`` the site's own."""

    def __init__(self, config: DoorConfig | None, folder: Path, site: str, key: Key, public: str, clock: Clock) -> None:
        self.config = config
        self.folder = folder
        self.site = site
        self.key = key
        self.public = public
        self.clock = clock
        self.door: Door | None = None
        self._is_refused = False

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
        from tieline.drivers.doors.door import Door, chunks_of  # here: a site without a door does not pay for it

        assert self.config is not None
        door = Door(self.config, self.site, self.key, self.public, self.clock, chunks_of(self.folder, self.config))
        try:
            self.door = await door.open()
        except (TielineError, OSError) as error:
            self._is_refused = True  # until the owner closes it or starts the site anew
            log.error("the door stays closed", extra={"site": self.site, "why": str(error)})  # noqa: TRY400 - no defect
        return self.door is not None

    async def close(self) -> None:
        """Listen no more."""
        door, self.door = self.door, None
        if door is not None:
            await door.close()
            log.info("door closed", extra={"site": self.site})
