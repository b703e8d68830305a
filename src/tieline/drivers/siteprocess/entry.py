"""Entry: a site process from its folder, under a supervisor or in the background, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from tieline.drivers.siteprocess.home import Home
from tieline.drivers.siteprocess.process import SiteProcess
from tieline.model.error import CODES, TielineError

log = logging.getLogger("tieline.site")


def run_site(folder: Path) -> int:
    """Run the site of ``folder`` until SIGTERM or SIGINT; SIGUSR1 asks every run for a checkpoint. The exit code.

    Runs go on without the process: the next one adopts them. Logs go to standard error as JSON lines.
    """
    from tieline.drivers.jsonlog import log_to

    log_to()
    try:
        asyncio.run(_serve(folder))
    except TielineError as error:
        extra = {"code": error.code, "why": "; ".join(error.hints), "site": str(folder)}
        log.error(error.message, extra=extra)  # noqa: TRY400 - said, not a defect
        return CODES[error.code].exit
    return 0


async def _serve(folder: Path) -> None:
    process = SiteProcess(Home(folder))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, process.stop)
    loop.add_signal_handler(signal.SIGUSR1, process.checkpoint_now)
    await process.run()
