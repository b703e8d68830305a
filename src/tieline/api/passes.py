"""Passes: through the door of a site, for chunks that the caller may read, or for the owner's own."""

from __future__ import annotations

import secrets

from tieline.api.call import Call, named
from tieline.api.operation import operation
from tieline.api.reading import is_behind, may_read
from tieline.exchange.meeting import check_meets
from tieline.exchange.permission import no_such, owns
from tieline.model.door import Pass, Right, door_url
from tieline.model.error import TielineError
from tieline.model.party import Role
from tieline.model.passing import PassBody, PassView
from tieline.registry.keys import check_strong, public_bytes
from tieline.registry.passes import issued

EXAMPLE = {"public": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "rights": ["read"], "chunks": ["0" * 64]}


@operation(
    "POST",
    "/v1/sites/{site}/passes",
    tag="sites",
    status=201,
    errors=("not_found", "forbidden", "conflict", "record_refused"),
    example=EXAMPLE,
)
async def ask_pass(call: Call, site: str, body: PassBody) -> PassView:
    """A pass through the door of a site, good for minutes and for the holder of one key alone.

    To read chunks, the caller must be allowed to read the blobs of these names here; or it is a site with a live run
    that names a dataset of the door's owner whose record says that it is there. Only the site's owner and admins are
    given a pass to write. Echoes and short uploads are for sites: their plan of probes brings the passes. A site
    with a run of a gang is given passes to the nodes of that gang's other runs (`port`, with `run`), while they live.
    """
    platform, name, actor = call.platform, named(site), call.actor
    call.note(site=name)
    found, spec = platform.view.sites.get(name), platform.view.supply.site_specs.get(name)
    if found is None or found.has_left or not found.is_admitted:
        raise no_such("site", name)
    for right in body.rights:
        if right not in (Right.READ, Right.WRITE) and (right, bool(body.run)) != (Right.PORT, True):
            raise TielineError("forbidden", f"`{right}` is not given to callers", where="rights")
    if body.run:
        if body.rights != (Right.PORT,):
            raise TielineError("invalid_request", "a pass to a run is for its ports alone", where="rights")
        check_meets(platform.view, actor, name, body.run)
    if Right.WRITE in body.rights and not (actor.has(Role.ADMIN) or owns(actor, found.owner)):
        raise TielineError("forbidden", f"only the owner of `{name}` and admins put chunks there", where="rights")
    if Right.READ in body.rights:
        for chunk in body.chunks:
            is_its = actor.has(Role.SITE) and is_behind(platform, actor.name, found, chunk)
            if not (is_its or await may_read(platform, actor, chunk)):
                raise TielineError("not_found", f"there is no blob `{chunk}` here, or you may not read it")
    if actor.has(Role.SITE) and body.public != platform.view.sites[actor.name].public:
        raise TielineError("forbidden", "a site is given passes for its own key", where="public")
    check_strong(public_bytes(body.public), "public")
    now_ms = platform.clock.now_ms()
    given = Pass(
        id=secrets.token_urlsafe(16),
        door=name,
        holder=actor.name,
        public=body.public,
        rights=body.rights,
        from_ms=now_ms,
        until_ms=now_ms + body.ttl_ms,
        chunks=body.chunks,
        most_bytes=body.most_bytes,
        run=body.run,
    )
    text = issued(given, platform.keys.key, platform.keys.kid)
    url = door_url(spec.door) if spec is not None else ""
    return PassView(door_pass=text, site=name, url=url, public=found.public, until_ms=given.until_ms)
