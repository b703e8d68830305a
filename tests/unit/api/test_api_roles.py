"""Who may call what: every operation with every role, exactly as the table says."""

import pytest

from tieline.api.app import OPERATIONS
from tieline.api.operation import BYTES, EVENTS, JSON
from tieline.api.roles import ROLES
from tieline.model.party import Role

PEOPLE = [role for role in Role if role not in (Role.SITE, Role.PEER)]
QUESTIONS = (
    "find",
    "plan",
    "read_circle",
    "read_coverage",
    "delegate_token",
    "read_log_buckets",
    "fetch_log_records",
)  # POST because of their bodies
SAMPLE = {"sha256": "0" * 64, "token": "t-none", "quote": "q-none"}


def attempt(client, operation):
    path = operation.path
    for name in operation.path_parameters:
        path = path.replace(f"{{{name}}}", SAMPLE.get(name, "none"))
    headers = {"Content-Type": operation.takes} if operation.takes else {}
    content = b"" if operation.takes == BYTES else b"{" if operation.takes == JSON else None
    with client.stream(operation.method, path, content=content, headers=headers) as answer:
        if operation.gives != EVENTS or answer.status_code != 200:
            answer.read()
        return answer.status_code


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_each_role_gets_exactly_what_the_table_says(world, operation):
    allowed = ROLES[operation.id]
    for role in PEOPLE:
        client = world.as_(f"one-{role}", role, owner="lab7" if role in (Role.OWNER, Role.JOIN) else "")
        status = attempt(client, operation)
        if role in allowed or not allowed:
            assert status not in (401, 403), (role, status)
        else:
            assert status == 403, (role, status)
    assert (attempt(world.http, operation) == 401) == bool(allowed)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_a_site_session_gets_exactly_what_the_table_says(world, operation):
    if not hasattr(world, "role_site"):
        world.role_site = world.site("lab6", "roles")
    status = attempt(world.role_site.http, operation)
    if Role.SITE in ROLES[operation.id] or not ROLES[operation.id]:
        assert status not in (401, 403), status
    else:
        assert status == 403, status


def test_a_regulator_sees_the_situation_and_nothing_of_anybody(world):
    allowed = {name for name, roles in ROLES.items() if Role.REGULATOR in roles}
    assert allowed == {"read_me", "read_status", "read_situation"}


def test_an_auditor_reads_and_never_writes(world):
    """Every operation that an auditor may call, with a body that is well-formed: the log stays where it is."""
    site = world.site("lab5", "audited")
    there = {**SAMPLE, "site": site.id, "record": site.id, "identifier": site.id, "prefix": site.prefix}
    auditor = world.as_("audrey", Role.AUDITOR)
    asked = [operation for operation in OPERATIONS if Role.AUDITOR in ROLES[operation.id]]
    answered = 0
    before = world.writer.position
    for operation in asked:
        assert not operation.is_change, operation.id
        assert operation.method in ("GET", "HEAD") or operation.id in QUESTIONS, operation.id
        if operation.gives == EVENTS:
            continue
        path = operation.path
        for name in operation.path_parameters:
            path = path.replace(f"{{{name}}}", there.get(name, "none").replace("/", "~"))
        answer = auditor.request(operation.method, path, json=operation.example if operation.takes == JSON else None)
        assert answer.status_code in (200, 201, 404, 422), (operation.id, answer.text)
        answered += answer.status_code < 300
    assert answered > len(asked) // 2
    assert world.writer.position == before


def test_what_an_auditor_may_not_call_changes_nothing_either(world):
    auditor = world.as_("audrey", Role.AUDITOR)
    closed = [each for each in OPERATIONS if ROLES[each.id] and Role.AUDITOR not in ROLES[each.id]]
    assert {each.id for each in closed} > {each.id for each in OPERATIONS if each.is_change and ROLES[each.id]}
    before = world.writer.position
    for operation in closed:
        assert attempt(auditor, operation) == 403, operation.id
    assert world.writer.position == before


def test_every_row_of_the_table_is_an_operation():
    assert set(ROLES) == {operation.id for operation in OPERATIONS}
