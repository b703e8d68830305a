"""Sealing: a user's secrets on their way to the site that accepted the work, and nowhere else.

::

    client --sealed to the exchange--> API: opened, checked, sealed again per job --> table `secret`, same transaction
    site accepts --> API: opened, narrowed to the task, sealed to the site's key --> the outcome of `accepted`
    site behind a peer --> opened, sealed to that site's key for that program --> the offer --> the peer's table
                           `secret` --> the site accepts --> as they came --> the outcome of `accepted`

Values are in memory for as long as one of these steps takes. They never reach the log, the event log or an answer, and
no exchange but the user's own ever sees them. A run that may call the exchange is given its token in the same way.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from tieline.api.runtoken import run_token
from tieline.drivers.stores.inbox import Aside
from tieline.drivers.stores.secrets import kept_secret
from tieline.drivers.stores.store import Change
from tieline.model.error import TielineError
from tieline.model.job import Job, Run
from tieline.model.protocol import Offer
from tieline.model.task import Task
from tieline.registry import seal, unseal
from tieline.registry.sealed import sealed_for

if TYPE_CHECKING:
    from tieline.api.platform import Platform

MOST_BYTES = 65_536
WHERE = "sealed_secrets"
_values = msgspec.json.Decoder(dict[str, str])


def base64url_bytes(text: str) -> bytes:
    """Bytes of base64url with or without padding. Raises TielineError `invalid_task`."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TielineError("invalid_task", "this is not base64url", where=WHERE) from None


def opened_secrets(platform: Platform, sealed: str, tasks: Sequence[Task]) -> dict[str, str]:
    """The secrets by name. Raises TielineError for what does not open and for names that do not match the tasks'."""
    needed = dict.fromkeys(name for task in tasks for name in task.secrets)
    if not sealed:
        missing = tuple(needed)
        if missing:
            raise TielineError(
                "invalid_task",
                f"the task names {_list(missing)}, and no secrets came with it",
                where=WHERE,
                hints=("tieline run --secret NAME FILE",),
            )
        return {}
    try:
        content = unseal(platform.sealing_key, base64url_bytes(sealed))
    except TielineError as error:
        if error.code == "invalid_task":
            raise
        raise TielineError(
            "invalid_task",
            "the secrets do not open with this exchange's sealing key (`sealing` of GET /v1/exchange)",
            where=WHERE,
        ) from None
    if len(content) > MOST_BYTES:
        raise TielineError("too_large", f"secrets of {len(content):,} bytes; {MOST_BYTES:,} are allowed", where=WHERE)
    try:
        values = _values.decode(content)
    except msgspec.MsgspecError:
        raise TielineError("invalid_task", "inside is not one JSON object of texts by name", where=WHERE) from None
    missing = tuple(name for name in needed if name not in values)
    unasked = tuple(name for name in values if name not in needed)
    if missing or unasked:
        raise TielineError(
            "invalid_task",
            f"named by no task: {_list(unasked)}" if unasked else f"named by a task and not there: {_list(missing)}",
            where=WHERE,
        )
    return values


def kept_secrets(platform: Platform, sealed: str, tasks: Sequence[Task]) -> Aside | None:
    """What the writer keeps beside the jobs, in the transaction that acknowledges them; None without secrets."""
    values = opened_secrets(platform, sealed, tasks)
    if not values:
        return None

    sealed_each = [_own(platform, values, task) for task in tasks]

    def keep(reply: Job | Sequence[Job]) -> list[Change]:
        jobs = (reply,) if isinstance(reply, Job) else reply
        pairs = zip(jobs, sealed_each, strict=True)
        return [kept_secret(job.id, own) for job, own in pairs if own]

    return keep


def _own(platform: Platform, values: dict[str, str], task: Task) -> bytes:
    if not task.secrets:
        return b""
    narrowed = {name: values[name] for name in task.secrets}
    return seal(platform.sealing_public, msgspec.json.encode(narrowed))


async def for_site(platform: Platform, job: Job, run: Run, public: str) -> str:
    """What a run of ours is given, sealed to the site that accepted it, base64url; empty when there is nothing.

    What came from another exchange is sealed to the site already.
    """
    if not (job.task.secrets or job.task.token):
        return ""
    if job.origin is not None:
        return (await platform.read(platform.store.secret, job.id) or b"").decode()
    content = msgspec.json.encode(await _given(platform, job, run))
    return base64.urlsafe_b64encode(seal(public, content)).rstrip(b"=").decode()


async def for_branch(platform: Platform, offer: Offer) -> str:
    """What a run behind a peer is given, sealed to its site for its program; empty when there is nothing, or no key.

    What the job came with from another exchange goes on as it is.
    """
    view, task = platform.view, offer.task
    run = view.runs.get(offer.run)
    job = view.jobs.peek(offer.job)
    if run is None or job is None or not (task.secrets or task.token):
        return ""
    if job.origin is not None:
        return (await platform.read(platform.store.secret, job.id) or b"").decode()
    site = view.supply.site_specs.get(run.site)
    if site is None or not site.sealing:
        return ""
    return sealed_for(site.sealing, await _given(platform, job, run), task, offer.alternative)


async def _given(platform: Platform, job: Job, run: Run) -> dict[str, str]:
    """The values of one of our own jobs, and the token of one of its runs."""
    sealed = await platform.read(platform.store.secret, job.id)
    values = _values.decode(unseal(platform.sealing_key, sealed)) if sealed is not None else {}
    return run_token(platform, job, run) | values


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name[:40]}`" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
