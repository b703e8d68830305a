"""The table of what is answered by a process that follows names operations that only read what is committed."""

import inspect
import re

import pytest
from following_parts import OPERATIONS, ROUTES

from tieline.api.following.local import FACTS, FILES, LOCAL, OWN, REPEATED

NAMED = {operation.id: operation for operation in OPERATIONS}


def test_the_table_names_operations_that_there_are_each_once() -> None:
    assert set(NAMED) >= LOCAL
    assert set(NAMED) >= REPEATED
    assert len(LOCAL) == len(OWN) + len(FACTS) + len(FILES)


@pytest.mark.parametrize("name", sorted(LOCAL))
def test_what_is_answered_here_changes_nothing_and_asks_no_writer(name: str) -> None:
    operation = NAMED[name]
    assert not operation.is_change
    assert operation.method in ("GET", "HEAD") or name == "find"
    assert not re.search(r"\.ask(_many)?\(|\.keep\(", inspect.getsource(operation.handler))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_operation_is_found_by_its_path(operation) -> None:
    path = re.sub(r"\{[^}]*\}", "cn.demo%2Fjob%2Fj-1", operation.path)
    assert ROUTES.find(operation.method, path) is operation


def test_a_path_is_found_however_its_letters_are_quoted() -> None:
    assert ROUTES.find("POST", "/v1/%6Aobs").id == "submit_jobs"
    assert ROUTES.find("POST", "/v1/jobs/").id == "submit_jobs"
    assert ROUTES.find("GET", "/v1/events/verify").id == "verify_events"


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/jobs"), ("GET", "/v1/nothing"), ("GET", "/v1/jobs/a/b/c/d")])
def test_what_there_is_not_is_not_found(method: str, path: str) -> None:
    assert ROUTES.find(method, path) is None
