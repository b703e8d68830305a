"""Placing against an oracle: plain loops over small worlds, no columns, no postings, no strides.

The oracle reads pools and demands as what they are, decides fit pool by pool in the words of the documentation, scores
by the documented formula, and takes the cheapest by enumeration. `choose` must give the same answer to every batch, and
`plan` the same ranking and the same accounting.
"""

from __future__ import annotations

import math

import msgspec
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tieline.language import compile_policy
from tieline.language.family import family
from tieline.model.spec import DatasetSpec, PoolSpec, SiteSpec
from tieline.model.task import DataUse, Resources, Task
from tieline.place import (
    Amount,
    Caller,
    DataFact,
    Placement,
    Pools,
    SiteFlags,
    Terms,
    choose,
    demand_of,
    plan,
    pool_row,
)
from tieline.ports import ConstantDistances

NOW_MS = 1_000_000
GB = 10**9
OWNERS = ("cn.a", "cn.b", "cn.c")
SITES = ("cn.a/site/s", "cn.b/site/s", "cn.c/site/s")
DATA = {
    "d/free": DataFact(owner="cn.a", spec=DatasetSpec(size_bytes=50 * GB, sites=(SITES[0],))),
    "d/owner": DataFact(owner="cn.b", spec=DatasetSpec(size_bytes=GB, sites=(SITES[1],), residency="owner")),
    "d/site": DataFact(owner="cn.a", spec=DatasetSpec(size_bytes=GB, sites=SITES[:2], residency="site")),
}
DISTANCES = ConstantDistances(constant_bps=10**9, readings_us={("home", SITES[0]): 900, ("home", SITES[1]): 3_000})
POLICIES = ("accelerators <= 4", "user_owner in partners", "is_trusted", "duration <= 1h", "cores < ")
QUERIES = ("price < 6", "rtt(home) < 2ms", "owner in partners", "free >= 2 or cores_free >= 2", "memory > 1GB")
READ = (
    *[()] * 8,
    *[(DataUse(id="d/free"),)] * 4,
    (DataUse(id="d/free"), DataUse(site=SITES[2], size_bytes=GB, path="in")),
    (DataUse(id="d/owner"),),
    (DataUse(id="d/site"),),
    (DataUse(id="d/none"),),
)
CALLERS = (
    Caller(name="alice"),
    Caller(name="bob", owner="cn.b", partners=("cn.a",)),
    Caller(name="x", owner="cn.c"),
)

# -- the oracle -------------------------------------------------------------------------------------------------------


def fits(row, flags, free, demand, need):
    """Whether one pool fits one alternative now, in the words of the documentation."""
    return (
        is_right_kind(row.spec, demand, need)
        and is_large_enough(row.spec, need)
        and runs(row.spec, demand, need)
        and may_use(row, demand, need)
        and is_asked(row, demand, need, free)
        and data_may_come(row, demand)
        and is_paid_in_time(row, demand, need)
        and is_open(row, flags, demand)
        and all(one >= asked for one, asked in zip(free, need.amount, strict=True))
    )


def is_right_kind(spec, demand, need):
    if demand.type != "task":
        return False
    if need.asked == "":
        return not spec.accelerator_count
    group = family(spec.accelerator, spec.vendor)
    return spec.accelerator_count > 0 and need.asked in ("any", spec.accelerator, group)


def is_large_enough(spec, need):
    least, most = need.accelerator_memory_bytes, need.accelerator_memory_most_bytes
    if (least or most) and not spec.accelerator_memory_bytes:
        return False
    if spec.accelerator_memory_bytes < least or (most and spec.accelerator_memory_bytes > most):
        return False
    return need.disk_bytes <= spec.disk_bytes and need.architecture in ("", spec.architecture)


def runs(spec, demand, need):
    containers = [engine == "podman" for engine in spec.engines]
    if need.image and not any(containers):
        return False
    if not need.image and all(containers):
        return False
    return not demand.network or demand.network in spec.networks


def may_use(row, demand, need):
    spec, caller = row.spec, demand.caller
    is_mine = bool(caller.owner) and caller.owner == row.owner
    policy = policy_of(spec.policy)
    if not spec.sandbox and not is_mine and not need.image:
        speaks = policy not in (None, "broken") and any(ref.name == "is_trusted" for ref in policy.refs)
        if not (demand.is_trusted and speaks):
            return False
    if spec.access == "private" and not is_mine:
        return False
    if spec.access == "partner" and not is_mine and not {caller.owner, caller.name} & set(spec.partners):
        return False
    if policy is None:
        return True
    return policy != "broken" and policy.decide(demand.values[need.index], {"partners": spec.partners}) is True


def is_asked(row, demand, need, free):
    if demand.pool not in ("", row.id) or (demand.owners and row.owner not in demand.owners):
        return False
    if need.infra and need.infra not in (row.site, row.region):
        return False
    if need.max_price_micro_cny is not None and price_of(row, demand) > need.max_price_micro_cny:
        return False
    return need.where is None or need.where.decide(seen(row, free), {"partners": demand.caller.partners}) is True


