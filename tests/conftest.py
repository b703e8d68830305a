"""What every test rests on."""

import signal

import hypothesis

# how long an example takes says nothing on a machine that does other things besides
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_configure():
    """A shell that starts us in the background lets us ignore SIGINT, and so would each program that we start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
