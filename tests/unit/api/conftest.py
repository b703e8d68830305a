import pytest
from api_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    running = World(tmp_path_factory.mktemp("exchange")).start()
    yield running
    running.stop()


@pytest.fixture
def fresh(tmp_path):
    """Worlds of a test's own: call it with what differs. All are stopped at the end."""
    made = []

    def make(**fields):
        folder = tmp_path / f"world-{len(made)}"
        folder.mkdir()
        made.append(World(folder, **fields).start())
        return made[-1]

    yield make
    for each in made:
        each.stop()
