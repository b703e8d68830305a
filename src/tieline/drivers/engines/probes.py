"""Short measurements of this machine: what its cores, memory and disk do, each in a fraction of a second.

The readings say what a task of plain code can expect, not the hardware's peak: SHA-256 for cores (no
library hides the clock speed; OpenSSL releases the interpreter's lock, so threads count), a large copy for memory, a
written, synced and read file for the disk. Names carry the unit last. All are measured 实测.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable

CPU_S = 0.12
BLOCK = b"\x5a" * 262_144  # large enough that threads seldom ask for the interpreter
MEMORY_BYTES = 1 << 26
DISK_BYTES = 1 << 24
DISK_MOST_S = 0.15  # of the written part


def measure(folder: str, core_count: int = 0) -> dict[str, int]:
    """All probes in about half a second. ``folder`` lies on the disk that runs will use.

    A probe that cannot be made is absent: unknown never counts as good.
    """
    cores = core_count or len(os.sched_getaffinity(0))
    readings = {"cpu_single_bps": cpu_bps(1), "cpu_all_bps": cpu_bps(cores), "memory_copy_bps": memory_bps()}
    with contextlib.suppress(OSError):
        written, read = disk_bps(folder)
        readings |= {"disk_write_bps": written, "disk_read_bps": read}
    return readings


def cpu_bps(threads: int, clock: Callable[[], float] = time.perf_counter) -> int:
    """Bits that ``threads`` threads hash with SHA-256 in a second, together."""
    counts = [0] * threads
    end = clock() + CPU_S

    def work(number: int) -> None:
        done = 0
        while clock() < end:
            hashlib.sha256(BLOCK)
            done += 1
        counts[number] = done

    began = clock()
    helpers = [threading.Thread(target=work, args=(number,)) for number in range(1, threads)]
    for helper in helpers:
        helper.start()
    work(0)
    for helper in helpers:
        helper.join()
    return int(sum(counts) * len(BLOCK) * 8 / (clock() - began))


def memory_bps(clock: Callable[[], float] = time.perf_counter) -> int:
    """Bits that one core copies in a second from memory to memory: the best of three copies of 64 MiB."""
    source = bytearray(MEMORY_BYTES)
    target = bytearray(MEMORY_BYTES)
    best = float("inf")
    for _ in range(3):
        began = clock()
        target[:] = source
        best = min(best, clock() - began)
    return int(MEMORY_BYTES * 8 / best)


def disk_bps(folder: str, clock: Callable[[], float] = time.perf_counter) -> tuple[int, int]:
    """Bits written (and synced) and read back in a second, 16 MiB at most. Raises OSError.

    Reading asks the kernel to forget its copy first; where it does not, the figure is that of its cache.
    """
    piece = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-", buffering=0) as file:
        began, written = clock(), 0
        while written < DISK_BYTES and clock() - began < DISK_MOST_S:
            written += file.write(piece)
            os.fdatasync(file.fileno())
        write_s = clock() - began
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        began = clock()
        while file.read(1 << 20):
            pass
        read_s = clock() - began
    return int(written * 8 / write_s), int(written * 8 / max(read_s, 1e-9))
