"""Executor: functions at sites, with the interface of `concurrent.futures`.

A function and its arguments travel as a pickle to the site that accepted the run: the caller trusts itself. The result
comes back as data. A result that is not data is a pickle, and a pickle is a program: it is opened only when the run's
owner is named in ``trust``, else the future raises TielineError `untrusted_pickle` and nothing is unpickled.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from tieline.client import data
from tieline.client.packing import packed_files
from tieline.client.synchronous import Client, task_of
from tieline.model.api import JobView
from tieline.model.error import TielineError
from tieline.model.job import JobState
from tieline.model.task import Mount, Task

P = ParamSpec("P")
T = TypeVar("T")
MOST_RESULT_BYTES = 64 << 20
PICKLING = threading.Lock()  # what travels by value is stated to cloudpickle for the whole process
RUN = '"${{TIELINE_PYTHON:-python3}}" run.py {major}.{minor}'


class RemoteTraceback(Exception):  # noqa: N818 - as `concurrent.futures.process` shows one
    """The traceback at the site, as the cause of the exception that came from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class RemoteError(Exception):
    """An exception of a class that is not built in, told by its name and message."""


class Executor(futures.Executor):
    """Runs each call as a job. At most ``in_flight`` jobs are at the exchange at once; the others wait here."""

    def __init__(
        self,
        client: Client,
        *,
        trust: Iterable[str] = (),
        in_flight: int = 32,
        project: str = "",
        task: Task | None = None,
        **fields: Any,
    ) -> None:
        """``trust``: prefixes of owners whose pickles are opened. ``task`` and ``fields`` say what every call needs:

        >>> Executor(client, resources=(Resources(core_count=1),), network="none")  # doctest: +SKIP
        """
        assert in_flight > 0, in_flight
        self._client = client
        self._trust = frozenset(trust)
        self._project = project
        self._template = task_of(task or Task(), fields)
        self._room = asyncio.Semaphore(in_flight)
        self._lock = threading.Lock()
        self._is_shut = False
        self._pending: dict[futures.Future[Any], None] = {}

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> futures.Future[T]:
        """Run ``fn(*args, **kwargs)`` at a site. It is pickled now; a later change of an argument is not seen there.

        A future can be cancelled until its job is submitted; then it is running.
        """
        call = _pickled(fn, args, kwargs)
        name = _name_of(fn)
        with self._lock:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future: futures.Future[T] = futures.Future()
            self._pending[future] = None
            future.add_done_callback(self._done)
            self._client.started(self._run(future, name, call)).add_done_callback(_cancelled_with(future))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; with ``cancel_futures`` those that are not submitted yet are cancelled."""
        with self._lock:
            self._is_shut = True
            rest = list(self._pending)
        if cancel_futures:
            for future in rest:
                future.cancel()
        if wait:
            futures.wait(rest)

    def _done(self, future: futures.Future[Any]) -> None:
        self._pending.pop(future, None)

    async def _run(self, future: futures.Future[Any], name: str, call: bytes) -> None:
        async with self._room:
            if not future.set_running_or_notify_cancel():
                return
            try:
                value = await self._value(name, call)
            except BaseException as error:
                if not future.done():
                    future.set_exception(error if isinstance(error, Exception) else _ended_early())
                if isinstance(error, asyncio.CancelledError):
                    raise
            else:
                future.set_result(value)

    async def _value(self, name: str, call: bytes) -> Any:
        client = self._client.asynchronous
        major, minor = sys.version_info[:2]
        here = Path(__file__).parent
        with packed_files(
            {
                "run.py": (here / "runner.py").read_bytes(),
                "data.py": (here / "data.py").read_bytes(),
                "call.pkl": call,
            }
        ) as archive:
            kept = await client.upload(archive)
        task = task_of(
            self._template,
            {
                "name": name,
                "run": RUN.format(major=major, minor=minor),
                "workdir": Mount(path=".", sha256=kept.sha256, size_bytes=kept.size_bytes, is_archive=True),
                "outputs": (*self._template.outputs, "result.json", "result.pkl"),
            },
        )
        (job,) = await client.submit(task, project=self._project)
        try:
            view = await client.wait(job.id)
        except asyncio.CancelledError:
            with contextlib.suppress(TielineError):
                await client.stop(job.id, "the client was closed")
            raise
        return await self._result(view)

    async def _result(self, view: JobView) -> Any:
        outputs = {output.path: output for output in view.job.outputs if not output.node}
        if view.job.state != JobState.SUCCEEDED or "result.json" not in outputs:
            raise TielineError(
                "check_failed",
                f"`{view.job.id}` {view.job.state.value} without a result",
                reasons=view.job.reasons,
                hints=(f"tieline logs {view.job.id.rpartition('/')[2]}",),
            )
        content = await self._client.asynchronous.read_blob(outputs["result.json"].sha256, MOST_RESULT_BYTES)
        tree = _tree(content, view)
        if "value" in tree:
            return data.loads(json.dumps(tree["value"]))
        owner = view.runs[-1].owner if view.runs else ""
        is_pickled = "result.pkl" in outputs
        if "error" in tree:
            error = tree["error"]
            if is_pickled and owner in self._trust:
                raised = await self._unpickled(outputs["result.pkl"].sha256)
                if isinstance(raised, BaseException):
                    raise raised from RemoteTraceback(str(error.get("traceback", "")))
            raise _exception(error) from RemoteTraceback(str(error.get("traceback", "")))
        if owner not in self._trust:
            raise TielineError(
                "untrusted_pickle",
                f"the result is a {str(tree.get('pickle', ''))[:200]}, which is not data, and `{owner}` is not trusted",
                hints=(f'Executor(client, trust=["{owner}"])', "return built-in types: numbers, text, lists, dicts"),
            )
        if not is_pickled:
            raise TielineError("check_failed", f"`{view.job.id}` left no `result.pkl`")
        return await self._unpickled(outputs["result.pkl"].sha256)

    async def _unpickled(self, digest: str) -> Any:
        """A pickle of an owner that the caller trusts by name."""
        import cloudpickle

        return cloudpickle.loads(await self._client.asynchronous.read_blob(digest, MOST_RESULT_BYTES))


def _pickled(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The call as a pickle. A module of the caller's own that is not installed travels with its function."""
    import cloudpickle

    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    with PICKLING:
        known = cloudpickle.list_registry_pickle_by_value()
        is_own = module is not None and module.__name__ not in known and _is_own(module)
        if is_own:
            cloudpickle.register_pickle_by_value(module)
        try:
            content: bytes = cloudpickle.dumps((fn, args, kwargs))
        finally:
            if is_own:
                cloudpickle.unregister_pickle_by_value(module)
    return content


