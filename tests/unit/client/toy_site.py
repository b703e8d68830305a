"""A site that really runs what it is offered, as a plain process, for the tests of the SDK and the command line."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

import httpx
import msgspec
from api_world import Site, World

from tieline.model.protocol import Ask, Offer, Orders, Stop


class ToySite:
    """Answers offers, questions and stops of one site; `counter_micro_cny` is what it counters every question with."""

    def __init__(self, world: World, owner: str = "lab7", name: str = "gz1", **pool: object) -> None:
        self.site: Site = world.site(owner, name, **pool)
        self.id, self.prefix, self.key = self.site.id, self.site.prefix, self.site.key
        self.counter_micro_cny = 0
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: set[str] = set()
        self.is_over = threading.Event()
        self.workers: list[threading.Thread] = []
        self.http = httpx.Client(
            base_url=world.url, headers={"Authorization": f"Bearer {self.site.welcome.bearer}"}, timeout=30
        )
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def stop(self) -> None:
        self.is_over.set()
        for run in list(self.processes):
            self._end(run)
        for worker in self.workers:
            worker.join(10)
        self.thread.join(10)
        self.http.close()

    def _end(self, run: str) -> None:
        if run in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.processes[run].pid, signal.SIGTERM)

    def _listen(self) -> None:
        """Reconnects every moment, so that `stop` is seen."""
        patience = httpx.Timeout(5, read=0.2)
        while not self.is_over.is_set():
            path = f"/v1/site/stream?after={self.site.welcome.cursor}"
            with (
                contextlib.suppress(httpx.HTTPError, RuntimeError),
                self.http.stream("GET", path, timeout=patience) as answer,
            ):
                self._take(answer)

    def _take(self, answer: httpx.Response) -> None:
        for line in answer.iter_lines():
            if line.startswith("id:"):
                self.site.welcome = msgspec.structs.replace(self.site.welcome, cursor=int(line[3:].strip()))
            if not line.startswith("data:"):
                continue
            order = msgspec.json.decode(line[5:], type=Orders)
            if isinstance(order, Offer):
                self.workers.append(threading.Thread(target=self._run, args=(order,)))
                self.workers[-1].start()
            elif isinstance(order, Ask):
                self._quote(order)
            elif isinstance(order, Stop):
                self.stopped.add(order.run)
                self._end(order.run)

    def _report(self, *reports: dict[str, object]) -> None:
        answer = self.http.post("/v1/site/reports", json={"reports": list(reports)})
        assert answer.status_code == 200, answer.text

    def _quote(self, order: Ask) -> None:
        price = self.counter_micro_cny or order.price_micro_cny_per_unit_hour
        said = {"quote": order.quote, "price_micro_cny_per_unit_hour": price, "duration_s": order.duration_s or 3600}
        self._report({"report": "quoted", "ttl_s": 60, **said})

    def _run(self, order: Offer) -> None:
        named = {"run": order.run, "epoch": order.epoch}
        self._report(
            {"report": "accepted", "sandbox": "none", "network": "host", **named}, {"report": "started", **named}
        )
        with tempfile.TemporaryDirectory(prefix="toy-site-") as folder:
            self._unpack(order, Path(folder))
            environment = {**os.environ, **order.task.envs, "TIELINE_PYTHON": sys.executable}
            process = subprocess.Popen(
                ["/bin/sh", "-c", order.task.run],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.processes[order.run] = process
            if order.run in self.stopped:
                self._end(order.run)
            said = process.communicate()[0]
            for node in range(order.task.nodes):
                self._log(order.run, node, said)
            outputs = self._outputs(order, Path(folder))
        code = process.returncode
        state = "stopped" if code == -15 else "failed" if code else "succeeded"
        codes = [code] * order.task.nodes
        self._report(
            {"report": "ended", "state": state, "exit_codes": codes, "duration_ms": 1500, "outputs": outputs, **named}
        )

    def _unpack(self, order: Offer, folder: Path) -> None:
        for mount in [each for each in (order.task.workdir, *order.task.mounts) if each is not None]:
            content = self.http.get(f"/v1/blobs/{mount.sha256}").content
            if mount.is_archive:
                with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                    archive.extractall(folder / mount.path, filter="data")
            else:
                (folder / mount.path).parent.mkdir(parents=True, exist_ok=True)
                (folder / mount.path).write_bytes(content)

    def _log(self, run: str, node: int, said: bytes) -> None:
        if said:
            headers = {"Content-Type": "application/octet-stream"}
            answer = self.http.post(f"/v1/site/runs/{run}/log?node={node}&offset=0", content=said, headers=headers)
            assert answer.status_code == 200, answer.text

    def _outputs(self, order: Offer, folder: Path) -> list[dict[str, object]]:
        found = []
        for pattern in order.task.outputs:
            for path in sorted(folder.glob(pattern)):
                answer = self.http.post(
                    "/v1/blobs", content=path.read_bytes(), headers={"Content-Type": "application/octet-stream"}
                )
                assert answer.status_code == 201, answer.text
                found.append({"path": str(path.relative_to(folder)), **answer.json()})
        return found
