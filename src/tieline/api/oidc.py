"""OpenID Connect: who a provider says somebody is, and what that means here. Configured by ``oidc.json``.

::

    {"issuers": [{"alias": "corp", "issuer": "https://sso.example/realms/lab", "client_id": "tieline",
                  "groups": {"hpc-admins": {"roles": ["admin", "user"]}, "*": {"roles": ["user"]}}}]}

A caller is named ``<alias>:<claim>``; names of this exchange's own tokens have no colon, so that neither can pass for
the other. The keys of a provider are kept while it is silent, for `kept_s` at most; an unknown `kid`, or a signature
that does not fit, has them asked for again, at most every `refetch_s`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tieline.api.oidctoken import (
    Parts,
    PublishedKey,
    Rules,
    check_claims,
    is_signed,
    key_for,
    keys_of,
    refusal,
    taken_apart,
)
from tieline.drivers.http.issuer import Issuer
from tieline.model.api import IssuerView
from tieline.model.error import TielineError
from tieline.model.party import Actor, Role

log = logging.getLogger("tieline.oidc")
FILE = "oidc.json"
EVERYBODY = "*"
MOST_GROUPS = 1_000
MOST_NAME = 160
NEVER = (Role.SITE, Role.JOIN, Role.PEER)  # are proved by keys, not by groups

Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,30}\Z")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]


class Membership(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What being in a group means here."""

    roles: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1, max_length=8)]
    owner: Annotated[str, msgspec.Meta(max_length=200)] = ""


class IssuerFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider as ``oidc.json`` states it."""

    alias: Word
    issuer: Text  # exactly as its tokens say in `iss`
    client_id: Text
    audience: Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)] = ()  # empty: the client_id
    clients: Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)] = ()  # other clients whose tokens are taken
    user_claim: Text = "sub"
    groups_claim: Text = "groups"
    groups: Annotated[dict[str, Membership], msgspec.Meta(max_length=MOST_GROUPS)] = {}
    scopes: Annotated[tuple[Text, ...], msgspec.Meta(max_length=16)] = ("openid", "profile", "offline_access")
    bearer: Annotated[str, msgspec.Meta(pattern=r"\A(access|id)\Z")] = "access"  # which of them the CLI sends
    hosts: Annotated[tuple[Text, ...], msgspec.Meta(max_length=8)] = ()  # of its endpoints, beside the issuer's own
    ca_file: Annotated[str, msgspec.Meta(max_length=400)] = ""
    skew_s: Annotated[int, msgspec.Meta(ge=0, le=300)] = 60
    refetch_s: Annotated[int, msgspec.Meta(ge=1, le=3_600)] = 10  # between two looks for an unknown key
    keys_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 3_600  # after which keys are asked for again
    kept_s: Annotated[int, msgspec.Meta(ge=60, le=2_592_000)] = 86_400  # after which silence makes keys worthless
    life_s: Annotated[int, msgspec.Meta(ge=60, le=2_592_000)] = 86_400  # the longest that a token may live


class OidcFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``oidc.json``."""

    issuers: Annotated[tuple[IssuerFile, ...], msgspec.Meta(min_length=1, max_length=16)]


class Keys:
    """The keys of one provider: asked for when one is missing, at most every `refetch_s`, and when they are old."""

    def __init__(self, stated: IssuerFile, clock_s: Callable[[], float]) -> None:
        self._stated, self._clock_s = stated, clock_s
        self._issuer = Issuer(stated.issuer, hosts=stated.hosts, ca_file=stated.ca_file)
        self._kept: tuple[PublishedKey, ...] = ()
        self._taken_s: float | None = None  # when they were answered
        self._asked_s: float | None = None  # when they were asked for, answered or not
        self._asking: asyncio.Task[None] | None = None
        self.fault = ""  # of the last attempt
        self.asked = 0

    def kept(self) -> tuple[PublishedKey, ...]:
        """What is known now; old keys are asked for again meanwhile, and too old ones count no more."""
        age_s = self._clock_s() - self._taken_s if self._taken_s is not None else 0.0
        if age_s > self._stated.kept_s:
            self._kept = ()
        elif age_s > self._stated.keys_s:
            self._ask()
        return self._kept

    async def renewed(self) -> tuple[PublishedKey, ...]:
        """What the provider says now, if it may be asked now; else what is known."""
        asking = self._ask()
        if asking is not None:
            await asyncio.shield(asking)
        return self._kept

    def _ask(self) -> asyncio.Task[None] | None:
        """The question that is under way: the one of before, a new one, or none before `refetch_s` is over."""
        if self._asking is not None:
            return self._asking
        now_s = self._clock_s()
        if self._asked_s is not None and now_s - self._asked_s < self._stated.refetch_s:
            return None
        self._asked_s = now_s
        self.asked += 1
        self._asking = asyncio.create_task(self._fetch())
        return self._asking

    async def _fetch(self) -> None:
        try:
            self._kept = keys_of(await self._issuer.keys())
            self._taken_s, self.fault = self._clock_s(), ""
        except TielineError as error:
            self.fault = error.message
            log.warning("keys of `%s` were not had: %s", self._stated.alias, error.message)
        finally:
            self._asking = None


