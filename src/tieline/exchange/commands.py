"""Commands: everything that may be asked of an exchange that can change it, and who asks.

A use-case is a pure function ``(view, command, now_ms, ids) -> Decision``. It raises TielineError to refuse the command
whole; then nothing has changed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tieline.model.event import Events
from tieline.model.party import SYSTEM, Actor, Role
from tieline.model.protocol import Beat, Hello, Reports
from tieline.model.task import Task


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What every command carries. ``key`` is the caller's idempotency key with the digest of the body, or empty."""

    actor: Actor = SYSTEM
    key: str = ""
    digest: str = ""


class Decision(msgspec.Struct, frozen=True):
    """What follows from a command: facts to be committed, and the answer that is given once they are."""

    events: tuple[Events, ...] = ()
    reply: Any = None


class CreateExchange(Command, frozen=True, kw_only=True):
    """The first command of an exchange: its name, and the first admin's token hash."""

    id: str
    prefix: str
    public: str
    admin_token_sha256: str


class CreateToken(Command, frozen=True, kw_only=True):
    """Make a token; the secret's hash is made by the shell. Reply: model.party.Token."""

    sha256: str
    name: str
    roles: tuple[Role, ...]
    owner: str = ""
    ttl_s: int = 0
    uses: int = -1


class RevokeToken(Command, frozen=True, kw_only=True):
    """Reply: Token."""

    id: str


class StoreRecord(Command, frozen=True, kw_only=True):
    """Verify and keep a record. Reply: RecordStored (of the kept revision)."""

    envelope: bytes


class ForgetRecords(Command, frozen=True, kw_only=True):
    """The sweeper asks to let go of records whose lease ended long ago. Reply: how many went."""

    ids: tuple[str, ...]


class JoinSite(Command, frozen=True, kw_only=True):
    """A site asks to join. ``token_sha256`` is empty without a token. Reply: `Joined`."""

    statement: bytes
    token_sha256: str = ""


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to JoinSite."""

    site: str
    owner: str
    is_admitted: bool
    delegation: bytes


class ChangeSite(Command, frozen=True, kw_only=True):
    """``what`` is accept, drain, undrain or leave. Reply: model.party.Site."""

    site: str
    what: str


class OpenSession(Command, frozen=True, kw_only=True):
    """A site process opens its session; the shell made ``bearer_sha256``. Reply: model.party.Site, live Orders."""

    statement: bytes
    hello: Hello
    bearer_sha256: str


class TakeReport(Command, frozen=True, kw_only=True):
    """One report of one site; a batch is submitted as many of these, in order. Reply: Outcome."""

    site: str
    report: Reports


class TakeBeat(Command, frozen=True, kw_only=True):
    """A verified heartbeat (the shell checks the signature against the site's key). Reply: Beaten."""

    site: str
    beat: Beat


class SubmitJobs(Command, frozen=True, kw_only=True):
    """Reply: tuple of Job. Refused whole when nothing that exists here could ever run one of the tasks."""

    tasks: tuple[Task, ...]
    pipeline: str = ""


class StopJob(Command, frozen=True, kw_only=True):
    """Reply: Job."""

    job: str
    why: str = ""


class AskQuote(Command, frozen=True, kw_only=True):
    """Reply: Quote, asked."""

    task: Task
    pool: str = ""
    price_micro_cny: int = 0
    duration_s: int = 0


class AcceptQuote(Command, frozen=True, kw_only=True):
    """Reply: Job."""

    quote: str


class PlanTasks(Command, frozen=True, kw_only=True):
    """A dry run: no events. Reply: tuple of Plan."""

    tasks: tuple[Task, ...]


class WhyJob(Command, frozen=True, kw_only=True):
    """No events. Reply: model.api.WhyView."""

    job: str


class ReadSites(Command, frozen=True, kw_only=True):
    """No events. Reply: tuple of SiteView."""

    site: str = ""


class ReadSituation(Command, frozen=True, kw_only=True):
    """No events. Reply: SituationView."""


class Tick(Command, frozen=True, kw_only=True):
    """Time passes: leases, offers, quotes and deadlines end; what waits is placed. Reply: None."""
