"""Meeting: which run of a gang over several pools has a node, and which sites are let to each other's nodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tieline.exchange.permission import no_such
from tieline.exchange.view import View
from tieline.model.error import TielineError
from tieline.model.job import Job, Run, RunState
from tieline.model.party import Actor, Role

LIVES = (RunState.ACCEPTED, RunState.RUNNING)


class Node(NamedTuple):
    """A node of a job: the run that it belongs to, and its rank within that run."""

    run: Run
    local: int


def node_among(runs: Iterable[Run], rank: int) -> Node | None:
    """The node with this rank of the gang; ``runs`` are those of one epoch. None: none of them has it."""
    for run in runs:
        if not run.members:
            return Node(run, rank)
        if run.rank <= rank < run.rank + run.nodes:
            return Node(run, rank - run.rank)
    return None


def live_node(view: View, job: Job, rank: int) -> Node | None:
    """The node with this rank of what runs of ``job`` now; None where that run is over, or none was placed."""
    gang = view.gangs.get(job.id)
    names = gang.runs if gang is not None else ((job.run,) if job.run in view.runs else ())
    return node_among((view.runs[name] for name in names), rank)


def check_meets(view: View, actor: Actor, site: str, name: str) -> None:
    """Whether ``actor``, a site, is let to the nodes of the run ``name`` at ``site``: both are of one live gang.

    Raises TielineError `not_found` for what is none of theirs, `conflict` while the gang is not whole, or not any more.
    """
    run = view.runs.get(name)
    if run is None or run.site != site or not run.members or not actor.has(Role.SITE):
        raise no_such("run", name)
    gang = view.gangs.get(run.job)
    runs = [view.runs[each] for each in gang.runs] if gang is not None else []
    own = [each for each in runs if each.site == actor.name and each.epoch == run.epoch]
    if not own:
        raise no_such("run", name)
    if not any(_is_there(each) for each in own) or not _is_there(run):
        raise TielineError("conflict", f"`{name}` is {run.state}, and its gang is not all there")


def _is_there(run: Run) -> bool:
    return run.is_confirmed and run.state in LIVES
