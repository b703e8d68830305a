"""One exchange with 3,500 sites, 1,000,000 records and 1,000,000 queued jobs.

The exchange is the process that `tieline up` starts. Its store is filled as its own projections write it
(`bench.scale_world`); from then on everything is real: processes of light sites dial out, prove their keys, hold a
stream each, beat, accept what fits and say that it runs (`bench.light_sites`); users submit over HTTP. The exchange is
stopped, filled with the many jobs, started, killed and started again.

    python -m bench.exchange_scale [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

import msgspec

from bench.row import Row
from bench.scale_world import FULL, PREFIX, QUICK, TOKEN, Size, fill, task_of, with_jobs
from tieline.model.api import JobsBody

ROOT = Path(__file__).parents[1]
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
FEW_JOBS = 5  # for each site, at the first start: more than there is room for
SUBMITS = 400
START_S = 300.0
SITES_S = 300.0
CPU_S = 10.0
NOTHING_SAID = {"connected": 0, "runs": 0, "slowest_ms": 0}


class Process:
    """The exchange of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "address").unlink(missing_ok=True)
        self.log = open(folder / "exchange.log", "ab")  # noqa: SIM115 - closed with the process
        self.began_s = time.monotonic()
        command = [sys.executable, "-m", "tieline.cli", "exchange-process", str(folder), "--prefix", PREFIX]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd=ROOT)

    @property
    def url(self) -> str:
        """Where it answers."""
        return (self.folder / "address").read_text()

    def ready_s(self) -> float:
        """Seconds from its start until it takes changes."""
        self._wait("/readyz", None)
        return time.monotonic() - self.began_s

    def found_s(self) -> float:
        """Seconds from its start until `find` is answered."""
        self._wait("/v1/find", json.dumps({"query": "cores >= 1", "limit": 1}).encode())
        return time.monotonic() - self.began_s

    def _wait(self, path: str, body: bytes | None) -> None:
        until = time.monotonic() + START_S
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"the exchange ended with {self.process.returncode}: see {self.log.name}")
            try:
                self.ask(path, body)
            except (OSError, urllib.error.URLError) as error:
                is_wrong = isinstance(error, urllib.error.HTTPError) and error.code not in (429, 503)
                if is_wrong or time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                return

    def ask(self, path: str, body: bytes | None = None) -> bytes:
        """The answer to one request. Raises URLError."""
        head = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        request = urllib.request.Request(self.url + path, data=body, headers=head)
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: bytes = answer.read()
            return content

    @property
    def memory_bytes(self) -> int:
        """Resident memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    @property
    def cpu_s(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def end(self, number: int) -> None:
        """Stop or kill it."""
        self.process.send_signal(number)
        self.process.wait(120)
        self.log.close()


class Sites:
    """Light sites in two processes."""

    def __init__(self, url: str, count: int, folder: Path) -> None:
        self.count = count
        self.files = [folder / f"sites{part}.log" for part in (0, 1)]
        half = count // 2
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.light_sites", url, str(first), str(size)],
                stdout=open(file, "wb"),  # noqa: SIM115 - inherited
                cwd=ROOT,
            )
            for file, first, size in zip(self.files, (0, half), (half, count - half), strict=True)
        ]

    def said(self) -> list[dict[str, float]]:
        """The newest line of each."""
        found = []
        for file in self.files:
            lines = file.read_bytes().split(b"\n")[:-1]
            found.append(json.loads(lines[-1]) if lines else NOTHING_SAID)
        return found

    def sum(self, name: str) -> int:
        """Over both."""
        return int(sum(one[name] for one in self.said()))

    def settled_s(self) -> float:
        """Seconds until all are connected and nothing new has begun to run for 5 s."""
        began = time.monotonic()
        runs, since = -1, began
        while time.monotonic() - began < SITES_S:
            now = self.sum("runs")
            if now != runs or self.sum("connected") < self.count:
                runs, since = now, time.monotonic()
            if time.monotonic() - since > 5.0:
                return time.monotonic() - began
            time.sleep(0.25)
        raise AssertionError(f"{self.sum('connected')} of {self.count} sites are connected: {self.said()}")

    def back_s(self) -> float:
        """Seconds until all are connected."""
        began = time.monotonic()
        while self.sum("connected") < self.count:
            if time.monotonic() - began > SITES_S:
                raise AssertionError(f"{self.sum('connected')} of {self.count} sites came back")
            time.sleep(0.1)
        return time.monotonic() - began

    def end(self) -> None:
        """Stop them."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)


class Seen(msgspec.Struct, kw_only=True):
    """What one stage showed."""

    ready_s: float
    idle_bytes: int
    full_bytes: int
    queued: int
    running: int
    p50_ms: float
    p99_ms: float
    cpu: float  # cores, with all sites connected and nothing else going on


def started(exchange: Process) -> tuple[float, int]:
    """Seconds until it takes changes, and its memory once it answers everything."""
    ready_s = exchange.ready_s()
    exchange.found_s()
    return ready_s, exchange.memory_bytes


