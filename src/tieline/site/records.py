"""Records: what this site's owner signs about the site, its pools, and the places that it fronts for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tieline.model.evidence import Evidence
from tieline.model.protocol import PROTOCOL
from tieline.model.record import Record, Status
from tieline.model.spec import PoolSpec, SiteSpec, Spec
from tieline.site.configuration import FrontConfig, SiteConfig

BACKDATE_S = 300  # an exchange whose clock is a little behind must not see the record as not yet valid


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One identifier and what is to be said of it now."""

    id: str
    kind: str
    spec: dict[str, Any]
    status: Status = Status.ACTIVE


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The newest revision that was signed here: what the next one follows."""

    id: str
    rev: int
    sha256: str
    exp: int
    spec: dict[str, Any]
    status: Status = Status.ACTIVE
    kid: str = ""  # name of the key that signed it; of what an older version signed, the owner's first


def site_statement(
    config: SiteConfig,
    site: str,
    public: str,
    sealing: str,
    readings: Mapping[str, int],
    *,
    door: str = "",
    is_draining: bool = False,
) -> Statement:
    """The site itself: its keys, its place, what its probes read, and where its door is while it is open."""
    spec = SiteSpec(
        title=config.title,
        labels=config.labels,
        tier=config.tier,
        region=config.region,
        latitude_udeg=config.place[0] if config.place is not None else None,
        longitude_udeg=config.place[1] if config.place is not None else None,
        public=public,
        sealing=sealing,
        door=door,
        relay=config.may_relay,
        readings=dict(readings),
        protocol=PROTOCOL,
        evidence={"readings": Evidence.MEASURED.value} if readings else {},
    )
    return _said(site, "site", spec, is_draining=is_draining)


def pool_statement(identifier: str, spec: PoolSpec, *, is_draining: bool = False) -> Statement:
    """One pool."""
    return _said(identifier, "pool", spec, is_draining=is_draining)


def front_statements(
    front: FrontConfig, owner: str, declared_by: str, specs: Mapping[str, PoolSpec]
) -> tuple[Statement, ...]:
    """A place that installs nothing, and its pools: every figure is declared, and by whom is said."""
    site = SiteSpec(title=front.title, tier=front.tier, region=front.region, declared_by=declared_by)
    own = _said(front_site(front, owner), "site", site)
    return (own, *(pool_statement(f"{owner}/pool/{front.name}-{name}", spec) for name, spec in specs.items()))


def front_site(front: FrontConfig, owner: str) -> str:
    """Identifier of the site record of a fronted place."""
    return f"{owner}/site/{front.name}"


def _said(identifier: str, kind: str, spec: Spec, *, is_draining: bool = False) -> Statement:
    status = Status.DRAINING if is_draining else Status.ACTIVE
    plain = msgspec.json.decode(msgspec.json.encode(spec))  # as a reader of the record sees it
    return Statement(id=identifier, kind=kind, spec=plain, status=status)


def due(
    wanted: Iterable[Statement], heads: Mapping[str, Head], now_s: int, lease_s: int, kid: str
) -> tuple[Statement, ...]:
    """What must be signed now: what is new, changed, or through half of its lease, and tombstones for what is gone.

    What another key than ``kid`` signed is signed again, tombstones too: whoever hears of it later believes no other.
    """
    statements = {said.id: said for said in wanted}
    needed = []
    for said in statements.values():
        head = heads.get(said.id)
        is_same = head is not None and (head.spec, head.status, head.kid) == (said.spec, said.status, kid)
        if head is None or not is_same or head.exp - now_s < lease_s // 2:
            needed.append(said)
    for head in heads.values():
        if head.id not in statements and (head.status is not Status.WITHDRAWN or head.kid != kid):
            kind = head.id.split("/")[1]
            needed.append(Statement(id=head.id, kind=kind, spec=head.spec, status=Status.WITHDRAWN))
    return tuple(needed)


def record_of(said: Statement, head: Head | None, now_s: int, lease_s: int) -> Record:
    """The next revision of ``said``."""
    return Record(
        id=said.id,
        kind=said.kind,
        rev=head.rev + 1 if head else 1,
        prev=head.sha256 if head else "",
        nb=now_s - BACKDATE_S,
        exp=now_s + lease_s,
        status=said.status,
        spec=said.spec,
    )
