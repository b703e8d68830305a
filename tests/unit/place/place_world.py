"""Small worlds of pools for the tests of placing."""

from tieline.model.spec import PoolSpec, SiteSpec
from tieline.model.task import Resources, Task
from tieline.place import Caller, Pools, choose, demand_of, plan, pool_row
from tieline.ports import ConstantDistances

GB = 10**9
ALICE = Caller(name="alice", owner="cn.alice", roles=("user",))
NOW_MS = 1_000_000


def a_pool(name, *, owner="cn.lab", site="", price=10.0, expires_ms=0, status="active", site_spec=None, **spec):
    """A pool of 8 A100 with a sandbox, unless told otherwise; price in CNY."""
    fields = {
        "accelerator": "a100", "accelerator_count": 8, "accelerator_memory_bytes": 40 * GB, "core_count": 64,
        "memory_bytes": 512 * GB, "disk_bytes": 1_000 * GB, "sandbox": "bubblewrap", "networks": ("none", "host"),
        "architecture": "x86_64", "price_micro_cny_per_accelerator_hour": round(price * 10**6),
    }  # fmt: skip
    return pool_row(
        f"{owner}/pool/{name}", owner, PoolSpec(**(fields | spec)), site_spec or SiteSpec(),
        site_id=site or f"{owner}/site/{name}", status=status, expires_ms=expires_ms,
    )  # fmt: skip


def cores(name, **changes):
    """A pool of 64 cores."""
    return a_pool(name, **({"accelerator": "", "accelerator_count": 0, "accelerator_memory_bytes": 0} | changes))


def a_task(*alternatives, **fields):
    """A task that asks for one A100, unless told otherwise."""
    resources = tuple(Resources(**one) for one in alternatives) or (Resources(accelerator="a100", accelerator_count=1),)
    return Task(**({"name": "train", "run": "true", "resources": resources} | fields))


def a_demand(*alternatives, caller=ALICE, task=None, id="j-1", **fields):  # noqa: A002 - the job's own word
    """The demand of `a_task`; what `demand_of` takes is told apart from what a task takes."""
    taken = {
        name: fields.pop(name)
        for name in (
            "alternative", "data_facts", "submitted_ms", "waits_since_ms", "spent_micro_cny", "avoid", "refused",
            "pool", "price_micro_cny",
        )
        if name in fields
    }  # fmt: skip
    taken.setdefault("submitted_ms", NOW_MS)
    if "data_facts" in taken:
        taken["data"] = taken.pop("data_facts")
    return demand_of(task or a_task(*alternatives, **fields), caller, id=id, **taken)


def chosen(demands, pools, distances=None, now_ms=NOW_MS, **more):
    """`choose` with a list or one demand; pools as rows are taken too."""
    pools = pools if isinstance(pools, Pools) else Pools(pools)
    many = demands if isinstance(demands, list) else [demands]
    answers = choose(many, pools, distances or ConstantDistances(), now_ms=now_ms, **more)
    return answers if isinstance(demands, list) else answers[0]


def planned(demand, pools, distances=None, now_ms=NOW_MS, **more):
    """`plan` with defaults."""
    pools = pools if isinstance(pools, Pools) else Pools(pools)
    return plan(demand, pools, distances or ConstantDistances(), now_ms=now_ms, **more)


def counts(answer):
    """{code: count} of a refusal or a plan."""
    found = {}
    for reason in answer.reasons:
        found[reason.code] = found.get(reason.code, 0) + reason.count
    return found
