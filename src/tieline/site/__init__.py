"""The process beside the compute: its protocol as a pure state machine, its owner's words, its answers and records.

`step` decides; `tieline.drivers.siteprocess` does what it says. Nothing here reads a clock, a file or a socket.
"""

from tieline.site.machine import next_ms, recover, step
from tieline.site.pool import Counter, Pool
from tieline.site.state import Done, Entry, Held, Phase, SiteState

__all__ = ["Counter", "Done", "Entry", "Held", "Phase", "Pool", "SiteState", "next_ms", "recover", "step"]
