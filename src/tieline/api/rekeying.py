"""Which key speaks for an owner."""

from __future__ import annotations

from tieline.api.call import Call
from tieline.api.operation import operation
from tieline.exchange.commands import Rekey
from tieline.model.rekeying import RekeyBody, RekeyView


@operation(
    "POST",
    "/v1/keys",
    tag="records",
    is_change=True,
    errors=("unauthenticated", "forbidden", "not_found", "conflict", "record_refused"),
    example={"owner": "cn.demo.none", "public": "A" * 43, "is_revoking": True},
)
async def rekey_owner(call: Call, body: RekeyBody) -> RekeyView:
    """Give an owner's prefix to another key: routine change with an overlap, or revocation of the keys before it.

    The owner, or its site, sends a statement that a key signed which is believed here. An admin may name the key
    without one: when the owner's was lost or stolen.
    """
    found: RekeyView = await call.platform.ask(
        call.command(
            Rekey,
            statement=body.statement.encode(),
            owner=body.owner,
            public=body.public,
            is_revoking=body.is_revoking,
        )
    )
    await call.platform.shown()
    return found
