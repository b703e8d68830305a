"""Join: a program of its own (``python -I -S join.py FD``) that becomes one more process of a run.

What it is told stands as JSON in the file of descriptor FD: `tieline.drivers.engines.beside.Entry`. It enters the run's
control groups, takes the task's resource limits, enters the sandbox's name spaces, becomes the user that the task is,
gives up what the task gave up, and only then runs what somebody asked for. It imports nothing of Tieline: inside the
sandbox, nothing can be imported any more.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import termios
from typing import Any

NS_GET_PARENT = 0xB702  # <linux/nsfs.h>: the user name space above
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, SECCOMP_FILTER = 1, 4, 22, 2
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CAPABILITY_VERSION = 0x20080522
CAPABILITIES = 64
PIECE = 65_536
MISSING, DENIED = 127, 126
LIMITS = {
    "Max core file size": resource.RLIMIT_CORE,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max address space": resource.RLIMIT_AS,
    "Max processes": resource.RLIMIT_NPROC,
}
libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """The exit code of what was run; 126 where the run could not be entered."""
    number = int(sys.argv[1])
    with open(number, "rb") as file:
        entry: dict[str, Any] = json.load(file)
    try:
        for group in entry["groups"]:
            with open(f"{group}/cgroup.procs", "w") as procs:
                procs.write("0")
        limits = limits_of(entry["task"])
        if entry["init"]:
            # until something of the run's own is executed, the run must not look at us: `/proc/PID/exe` is the site's
            # interpreter, a file from outside of the sandbox
            libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
            enter(entry["init"], entry["namespace"])
    except (OSError, ValueError) as error:
        say(f"[tieline] the run cannot be entered: {error}")
        return DENIED
    child = os.fork()  # only a child is in the process name space that was entered
    if child:
        return watched(child)
    try:
        os.setsid()
        if entry["has_terminal"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for each, pair in limits:
            resource.setrlimit(each, pair)
        os.chdir(entry["folder"])
        os.umask(0o022)
        lower(entry["user"], bytes.fromhex(entry["filter"]))
        if entry["port"]:
            carry(entry["address"], entry["port"])
            os._exit(0)
        command = entry["command"]
        os.execvpe(command[0], command, entry["environment"])  # noqa: S606 - this is what was asked for
    except FileNotFoundError as error:
        say(f"[tieline] {error.filename or error}: not found")
        os._exit(MISSING)
    except OSError as error:
        say(f"[tieline] {error}")
        os._exit(DENIED)


def say(text: str) -> None:
    """A line for whoever asked."""
    os.write(2, f"{text}\n".encode("utf-8", "replace"))


def limits_of(task: int) -> list[tuple[int, tuple[int, int]]]:
    """The limits of ``task``: prlimit(2) would need a capability to read another user's."""
    found = []
    with open(f"/proc/{task}/limits") as lines:
        for line in lines:
            number = LIMITS.get(line[:26].strip())
            if number is not None:
                soft, hard = line[26:].split()[:2]
                found.append((number, (limit_of(soft), limit_of(hard))))
    return found


def limit_of(word: str) -> int:
    """One value of /proc/PID/limits."""
    return resource.RLIM_INFINITY if word == "unlimited" else int(word)


def watched(child: int) -> int:
    """The exit code of ``child``, which ends with us."""

    def end(*_: object) -> None:
        for target in (-child, child):
            try:
                os.kill(target, signal.SIGKILL)
            except ProcessLookupError:
                continue

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end)
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)  # the site process: nobody else hears what is said here
    for descriptor in (0, 1, 2):  # the ends are the child's alone: they close when it has ended
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, descriptor)
        os.close(null)
    while True:
        try:
            _, status = os.waitpid(child, 0)
        except InterruptedError:
            continue
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


def enter(init: int, namespace: int) -> None:
    """Enter the name spaces of ``init``, which must still be the process that it was. Raises OSError, ValueError."""
    opened = {name: os.open(f"/proc/{init}/ns/{name}", os.O_RDONLY) for name in ("ipc", "uts", "net", "pid", "mnt")}
    if os.fstat(opened["pid"]).st_ino != namespace:
        raise ValueError("it has ended")
    users = users_above(os.open(f"/proc/{init}/ns/user", os.O_RDONLY))
    for user in users[:1]:
        joined(user)
    for name in ("ipc", "uts", "net", "pid", "mnt"):  # those that are shared with us already are entered once more
        joined(opened[name])
    for user in users[1:]:
        joined(user)


def users_above(user: int) -> list[int]:
    """The user name spaces from the one below ours down to ``user``; none where it is ours."""
    own = os.stat("/proc/self/ns/user").st_ino  # noqa: PTH116 - a link to nowhere
    chain: list[int] = []
    while os.fstat(user).st_ino != own:
        chain.insert(0, user)
        user = fcntl.ioctl(user, NS_GET_PARENT)
    return chain


def joined(descriptor: int) -> None:
    """setns(2)."""
    if libc.setns(descriptor, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def lower(user: int, program: bytes) -> None:
    """Become ``user`` (-1: stay), without a capability and without a way to gain one, behind the task's filter."""
    if user >= 0:
        for capability in range(CAPABILITIES):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        if os.geteuid() != user:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        head = struct.pack("=II", CAPABILITY_VERSION, 0)
        if libc.capset(head, bytes(24)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError("the kernel does not promise to give no new privileges")
    if program:
        steps = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(steps))
        if libc.prctl(PR_SET_SECCOMP, SECCOMP_FILTER, fprog, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def carry(address: str, port: int) -> None:
    """Our input to a port of the node, and back, until both are over."""
    with reached(address, port) as there:
        reading = [0, there.fileno()]
        while there.fileno() in reading:
            for ready in select.select(reading, (), ())[0]:
                data = os.read(0, PIECE) if ready == 0 else there.recv(PIECE)
                if not data:
                    reading.remove(ready)
                    if ready == 0:
                        there.shutdown(socket.SHUT_WR)
                    continue
                if ready == 0:
                    there.sendall(data)
                else:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(1, view) :]


def reached(address: str, port: int) -> socket.socket:
    """A connection to where the node listens: at its own address in its gang, else at this machine's usual one."""
    for where in (address, "127.0.0.1"):  # a name would need a codec, and nothing can be imported here
        there = socket.socket()
        try:
            there.connect((where, port))
        except ConnectionRefusedError:
            there.close()
            if where == "127.0.0.1":
                raise
            continue
        return there
    raise ConnectionRefusedError


if __name__ == "__main__":
    sys.exit(main())
