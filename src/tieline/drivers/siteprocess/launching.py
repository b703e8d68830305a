"""Launching: what an engine is told for each node of a run. Secrets are opened here, in memory, and go nowhere else."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tieline.drivers.engines.environment import DEFAULT_PORT, SEARCH_PATH, promised_environment
from tieline.drivers.siteprocess.laying import Laid
from tieline.drivers.siteprocess.results import checkpoint_folder
from tieline.model.error import TielineError
from tieline.model.protocol import Offer
from tieline.ports import Launch
from tieline.registry.sealed import opened_for
from tieline.site import Held, Pool
from tieline.site.configuration import SiteLimits
from tieline.site.meeting import addresses, first_rank, meeting_port

RUN_TOKEN = ("TIELINE_EXCHANGE", "TIELINE_TOKEN", "TIELINE_JOB_ID")  # what the SDK and the command line read
PYTHON = os.path.dirname(sys.executable)  # noqa: PTH120 - text, as PATH wants it; links of a venv are kept
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120 - text
# Seen read-only in a sandbox: tasks run on them, with the SDK, which may be installed as a link to a source tree.
INTERPRETERS = tuple(dict.fromkeys((sys.prefix, sys.base_prefix, PACKAGE)))
LATE_S = 1  # the engine's own time limit comes after the site's, which takes a checkpoint first


def opened_secrets(held: Held, sealed: str, private: bytes) -> dict[str, str]:
    """The task's secrets, and its run's token. Raises TielineError `check_failed` when they do not come or not open."""
    task = held.offer.task
    names = (*task.secrets, *(RUN_TOKEN if task.token else ()))
    if not names:
        return {}
    values = opened_for(private, sealed, task, held.offer.alternative)
    missing = [name for name in names if name not in values]
    if missing:
        raise TielineError("check_failed", f"the secret `{missing[0]}` did not come along")
    return {name: values[name] for name in names}


def launches(
    held: Held,
    folder: str,
    pool: Pool | None,
    limits: SiteLimits,
    secrets: dict[str, str],
    *,
    holds_memory: bool,
    readable: Sequence[str] = (),
    laid: Sequence[Laid] = (),
) -> list[Launch]:
    """One launch per node, in rank order. ``folder`` is the run's; ``pool`` None: the owner took it away since.

    A node of a gang over several sites is told of the whole gang.
    """
    offer = held.offer
    task, nodes = offer.task, held.nodes
    resources = task.resources[offer.alternative]
    gang = gang_of(held, folder)
    memory = offer.memory_bytes // nodes
    if not memory and pool is not None and holds_memory:
        memory = pool.memory_bytes  # what is not asked for is still bounded by what is sold
    more = {**gang.more, **_brought(offer, laid)}
    made = []
    for node, where in enumerate(node_folders(folder, nodes)):
        checkpoint = checkpoint_folder(where, task.checkpoint.path) if task.checkpoint else ""
        envs = promised_environment(
            job=offer.job,
            run=offer.run,
            node=gang.first + node,
            addresses=gang.addresses,
            master_port=gang.port,
            accelerators_per_node=offer.accelerator_count // nodes,
            workdir=f"{where}/work",
            temporary=f"{where}/tmp",  # noqa: S108 - the run's own
            checkpoint=checkpoint,
            site=os.environ,
            path=f"{PYTHON}:{SEARCH_PATH}",
        )
        made.append(
            Launch(
                run=offer.run,
                node=node,
                folder=where,
                setup=task.setup,
                script=task.run,
                envs={**envs, **more, "TIELINE_PYTHON": sys.executable, **task.envs, **secrets},
                devices=held.devices_of(node),
                vendor=pool.vendor if pool is not None else "",
                core_count=offer.core_count // nodes,
                memory_bytes=memory,
                disk_bytes=resources.disk_bytes or limits.disk_bytes,
                duration_s=offer.stop_after_s + LATE_S if offer.stop_after_s else 0,
                grace_s=task.grace_s,
                network=held.network,
                sandbox=held.sandbox,
                image=resources.image,
                log_bytes=limits.log_bytes,
                readable=(*INTERPRETERS, *readable),
                laid=[(each.source, each.path) for each in laid] if held.sandbox != "none" else (),
            )
        )
    return made


class GangEnvironment(NamedTuple):
    """What nodes are told of their gang."""

    first: int  # rank of the first node here
    addresses: Sequence[str]
    port: int
    more: dict[str, str]


def gang_of(held: Held, folder: str) -> GangEnvironment:
    """The gang of a run: over several sites as all of them derive it, else as it is made up here."""
    part, nodes = held.offer.part, held.nodes
    if part is None:
        port = master_port(folder) if nodes > 1 else DEFAULT_PORT
        return GangEnvironment(0, node_addresses(nodes), port, {})
    more = {"TIELINE_CIRCUITS": "\n".join(part.circuits)} if part.circuits else {}
    return GangEnvironment(first_rank(part), addresses(part), meeting_port(part.number), more)


def _brought(offer: Offer, laid: Sequence[Laid]) -> dict[str, str]:
    """The transfers that are booked for data which the work has to move itself: a line for each."""
    here = {each.data[:200] for each in laid}
    left = [each for each in offer.transfers if each.order.label not in here]
    lines = [f"{each.id} {' '.join(each.order.label.split())}" for each in left]
    return {"TIELINE_TRANSFERS": "\n".join(lines)} if lines else {}


def node_folders(folder: str, nodes: int) -> list[str]:
    """The engine's folder of each node."""
    return [f"{folder}/node-{node}" for node in range(nodes)]


def node_addresses(nodes: int) -> Sequence[str]:
    """One loopback address per node: all of 127.0.0.0/8 is this machine (RFC 1122, section 3.2.1.3)."""
    return [f"127.{node >> 16 & 255}.{node >> 8 & 255}.{node & 255}" for node in range(1, nodes + 1)]


def master_port(folder: str) -> int:
    """A port for the gang to meet on, free when it is chosen; the same again for a run that is adopted."""
    path = Path(folder, "port")
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    path.write_text(str(port))
    return port
