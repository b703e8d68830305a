"""What the tests of the engines share: an engine with and without control groups, and one-line launches."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tieline.drivers.engines.cgroups import Cgroups
from tieline.drivers.engines.process import ProcessEngine
from tieline.ports import Ending, Launch

T = TypeVar("T")


class Site:
    """A folder for runs and the engine over it; `do` runs one story on a fresh event loop."""

    def __init__(self, base: Path, groups: Cgroups) -> None:
        self.base = base
        self.groups = groups

    def launch(self, script: str, *, name: str = "r1", **more: Any) -> Launch:
        known: dict[str, Any] = {"run": name, "node": 0, "folder": str(self.base / name), "setup": "", "envs": {}}
        return Launch(**known | more | {"script": script})

    def engine(self) -> ProcessEngine:
        return ProcessEngine(hidden=(str(self.base),), groups=self.groups)

    def do(self, story: Callable[[ProcessEngine], Awaitable[T]]) -> T:
        async def whole() -> T:
            engine = self.engine()
            try:
                return await story(engine)
            finally:
                await engine.close()

        return asyncio.run(whole())

    def run(self, script: str, **more: Any) -> Ending:
        launch = self.launch(script, **more)

        async def story(engine: ProcessEngine) -> Ending:
            await engine.start(launch)
            return await engine.wait(launch.folder)

        return self.do(story)

    def log(self, name: str = "r1") -> str:
        return (self.base / name / "log").read_text()

    def work(self, name: str = "r1") -> Path:
        return self.base / name / "work"


GROUPS = Cgroups.found()


@pytest.fixture(params=["control groups", "no control groups"] if GROUPS.hierarchies else ["no control groups"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path, GROUPS if request.param == "control groups" else Cgroups())
    shutil.rmtree(tmp_path, ignore_errors=True)
