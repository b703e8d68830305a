"""An owner's key changes while its site works: all is signed again, and whoever comes late believes it."""

import asyncio
import time

from test_peers_follow import link
from use_world import SITE, Site

from peer_world import ADMIN, until
from tieline.cli.signing import Draft, signed_again, signed_by_others, signed_checkpoint, signed_next
from tieline.client import AsyncClient
from tieline.drivers import siteprocess
from tieline.drivers.siteprocess.home import Home
from tieline.registry import Key, opened

LEASE_S = 86_400
TWO_POOLS = SITE + "  - {name: old, cores: 1, memory: 1GB, price: 1}\n"


def with_client(exchange, work):
    async def do():
        async with AsyncClient(exchange.url, ADMIN) as client:
            return await work(client)

    return asyncio.run(do())


def signers(exchange, names):
    """Revision and key name of each record, as it is kept there."""
    heads = [exchange.view.catalogue.head(name) for name in names]
    return [(head.rev, head.kid.partition("#")[2]) for head in heads if head is not None]


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
