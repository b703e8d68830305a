import sys
import time
from pathlib import Path

import pytest

for folder in ("api", "client"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    """A real exchange on loopback with one toy site, in the present."""
    from api_world import World
    from toy_site import ToySite

    from tieline.ports import FakeClock

    clock = FakeClock(at_ms=int(time.time() * 1000))
    world = World(tmp_path_factory.mktemp("exchange"), clock=clock).start()
    world.toy = ToySite(world)
    yield world
    world.toy.stop()
    world.stop()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own, and no language or exchange from outside."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TIELINE_HOME", str(folder))
    for name in ("TIELINE_EXCHANGE", "TIELINE_TOKEN", "TIELINE_LANG", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "C.UTF-8")
    return folder


@pytest.fixture
def call():
    """Run the command line in this process: ``call("ps", "--json")`` gives click's result."""
    from click.testing import CliRunner

    from tieline.cli import words
    from tieline.cli.main import tieline

    def run(*args, text=None):
        try:
            return CliRunner().invoke(tieline, [str(each) for each in args], input=text, prog_name="tieline")
        finally:
            words.choose("")

    return run


@pytest.fixture
def admin(exchange, call):
    """The command line, logged in as the first admin."""
    from api_world import ADMIN

    done = call("login", exchange.url, "--token", ADMIN)
    assert done.exit_code == 0, done.output
    return call
