"""The environment that a task is promised: our names, and those that scripts for SkyPilot, dstack and torchrun read.

Nothing of the site's own environment reaches a task: what is not built here or stated by the task is not there.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from tieline.model.accelerators import VENDORS

ALLOWED = ("LANG", "TZ")  # the only variables of the site process that a task may see
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_PORT = 29_500  # torchrun's own

# Which variable names the devices that a program may use, by the vendor's own documentation. One each: where a vendor
# reads two (ROCR_ and HIP_VISIBLE_DEVICES), the second counts within the first.
DEVICE_VARIABLES: dict[str, str] = {
    "nvidia": "CUDA_VISIBLE_DEVICES",
    "amd": "HIP_VISIBLE_DEVICES",
    "huawei": "ASCEND_RT_VISIBLE_DEVICES",
    "cambricon": "MLU_VISIBLE_DEVICES",
    "hygon": "HIP_VISIBLE_DEVICES",
    "moore-threads": "MUSA_VISIBLE_DEVICES",
    "metax": "CUDA_VISIBLE_DEVICES",
    "kunlunxin": "XPU_VISIBLE_DEVICES",
    "iluvatar": "CUDA_VISIBLE_DEVICES",
    "intel": "ZE_AFFINITY_MASK",
}

# Variables that every shell sets for itself; some refuse to be set, and that would end the script.
SHELL_OWNED = frozenset(
    ("BASHOPTS", "BASH_VERSINFO", "EUID", "GROUPS", "IFS", "LINENO", "OPTIND", "PPID", "SHELLOPTS", "UID")
)


def promised_environment(
    *,
    job: str,
    run: str,
    node: int = 0,
    addresses: Sequence[str] = ("127.0.0.1",),
    master_port: int = DEFAULT_PORT,
    accelerators_per_node: int = 0,
    workdir: str,
    temporary: str,
    checkpoint: str = "",
    site: Mapping[str, str] | None = None,
    path: str = SEARCH_PATH,
) -> dict[str, str]:
    """Everything but the task's own variables and its devices.

    ``node`` is the rank, ``addresses`` one IP per node in rank order. ``site`` is the site's own environment, of which
    only ``ALLOWED`` passes. One process is started per node, so WORLD_SIZE counts nodes and RANK is the node's rank;
    torchrun sets both anew for the workers it starts.
    """
    nodes = len(addresses)
    assert 0 <= node < nodes, (node, nodes)
    lines, master, cards = "\n".join(addresses), addresses[0], str(accelerators_per_node)
    rank, count, port = str(node), str(nodes), str(master_port)
    envs = {name: value for name, value in (site or {}).items() if name in ALLOWED}
    envs |= {
        "PATH": path,
        "HOME": workdir,
        "TMPDIR": temporary,
        "USER": "tieline",
        "LOGNAME": "tieline",
        "SHELL": "/bin/sh",
    }
    envs |= {
        "TIELINE_JOB_ID": job,
        "TIELINE_RUN_ID": run,
        "TIELINE_NODE_RANK": rank,
        "TIELINE_NUM_NODES": count,
        "TIELINE_NODE_IPS": lines,
        "TIELINE_MASTER_ADDR": master,
        "TIELINE_MASTER_PORT": port,
        "TIELINE_NUM_GPUS_PER_NODE": cards,
    }
    if checkpoint:
        envs["TIELINE_CHECKPOINT_DIR"] = checkpoint
    envs |= {
        "SKYPILOT_TASK_ID": run,
        "SKYPILOT_NODE_RANK": rank,
        "SKYPILOT_NUM_NODES": count,
        "SKYPILOT_NODE_IPS": lines,
        "SKYPILOT_NUM_GPUS_PER_NODE": cards,
    }
    envs |= {
        "DSTACK_RUN_ID": run,
        "DSTACK_NODE_RANK": rank,
        "DSTACK_NODES_NUM": count,
        "DSTACK_NODES_IPS": lines,
        "DSTACK_MASTER_NODE_IP": master,
        "DSTACK_GPUS_PER_NODE": cards,
        "DSTACK_GPUS_NUM": str(accelerators_per_node * nodes),
    }
    return envs | {"MASTER_ADDR": master, "MASTER_PORT": port, "WORLD_SIZE": count, "RANK": rank, "NODE_RANK": rank}


def device_environment(vendor: str, devices: Sequence[int | str]) -> dict[str, str]:
    """The variables by which a program of this vendor finds its devices; for an unknown vendor, those of all.

    ``devices`` are indices or the vendor's own names (NVIDIA: UUIDs). None given: the devices of a known vendor are
    hidden, and nothing is said where no vendor is known.
    """
    name = VENDORS.get(vendor.lower(), vendor.lower())
    if name in DEVICE_VARIABLES:
        variables = [DEVICE_VARIABLES[name]]
    elif devices:
        variables = list(dict.fromkeys(DEVICE_VARIABLES.values()))
    else:
        return {}
    listed = ",".join(str(device) for device in devices)
    return {**dict.fromkeys(variables, listed), "TIELINE_DEVICES": listed}


def shell_exports(envs: Mapping[str, str]) -> bytes:
    """``envs`` as text that a POSIX shell reads, whatever the values hold; names that shells own are left out."""
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in sorted(envs.items()) if name not in SHELL_OWNED)
    return "".join(lines).encode("utf-8", "surrogateescape")
