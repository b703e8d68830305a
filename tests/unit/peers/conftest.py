import pytest

from peer_world import Exchange


@pytest.fixture
def exchange(tmp_path):
    """Exchanges of a test's own, by prefix; all are stopped at the end."""
    made = []

    def make(prefix, **fields):
        made.append(Exchange(tmp_path / f"{len(made)}-{prefix}", prefix, **fields).start())
        return made[-1]

    yield make
    for each in reversed(made):
        each.stop()
