"""The synchronous face: the async client on a private loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import msgspec

from tieline.client.asynchronous import AsyncClient
from tieline.client.context import Context
from tieline.drivers.http import ServerEvent
from tieline.model.error import TielineError
from tieline.model.job import Job
from tieline.model.task import Task

P = ParamSpec("P")
T = TypeVar("T")


def _face(method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Client, P], T]:
    """``method`` as it is called from ordinary code: the same arguments, the result itself."""

    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.result_of(method(self.asynchronous, *args, **kwargs))

    call.__name__, call.__doc__, call.__wrapped__ = method.__name__, method.__doc__, method  # type: ignore[attr-defined]
    return call


class Client:
    """One exchange as one caller. Thread-safe. Close it, or use ``with``.

    Raises TielineError for every refusal; its code, reasons and hints are the exchange's own.
    """

    def __init__(self, url: str = "", token: str = "", *, context: str = "") -> None:
        """Without a URL the context says which exchange (see `tieline.client.context`)."""
        self.asynchronous = AsyncClient(url, token, context=context)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tieline-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def context(self) -> Context:
        """The exchange and the token that are used."""
        return self.asynchronous.context

    def close(self) -> None:
        """Close the connections and end the thread. May be called twice."""
        if self._loop.is_closed():
            return
        self.result_of(self._wound_up())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _wound_up(self) -> None:
        """Cancel what still runs, then close the connections."""
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self.asynchronous.close()
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def started(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start ``work`` on the client's loop. Raises RuntimeError when the client is closed."""
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("the client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def result_of(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, waited for; an interruption here cancels it there."""
        assert threading.current_thread() is not self._thread, "called from the client's own loop: use `asynchronous`"
        future = self.started(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    # -- who, records, finding ----------------------------------------------------------------------------------------

    exchange = _face(AsyncClient.exchange)
    me = _face(AsyncClient.me)
    status = _face(AsyncClient.status)
    situation = _face(AsyncClient.situation)
    register = _face(AsyncClient.register)
    resolve = _face(AsyncClient.resolve)
    chain = _face(AsyncClient.chain)
    records = _face(AsyncClient.records)
    find = _face(AsyncClient.find)
    plan = _face(AsyncClient.plan)
    ask = _face(AsyncClient.ask)
    quote = _face(AsyncClient.quote)
    accept = _face(AsyncClient.accept)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    submit = _face(AsyncClient.submit)
    job = _face(AsyncClient.job)
    wait = _face(AsyncClient.wait)
    jobs = _face(AsyncClient.jobs)
    stop = _face(AsyncClient.stop)
    why = _face(AsyncClient.why)
    history = _face(AsyncClient.history)
    log = _face(AsyncClient.log)
    fetch = _face(AsyncClient.fetch)
    pack = _face(AsyncClient.pack)

    # -- projects -----------------------------------------------------------------------------------------------------

    topology = _face(AsyncClient.topology)
    circle = _face(AsyncClient.circle)
    coverage = _face(AsyncClient.coverage)
    change_topology = _face(AsyncClient.change_topology)
    change_links = _face(AsyncClient.change_links)
    projects = _face(AsyncClient.projects)
    project = _face(AsyncClient.project)
    create_project = _face(AsyncClient.create_project)
    set_project = _face(AsyncClient.set_project)
    change_members = _face(AsyncClient.change_members)
    close_project = _face(AsyncClient.close_project)

    # -- transfers, circuits ------------------------------------------------------------------------------------------

    order_transfer = _face(AsyncClient.order_transfer)
    transfers = _face(AsyncClient.transfers)
    transfer = _face(AsyncClient.transfer)
    cancel_transfer = _face(AsyncClient.cancel_transfer)
    book_night = _face(AsyncClient.book_night)
    order_circuit = _face(AsyncClient.order_circuit)
    circuits = _face(AsyncClient.circuits)
    circuit = _face(AsyncClient.circuit)
    resize_circuit = _face(AsyncClient.resize_circuit)
    cancel_circuit = _face(AsyncClient.cancel_circuit)
    give_receipt = _face(AsyncClient.give_receipt)
    receipts = _face(AsyncClient.receipts)
    calendar = _face(AsyncClient.calendar)
    tariff = _face(AsyncClient.tariff)
    change_tariff = _face(AsyncClient.change_tariff)

    # -- money, log, sites, tokens, blobs -----------------------------------------------------------------------------

    usage = _face(AsyncClient.usage)
    usage_keys = _face(AsyncClient.usage_keys)
    bills = _face(AsyncClient.bills)
    events = _face(AsyncClient.events)
    verify_log = _face(AsyncClient.verify_log)
    sites = _face(AsyncClient.sites)
    site = _face(AsyncClient.site)
    change_site = _face(AsyncClient.change_site)
    create_token = _face(AsyncClient.create_token)
    delegate_token = _face(AsyncClient.delegate_token)
    tokens = _face(AsyncClient.tokens)
    rekey_owner = _face(AsyncClient.rekey_owner)
    revoke_token = _face(AsyncClient.revoke_token)
    has_blob = _face(AsyncClient.has_blob)
    upload = _face(AsyncClient.upload)
    download = _face(AsyncClient.download)
    read_blob = _face(AsyncClient.read_blob)

    def follow(self, name: str, node: int = 0) -> Iterator[bytes]:
        """The output as it comes, over all runs, until the job has ended."""
        return self._items(self.asynchronous.follow(name, node))

    def stream(self, after: int = 0) -> Iterator[ServerEvent]:
        """The event log as it grows; it has no end."""
        return self._items(self.asynchronous.stream(after))

    def _items(self, stream: AsyncIterator[T]) -> Iterator[T]:
        """The items of ``stream``, one at a time; leaving the loop closes it."""
        try:
            while True:
                try:
                    yield self.result_of(_next(stream))
                except StopAsyncIteration:
                    return
        finally:
            if not self._loop.is_closed():
                self.result_of(_closed(stream))

    # -- what only this face has --------------------------------------------------------------------------------------

    def run(self, what: str | Task, *, timeout_s: float | None = None, project: str = "", **fields: Any) -> Job:
        """Submit a script or a task, wait for its end, and return the job; ``fields`` are those of `Task`.

        >>> client.run("hostname", nodes=2, network="none")  # doctest: +SKIP

        A job that failed is returned, not raised. Raises TielineError `invalid_task`, `unplaceable`, `timeout`.
        """
        (job,) = self.submit(task_of(what, fields), project=project)
        return self.wait(job.id, timeout_s).job


def task_of(what: str | Task, fields: dict[str, Any]) -> Task:
    """A task from a script or another task, with ``fields`` changed. Raises TielineError `invalid_task`."""
    base = Task(run=what) if isinstance(what, str) else what
    try:
        changed = msgspec.structs.replace(base, **fields)
        return msgspec.convert(msgspec.to_builtins(changed), Task)
    except (TypeError, msgspec.ValidationError) as error:
        raise TielineError("invalid_task", str(error)) from None


async def _next(stream: AsyncIterator[T]) -> T:
    return await anext(stream)


async def _closed(stream: AsyncIterator[Any]) -> None:
    closing = getattr(stream, "aclose", None)
    if closing is not None:
        await closing()
