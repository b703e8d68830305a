import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def exchange(tmp_path_factory):
    """A real exchange on loopback with one toy site, in the present."""
    import time

    from api_world import World
    from toy_site import ToySite

    from tieline.ports import FakeClock

    clock = FakeClock(at_ms=int(time.time() * 1000))
    world = World(tmp_path_factory.mktemp("exchange"), clock=clock).start()
    world.toy = ToySite(world)
    yield world
    world.toy.stop()
    world.stop()


@pytest.fixture
def client(exchange):
    from api_world import ADMIN

    from tieline.client import Client

    with Client(exchange.url, ADMIN) as made:
        yield made
