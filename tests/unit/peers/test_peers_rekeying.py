"""An owner's key changes while its site works: all is signed again, and whoever comes late believes it."""

import asyncio
import time

import msgspec
import pytest
from test_peers_follow import link
from use_world import SITE, Site

from peer_world import ADMIN, until
from tieline.cli.signing import Draft, signed_again, signed_by_others, signed_checkpoint, signed_next
from tieline.client import AsyncClient
from tieline.drivers import siteprocess
from tieline.drivers.siteprocess.home import NEXT, Home
from tieline.drivers.siteprocess.rekeying import settle
from tieline.model.error import TielineError
from tieline.model.party import Role
from tieline.registry import Key, opened

LEASE_S = 86_400
TWO_POOLS = SITE + "  - {name: old, cores: 1, memory: 1GB, price: 1}\n"


def with_client(exchange, work):
    async def do():
        async with AsyncClient(exchange.url, ADMIN) as client:
            return await work(client)

    return asyncio.run(do())


def signers(exchange, names):
    """Revision and key name of each record, as the store has it: the view may be ahead of that by a moment."""
    found = [exchange.http.get(f"/v1/records/{name.replace('/', '~')}").json() for name in names]
    return [(each["rev"], each["kid"].partition("#")[2]) for each in found if "kid" in each]


def test_what_a_lost_word_had_signed_is_signed_again_and_a_late_follower_takes_it_all(exchange, tmp_path):
    region, hub = exchange("cn.sh"), exchange("cn")
    site = Site(region, tmp_path / "site")
    owner, folder = "cn.sh.lab", site.folder
    pool, gone, data = f"{owner}/pool/cpu", f"{owner}/pool/old", f"{owner}/dataset/d"
    names = [site.id, pool, gone]
    try:
        (folder / "site.yaml").write_text(TWO_POOLS)
        site.stop()
        site.start()
        until(lambda: region.counts(gone))
        (folder / "site.yaml").write_text(SITE)
        site.stop()
        site.start()
        until(lambda: region.holds(gone, 2))  # a tombstone, which nobody else has heard of
        first = siteprocess.owner_key(folder)

        async def register(client):
            draft = Draft(id=data, spec={"size_bytes": 1})
            await client.register(await signed_next(client, draft, first, int(time.time()), LEASE_S))

        with_client(region, register)

        # the owner changes its key, as a routine
        said = siteprocess.rekey(folder)
        assert said.kid == f"{owner}#k2"
        until(lambda: [kid for _, kid in signers(region, names)] == ["k2"] * 3, why=lambda: str(signers(region, names)))
        assert region.counts(data)  # in the overlap nothing stops counting

        # somebody else has the key: the owner revokes it with the word of the key itself
        siteprocess.rekey(folder, is_revoking=True)
        until(lambda: [kid for _, kid in signers(region, names)] == ["k3"] * 3, why=lambda: str(signers(region, names)))

        # the owner's word is gone: an admin names the key that waits in the site's folder
        third, waiting = siteprocess.owner_key(folder), Key(Home(folder).make_next())
        body = {"owner": owner, "public": waiting.public, "is_revoking": True}
        answer = region.http.post("/v1/keys", json=body)
        assert (answer.status_code, answer.json()["kid"]) == (200, f"{owner}#k4")
        until(lambda: [kid for _, kid in signers(region, names)] == ["k4"] * 3, why=lambda: str(signers(region, names)))
        assert siteprocess.owner_key(folder).public == waiting.public != third.public

        # what the site does not say by itself is signed again by its owner's hand; then its digests can be
        async def sign_again(client):
            others = await signed_by_others(client, owner, waiting)
            for each in others:
                await client.register(await signed_again(client, each, waiting, int(time.time()), LEASE_S))
            envelope, spec = await signed_checkpoint(client, owner, waiting, int(time.time()), LEASE_S)
            await client.register(envelope)
            return [each.id for each in others], spec.count

        assert with_client(region, sign_again) == ([data], 4)

        # who comes late has heard of none of the old keys' words, and takes everything
        link(hub, region)
        until(lambda: hub.counts(pool) and hub.counts(site.id) and hub.counts(data) and hub.holds(gone, 2))
        until(lambda: hub.branch(region)["lag"] == 0)
        assert hub.branch(region)["refused"] == {}
        assert not hub.counts(gone)
        assert [kid for _, kid in signers(hub, [*names, data])] == ["k4"] * 4
        assert opened(hub.view.catalogue.delegation(owner)).record.rev == 4
    finally:
        site.stop()


def joined(exchange, folder, seed=b""):
    """A site that has joined and does not run."""
    secret = with_client(exchange, lambda client: client.create_token("join", [Role.JOIN], owner="lab")).secret
    asyncio.run(siteprocess.join_site(folder, token=secret, owner="lab", name=folder.name, seed=seed))
    return Home(folder)


def test_sites_of_one_owner_change_to_one_key_and_a_crash_in_between_is_made_good(exchange, tmp_path):
    region = exchange("cn.sh")
    one = joined(region, tmp_path / "one")
    first = one.seed("owner")
    two = joined(region, tmp_path / "two", first)
    said = siteprocess.rekey(one.folder)
    assert one.seed("owner") != first
    assert siteprocess.rekey(two.folder, one.seed("owner")) == said  # no further revision, only another folder
    assert (two.seed("owner"), two.identity.kid) == (one.seed("owner"), one.identity.kid)
    with pytest.raises(TielineError, match="already"):
        siteprocess.rekey(two.folder, one.seed("owner"))
    three = joined(region, tmp_path / "three", one.seed("owner"))  # comes later, and is told the key's name
    assert three.identity.kid == said.kid

    mine = Key(three.make_next())
    body = {"owner": "cn.sh.lab", "public": mine.public, "is_revoking": True}
    given = region.http.post("/v1/keys", json=body).json()
    identity = msgspec.structs.replace(three.identity, delegation=given["delegation"])
    three.revise_identity(identity)  # and the process dies before the key has taken over
    settle(three)
    assert (Key(three.seed("owner")).public, three.identity.kid) == (mine.public, given["kid"])
    assert not (three.folder / "keys" / NEXT).exists()

    waiting = Key(three.make_next())
    body = {"owner": "cn.sh.lab", "public": waiting.public, "is_revoking": True}
    assert region.http.post("/v1/keys", json=body).status_code == 200  # and the answer is lost on its way
    assert (
        siteprocess.rekey(three.folder, is_revoking=True).rev == region.http.post("/v1/keys", json=body).json()["rev"]
    )
    assert Key(three.seed("owner")).public == waiting.public

    with pytest.raises(TielineError) as caught:  # its key was revoked: what it makes waits for an admin
        siteprocess.rekey(one.folder)
    assert caught.value.code == "forbidden"
    assert caught.value.hints[0].startswith(f"tieline id rekey cn.sh.lab {Key(one.seed(NEXT)).public} --revoke")
    assert one.identity.kid == said.kid


def test_what_proves_itself_by_another_key_of_the_exchange_changes_nothing(exchange, tmp_path):
    region, false = exchange("cn.sh"), exchange("cn.sh", seed="somebody else")
    home = joined(region, tmp_path / "one")
    before = home.identity
    stranger = joined(false, tmp_path / "two", home.seed("owner"))
    home.revise_identity(msgspec.structs.replace(before, url=false.url))
    with pytest.raises(TielineError):
        siteprocess.rekey(home.folder)
    assert home.identity.delegation == before.delegation != stranger.identity.delegation
    assert home.has_next()
