"""Stores: the event log with its projections, and the folders of blobs and logs beside it.

Names are found when they are asked for: who needs a folder of blobs (a site does) does not pay for a database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tieline.drivers.stores.blobs import Blobs
    from tieline.drivers.stores.disk import Disk
    from tieline.drivers.stores.draft import Committed
    from tieline.drivers.stores.logs import Logs
    from tieline.drivers.stores.store import Store
    from tieline.drivers.stores.sweeper import Sweeper
    from tieline.drivers.stores.writer import Writer

_HOME = {
    "Blobs": "blobs",
    "Committed": "draft",
    "Disk": "disk",
    "Logs": "logs",
    "Store": "store",
    "Sweeper": "sweeper",
    "Writer": "writer",
}
__all__ = ["Blobs", "Committed", "Disk", "Logs", "Store", "Sweeper", "Writer"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
