"""Facts: whose job it is and who may read which blob, kept so that most questions of visibility need no database.

Who may see an entry of the log: admins and auditors all; everybody the records, which are public statements; an owner
what concerns its sites; a user its own jobs, runs and quotes. What a caller may not see does not exist for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from tieline.drivers.stores.draft import Committed
from tieline.drivers.stores.log import LogRow
from tieline.exchange.permission import owns
from tieline.model import event as fact
from tieline.model.party import Actor, Role

MOST_JOBS = 200_000
MOST_BLOBS = 100_000
PUBLIC = ("record_stored", "equivocation_seen")
_event = msgspec.json.Decoder(fact.Events).decode


class Facts:
    """The users of the newest jobs, by the job's short name, and who was seen to have a right to which blob."""

    def __init__(self) -> None:
        self.users: OrderedDict[str, str] = OrderedDict()
        self.readers: OrderedDict[tuple[str, str], None] = OrderedDict()

    def note(self, entries: Sequence[Committed]) -> None:
        """Learn from what was committed."""
        for entry in entries:
            event = entry.event
            if isinstance(event, fact.JobSubmitted):
                self.learn(entry.job or "", event.job.user)
            elif isinstance(event, fact.JobEnded) and event.outputs:
                user = self.users.get(entry.job or "", "")
                for output in event.outputs:
                    self.allow(user, output.sha256)

    def allow(self, name: str, sha256: str) -> None:
        """Remember that ``name`` may read a blob: it sent it, or its job made it."""
        if name:
            self.readers[(name, sha256)] = None
            self.readers.move_to_end((name, sha256))
            if len(self.readers) > MOST_BLOBS:
                self.readers.popitem(last=False)

    def is_allowed(self, name: str, sha256: str) -> bool:
        """Whether that is remembered."""
        return (name, sha256) in self.readers

    def learn(self, job: str, user: str) -> None:
        """Remember whose job it is."""
        self.users[job] = user
        if len(self.users) > MOST_JOBS:
            self.users.popitem(last=False)

    def unknown(self, jobs: Iterable[str | None]) -> tuple[str, ...]:
        """Those of ``jobs`` whose user has to be looked up."""
        return tuple(dict.fromkeys(job for job in jobs if job and job not in self.users))

    def sees(self, actor: Actor, row: LogRow) -> bool:
        """Whether ``actor`` may see an entry whose job is known or is nobody's."""
        if actor.has(Role.ADMIN, Role.AUDITOR) or row.kind in PUBLIC:
            return True
        if row.job and self.users.get(row.job) == actor.name and actor.has(Role.USER, Role.OWNER):
            return True
        if row.site and owns(actor, row.site.partition("/")[0]):
            return True
        if row.kind == "quote_changed":
            event = _event(row.body)
            return isinstance(event, fact.QuoteChanged) and event.quote.user == actor.name
        return False
