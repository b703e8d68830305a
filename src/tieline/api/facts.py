"""Facts: whose job it is and who may read which blob, kept so that most questions of visibility need no database.

Who may see an entry of the log: admins and auditors all; everybody the records, which are public statements; an owner
what concerns its sites; a user its own jobs, runs, quotes, transfers and circuits; a member of a project its jobs and
runs, and the project. What a caller may not see does not exist for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from tieline.drivers.stores.draft import Committed
from tieline.drivers.stores.log import LogRow
from tieline.exchange.membership import Membership
from tieline.exchange.permission import owns, sees_job
from tieline.model import event as fact
from tieline.model.party import Actor, Role

MOST_JOBS = 200_000
MOST_BLOBS = 100_000
PUBLIC = ("record_stored", "equivocation_seen")
_event = msgspec.json.Decoder(fact.Events).decode


class Facts:
    """User and project of the newest jobs, by the job's short name, and who was seen to have a right to which blob."""

    def __init__(self) -> None:
        self.whose: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self.readers: OrderedDict[tuple[str, str], None] = OrderedDict()

    def note(self, entries: Sequence[Committed]) -> None:
        """Learn from what was committed."""
        for entry in entries:
            event = entry.event
            if isinstance(event, fact.JobSubmitted):
                self.learn(entry.job or "", event.job.user, event.job.project)
            elif isinstance(event, fact.JobEnded) and event.outputs:
                user, _ = self.whose.get(entry.job or "", ("", ""))
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

    def learn(self, job: str, user: str, project: str) -> None:
        """Remember whose job it is."""
        self.whose[job] = (user, project)
        if len(self.whose) > MOST_JOBS:
            self.whose.popitem(last=False)

    def unknown(self, jobs: Iterable[str | None]) -> tuple[str, ...]:
        """Those of ``jobs`` whose user has to be looked up."""
        return tuple(dict.fromkeys(job for job in jobs if job and job not in self.whose))

    def sees(self, actor: Actor, row: LogRow, members: Membership) -> bool:
        """Whether ``actor`` may see an entry whose job is known or is nobody's."""
        if row.kind in PUBLIC:
            return True
        user, project = self.whose.get(row.job or "", ("", ""))
        if row.kind == "project_changed":
            project = row.subject
        is_member = bool(project) and members.role(actor, project) is not None
        if (user or is_member or actor.has(Role.ADMIN, Role.AUDITOR)) and sees_job(
            actor, user, project, is_member=is_member
        ):
            return True
        if actor.project not in ("", project):
            return False
        if row.site and owns(actor, row.site.partition("/")[0]):
            return True
        if row.kind in ("quote_changed", "transfer_changed", "circuit_changed"):
            event = _event(row.body)
            if isinstance(event, fact.QuoteChanged):
                return event.quote.user == actor.name
            if isinstance(event, fact.TransferChanged):
                return event.transfer.user == actor.name
            return isinstance(event, fact.CircuitChanged) and event.circuit.user == actor.name
        return False
