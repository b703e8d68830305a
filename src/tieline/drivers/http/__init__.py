"""HTTP out: one client for sites, the SDK and peers (aiohttp), and a reader of server-sent events.

Importing this package does not import aiohttp; making the first connection does.
"""

from tieline.drivers.http.client import HttpClient
from tieline.drivers.http.sse import ServerEvent, SseParser

__all__ = ["HttpClient", "ServerEvent", "SseParser"]
