"""Sites: join, accept, drain, leave, sessions, heartbeats and leases."""

from __future__ import annotations

from itertools import islice

import msgspec

from tieline.exchange.commands import ChangeSite, Decision, Joined, JoinSite, OpenSession, TakeBeat
from tieline.exchange.orders import live_orders
from tieline.exchange.parties import spend
from tieline.exchange.permission import allow, no_such, owns
from tieline.exchange.records import stored_of
from tieline.exchange.runs import lose_run
from tieline.exchange.view import View
from tieline.model.api import JoinStatement
from tieline.model.error import TielineError
from tieline.model.event import Events, RecordStored, SessionOpened, SiteChanged, SiteJoined, TokenUsed
from tieline.model.job import RunState
from tieline.model.party import Role, Site
from tieline.model.protocol import PROTOCOL, PROTOCOL_LEAST, Beaten
from tieline.model.record import Delegation
from tieline.ports import Ids
from tieline.registry import open_statement, opened, verify_statement

replace = msgspec.structs.replace
SKEW_MS = 300_000  # how far a site's clock may be off for its signed statements
MAX_NONCES = 100_000
RETURN_MS = 8  # for each site: so long it takes at most until so many have come back after a start
RENEW_S = 60 * 86_400  # a delegation is signed anew when its lease ends within this time


def use_nonce(view: View, nonce: str, at_ms: int, now_ms: int) -> None:
    """Refuse a statement that is too old, from the future, or was seen before."""
    if abs(now_ms - at_ms) > SKEW_MS:
        raise TielineError(
            "unauthenticated",
            f"the statement's time is {abs(now_ms - at_ms) // 1000} s away from this exchange's clock",
            hints=("set the site's clock (for example with chrony)",),
        )
    for old in [name for name, seen in islice(view.nonces.items(), 64) if now_ms - seen > 2 * SKEW_MS]:
        del view.nonces[old]
    if nonce in view.nonces:
        raise TielineError("unauthenticated", "the statement was used before")
    if len(view.nonces) >= MAX_NONCES:
        raise TielineError("overloaded", "too many sites open sessions at once; retry in a minute")
    view.nonces[nonce] = now_ms


