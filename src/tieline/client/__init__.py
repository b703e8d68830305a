"""The Python SDK: one async client, a synchronous face on it, and an executor that runs functions at sites.

>>> from tieline.client import Client
>>> with Client() as client:  # doctest: +SKIP
...     job = client.run("echo hello")
...     print(job.state, client.log(job.id))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.client.executor import Executor
    from tieline.client.synchronous import Client

__all__ = ["AsyncClient", "Client", "Executor"]


def __getattr__(name: str) -> Any:
    """Import a face when it is first used, so that a command line starts fast."""
    if name == "AsyncClient":
        from tieline.client.asynchronous import AsyncClient

        return AsyncClient
    if name == "Client":
        from tieline.client.synchronous import Client

        return Client
    if name == "Executor":
        from tieline.client.executor import Executor

        return Executor
    raise AttributeError(f"module `tieline.client` has no attribute `{name}`")
