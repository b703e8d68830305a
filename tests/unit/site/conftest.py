"""What the tests of a site share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path: Path) -> Iterator[None]:
    """Whatever a test leaves running below its folder is ended."""
    yield
    deadline = time.monotonic() + 30
    for path in tmp_path.rglob("identity"):
        with contextlib.suppress(OSError, ValueError):
            pid = json.loads(path.read_text().splitlines()[0])["pid"]
            while pid and not _is_gone(pid) and time.monotonic() < deadline:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                time.sleep(0.02)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with contextlib.suppress(OSError):
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return True
