"""What a solver prints from C is no data."""

import subprocess
import sys

TALK = """
import ctypes, sys
from tieline.cli.solver import solving
print("before")
with solving():
    ctypes.CDLL(None).puts(b"noise of C")
    try:
        with solving():
            raise KeyError
    except KeyError:
        pass
print("after")
"""


def test_what_c_prints_while_solving_is_on_stderr_and_all_else_in_its_place():
    done = subprocess.run([sys.executable, "-c", TALK], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "noise of C\n"
