"""What starting the command line costs: user CPU of `tieline --version` and of `tieline ps` against a running exchange.

The anchors are published figures of other tools (they are not installed here), `--version` on a comparable machine: ray
0.84 s, dstack 1.09 s, sky 1.74 s. `tieline ps` is answered by a small HTTP server with 50 jobs in the
measuring process, so that only the command line is counted.
"""

from __future__ import annotations

import http.server
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from statistics import median

import msgspec

from bench.row import Row
from tieline.model.api import JobPage
from tieline.model.job import Job, JobState
from tieline.model.task import Task

RUNS = 9
ANCHOR_S = 0.84
JOBS = 50


def run() -> list[Row]:
    """Three rows: the version, the help, and a list of jobs."""
    jobs = tuple(
        Job(
            id=f"cn.demo/job/j-{number:010}", user="alice", state=JobState.SUCCEEDED, task=Task(run="x"), submitted_ms=1
        )
        for number in range(JOBS)
    )
    page = msgspec.json.encode(JobPage(jobs=jobs, next_before=""))

    class Exchange(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exchange) as server, tempfile.TemporaryDirectory() as home:
        threading.Thread(target=server.serve_forever).start()
        environment = {
            **os.environ,
            "TIELINE_HOME": home,
            "TIELINE_EXCHANGE": f"http://127.0.0.1:{server.server_address[1]}",
        }
        try:
            return [
                _row("tieline --version", ["--version"], environment, "0.15 s"),
                _row("tieline --help", ["--help"], environment, "0.15 s"),
                _row("tieline ps", ["ps"], environment, "0.3 s"),
            ]
        finally:
            server.shutdown()


def _row(claim: str, words: list[str], environment: dict[str, str], target: str) -> Row:
    turns = [_spent(words, environment) for _ in range(RUNS + 1)][1:]  # the first one writes bytecode
    user_s, wall_s = (median(column) for column in zip(*turns, strict=True))
    return Row(
        claim=f"cli_start: {claim}, user CPU",
        figure=user_s,
        unit="s",
        anchor=ANCHOR_S,
        anchor_name="ray --version (published)",
        ratio=user_s / ANCHOR_S,
        target=target,
        note=f"{wall_s:.2f} s wall, median of {RUNS}; published: dstack 1.09, sky 1.74",
    )


def _spent(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """User CPU and wall seconds of one start."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, time.perf_counter()
    code = "import sys; from tieline.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", code, *words], env=environment, stdout=subprocess.DEVNULL, check=True)
    wall_s = time.perf_counter() - began
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, wall_s
