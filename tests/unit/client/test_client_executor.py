"""The executor: functions run at a site; results are data; pickles only from whom the caller trusts."""

import concurrent.futures
import datetime as dt

import pytest

from tieline.client import Executor
from tieline.client.executor import RemoteError
from tieline.model.error import TielineError


class Own:
    def __init__(self, value=0):
        self.value = value


class OwnError(Exception):
    pass


@pytest.fixture
def executor(client):
    with Executor(client) as made:
        yield made


def test_it_is_an_executor(executor):
    assert isinstance(executor, concurrent.futures.Executor)


def test_a_result_of_built_in_types_comes_back_equal(executor):
    value = {"a": [1, 2.5, None], (1, 2): {b"x", 3 + 4j}, "when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}
    assert executor.submit(lambda given, more: {**given, "more": more}, value, more=7).result(30) == {
        **value,
        "more": 7,
    }


def test_map_keeps_the_order(executor):
    assert list(executor.map(pow, [2, 3, 4], [3, 2, 1], timeout=30)) == [8, 9, 4]


def test_an_exception_comes_back_as_one_with_its_traceback_at_the_site(executor):
    def bad():
        raise ValueError("seven", 7)

    with pytest.raises(ValueError, match="seven") as raised:
        executor.submit(bad).result(30)
    assert raised.value.args == ("seven", 7)
    assert "in bad" in str(raised.value.__cause__)
    assert "runner" not in str(raised.value.__cause__)


def test_an_exception_of_a_class_of_ones_own_is_told_by_name(executor):
    def bad():
        raise OwnError("why")

    with pytest.raises(RemoteError, match="OwnError: why"):
        executor.submit(bad).result(30)


def test_a_result_that_is_not_data_is_not_opened(executor, exchange):
    with pytest.raises(TielineError, match="not data") as raised:
        executor.submit(range, 3).result(30)
    assert raised.value.code == "untrusted_pickle"
    assert exchange.toy.prefix in raised.value.hints[0]


def test_a_pickle_of_an_owner_that_is_trusted_by_name_is_opened(client, exchange):
    with Executor(client, trust=[exchange.toy.prefix]) as executor:
        assert executor.submit(range, 3).result(30) == range(3)


def test_trust_in_another_owner_opens_nothing(client):
    with Executor(client, trust=["cn.demo", "cn.demo.lab8"]) as executor:
        error = executor.submit(range, 3).exception(30)
    assert isinstance(error, TielineError)
    assert error.code == "untrusted_pickle"


def test_what_waits_here_can_be_cancelled_and_the_rest_ends(client, tmp_path):
    def slow(path):
        import pathlib
        import time

        while not pathlib.Path(path).exists():
            time.sleep(0.01)
        return 1

    executor = Executor(client, in_flight=1)
    first = executor.submit(slow, str(tmp_path / "go"))
    rest = [executor.submit(pow, 2, 2) for _ in range(3)]
    while not first.running():
        pass
    assert rest[0].cancel()
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in rest)
    (tmp_path / "go").touch()
    executor.shutdown()
    assert first.result(30) == 1
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(pow, 2, 2)


def test_a_process_that_dies_is_an_error_with_the_way_to_its_output(executor):
    def die():
        import os

        os._exit(3)

    error = executor.submit(die).exception(30)
    assert isinstance(error, TielineError)
    assert "tieline logs j-" in error.hints[0]


def test_closing_the_client_stops_what_runs_and_every_future_ends(exchange):
    from api_world import ADMIN

    from tieline.client import Client

    def forever():
        import time

        time.sleep(60)

    client = Client(exchange.url, ADMIN)
    executor = Executor(client, in_flight=1)
    running, waiting = executor.submit(forever), executor.submit(forever)
    while not client.jobs(state="running").jobs:
        pass
    job = client.jobs(state="running").jobs[0]
    client.close()
    assert waiting.cancelled()
    error = running.exception(10)
    assert isinstance(error, TielineError)
    with Client(exchange.url, ADMIN) as other:
        assert other.wait(job.id, 20).job.state == "cancelled"
