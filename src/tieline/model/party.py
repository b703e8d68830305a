"""Party 主体: who calls, under which right, and the tokens that say so.

A token's secret is shown once and kept only as its sha256.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Role(StrEnum):
    """What a caller may do. A caller holds one or more."""

    ADMIN = "admin"  # everything but an owner's signature
    OWNER = "owner"  # its own prefix: sites, pools, records, runs on its sites
    OPERATOR = "operator"  # the network: its topology, its prices, all transfers and circuits
    USER = "user"  # its own jobs, quotes, bills
    AUDITOR = "auditor"  # reads everything, changes nothing
    REGULATOR = "regulator"  # the situation in sums, never an owner's data
    SITE = "site"  # a site process in its session
    JOIN = "join"  # may join a site under the stated owner, nothing else
    PEER = "peer"  # another exchange, by its pinned key: its grants, nothing else


class Actor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The caller of a command: name (``alice``, or a site's identifier), roles, and the owner that it belongs to."""

    name: str
    roles: tuple[Role, ...] = ()
    owner: str = ""
    token: str = ""  # id of the token, for the audit
    via: str = ""  # network address, for the audit
    right: str = ""  # for the audit: `token ID`, `oidc ISSUER`, `session`, `peer ID` or `delegated ID`
    groups: tuple[str, ...] = ()  # of the identity provider
    scopes: tuple[str, ...] = ()  # what a delegated token narrows this to; empty: all that the roles allow
    project: str = ""  # that a delegated token is bound to
    job: str = ""  # that a delegated token is bound to: nothing of another job
    ends_s: int = 0  # when the right itself ends, where the shell knows: what is passed on ends then too

    def has(self, *roles: Role) -> bool:
        """Whether one of ``roles`` is held."""
        return any(role in self.roles for role in roles)


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A bearer or join token as it is kept."""

    id: str
    sha256: str
    name: str
    roles: tuple[Role, ...]
    owner: str = ""
    created_ms: int = 0
    created_by: str = ""
    expires_ms: int = 0  # 0: never
    uses_left: int = -1  # -1: unlimited
    revoked_ms: int = 0


class Site(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A site as this exchange sees it: its record is the owner's word, this is the exchange's."""

    id: str
    owner: str  # prefix
    public: str  # Ed25519 key of the site process
    sealing: str = ""
    is_admitted: bool = False
    is_draining: bool = False
    is_silent: bool = True
    has_left: bool = False
    session: int = 0  # counts sessions
    protocol: int = 0
    joined_ms: int = 0
    heard_ms: int = 0  # last heartbeat or report, kept as last value only


ANONYMOUS = Actor(name="anonymous")
SYSTEM = Actor(name="exchange", roles=(Role.ADMIN,))
