"""Offering: the owner's file laid over what the machine really has; pools to decide by, and specs for their records.

What the file leaves out is measured. What it states is declared, and called measured where the machine was seen to have
at least as much. Pools never share a core, a byte or a device by default.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from tieline.model.accelerators import known
from tieline.model.error import TielineError
from tieline.model.evidence import Evidence
from tieline.model.spec import PoolSpec
from tieline.site.configuration import PoolConfig, SiteConfig
from tieline.site.found import Ability, Cards, Machine
from tieline.site.pool import Pool

CARDS_SHARE = (3, 4)  # of cores and memory, for the pools of accelerators where the file says nothing
SYSTEM_SHARE = 10  # one part in so many of the memory stays with the system
LEAST_MEMORY_BYTES = 2**26


class Offered(NamedTuple):
    """One pool: how the site decides by it, and what its record says."""

    pool: Pool
    spec: PoolSpec


class Share(NamedTuple):
    """Cores and memory of one pool."""

    cores: int
    memory_bytes: int


def offered(config: SiteConfig, machine: Machine, ability: Ability, owner: str, site: str) -> tuple[Offered, ...]:
    """The pools of a site. ``owner`` is the prefix, ``site`` the identifier.

    Raises TielineError `invalid_request` where the file names devices that are not there, or names a pool twice.
    """
    configs = config.pools or _default(site.rsplit("/", 1)[-1], machine)
    names: set[str] = set()
    for pool in configs:
        if pool.name in names:
            _refuse(pool, f"`{pool.name}` is named twice")
        names.add(pool.name)
    taken: dict[str, set[int]] = {}
    shares = _shares(configs, machine)
    return tuple(
        _offered(config, pool, share, machine, ability, owner, site, taken)
        for pool, share in zip(configs, shares, strict=True)
    )


def _default(site: str, machine: Machine) -> tuple[PoolConfig, ...]:
    """One pool for each kind of accelerator, and one of cores."""
    pools = [
        PoolConfig(name=f"{site}-{cards.kind.replace('.', '-')}", accelerator=cards.kind) for cards in machine.cards
    ]
    if machine.core_count > len(pools):
        pools.append(PoolConfig(name=f"{site}-cores"))
    return tuple(pools)


def _shares(configs: tuple[PoolConfig, ...], machine: Machine) -> list[Share]:
    """Cores and memory for each pool: as stated, and what is left over for those that state nothing."""
    cores = _split(
        [pool.cores for pool in configs], [bool(pool.accelerator) for pool in configs], machine.core_count, 1
    )
    memory = machine.memory_bytes - machine.memory_bytes // SYSTEM_SHARE
    sizes = _split(
        [pool.memory_bytes for pool in configs],
        [bool(pool.accelerator) for pool in configs],
        memory,
        LEAST_MEMORY_BYTES,
    )
    return [Share(*pair) for pair in zip(cores, sizes, strict=True)]


def _split(stated: list[int | None], has_cards: list[bool], total: int, least: int) -> list[int]:
    left = max(0, total - sum(value for value in stated if value is not None))
    silent = [index for index, value in enumerate(stated) if value is None]
    cards = [index for index in silent if has_cards[index]]
    plain = [index for index in silent if not has_cards[index]]
    for_cards = left * CARDS_SHARE[0] // CARDS_SHARE[1] if cards and plain else left
    shares = {index: max(least, for_cards // len(cards)) for index in cards}
    shares |= {index: max(least, (left - (for_cards if cards else 0)) // len(plain)) for index in plain}
    return [value if value is not None else shares[index] for index, value in enumerate(stated)]


def _offered(
    config: SiteConfig,
    pool: PoolConfig,
    share: Share,
    machine: Machine,
    ability: Ability,
    owner: str,
    site: str,
    taken: dict[str, set[int]],
) -> Offered:
    seen = next((cards for cards in machine.cards if cards.kind == pool.accelerator), None)
    devices = _devices(pool, seen, taken)
    percent = pool.offline_percent if pool.offline_percent is not None else config.offline_percent
    devices = devices[: _kept(len(devices), percent)]
    disk = pool.disk_bytes if pool.disk_bytes is not None else machine.disk_bytes
    sandbox = ability.sandbox if "process" in ability.engines else ""
    here = tuple(name for name in ability.networks if name in ("host", "none")) or ("host",)
    networks = tuple(name for name in pool.networks if name in here) if pool.networks else here
    row = known(pool.accelerator)
    values: dict[str, Any] = {
        "accelerator": pool.accelerator,
        "vendor": pool.vendor or (seen.vendor if seen else "") or (row.vendor if row else ""),
        "accelerator_memory_bytes": pool.accelerator_memory_bytes or (seen.memory_bytes if seen else 0),
        "core_count": max(1, _kept(share.cores, percent)),
        "memory_bytes": _kept(share.memory_bytes, percent),
        "disk_bytes": disk,
    }
    if not pool.accelerator:
        del values["vendor"], values["accelerator_memory_bytes"]
    engines = tuple(name for name in config.engines if name in ability.engines)
    identifier = f"{owner}/pool/{pool.name}"
    spec = PoolSpec(
        **values,
        site=site,
        title=pool.title,
        labels=pool.labels,
        tags=pool.tags,
        access=pool.access,
        compute_class=pool.compute_class or ("ai" if pool.accelerator else "general"),
        architecture=pool.architecture or machine.architecture,
        accelerator_count=len(devices),
        price_micro_cny_per_accelerator_hour=pool.price_micro_cny,
        energy=pool.energy,
        policy=pool.policy,
        partners=pool.partners,
        engines=engines,
        networks=networks,
        sandbox=sandbox,
        is_emulated=pool.is_emulated,
        evidence=_evidence(pool, machine, seen, values, len(devices)),
    )
    return Offered(
        Pool(
            id=identifier,
            owner=owner,
            devices=devices,
            price_micro_cny_per_unit_hour=pool.price_micro_cny,
            access=pool.access,
            partners=pool.partners,
            policy=pool.policy,
            engines=engines,
            sandbox=sandbox,
            sandbox_rule=pool.sandbox,
            networks=networks,
            counter=pool.counter,
            is_emulated=pool.is_emulated,
            **values,
        ),
        spec,
    )


def _kept(amount: int, offline_percent: int) -> int:
    """What is on the line of ``amount``, rounded down."""
    return amount * (100 - offline_percent) // 100


def _devices(pool: PoolConfig, seen: Cards | None, taken: dict[str, set[int]]) -> tuple[int, ...]:
    """The indices of a pool's accelerators: stated, found, or counted on where no library sees them."""
    if not pool.accelerator:
        return ()
    if pool.is_emulated:
        return pool.devices or tuple(range(pool.count or 1))
    used = taken.setdefault(pool.accelerator, set())
    if seen is None:
        if pool.count is None and not pool.devices:
            _refuse(pool, f"no `{pool.accelerator}` is found here: state its `count`, or say `emulated: true`")
        first = max(used, default=-1) + 1
        devices = pool.devices or tuple(range(first, first + (pool.count or 0)))
    else:
        free = [index for index in seen.devices if index not in used]
        devices = pool.devices or tuple(free[: pool.count])
        missing = [index for index in devices if index not in seen.devices]
        if missing or (pool.count is not None and len(devices) < pool.count):
            _refuse(
                pool, f"{len(seen.devices)} `{pool.accelerator}` are found here, {len(free)} of them in no other pool"
            )
    if used & set(devices):
        _refuse(pool, f"device {min(used & set(devices))} is in another pool already")
    used.update(devices)
    return devices


