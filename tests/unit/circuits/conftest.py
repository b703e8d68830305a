"""A fabric whose routers write down what they were told."""

import pytest
from fabric_world import fabric_of


@pytest.fixture
def fabric():
    return fabric_of([0])
