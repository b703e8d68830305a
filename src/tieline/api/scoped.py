"""Scoped: what a delegated token narrows its caller to, before the operation begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tieline.api.operation import Operation
from tieline.api.roles import ANY_SCOPE, SCOPE_OF
from tieline.registry.delegated import check_scope, refusal

if TYPE_CHECKING:
    from tieline.api.call import Call

# They name no job and still keep to the one of the caller.
OF_A_JOB = (
    *("read_me", "read_blob", "check_blob"),
    *("list_transfers", "read_transfer", "list_receipts", "take_receipt"),
)


def narrow(call: Call, operation: Operation) -> None:
    """Refuse with `forbidden` what the caller's token was not made for: scope_never, scope_missing, token_bound."""
    actor = call.actor
    scope = SCOPE_OF.get(operation.id)
    if scope is None:
        raise refusal("scope_never", "forbidden", operation=operation.id)
    if scope != ANY_SCOPE:
        check_scope(actor.scopes, scope)
    if not actor.job or operation.id in OF_A_JOB:
        return
    asked = str(call.scope["path_params"].get("job", "")).replace("~", "/")
    if asked and "/" not in asked:
        asked = f"{call.platform.exchange.prefix}/job/{asked}"
    if asked != actor.job:
        said = asked[:200] or operation.id
        raise refusal("token_bound", "forbidden", what="job", bound=actor.job, asked=said)
