"""What Schemathesis is told beside its own checks: see `test_schemathesis.py`."""

import schemathesis

SEMANTIC = {"invalid_expression", "invalid_task", "invalid_cursor"}  # 400 for what no JSON Schema can say
MEANT = {  # fields whose values mean something only together, or by a table that grows
    "create_token": ("roles", "owner", "uses"),
    "delegate_token": ("scopes", "ttl_s", "job"),
    "create_project": ("title", "members"),  # names and titles are printable, and nobody is named twice
    "set_project": ("title",),
    "change_members": ("put", "remove"),
    "rekey_owner": ("owner",),
    "change_topology": ("topology",),  # a network is sound or not as a whole
    "change_links": ("down", "up"),
    "read_circle": ("measure.quantile",),  # one-way times are known as medians only
    "read_coverage": ("measure.quantile", "points"),
    "order_transfer": ("label",),  # one line that can be shown
    "book_night": ("orders", "label"),
    "order_circuit": ("label", "most_bps"),
    "take_receipt": ("receipt.begun_ms", "receipt.ended_ms"),  # nothing is seen that has not happened
    "read_calendar": ("from_ms", "until_ms"),
    "open_shell": ("node", "command", "port"),  # a run has so many nodes, and a stream is for one thing
    "change_tariff": ("tariff.hours",),
    "change_points": ("put", "remove"),
}


@schemathesis.check
def well_formed_is_not_called_malformed(ctx, response, case):
    """A request that fits the document may be refused with 400 for what it means, never for its form."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return
    refusal = response.json()
    meant = MEANT.get(case.operation.definition.raw["operationId"], ())
    assert refusal["code"] in SEMANTIC or refusal["where"] in meant, refusal


@schemathesis.hook
def before_call(context, case, kwargs):
    """Wait for jobs, but not for minutes."""
    wait_s = (case.query or {}).get("wait_s")
    if type(wait_s) is int and 1 < wait_s <= 60:
        case.query["wait_s"] = 1
