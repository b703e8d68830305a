"""Namespaces of the kernel, held by descriptors: a network exists as long as somebody has it open.

Nothing is written outside of them, and nothing has to be cleaned up: when the process that holds them ends, the kernel
takes away the namespaces with all ports, routes and queues. `unshare(2)`, `setns(2)`; a thread may stand in a network
of its own, and a socket belongs for ever to the network in which it was made.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tieline.model.error import TielineError

NEW_USER: Final = 0x1000_0000
NEW_NET: Final = 0x4000_0000


def _call(name: str, *given: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*given) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def leave() -> None:
    """Put this process into a user namespace in which it is root, and a network of its own.

    Where root may not make a user namespace, a network alone. Must be called before any thread is started. Raises
    TielineError `lab_refused`.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        _call("unshare", NEW_USER | NEW_NET)
    except OSError as error:
        if user == 0 and _may_unshare():
            return
        raise TielineError(
            "lab_refused",
            f"this machine allows no user namespace: {error.strerror}",
            hints=("sysctl kernel.unprivileged_userns_clone user.max_user_namespaces",),
        ) from None
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _may_unshare() -> bool:
    try:
        _call("unshare", NEW_NET)
    except OSError:
        return False
    return True


def here() -> int:
    """A descriptor of the network in which this thread stands."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def made() -> int:
    """A descriptor of a new network. The thread stays where it was."""
    home = here()
    try:
        _call("unshare", NEW_NET)
        try:
            return here()
        finally:
            _call("setns", home, NEW_NET)
    finally:
        os.close(home)


@contextmanager
def inside(network: int) -> Iterator[None]:
    """Let this thread stand in another network."""
    home = here()
    try:
        _call("setns", network, NEW_NET)
        try:
            yield
        finally:
            _call("setns", home, NEW_NET)
    finally:
        os.close(home)


def join(pid: int, network: int) -> None:
    """Put this process into the user namespace of ``pid`` and into the network that it has open as ``network``.

    The process must have one thread. Raises TielineError `lab_refused`.
    """
    try:
        user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        net = os.open(f"/proc/{pid}/fd/{network}", os.O_RDONLY)
        if Path(f"/proc/{pid}/ns/user").stat().st_ino != Path("/proc/self/ns/user").stat().st_ino:
            _call("setns", user, NEW_USER)
        _call("setns", net, NEW_NET)
    except OSError as error:
        raise TielineError("lab_refused", f"the network cannot be entered: {error.strerror}") from None
