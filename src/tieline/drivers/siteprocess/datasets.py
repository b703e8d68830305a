"""Datasets: what the data of a task is, in the words that the dataset's owner signed, and whether it may come here.

A site believes the record, not whoever sends work: the chain is verified from the key of its exchange, which it pinned.
For a prefix that its exchange did not give, the exchange says which root it believes.
"""

from __future__ import annotations

import urllib.parse
from typing import NamedTuple

import msgspec

from tieline.drivers.http import HttpClient
from tieline.drivers.siteprocess.home import Identity
from tieline.model.api import ChainView
from tieline.model.error import TielineError
from tieline.model.identifier import is_under
from tieline.model.reason import Reason, Value, sentence
from tieline.model.record import DelegatedKey, Root, Status
from tieline.model.spec import DatasetSpec
from tieline.model.task import DataUse
from tieline.registry import verify_chain

LAST_SECOND = 253_402_300_799


class Dataset(NamedTuple):
    """One dataset as its owner signed it."""

    id: str
    owner: str  # prefix
    spec: DatasetSpec


def refused(code: str, data: str, **values: Value) -> TielineError:
    """Why data does not come, as the run's reason."""
    reason = Reason(code=code, values={"data": data[:200], **values})
    return TielineError("check_failed", sentence(reason), reasons=(reason,))


async def dataset_of(client: HttpClient, identity: Identity, name: str, now_s: int) -> Dataset:
    """The record of the dataset ``name``, verified. Raises TielineError: `data_not_fetched`, what the exchange said."""
    path = urllib.parse.quote(name.replace("/", "~"), safe="~")
    try:
        view = await client.call("GET", f"/v1/chain/{path}", ChainView)
    except TielineError as error:
        if error.code != "not_found":
            raise
        raise refused("data_not_fetched", name, why="the exchange of this site has no record of it") from None
    home = identity.exchange.partition("/")[0]
    public = identity.public if view.root == home else view.root_public
    key = DelegatedKey(kid=f"{view.root}#exchange", public=public, nb=0, exp=LAST_SECOND)
    try:
        envelopes = [envelope.encode() for envelope in view.envelopes]
        record = verify_chain(envelopes, [Root(prefix=view.root, keys=(key,))], now_s).record
        if record.id != name or record.kind != "dataset" or record.status is Status.WITHDRAWN:
            raise refused("data_not_fetched", name, why=f"its record is of `{record.id}`, {record.status}"[:300])
        return Dataset(name, name.partition("/")[0], msgspec.convert(record.spec, DatasetSpec))
    except msgspec.ValidationError as error:
        raise refused("data_not_fetched", name, why=f"its record cannot be read: {error}"[:300]) from None
    except TielineError as error:
        if error.reasons and error.reasons[0].code == "data_not_fetched":
            raise
        raise refused("data_not_fetched", name, why=f"its record is not proved: {error.message}"[:300]) from None


def check_residency(dataset: Dataset, use: DataUse, identity: Identity) -> None:
    """Refuse data that may not come to this site, whoever placed the run here. Raises TielineError (`residency`)."""
    stated = {use.residency, dataset.spec.residency}
    if "site" in stated and identity.site not in dataset.spec.copies:
        raise refused("residency", dataset.id, scope="site")
    if "owner" in stated and dataset.owner != identity.owner:
        raise refused("residency", dataset.id, scope="owner")
    if "exchange" in stated and not is_under(dataset.owner, identity.exchange.partition("/")[0]):
        raise refused("residency", dataset.id, scope="exchange")
