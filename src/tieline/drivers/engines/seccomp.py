"""A seccomp filter for sandboxed tasks: system calls that no batch work needs and that reach deep into the kernel.

Denied: mounting, new user namespaces (which would give the calls behind them back), kernel modules, BPF, performance
counters, userfaultfd, io_uring, the kernel's key rings (a task inherits the site's), and typing into a terminal. The
program is classic BPF as the kernel's `seccomp_filter.rst` describes it; system call numbers are those of
`asm/unistd_64.h` and `asm-generic/unistd.h`.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import NamedTuple

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|JGE|JSET|K, BPF_RET|K
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT, SECOND_ARGUMENT_AT = 0, 4, 16, 24  # struct seccomp_data, low words
NEW_USER = 0x10000000  # CLONE_NEWUSER
X32_BIT = 0x40000000
TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX


class Machine(NamedTuple):
    """One architecture's numbers."""

    audit: int  # AUDIT_ARCH_*
    denied: tuple[int, ...]
    clone: int
    unshare: int
    ioctl: int


# keyctl add_key request_key bpf perf_event_open userfaultfd kexec_load kexec_file_load init_module finit_module
# delete_module mount umount2 pivot_root setns, then open_tree .. fspick and mount_setattr, the same everywhere
NEW_MOUNTS = (428, 429, 430, 431, 432, 433, 442)
ABSENT = (
    435,
    425,
    426,
    427,
)  # clone3 (its flags lie in memory) and io_uring: callers fall back when told "no such call"
MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        (250, 248, 249, 321, 298, 323, 246, 320, 175, 313, 176, 165, 166, 155, 308, *NEW_MOUNTS),
        clone=56,
        unshare=272,
        ioctl=16,
    ),
    "aarch64": Machine(
        0xC00000B7,
        (219, 217, 218, 280, 241, 282, 104, 294, 105, 273, 106, 40, 39, 41, 268, *NEW_MOUNTS),
        clone=220,
        unshare=97,
        ioctl=29,
    ),
}


def program(machine: str = "") -> bytes:
    """The filter for this architecture (default: this machine's); empty where its numbers are not known here."""
    known = MACHINES.get(machine or platform.machine())
    if known is None:
        return b""
    denied, absent = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
    steps = [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUAL, 1, 0, known.audit), (RETURN, 0, 0, absent)]
    steps += [(LOAD, 0, 0, NUMBER_AT), (AT_LEAST, 0, 1, X32_BIT), (RETURN, 0, 0, absent)]
    for number in known.denied:
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, denied)]
    for number in ABSENT:
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, absent)]
    for number in (known.clone, known.unshare):
        steps += [(EQUAL, 0, 4, number), (LOAD, 0, 0, FIRST_ARGUMENT_AT), (ANY_BIT, 0, 1, NEW_USER)]
        steps += [(RETURN, 0, 0, denied), (RETURN, 0, 0, ALLOW)]
    steps += [(EQUAL, 0, 5, known.ioctl), (LOAD, 0, 0, SECOND_ARGUMENT_AT)]
    steps += [(EQUAL, 1, 0, TERMINAL_INPUT[0]), (EQUAL, 0, 1, TERMINAL_INPUT[1]), (RETURN, 0, 0, denied)]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