class Issuers:
    """The providers that this exchange believes. `actor` is called on the loop that serves."""

    def __init__(self, stated: OidcFile, prefix: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        """``prefix`` is the exchange's own: an owner is stated with it or without. Raises `invalid_request`."""
        self.stated = {each.issuer: each for each in stated.issuers}
        self.keys = {each.issuer: Keys(each, clock_s) for each in stated.issuers}
        self._prefix = prefix
        if len(self.stated) < len(stated.issuers) or len({each.alias for each in stated.issuers}) < len(self.stated):
            raise TielineError("invalid_request", "two issuers share an address or an alias", where=FILE)
        for each in stated.issuers:
            _check_groups(each)

    @classmethod
    def of(cls, folder: Path, prefix: str) -> Issuers:
        """Those of ``folder/oidc.json``. Raises TielineError `invalid_request` that says what and where."""
        try:
            return cls(msgspec.json.decode((folder / FILE).read_bytes(), type=OidcFile), prefix)
        except (msgspec.DecodeError, RecursionError) as error:
            raise TielineError("invalid_request", f"`{folder / FILE}`: {error}", where=FILE) from None

    def views(self) -> tuple[IssuerView, ...]:
        """What anybody may know of them, to log in."""
        return tuple(
            IssuerView(
                alias=each.alias,
                issuer=each.issuer,
                client_id=each.client_id,
                scopes=each.scopes,
                bearer=each.bearer,
                hosts=each.hosts,
            )
            for each in self.stated.values()
        )

    async def actor(self, text: str, via: str, now_s: int) -> Actor:
        """Who a provider's token stands for here.

        Raises TielineError `unauthenticated` with a reason (oidc_form ... oidc_unreachable), `forbidden` for somebody
        who is in no group that has a role here.
        """
        parts = taken_apart(text)
        named = parts.claims.get("iss")
        stated = self.stated.get(named) if type(named) is str else None
        if stated is None:
            raise refusal("oidc_issuer", seen=str(named)[:200])
        keys = self.keys[stated.issuer]
        key = key_for(parts, keys.kept())
        if key is None or not is_signed(parts, key):  # a new key, or another under a name that is known
            _check_signed(parts, key_for(parts, await keys.renewed()), stated.alias, keys.fault)
        audience = stated.audience or (stated.client_id,)
        rules = Rules(
            issuer=stated.issuer,
            audience=audience,
            clients=(stated.client_id, *stated.clients),
            skew_s=stated.skew_s,
            life_s=stated.life_s,
        )
        ends_s = check_claims(parts.claims, rules, now_s)
        return self._actor(stated, parts.claims, via, ends_s)

    def _actor(self, stated: IssuerFile, claims: dict[str, Any], via: str, ends_s: int) -> Actor:
        name, groups = _name(stated, claims), _groups(stated, claims)
        named = tuple(f"{stated.alias}:{group}" for group in groups)
        held = [each for group, each in stated.groups.items() if group == EVERYBODY or group in groups]
        roles = dict.fromkeys(role for each in held for role in each.roles)
        if not roles:
            raise refusal("oidc_no_role", "forbidden", who=name)
        owner = next((each.owner for each in held if each.owner), "")
        if owner and owner != self._prefix and not owner.startswith(self._prefix + "."):
            owner = f"{self._prefix}.{owner}"
        return Actor(
            name=name,
            roles=tuple(roles),
            owner=owner,
            via=via,
            right=f"oidc {stated.alias}",
            groups=named,
            ends_s=ends_s,
        )


def _check_signed(parts: Parts, key: PublishedKey | None, issuer: str, fault: str) -> None:
    """Raise `unauthenticated`: oidc_unreachable, oidc_key, oidc_signature."""
    if key is None and fault:
        raise refusal("oidc_unreachable", issuer=issuer, why=fault[:300])
    if key is None:
        raise refusal("oidc_key", kid=parts.kid[:80] or "-", issuer=issuer)
    if not is_signed(parts, key):
        raise refusal("oidc_signature", kid=parts.kid[:80] or "-")


def claim(claims: dict[str, Any], name: str) -> Any:
    """The claim of that very name, or, where there is none, along its dots (``realm_access.roles``)."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if type(found) is dict else None
    return found


def _name(stated: IssuerFile, claims: dict[str, Any]) -> str:
    """``<alias>:<claim>``. Raises `unauthenticated` (oidc_claim) for what cannot name anybody."""
    said = claim(claims, stated.user_claim)
    is_good = type(said) is str and 0 < len(said) <= MOST_NAME and said.isprintable() and " " not in said
    if not is_good or (stated.user_claim == "email" and claims.get("email_verified") is not True):
        raise refusal("oidc_claim", claim=stated.user_claim)
    return f"{stated.alias}:{said}"


def _groups(stated: IssuerFile, claims: dict[str, Any]) -> tuple[str, ...]:
    """The groups by the provider's own names, as the table has them; projects name them ``<alias>:<group>``."""
    said = claim(claims, stated.groups_claim)
    found = [said] if type(said) is str else said if type(said) is list else []
    return tuple(dict.fromkeys(each for each in found if type(each) is str and 0 < len(each) <= 200))[:MOST_GROUPS]


def _check_groups(stated: IssuerFile) -> None:
    for group, each in stated.groups.items():
        wrong = [role.value for role in each.roles if role in NEVER]
        if wrong:
            raise TielineError("invalid_request", f"group `{group}`: `{wrong[0]}` is given to keys only", where=FILE)
        if (Role.OWNER in each.roles) != bool(each.owner):
            raise TielineError("invalid_request", f"group `{group}`: `owner` goes with the role `owner`", where=FILE)