def data_may_come(row, demand):
    if demand.unknown_data:
        return False
    for term in demand.data:
        if term.residency == "site" and row.site not in term.sites:
            return False
        if term.residency == "owner" and row.owner != term.owner:
            return False
    return True


def is_paid_in_time(row, demand, need):
    if demand.budget_micro_cny is not None:
        least = need.unit_count * (2 + demand.grace_s) * price_of(row, demand) // 3_600
        if least > demand.budget_micro_cny:
            return False
    ends_us = NOW_MS * 1_000 + move_us(row, demand) + demand.max_duration_s * 10**6
    return not demand.deadline_ms or ends_us <= demand.deadline_ms * 1_000


def is_open(row, flags, demand):
    if row.expires_ms and row.expires_ms <= NOW_MS:
        return False
    return flags == SiteFlags(is_admitted=True) and not row.is_draining and row.id not in dict(demand.refused)


def policy_of(text):
    if not text:
        return None
    try:
        return compile_policy(text)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it admits nothing
        return "broken"


def seen(row, free):
    values = row.values() | {"free": free.accelerators, "cores_free": free.cores}
    rtt = DISTANCES.rtt_us("home", row.site)
    return values | ({} if rtt is None else {"rtt(home)": rtt})


def price_of(row, demand):
    listed = row.spec.price_micro_cny_per_accelerator_hour
    return listed if demand.price_micro_cny is None else demand.price_micro_cny


def move_us(row, demand):
    return sum(
        math.ceil(term.size_bytes * 8e6 / DISTANCES.constant_bps) for term in demand.data if row.site not in term.sites
    )


def score(row, demand, need, terms):
    hourly = price_of(row, demand) * need.unit_count
    if not demand.data:
        return hourly
    moved = sum(term.size_bytes for term in demand.data if row.site not in term.sites)
    waiting = move_us(row, demand) * ((hourly + terms.hour_micro_cny) / 3_600_000_000)
    data = math.floor(waiting + moved * (terms.transfer_micro_cny_per_gb / GB))
    return int(hourly + math.floor(data * (3_600 / (demand.max_duration_s or terms.expected_s))))


def ranked(rows, flags, free, demand, terms):
    """[(pool, alternative)] of everything that fits, best first; a pool once, under its best alternative."""
    found = []
    for row in rows:
        for need in demand.needs:
            if fits(row, flags[row.site], free[row.id], demand, need):
                units = free[row.id].accelerators if need.unit == "accelerator" else free[row.id].cores
                cost = score(row, demand, need, terms)
                first = (need.index, cost) if demand.is_ordered else (cost, need.index)
                key = (row.site in demand.avoid, *first, units - need.unit_count, row.id)
                found.append((key, row.id, need.index))
    once = {}
    for _, pool, index in sorted(found):
        once.setdefault(pool, index)
    return list(once.items())


def decided(rows, flags, free, demands, terms):
    """What the batch must get: each in turn the best that fits what those before it left."""
    free = dict(free)
    answers = []
    for demand in demands:
        best = ranked(rows, flags, free, demand, terms)[:1]
        answers.append(best[0] if best else None)
        for pool, index in best:
            free[pool] = Amount(
                *(one - asked for one, asked in zip(free[pool], demand.needs[index].amount, strict=True))
            )
    return answers


# -- small worlds -----------------------------------------------------------------------------------------------------

amounts = st.sampled_from([0, 0, 1, 2, 4])


def mostly(usual, *others):
    """A value that rarely stands in the way, so that worlds have something to choose from."""
    return st.integers(0, 11).flatmap(lambda dice: st.sampled_from(others) if dice == 7 else st.just(usual))


@st.composite
def worlds(draw):
    rows = []
    for at in range(draw(st.integers(0, 7))):
        kind = draw(st.sampled_from(["a100", "a100", "h100", "ascend-910b", ""]))
        owner = draw(st.sampled_from(OWNERS))
        spec = PoolSpec(
            accelerator=kind,
            accelerator_count=draw(st.integers(0, 8)) if kind else 0,
            accelerator_memory_bytes=draw(mostly(80 * GB, 0, 40 * GB)),
            core_count=draw(st.integers(0, 16)),
            memory_bytes=draw(mostly(64 * GB, 0, 4 * GB)),
            disk_bytes=draw(mostly(100 * GB, 0)),
            architecture=draw(mostly("x86_64", "", "aarch64")),
            price_micro_cny_per_accelerator_hour=draw(st.sampled_from([0, 5, 5, 7, 9])) * 10**6,
            access=draw(mostly("public", "partner", "private")),
            partners=draw(st.sampled_from([(), ("cn.a",), ("alice", "cn.b")])),
            sandbox=draw(mostly("bubblewrap", "")),
            networks=draw(mostly(("none", "host"), ("host",), ("none",))),
            engines=draw(mostly(("process", "podman"), ("process",), ("podman",))),
            policy=draw(mostly("", *POLICIES)),
        )
        rows.append(
            pool_row(
                f"{owner}/pool/p{at}", owner, spec, SiteSpec(region=draw(st.sampled_from(["", "east"]))),
                site_id=draw(st.sampled_from(SITES)), status=draw(mostly("active", "draining")),
                expires_ms=draw(mostly(0, NOW_MS, NOW_MS + 1)),
            )
        )  # fmt: skip
    open_flags = mostly(SiteFlags(is_admitted=True), SiteFlags(), SiteFlags(True, True), SiteFlags(True, False, True))
    flags = {site: draw(open_flags) for site in SITES}
    return rows, flags