def _evidence(
    pool: PoolConfig, machine: Machine, seen: Cards | None, values: dict[str, Any], count: int
) -> dict[str, str]:
    """What each figure rests on; what is not named is declared."""
    measured = Evidence.MEASURED.value
    evidence: dict[str, str] = {}
    if values["core_count"] <= machine.core_count:
        evidence["core_count"] = measured
    if values["memory_bytes"] <= machine.memory_bytes:
        evidence["memory_bytes"] = measured
    if values["disk_bytes"] <= machine.disk_bytes:
        evidence["disk_bytes"] = measured
    if pool.architecture in ("", machine.architecture):
        evidence["architecture"] = measured
    if pool.accelerator and pool.is_emulated:
        evidence |= dict.fromkeys(
            ("accelerator", "accelerator_count", "accelerator_memory_bytes", "vendor"), Evidence.EMULATED.value
        )
    elif seen is not None and count <= len(seen.devices):
        evidence |= {"accelerator": measured, "accelerator_count": measured, "vendor": measured}
        if values["accelerator_memory_bytes"] <= seen.memory_bytes:
            evidence["accelerator_memory_bytes"] = measured
    return evidence


def _refuse(pool: PoolConfig, why: str) -> NoReturn:
    where = f"site.yaml:{pool.line}" if pool.line else "site.yaml"
    raise TielineError("invalid_request", f"`{where}`: pool `{pool.name}`: {why}", where=where)