def join_site(view: View, command: JoinSite, now_ms: int, ids: Ids) -> Decision:
    """An owner proves its key and asks for a place; a token is the exchange's consent given beforehand."""
    statement, kid = open_statement(command.statement, "site-join", JoinStatement)
    prefix = f"{view.prefix}.{statement.owner}"
    known = view.catalogue.delegation(prefix)
    if known is not None:
        kid = _name_of(known, statement.owner_public) or kid
    public = view.catalogue.key(kid, now_ms // 1000) if known is not None else statement.owner_public
    if public is None:
        raise TielineError("unauthenticated", f"`{statement.owner}` is known here under other keys")
    verify_statement(command.statement, public, "site-join")
    use_nonce(view, statement.nonce, statement.at_ms, now_ms)
    events: list[Events] = []
    token = None
    if command.token_sha256:
        token = spend(view, command.token_sha256, now_ms)
        if Role.JOIN not in token.roles or token.owner != prefix:
            raise TielineError("token_refused", f"the token does not let `{statement.owner}` join a site")
    site_id = f"{prefix}/site/{statement.site}"
    before = view.sites.get(site_id)
    is_admitted = token is not None or (before is not None and before.is_admitted and not before.has_left)
    if token is not None and token.uses_left > 0:
        events.append(TokenUsed(id=token.id, by=site_id))
    if known is None:
        if not kid.startswith(prefix + "#"):
            raise TielineError("unauthenticated", f"the key `{kid}` is not named under `{prefix}`")
        envelope = view.keys.delegate(prefix, kid, statement.owner_public, statement.title, now_ms // 1000)
        events.append(_stored(view, envelope, now_ms))
    else:
        envelope = known
    site = Site(
        id=site_id,
        owner=prefix,
        public=statement.site_public,
        sealing=statement.sealing,
        is_admitted=is_admitted,
        joined_ms=now_ms,
        session=before.session if before else 0,
    )
    events.append(SiteJoined(site=site))
    return Decision(tuple(events), Joined(site=site_id, owner=prefix, is_admitted=is_admitted, delegation=envelope))


def _name_of(delegation: bytes, public: str) -> str:
    """Under which name a delegation gives to ``public``: a site that joins late does not know that keys changed."""
    spec = opened(delegation).record.spec
    keys = msgspec.convert(spec, Delegation).keys if spec else ()
    return next((key.kid for key in keys if key.public == public), "")


def _stored(view: View, envelope: bytes, now_ms: int) -> RecordStored:
    return stored_of(view.catalogue.judge(envelope, now_ms // 1000))


def change_site(view: View, command: ChangeSite, now_ms: int, ids: Ids) -> Decision:
    """Accept (the exchange's consent), drain, undrain or leave (the owner's word)."""
    site = view.sites.get(command.site)
    actor = command.actor
    is_itself = actor.has(Role.SITE) and actor.name == command.site
    if site is None or not (actor.has(Role.ADMIN, Role.AUDITOR) or is_itself or owns(actor, site.owner)):
        raise no_such("site", command.site)
    if not (is_itself or owns(actor, site.owner)):
        allow(actor, Role.ADMIN, what=f"{command.what} a site")
    if command.what == "accept":
        allow(actor, Role.ADMIN, what="accept a site")
        if site.has_left:
            raise TielineError("conflict", f"`{site.id}` has left; it joins again by itself")
        changed = replace(site, is_admitted=True)
    elif command.what in ("drain", "undrain"):
        changed = replace(site, is_draining=command.what == "drain")
    elif command.what == "leave":
        changed = replace(site, has_left=True, is_admitted=False, is_silent=True)
    else:
        raise TielineError("invalid_request", f"`{command.what}` is not accept, drain, undrain or leave")
    if changed == site:
        return Decision((), site)
    events: list[Events] = [SiteChanged(site=changed, why=f"{command.what} by {actor.name}")]
    if changed.has_left:
        view.open_session(site.id, "")
        for run in tuple(view.runs_at.get(site.id, ())):
            events.extend(lose_run(view, view.runs[run], now_ms, "lost"))
    return Decision(tuple(events), changed)


def open_session(view: View, command: OpenSession, now_ms: int, ids: Ids) -> Decision:
    """A site process proves the site's key; the newest session is the only one."""
    hello = command.hello
    site = view.sites.get(hello.site)
    if site is None or site.has_left:
        raise TielineError(
            "unauthenticated", f"`{hello.site}` has not joined this exchange", hints=("tieline site join URL",)
        )
    verify_statement(command.statement, site.public, "site-hello")
    use_nonce(view, hello.nonce, hello.at_ms, now_ms)
    shared = [version for version in hello.protocols if PROTOCOL_LEAST <= version <= PROTOCOL]
    if not shared:
        raise TielineError(
            "version_not_supported",
            f"the site speaks protocol {', '.join(map(str, hello.protocols))}, "
            f"this exchange {PROTOCOL_LEAST} to {PROTOCOL}",
            hints=("upgrade the older end",),
        )
    current = replace(site, session=site.session + 1, protocol=max(shared), is_silent=False)
    view.open_session(site.id, command.bearer_sha256)
    events: list[Events] = [SessionOpened(site=current), *_renewed(view, site.owner, now_ms)]
    return Decision(tuple(events), (current, live_orders(view, site.id, now_ms)))


def _renewed(view: View, prefix: str, now_ms: int) -> list[RecordStored]:
    """The owner's delegation with a new lease, when the old one ends soon."""
    given = view.catalogue.delegation(prefix)
    now_s = now_ms // 1000
    if given is None or opened(given).record.exp - now_s > RENEW_S:
        return []
    return [_stored(view, view.keys.renew(given, now_s), now_ms)]


def take_beat(view: View, command: TakeBeat, now_ms: int, ids: Ids) -> Decision:
    """Last value only: nothing is logged unless the site comes back from silence."""
    beat = command.beat
    site = view.sites.get(command.site)
    if site is None or site.has_left or beat.site != command.site:
        raise TielineError("unauthenticated", f"`{command.site}` has no session here")
    if beat.seq <= view.beat_seq.get(site.id, -1):
        raise TielineError("conflict", f"heartbeat {beat.seq} is not newer than {view.beat_seq[site.id]}")
    view.beat_seq[site.id] = beat.seq
    view.heard_ms[site.id] = now_ms
    for pool in beat.pools:
        view.supply.limit(site.id, pool)
    live = view.runs_at.get(site.id, {})
    stale = tuple(run for run in beat.runs if run not in live)
    # A run that we believe is with the site, and that the site no longer knows, died with the site's memory of it.
    held = dict.fromkeys(beat.runs)
    events: list[Events] = []
    for name in tuple(live):
        run = view.runs[name]
        is_old = now_ms - run.accepted_ms > 2 * view.limits.lease_ms
        if name not in held and run.state in (RunState.ACCEPTED, RunState.RUNNING) and is_old:
            events.extend(lose_run(view, run, now_ms, "lost"))
    if site.is_silent:
        events.append(SiteChanged(site=replace(site, is_silent=False), why="heard again"))
    return Decision(tuple(events), Beaten(stale=stale))


def silent_sites(view: View, now_ms: int) -> list[Events]:
    """Sites whose lease is over, and what becomes of their runs."""
    events: list[Events] = []
    if view.is_restored:  # filling a large view takes longer than a lease, and so do the sites to come back to it
        view.is_restored = False
        view.returning_until_ms = now_ms + view.limits.lease_ms + len(view.sites) * RETURN_MS
    for site in tuple(view.sites.values()):
        if site.is_silent or site.has_left:
            continue
        heard = view.heard_ms.setdefault(site.id, now_ms)
        if now_ms - heard <= view.limits.lease_ms or now_ms < view.returning_until_ms:
            continue
        events.append(SiteChanged(site=replace(site, is_silent=True), why=f"silent for {now_ms - heard} ms"))
        for run in tuple(view.runs_at.get(site.id, ())):
            events.extend(lose_run(view, view.runs[run], now_ms, "lost"))
    return events
