import sys
from pathlib import Path

import pytest
from api_world import World

sys.path.insert(0, str(Path(__file__).parents[2]))
from postgres import KINDS, postgres, store_url

__all__ = ["postgres"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    """Everything of the API runs on each kind of database."""
    return request.param


@pytest.fixture(scope="module")
def world(kind, request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    for address in store_url(kind, folder, request):
        running = World(folder, address=address).start()
        yield running
        running.stop()


@pytest.fixture
def fresh(kind, request, tmp_path):
    """Worlds of a test's own: call it with what differs. All are stopped at the end."""
    made, stores = [], []

    def make(**fields):
        folder = tmp_path / f"world-{len(made)}"
        folder.mkdir()
        stores.append(store_url(kind, folder, request))
        made.append(World(folder, address=next(stores[-1]), **fields).start())
        return made[-1]

    yield make
    for each in made:
        each.stop()
    for store in stores:
        next(store, None)
