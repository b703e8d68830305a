"""The synchronous client against a real exchange."""

import inspect
import os

import pytest

from tieline.client import AsyncClient, Client
from tieline.model.error import TielineError
from tieline.model.task import Resources, Task


def test_every_operation_of_the_async_client_is_there_with_the_same_arguments():
    for name, method in inspect.getmembers(AsyncClient, inspect.isfunction):
        if name.startswith("_") or name == "close":
            continue
        assert list(inspect.signature(getattr(Client, name)).parameters) == list(
            inspect.signature(method).parameters
        ), name


def test_a_script_runs_and_its_output_comes_back(client):
    job = client.run("echo hello", timeout_s=20)
    assert job.state == "succeeded"
    assert client.log(job.id) == b"hello\n"
    assert b"".join(client.follow(job.id)) == b"hello\n"


def test_a_job_that_fails_is_returned_with_its_reason(client):
    job = client.run(Task(name="bad", run="exit 7"), timeout_s=20)
    assert job.state == "failed"
    assert job.reasons


def test_a_field_that_no_task_has_is_refused(client):
    with pytest.raises(TielineError, match="cores") as refused:
        client.run("true", cores=3)
    assert refused.value.code == "invalid_task"


def test_what_can_never_run_is_refused_with_reasons(client):
    with pytest.raises(TielineError) as refused:
        client.run("true", resources=(Resources(accelerator="h100", accelerator_count=8),))
    assert refused.value.code == "unplaceable"
    assert refused.value.reasons


def test_a_folder_travels_and_outputs_come_back_by_hash(client, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "in.txt").write_text("seven")
    (tmp_path / "work" / ".git").mkdir()
    (tmp_path / "work" / ".git" / "config").write_text("not for sites")
    task = client.pack(Task(run="cp in.txt out.txt; ls -a", outputs=("out.txt",)), tmp_path / "work")
    job = client.run(task, timeout_s=20)
    assert b".git" not in client.log(job.id)
    (written,) = client.fetch(job.id, tmp_path / "got")
    assert written.read_text() == "seven"
    assert written.is_relative_to(tmp_path / "got")


def test_the_event_log_streams_from_its_beginning_and_can_be_left(client):
    seen = []
    for event in client.stream():
        seen.append(event)
        if len(seen) == 2:
            break
    assert [event.id for event in seen] == ["1", "2"]


def test_a_closed_client_says_so(exchange):
    client = Client(exchange.url, "none")
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.status()


def test_a_large_blob_is_sent_once_and_verified(client, tmp_path):
    content = os.urandom(3 << 20)
    (tmp_path / "big").write_bytes(content)
    with open(tmp_path / "big", "rb") as file:
        kept = client.upload(file)
        again = client.upload(file)
    assert kept == again
    assert client.download(kept.sha256, tmp_path / "copy") == len(content)
    assert (tmp_path / "copy").read_bytes() == content