def _is_own(module: ModuleType) -> bool:
    """Whether ``module`` is a file of the caller's that no site can have installed."""
    import sysconfig

    file = getattr(module, "__file__", None)
    if module.__name__ == "__main__" or not file:
        return False
    path = Path(file).resolve()
    return not any(path.is_relative_to(Path(folder).resolve()) for folder in sysconfig.get_paths().values())


def _tree(content: bytes, view: JobView) -> dict[str, Any]:
    """`result.json` as it was read; it comes from outside. Raises TielineError `check_failed`."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict) or not tree.keys() & {"value", "error", "pickle"}:
        raise TielineError("check_failed", f"`result.json` of `{view.job.id}` is no result")
    return tree


def _exception(error: Any) -> Exception:
    """The exception that ``error`` describes: of its own class where that is built in, else a RemoteError."""
    if not isinstance(error, dict):
        return RemoteError("the site told no more")
    name, message = str(error.get("name", "")), str(error.get("message", ""))
    kind = getattr(builtins, name, None) if error.get("module") == "builtins" else None
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(ValueError, TypeError):
            args = data.loads(str(error.get("args", "")))
            if isinstance(args, list):
                return kind(*args)
    return RemoteError(f"{name}: {message}")


def _ended_early() -> TielineError:
    return TielineError("conflict", "the client was closed before the call ended")


def _cancelled_with(future: futures.Future[Any]) -> Callable[[futures.Future[None]], None]:
    """Cancel ``future`` too when the work for it was cancelled before it began."""

    def done(work: futures.Future[None]) -> None:
        if work.cancelled() and future.cancel():
            future.set_running_or_notify_cancel()

    return done


def _name_of(function: Callable[..., Any]) -> str:
    """A task's name from a function's."""
    name = getattr(function, "__name__", "call")
    kept = "".join(each if each.isascii() and (each.isalnum() or each in "._-") else "-" for each in name)
    return kept[:63].strip("._-") or "call"