@st.composite
def demands(draw, at):
    alternatives = tuple(
        Resources(
            accelerator=draw(st.sampled_from(["", "", "a100", "h100", "gpu", "npu", "any"])),
            accelerator_count=draw(st.sampled_from([0, 0, 1, 2, 4])),
            accelerator_memory_bytes=draw(mostly(0, 80 * GB)),
            accelerator_memory_most_bytes=draw(mostly(0, 40 * GB)),
            core_count=draw(amounts),
            memory_bytes=draw(st.sampled_from([0, 0, GB, 8 * GB])),
            disk_bytes=draw(mostly(0, GB)),
            architecture=draw(mostly("", "x86_64")),
            image=draw(mostly("", "busybox")),
            max_price_micro_cny=draw(mostly(None, 0, 6 * 10**6)),
            where=draw(mostly("", *QUERIES)),
            infra=draw(mostly("", "east", SITES[0], "aws")),
        )
        for _ in range(draw(st.integers(1, 2)))
    )
    task = Task(
        name=f"t{at}",
        type=draw(mostly("task", "service")),
        resources=alternatives,
        nodes=draw(st.sampled_from([1, 1, 2, 3])),
        is_ordered=draw(st.booleans()),
        network=draw(mostly("", "none", "host")),
        is_trusted=draw(st.booleans()),
        owners=draw(mostly((), ("cn.a", "cn.b"))),
        data=draw(st.sampled_from(READ)),
        max_duration_s=draw(st.sampled_from([0, 600, 36_000])),
        deadline_s=draw(mostly(0, 300, 1_000)),
        budget_micro_cny=draw(mostly(0, 1, 30_000)),
    )
    caller = draw(st.sampled_from(CALLERS))
    return demand_of(
        task, caller, id=f"j-{at}", data=DATA, submitted_ms=NOW_MS,
        avoid=draw(st.sampled_from([(), (), (SITES[0],)])),
        refused=draw(mostly({}, {"cn.a/pool/p0": "no"})),
        pool=draw(mostly("", "cn.a/pool/p0", "cn.b/pool/p1")),
        price_micro_cny=draw(mostly(None, 4 * 10**6)),
    )  # fmt: skip


@st.composite
def cases(draw):
    rows, flags = draw(worlds())
    asked = [draw(demands(at)) for at in range(draw(st.integers(1, 4)))]
    for at in range(draw(st.integers(0, 3))):  # more of the same: a refusal is told again, a placement is decided anew
        asked.append(msgspec.structs.replace(draw(st.sampled_from(asked)), id=f"again-{at}"))
    terms = Terms(transfer_micro_cny_per_gb=draw(st.sampled_from([0, 40_000])))
    return rows, flags, asked, terms


def pools_of(rows, flags):
    pools = Pools(rows)
    for site, each in flags.items():
        pools.set_site(site, each)
    return pools


def free_of(rows):
    return {row.id: Amount(row.spec.accelerator_count, row.spec.core_count, row.spec.memory_bytes) for row in rows}


@settings(max_examples=300, deadline=None)
@given(cases())
def test_choose_gives_every_member_of_a_batch_what_enumeration_gives_it(case):
    rows, flags, asked, terms = case
    answers = choose(asked, pools_of(rows, flags), DISTANCES, now_ms=NOW_MS, terms=terms)
    expected = decided(rows, flags, free_of(rows), asked, terms)
    got = [
        (answer.candidate.pool, answer.candidate.alternative) if isinstance(answer, Placement) else None
        for answer in answers
    ]
    event(f"{sum(1 for one in expected if one)} of {len(expected)} placed")
    assert got == expected


@settings(max_examples=150, deadline=None)
@given(cases())
def test_plan_ranks_what_enumeration_ranks_and_accounts_for_the_rest(case):
    rows, flags, asked, terms = case
    pools = pools_of(rows, flags)
    for demand in asked:
        found = plan(demand, pools, DISTANCES, now_ms=NOW_MS, terms=terms)
        expected = ranked(rows, flags, free_of(rows), demand, terms)
        assert [(candidate.pool, candidate.alternative) for candidate in found.candidates] == expected
        assert found.fitting + sum(reason.count for reason in found.reasons) == found.considered == len(rows)
        assert [candidate.cost_micro_cny_per_hour for candidate in found.candidates] == [
            score(pools.get(pool), demand, demand.needs[index], terms) for pool, index in expected
        ]
        assert (found.because is not None) == bool(expected)
