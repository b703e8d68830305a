"""Receipts: what a site measured of a run, signed with the site's key, so that nobody on the way can stretch it."""

from __future__ import annotations

import msgspec

from tieline.model.peer import METER, MeterReading
from tieline.model.protocol import Ended
from tieline.registry import Key, sign_statement


def with_receipt(report: Ended, site: str, key: Key, kid: str) -> Ended:
    """The terminal report of a run with the site's signed `MeterReading` of it; none where nothing was started.

    The same end has the same receipt, whenever it is said.
    """
    if report.is_start_failure:
        return report
    reading = MeterReading(
        site=site,
        run=report.run,
        first_run=report.first_run,
        epoch=report.epoch,
        state=report.state,
        duration_ms=report.duration_ms,
        cpu_ms=report.cpu_ms,
        max_memory_bytes=report.max_memory_bytes,
    )
    return msgspec.structs.replace(report, receipt=sign_statement(reading, key, kid, METER).decode())
