"""A run's own token: what its task asked for, for this job alone, as long as this run lives; nowhere stored.

It is signed when a site accepts the run, or when the run is offered to another exchange, and travels sealed to the
site like a secret. The run calls the exchange of its user with it, also from behind a peer, which passes nothing on.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from tieline.model.job import Job, Run
from tieline.model.party import Role
from tieline.model.peer import DelegatedToken
from tieline.registry.delegated import MOST_RUN_S, TTL_S, sealed_token

if TYPE_CHECKING:
    from tieline.api.platform import Platform

EXCHANGE, TOKEN = "TIELINE_EXCHANGE", "TIELINE_TOKEN"  # what the SDK and the command line read
JOB = "TIELINE_JOB_ID"  # behind a peer a run has another job's name, that of its own exchange's guest


def run_token(platform: Platform, job: Job, run: Run) -> dict[str, str]:
    """The variables by which a run finds its exchange and speaks for its job; none where the task asks for none."""
    if not job.task.token:
        return {}
    now_s = platform.clock.now_ms() // 1_000
    # Data may be booked for days from now: the run's own time begins once it is there.
    is_soon = run.stop_after_s and not job.task.data
    life_s = run.stop_after_s + job.task.grace_s + TTL_S if is_soon else MOST_RUN_S
    token = DelegatedToken(
        id=f"d-{secrets.token_hex(8)}",
        by=platform.exchange.id,
        to=platform.exchange.id,
        user=job.user,
        scopes=tuple(dict.fromkeys(job.task.token)),
        nb_s=now_s,
        exp_s=now_s + min(life_s, MOST_RUN_S),
        owner=job.user_owner,
        project=job.project,
        job=job.id,
        run=run.id,
        roles=(Role.USER,),
    )
    sealed = sealed_token(token, platform.keys.key, platform.keys.kid)
    return {EXCHANGE: platform.url, TOKEN: sealed, JOB: job.id}
