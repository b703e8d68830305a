"""The document promises what is decoded, and the page of the reference says the same."""

import re
from pathlib import Path

import msgspec
import pytest

from tieline.api.app import OPERATIONS, api_document
from tieline.api.operation import EVENTS, JSON
from tieline.api.reference import page
from tieline.api.roles import ROLES
from tieline.model.error import CODES, ErrorEnvelope

DOCUMENT = api_document()
PAGE = Path(__file__).parents[3] / "docs" / "reference" / "api.md"


def references(tree):
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from references(value)


def test_every_reference_of_the_document_leads_somewhere():
    found = set(references(DOCUMENT))
    assert found
    for pointer in found:
        node = DOCUMENT
        for part in pointer.removeprefix("#/").split("/"):
            node = node[part]


def test_the_served_document_is_this_one(world):
    answer = world.http.get("/v1/openapi.json")
    assert answer.json() == msgspec.json.decode(msgspec.json.encode(DOCUMENT))
    assert world.http.get("/schema").status_code == 404  # no page that would load scripts from elsewhere


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_operation_describes_its_parameters_bodies_answers_and_refusals(operation):
    described = DOCUMENT["paths"][operation.path][operation.method.lower()]
    assert described["summary"]
    assert not re.match("[a-z]", operation.description), "the first line of a docstring is a sentence of its own"
    assert described["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    in_path = {row["name"] for row in described.get("parameters", ()) if row["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", operation.path))
    assert bool(described["security"]) == bool(ROLES[operation.id])
    statuses = set(described["responses"])
    assert {"400", "405", "429", "500", "503", str(operation.status)} <= statuses
    if ROLES[operation.id]:
        assert {"401", "403"} <= statuses
    if operation.takes:
        assert {"413", "415"} <= statuses
        assert described["requestBody"]["content"][operation.takes]["examples"]
    if operation.gives == JSON:
        assert described["responses"][str(operation.status)]["content"][JSON]["schema"]
    if operation.gives == EVENTS:
        assert described["responses"]["200"]["x-events"]
    for follow in operation.follows:
        assert follow.operation in {other.id for other in OPERATIONS}


def test_a_change_takes_an_idempotency_key_where_it_is_not_repeatable_by_itself():
    repeatable = {"find", "plan", "delegate_token", "store_blob", "open_session", "report", "beat", "store_run_log"}
    repeatable |= {"open_shell", "ask_pass", "open_stream", "take_readings", "read_circle", "read_coverage"}
    repeatable |= {"request_peering", "read_log_buckets", "fetch_log_records"}
    repeatable |= {"take_peer_orders", "take_peer_ask", "take_peer_answers", "read_peer_logs"}
    repeatable |= {"read_peer_readings", "give_peer_passes"}
    for operation in OPERATIONS:
        if operation.method in ("POST", "DELETE"):
            assert operation.is_change != (operation.id in repeatable), operation.id


def test_every_refusal_is_the_one_envelope():
    for answer in DOCUMENT["components"]["responses"].values():
        assert answer["content"][JSON]["schema"] == {"$ref": "#/components/schemas/ErrorEnvelope"}
    assert set(DOCUMENT["components"]["schemas"]["ErrorEnvelope"]["properties"]) == set(ErrorEnvelope.__struct_fields__)
    promised = {code for operation in OPERATIONS for code in _codes(operation)}
    only_elsewhere = {"stale_epoch", "site_unreachable", "exchange_unreachable", "untrusted_pickle", "check_failed"}
    only_elsewhere |= {"page_refused"}  # of what a peer served
    only_elsewhere |= {"circuit_refused", "lab_refused"}  # of a laboratory, and of routers
    assert promised | only_elsewhere == set(CODES)


def _codes(operation):
    return DOCUMENT["paths"][operation.path][operation.method.lower()]["x-codes"]


def test_patterns_are_those_of_json_schema():
    text = msgspec.json.encode(DOCUMENT).decode()
    assert "\\\\A" not in text
    assert "\\\\Z" not in text


def test_the_bounds_of_nested_items_are_in_the_document():
    task = DOCUMENT["components"]["schemas"]["Task"]["properties"]
    assert task["envs"]["propertyNames"]["pattern"] == "^[A-Za-z_][A-Za-z0-9_]*$"
    assert task["resources"]["minItems"] == 1
    assert DOCUMENT["components"]["schemas"]["Task"]["additionalProperties"] is False
    assert DOCUMENT["components"]["schemas"]["Batch"]["properties"]["reports"]["items"]["discriminator"]


def test_the_page_of_the_reference_is_made_from_this_document():
    assert PAGE.read_text() == page(DOCUMENT), "run: python -m tieline.api.reference > docs/reference/api.md"


def test_every_link_inside_the_page_has_a_heading():
    text = PAGE.read_text()
    headings = {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for link in re.findall(r"\]\(#([^)]+)\)", text):
        assert link in headings, link
