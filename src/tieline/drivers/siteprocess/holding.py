"""Holding: the owner's own datasets that lie here (`data.held`), under their hashes, for the door and the relay.

A folder of links, so that whoever was given a pass to the bytes of a dataset reads the very file. Which hash that is
says the dataset's record; another file than that is found out by whoever reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from pathlib import Path

from tieline.drivers.siteprocess.datasets import dataset_of
from tieline.drivers.siteprocess.places import Rules, held_at
from tieline.model.error import TielineError

log = logging.getLogger("tieline.site")
FOLDER = "held"
DIGEST = re.compile(r"[0-9a-f]{64}")
LOOK_S = 300.0  # records get new revisions
SOON_S = 10.0  # after a look at which something could not be read


class Holding:
    """``folder`` is the site's own."""

    def __init__(self, folder: Path, rules: Rules, is_open: asyncio.Event) -> None:
        self.folder = folder / FOLDER
        self.rules = rules
        self.is_open = is_open
        self._looking = asyncio.Lock()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.is_open.wait()
            is_whole = await self.look()
            await asyncio.sleep(LOOK_S if is_whole else SOON_S)

    def _own(self) -> list[str]:
        """Another owner's data is not this one's to give on."""
        return [name for name in self.rules.data.held if name.partition("/")[0] == self.rules.identity.owner]

    async def look(self) -> bool:
        """Make the links that records call for now, and remove others; whether every record could be read."""
        async with self._looking:
            return await self._look()

    async def _look(self) -> bool:
        found: dict[str, str] = {}
        is_whole = True
        for name in self._own():
            try:
                now_s = self.rules.clock.now_ms() // 1_000
                dataset = await dataset_of(self.rules.client, self.rules.identity, name, now_s)
                path = await asyncio.to_thread(held_at, dataset, self.rules)
            except TielineError as error:
                log.warning("a held dataset is not given at the door", extra={"data": name, "why": error.message})
                is_whole = False
                continue
            if DIGEST.fullmatch(dataset.spec.sha256) and Path(path).is_file():  # noqa: ASYNC240 - one look
                found[dataset.spec.sha256] = path
        try:
            await asyncio.to_thread(self._link, found)
        except OSError as error:  # a full disk is no reason to end the site
            log.warning("held datasets cannot be given at the door", extra={"why": str(error)})
            return False
        return is_whole

    def _link(self, found: dict[str, str]) -> None:
        if not found and not self.folder.exists():
            return
        self.folder.mkdir(mode=0o700, exist_ok=True)
        for entry in self.folder.iterdir():
            if entry.is_symlink() and found.get(entry.name) != str(entry.readlink()):
                entry.unlink(missing_ok=True)
        for sha256, path in found.items():
            with contextlib.suppress(FileExistsError):
                (self.folder / sha256).symlink_to(path)
