"""Columns: under which kind, job and site an event is filed, so that histories are read without reading the log.

A job is filed by its short name (``j-7f3k2m9qab``), which the name of a run carries too (``j-7f3k2m9qab.1``,
of a part of a gang ``j-7f3k2m9qab.1.2``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from tieline.model import event as fact

Filed = tuple[str | None, str | None]
KIND: dict[type, str] = {kind: str(kind.__struct_config__.tag) for kind in get_args(fact.Events)}


def kind_of(event: fact.Event) -> str:
    """The event's tag, such as ``job_submitted``."""
    return KIND[type(event)]


def short(name: str) -> str:
    """The last part of an identifier; a short name stays as it is."""
    return name.rpartition("/")[2]


def columns_of(event: fact.Event, view: Any) -> Filed:
    """The job and the site that ``event`` concerns, None where there is none.

    An event about a run names only the run; the site comes from ``view.runs`` (or ``view.recent``, for one that ended)
    as it stands right after the event was applied. Without a view the site of such an event is not known: None.
    """
    file = FILE.get(type(event))
    return file(event, view) if file is not None else (None, None)


def _site_of_run(view: Any, run: str) -> str | None:
    found = getattr(view, "runs", {}).get(run) or getattr(view, "recent", {}).get(run)
    return found.site if found is not None else None


def _by_run(event: Any, view: Any) -> Filed:
    return short(event.run).partition(".")[0], _site_of_run(view, event.run)


def _by_offered(event: fact.RunOffered, _: Any) -> Filed:
    return short(event.run.job), event.run.site


def _by_site(event: Any, _: Any) -> Filed:
    return None, event.site.id


def _by_submitted(event: fact.JobSubmitted, _: Any) -> Filed:
    return short(event.job.id), None


def _by_job(event: Any, _: Any) -> Filed:
    return short(event.job), None


def _by_broken(event: fact.GangBroken, _: Any) -> Filed:
    return short(event.job), event.why.site


def _by_quote(event: fact.QuoteChanged, _: Any) -> Filed:
    return short(event.quote.job) or None, event.quote.site or None


FILE: dict[type, Callable[[Any, Any], Filed]] = {
    fact.SiteJoined: _by_site,
    fact.SiteChanged: _by_site,
    fact.SessionOpened: _by_site,
    fact.JobSubmitted: _by_submitted,
    fact.JobQueued: _by_job,
    fact.JobEnded: _by_job,
    fact.CancelRequested: _by_job,
    fact.ShellOpened: _by_job,
    fact.RunOffered: _by_offered,
    fact.RunAccepted: _by_run,
    fact.RunConfirmed: _by_run,
    fact.GangBroken: _by_broken,
    fact.RunStarted: _by_run,
    fact.StopRequested: _by_run,
    fact.CheckpointStored: _by_run,
    fact.RunEnded: _by_run,
    fact.QuoteChanged: _by_quote,
}