def stage(exchange: Process, sites: Sites, ready_s: float, idle_bytes: int) -> Seen:
    """Sites connect and take what fits; then users submit."""
    sites.settled_s()
    began, cpu_s = time.monotonic(), exchange.cpu_s
    time.sleep(CPU_S)
    cpu = (exchange.cpu_s - cpu_s) / (time.monotonic() - began)
    full_bytes = exchange.memory_bytes
    times_ms = sorted(submit_ms(exchange, number) for number in range(SUBMITS))
    jobs = json.loads(exchange.ask("/v1/status"))["jobs"]
    seen = Seen(
        ready_s=ready_s,
        idle_bytes=idle_bytes,
        full_bytes=full_bytes,
        queued=jobs["queued"],
        running=jobs["running"],
        p50_ms=median(times_ms),
        p99_ms=times_ms[int(len(times_ms) * 0.99)],
        cpu=cpu,
    )
    print(f"  {seen}", file=sys.stderr, flush=True)
    return seen


def submit_ms(exchange: Process, number: int) -> float:
    """Milliseconds until one submission is acknowledged."""
    body = msgspec.json.encode(JobsBody(tasks=(task_of(number % 8, f"extra{number}"),)))
    began = time.perf_counter()
    exchange.ask("/v1/jobs", body)
    return (time.perf_counter() - began) * 1_000


def run(*, is_quick: bool = False) -> list[Row]:
    """The rows."""
    size = QUICK if is_quick else FULL
    folder = Path(tempfile.mkdtemp(prefix="tieline-scale-"))
    exchange: Process | None = None
    sites: Sites | None = None
    try:
        now_ms = time.time_ns() // 1_000_000
        few = FEW_JOBS * size.sites
        began = time.monotonic()
        fill(folder, Size(size.sites, size.records, few), now_ms)
        print(f"  filled in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        exchange = Process(folder)
        ready = started(exchange)
        sites = Sites(exchange.url, size.sites, folder)
        before = stage(exchange, sites, *ready)
        sites.end()
        exchange.end(signal.SIGTERM)
        with_jobs(folder, size.jobs, now_ms, few)
        exchange = Process(folder)
        ready = started(exchange)
        sites = Sites(exchange.url, size.sites, folder)
        after = stage(exchange, sites, *ready)
        exchange.end(signal.SIGKILL)
        exchange = Process(folder)
        again_s = exchange.ready_s()
        back_s = sites.back_s()
        slowest_ms = max(one["slowest_ms"] for one in sites.said())
        found_s = exchange.found_s()
        return rows(size, before, after, (again_s, back_s, found_s, slowest_ms))
    finally:
        if sites is not None:
            sites.end()
        if exchange is not None and exchange.process.poll() is None:
            exchange.end(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def rows(size: Size, before: Seen, after: Seen, again: tuple[float, float, float, float]) -> list[Row]:
    """Figures beside targets."""
    again_s, back_s, found_s, slowest_ms = again
    more = after.queued - before.queued
    job_bytes = (after.idle_bytes - before.idle_bytes) / max(1, more)
    site_bytes = (before.full_bytes - before.idle_bytes) / size.sites
    return [
        Row(
            claim=f"exchange_scale: memory of a site, {size.sites:,} with a stream each",
            figure=site_bytes / 1_000,
            unit="KB",
            target="100 KB",
            note=f"with {before.running:,} runs; {before.cpu:.2f} cores for all heartbeats",
        ),
        Row(
            claim=f"exchange_scale: resident memory of a queued job, {after.queued:,} queued",
            figure=job_bytes / 1_000,
            unit="KB",
            target="1 KB",
            note=f"whole process {after.full_bytes / 2**20:,.0f} MiB with {size.records:,} records",
        ),
        Row(
            claim=f"exchange_scale: submit, p99, {after.queued:,} queued",
            figure=after.p99_ms,
            unit="ms",
            anchor=before.p99_ms,
            anchor_name=f"with {before.queued:,} queued",
            ratio=after.p99_ms / before.p99_ms,
            target="flat",
            note=f"p50 {after.p50_ms:.1f} ms against {before.p50_ms:.1f} ms; {SUBMITS} one after the other",
        ),
        Row(
            claim="exchange_scale: killed and started again until it takes changes",
            figure=again_s,
            unit="s",
            target="20 s",
            note=f"after a stop {after.ready_s:.1f} s; with {before.queued:,} queued {before.ready_s:.1f} s; "
            f"find answered after {found_s:.0f} s",
        ),
        Row(
            claim="exchange_scale: from then until all sites are back",
            figure=back_s,
            unit="s",
            target="30 s",
            note=f"slowest heartbeat just then {slowest_ms:,.0f} ms",
        ),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of everything")
    from bench.__main__ import drawn

    print(drawn(run(is_quick=parser.parse_args().quick)))
