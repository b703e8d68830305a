"""Places: a copy of a dataset as something to read from, under the rules of this site's owner.

Where a record says that bytes are is the word of the dataset's owner, not of this site's. So nothing is called on a
private network that `site.yaml` does not list, no bucket is read with this site's keys that it does not list, and a
file of this site is shown only where every task may see it anyway (`readable`) or where `data.held` names it.
"""

from __future__ import annotations

import ipaddress
import os
import stat
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

from tieline.drivers.http import HttpClient
from tieline.drivers.http.guard import why_refused
from tieline.drivers.mover import Source, address_of
from tieline.drivers.mover.blobs import BlobSource
from tieline.drivers.siteprocess.datasets import Dataset, refused
from tieline.drivers.siteprocess.home import Identity
from tieline.model.error import TielineError
from tieline.model.passing import PassBody, PassView
from tieline.model.spec import DataPlace
from tieline.ports import Clock
from tieline.registry import Key
from tieline.site.configuration import DataConfig


@dataclass(frozen=True)
class Rules:
    """Who fetches, and what the owner of this site allows."""

    client: HttpClient
    identity: Identity
    key: Key
    clock: Clock
    data: DataConfig
    readable: Sequence[str]

    def check(self, called: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
        """Refuse an address that nobody allowed. Raises TielineError `address_refused`."""
        is_listed = any(address in network for network in map(ipaddress.ip_network, self.data.inner))
        why = why_refused(address, is_private_stated=is_listed)
        if why:
            raise TielineError("address_refused", f"`{called}` leads to {address}, which is {why}")


def held_at(dataset: Dataset, rules: Rules) -> str:
    """The file or folder of this machine that is the dataset; empty where none is.

    Raises TielineError `data_not_fetched` for one that is not there, or has another size: other sites may have it.
    """
    path = rules.data.held.get(dataset.id, "")
    if not path:
        path = next((found for place in dataset.spec.places if (found := _file_of(place, rules))), "")
    if not path:
        return ""
    real = os.path.realpath(path)
    try:
        status = os.stat(real)  # noqa: PTH116 - one look
    except OSError as error:
        raise refused("data_not_fetched", dataset.id, why=f"`{path}` of this site: {error.strerror}"[:300]) from None
    if stat.S_ISDIR(status.st_mode):
        return real
    if not stat.S_ISREG(status.st_mode):
        raise refused("data_not_fetched", dataset.id, why=f"`{path}` of this site is no plain file"[:300])
    if dataset.spec.size_bytes and status.st_size != dataset.spec.size_bytes:
        sizes = f"{status.st_size:,} bytes, and the record says {dataset.spec.size_bytes:,}"
        raise refused("data_not_fetched", dataset.id, why=f"`{path[:300]}` of this site has {sizes}", lasting=1)
    return real


def _file_of(place: DataPlace, rules: Rules) -> str:
    """The file of a place at this site, where every task may see it."""
    if not place.url.startswith("file:") or place.site != rules.identity.site:
        return ""
    path = urllib.parse.unquote(place.url.removeprefix("file://"))
    if "\0" in path:
        return ""
    real = os.path.realpath(path)
    folders = [os.path.realpath(folder) for folder in rules.readable]
    return real if any(real == folder or real.startswith(folder.rstrip("/") + "/") for folder in folders) else ""


def places_of(dataset: Dataset, source: str) -> list[DataPlace]:
    """Those that can be read from elsewhere: beside ``source``, from where the transfer is booked, first."""
    return sorted(dataset.spec.fetched, key=lambda place: 0 if place.site == source else 1 if not place.site else 2)


def source_of(place: DataPlace, dataset: Dataset, rules: Rules) -> Source:
    """What the bytes of a place are read from. Raises TielineError for what this site does not fetch."""
    address = address_of(place.url)
    digest = dataset.spec.sha256
    if address.scheme == "blob":
        if address.path != digest:
            raise TielineError("invalid_request", f"`{address.name}` is not the sha256 of the record")
        return BlobSource(rules.client, digest, dataset.spec.size_bytes)
    if address.scheme == "s3":
        bucket = address.path.partition("/")[0]
        if bucket not in rules.data.buckets:
            raise TielineError("forbidden", f"the owner of this site does not list the bucket `{bucket}`")
        from tieline.drivers.mover.objects import ObjectSource

        return ObjectSource(address)
    if address.scheme == "door":
        if address.path != digest:
            raise TielineError("invalid_request", f"`{address.name}` is not the sha256 of the record")
        return _door(address.url, digest, rules)
    from tieline.drivers.mover.web import HttpSource

    return HttpSource(address, check=rules.check)


def _door(site: str, digest: str, rules: Rules) -> Source:
    from tieline.drivers.mover.doors import DoorSource

    async def ask(site: str, body: PassBody) -> PassView:
        path = f"/v1/sites/{site.replace('/', '~')}/passes"
        return await rules.client.call("POST", path, PassView, body=body)

    return DoorSource(site, digest, ask, rules.clock, rules.key, relay=rules.client, check=rules.check)
