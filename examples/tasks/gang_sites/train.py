"""Data-parallel training over plain sockets: every node has its own samples, and all learn the same weights.

The nodes stand in a ring: each listens at its address and sends to the next one. Gradients go around by ring
all-reduce, in two rounds: in the first every node sums up one part of the vector, in the second the sums are passed on.
Which nodes stand at which site makes no difference here: TIELINE_NODE_IPS says where each of them is reached.
After each step the first node keeps the weights; after a loss every node goes on from there.
Fails unless the weights come out as they went into the samples, and the same at every node.
"""

import json
import os
import random
import signal
import socket
import struct
import time
from pathlib import Path

RANK, SIZE = int(os.environ["TIELINE_NODE_RANK"]), int(os.environ["TIELINE_NUM_NODES"])
ADDRESSES = os.environ["TIELINE_NODE_IPS"].split()
PORT = int(os.environ.get("RING_PORT", "29500"))
STEPS, PAUSE_S = int(os.environ.get("STEPS", "60")), float(os.environ.get("PAUSE_S", "0"))
PATIENCE_S = 120  # nodes of several sites start seconds apart
KEPT = Path(os.environ.get("TIELINE_CHECKPOINT_DIR", "."), "weights.json")
TRUTH = (3.0, -2.0, 0.5, 7.0, -1.25, 4.0, 0.0, 2.5)
SAMPLES, RATE, CLOSE = 400, 0.5, 1e-6


class Ring:
    """A connection from the node before, and one to the node after."""

    def __init__(self) -> None:
        self.server = socket.create_server((ADDRESSES[RANK], PORT))
        self.server.settimeout(PATIENCE_S)
        self.after = self.before = self.server
        if SIZE > 1:
            if RANK == 0:  # one node begins, and each waits for the node before it
                self.after = self.called()
                self.before, _ = self.server.accept()
                self.before.sendall(b"!")
            else:
                self.before, _ = self.server.accept()
                self.before.sendall(b"!")
                self.after = self.called()

    def called(self) -> socket.socket:
        """The next node, once it answers: a connection may stand before anybody listens at its other end."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                there = socket.create_connection((ADDRESSES[(RANK + 1) % SIZE], PORT), timeout=PATIENCE_S)
                if there.recv(1) == b"!":
                    there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return there
                there.close()
            except OSError:
                pass
            time.sleep(0.2)
        raise SystemExit(f"node {RANK}: node {(RANK + 1) % SIZE} was never there")

    def swapped(self, values: list[float]) -> list[float]:
        """Give ``values`` to the next node; what the node before gives."""
        self.after.sendall(struct.pack(f"!I{len(values)}d", len(values), *values))
        (count,) = struct.unpack("!I", self.exactly(4))
        return list(struct.unpack(f"!{count}d", self.exactly(8 * count)))

    def exactly(self, count: int) -> bytes:
        """So many bytes of the node before."""
        kept = b""
        while len(kept) < count:
            more = self.before.recv(count - len(kept))
            if not more:
                raise SystemExit(f"node {RANK}: the node before is gone")
            kept += more
        return kept

    def summed(self, values: list[float]) -> list[float]:
        """The sum over all nodes, the same to the last bit at each of them."""
        parts = [values[part::SIZE] for part in range(SIZE)]
        for step in range(SIZE - 1):
            got = self.swapped(parts[(RANK - step) % SIZE])
            mine = (RANK - step - 1) % SIZE
            parts[mine] = [a + b for a, b in zip(parts[mine], got, strict=True)]
        for step in range(SIZE - 1):
            parts[(RANK - step) % SIZE] = self.swapped(parts[(RANK - step + 1) % SIZE])
        return [parts[index % SIZE][index // SIZE] for index in range(len(values))]


def samples() -> list[tuple[list[float], float]]:
    """What this node alone has seen."""
    pick = random.Random(RANK)
    rows = [[pick.uniform(-1, 1) for _ in TRUTH] for _ in range(SAMPLES)]
    return [(row, sum(x * w for x, w in zip(row, TRUTH, strict=True))) for row in rows]


def gradient(weights: list[float], seen: list[tuple[list[float], float]]) -> list[float]:
    """Of the squared error of this node's samples; the error itself comes last."""
    total = [0.0] * (len(weights) + 1)
    for row, answer in seen:
        off = sum(x * w for x, w in zip(row, weights, strict=True)) - answer
        for index, x in enumerate(row):
            total[index] += off * x
        total[-1] += off * off
    return total


def kept() -> tuple[int, list[float]]:
    """The step to go on with, and the weights before it."""
    try:
        said = json.loads(KEPT.read_text())
    except FileNotFoundError:
        return 0, [0.0] * len(TRUTH)
    return said["step"], said["weights"]


def keep(step: int, weights: list[float]) -> None:
    """Whole or not at all: it may be copied at any moment."""
    KEPT.parent.mkdir(exist_ok=True)
    new = KEPT.with_suffix(".new")
    new.write_text(json.dumps({"step": step, "weights": weights}))
    new.replace(KEPT)


def main() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # "keep your state now": it is kept after every step
    ring, seen, (first, weights) = Ring(), samples(), kept()
    error = 0.0
    for step in range(first, STEPS):
        *slope, error = ring.summed(gradient(weights, seen))
        weights = [w - RATE * 3 * g / (SAMPLES * SIZE) for w, g in zip(weights, slope, strict=True)]
        if RANK == 0:
            keep(step + 1, weights)
        print(f"node {RANK} of {SIZE}: step {step}, error {error:.3g}", flush=True)
        time.sleep(PAUSE_S)
    others = ring.swapped(weights) if SIZE > 1 else weights
    if others != weights:
        raise SystemExit(f"node {RANK}: the node before learned something else")
    off = max(abs(w - truth) for w, truth in zip(weights, TRUTH, strict=True))
    if off > CLOSE:
        raise SystemExit(f"node {RANK}: a weight is {off:.3g} off")
    if RANK == 0:
        with open("model.json", "w") as file:
            json.dump({"weights": weights, "error": error, "nodes": SIZE, "from": first}, file)
    print(f"node {RANK} of {SIZE}: learned, every weight within {off:.1g}")


if __name__ == "__main__":
    main()
