"""What every test rests on."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

HERE = Path(__file__).parent

# How long an example takes says nothing on a machine that does other things besides. Where a change waits for the
# answer the examples are the same every time; else they are others, and a failure prints what repeats it.
hypothesis.settings.register_profile("patient", deadline=None, derandomize=False, print_blob=True)
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("same" if os.environ.get("CI") else "patient")


def pytest_configure():
    """A shell that starts us in the background lets us ignore SIGINT, and so would each program that we start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Where two run at a time, a file stays with one, and so does all of `tests/real`: it starts processes."""
    for item in items:
        place = item.path.relative_to(HERE)
        item.add_marker(pytest.mark.xdist_group(place.parts[0] if place.parts[0] == "real" else str(place)))
