"""The sandbox: bubblewrap around a task, which sees the machine's programs and nothing of the site or its neighbours.

What a task gets: the root file system read-only; its own process, IPC and host name space; a private /dev, /proc, /tmp
and /dev/shm; its work folder, writable; an empty tmpfs over home folders, /run and whatever the site hides; user 65534
without capabilities and without a way to gain any; a seccomp filter; and, where ``network`` is ``none``, no network.

Two ways to user 65534. As root, bubblewrap mounts as root and `setpriv` then becomes a user that owns nothing here, so
root's files are as closed to a task as to any stranger. As an ordinary user, a user namespace shows 65534 while the
kernel still sees the site's user: what that user owns outside the hidden folders stays readable.

``--die-with-parent`` is not used: a run outlives the site process. Everything inside dies with the init of its process
namespace, which the wrapper and the engine kill when the run has ended.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tieline.model.accelerators import VENDORS

NOBODY = 65_534
TRIAL_S = 10.0
ALWAYS_HIDDEN = ("/root", "/home", "/run", "/mnt", "/media", "/srv")
OWN_DEVICES = ("/dev", "/dev/shm")  # noqa: S108 - inside
RESOLVER = "/run/systemd/resolve"  # where /etc/resolv.conf points on many systems
SETPRIV_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")

# Device files of a vendor: of one device ({index}), and those that all share.
DEVICE_FILES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nvidia": (
        ("/dev/nvidia{index}",),
        ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset", "/dev/nvidia-caps"),
    ),
    "amd": ((), ("/dev/kfd", "/dev/dri")),
    "huawei": (("/dev/davinci{index}",), ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")),
    "cambricon": (("/dev/cambricon_dev{index}",), ("/dev/cambricon_ctl",)),
    "hygon": ((), ("/dev/kfd", "/dev/mkfd", "/dev/dri")),
    "moore-threads": (("/dev/mtgpu.{index}",), ("/dev/dri",)),
    "metax": ((), ("/dev/mxcd", "/dev/dri")),
    "kunlunxin": (("/dev/xpu{index}",), ("/dev/xpuctrl",)),
    "iluvatar": (("/dev/iluvatar{index}",), ()),
    "intel": ((), ("/dev/dri",)),
}


@dataclass(frozen=True, kw_only=True)
class View:
    """What one task may see and do inside its sandbox. Paths are absolute."""

    work: str
    temporary: str
    scripts: Sequence[str] = ()  # files, read-only
    network: str = "none"  # none or host
    readable: Sequence[str] = ()  # more folders, read-only, also below a hidden one
    laid: Sequence[tuple[str, str]] = ()  # (file or folder, where in the work folder it is seen, read-only)
    hidden: Sequence[str] = ()  # more folders of which a task sees nothing
    devices: Sequence[str] = ()  # device files
    shared_bytes: int = 0  # most of /dev/shm; 0: what the kernel gives
    is_filtered: bool = False  # a seccomp filter stands ready on descriptor 9


@dataclass(frozen=True)
class Sandbox:
    """Whether bubblewrap works here, found by running it, and how."""

    program: str = ""
    version: str = ""
    setpriv: str = ""  # set where the site runs as root
    networks: tuple[str, ...] = ()
    why_not: dict[str, str] = field(default_factory=dict)  # network -> why it does not work

    @property
    def works(self) -> bool:
        """Whether any sandbox can be offered."""
        return bool(self.networks)

    def command(self, view: View) -> list[str]:
        """The argument vector up to and with ``--``; the caller appends the program. No secret is in it.

        Descriptor 4 must be open for writing: bubblewrap tells there which process is the init inside.
        """
        words = [self.program, "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        words += ["--hostname", "run", "--new-session", "--info-fd", "4", "--cap-drop", "ALL"]
        if view.network != "host":
            words.append("--unshare-net")
        if self.setpriv:
            for capability in SETPRIV_CAPABILITIES:
                words += ["--cap-add", capability]
        else:
            words += ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
        words += ["--ro-bind", "/", "/", "--dev", "/dev"]
        for device in view.devices:
            words += ["--dev-bind-try", device, device]
        if view.shared_bytes:
            words += ["--size", str(view.shared_bytes)]
        words += ["--perms", "1777", "--tmpfs", "/dev/shm", "--proc", "/proc"]  # noqa: S108 - inside
        words += _mounts(view)
        words += ["--chdir", "/"]  # the task's shell goes on to its work folder, as the user that owns it
        if view.is_filtered:
            words += ["--seccomp", "9"]
        words.append("--")
        if self.setpriv:
            groups = sorted({path.stat().st_gid for path in map(Path, view.devices) if path.exists()} - {0})
            words += [self.setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--no-new-privs"]
            words += [f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"]
            words += ["--bounding-set=-all", "--inh-caps=-all"]
        return words


def device_files(vendor: str, devices: Iterable[int]) -> tuple[str, ...]:
    """The device files of this vendor that a task with these devices needs, as far as they are here."""
    own, shared = DEVICE_FILES.get(VENDORS.get(vendor, vendor), ((), ()))
    indices = list(devices)
    names = [name.format(index=index) for index in indices for name in own] + list(shared if indices else ())
    return tuple(name for name in names if Path(name).exists())


def has_own_files(vendor: str, devices: Iterable[int]) -> bool:
    """Whether each of these devices has a file of its own here, so that a sandbox shows just these."""
    own, _ = DEVICE_FILES.get(VENDORS.get(vendor, vendor), ((), ()))
    names = [name.format(index=index) for index in devices for name in own]
    return bool(names) and all(Path(name).exists() for name in names)


def _mounts(view: View) -> list[str]:
    """Shallow paths first: what is deeper is seen through what hides its parents. The task's own folders come last."""
    wanted: dict[str, tuple[str, ...]] = {}
    for path in (*ALWAYS_HIDDEN, str(Path.home()), *view.hidden):
        real = _real_folder(path)
        if real and real != "/":
            wanted[real] = ("--perms", "0755", "--tmpfs", real)
    for path in ("/tmp", "/var/tmp"):  # noqa: S108 - inside
        if _is_folder(path):
            wanted[path] = ("--bind", view.temporary, path)
    covers = {*wanted, *OWN_DEVICES}
    if view.network == "host" and _is_folder(RESOLVER):
        wanted[RESOLVER] = ("--ro-bind", RESOLVER, RESOLVER)
    for path in view.readable:
        real = _real_folder(path) or os.path.realpath(path)
        if real != "/" and real != "/tmp":  # noqa: S108
            wanted[real] = ("--ro-bind-try", real, real)
            covers.discard(real)
    ordered = [(path, wanted[path]) for path in sorted(wanted, key=lambda path: (path.count("/"), path))]
    ordered += [(path, ("--ro-bind", path, path)) for path in view.scripts]
    ordered += [(path, ("--bind", path, path)) for path in (view.temporary, view.work)]
    words: list[str] = []
    made = {*wanted, *OWN_DEVICES}
    for path, mount in ordered:
        for parent in _parents(path, covers):
            if parent not in made:
                made.add(parent)
                words += ["--perms", "0755", "--dir", parent]  # passable for user 65534
        words += mount
    for source, target in view.laid:  # the site made the place of each
        words += ["--ro-bind", source, target]
    for path in (*(path for path in wanted if "--tmpfs" in wanted[path]), "/dev"):
        words += ["--remount-ro", path]  # what hides something is not a place to fill memory with
    return words


def _parents(path: str, covers: set[str]) -> list[str]:
    """The folders above ``path`` that are not there any more because one above them is covered."""
    names = path.split("/")
    above = ["/", *("/".join(names[:depth]) for depth in range(2, len(names)))]
    covered = [index for index, parent in enumerate(above) if parent in covers]
    return above[covered[-1] + 1 :] if covered else []


_seen: dict[str, str] = {}  # folders of the host that were found, by the path that was asked for; they seldom move


def _real_folder(path: str) -> str:
    """The folder that ``path`` leads to; empty where there is none. Only what was found is remembered, and little."""
    real = _seen.get(path)
    if real is None:
        real = os.path.realpath(path)
        if not _is_folder(real):
            return ""
        if len(_seen) < 256:
            _seen[path] = real
    return real


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:
        return False


@lru_cache(maxsize=1)
def found() -> Sandbox:
    """Look for bubblewrap and run it once per network, exactly as a task would be run. Cached for the process."""
    program = shutil.which("bwrap") or ""
    if not program:
        why = "bubblewrap is not installed (Debian: `apt-get install bubblewrap`)"
        return Sandbox(why_not={"none": why, "host": why})
    setpriv = ""
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv") or ""
        if not setpriv:
            why = "the site runs as root and `setpriv` (util-linux) is not installed"
            return Sandbox(program=program, why_not={"none": why, "host": why})
    candidate = Sandbox(program=program, setpriv=setpriv)
    why_not = {network: why for network in ("none", "host") if (why := _trial(candidate, network))}
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=TRIAL_S, check=False)
    return Sandbox(
        program=program,
        version=version.stdout.strip(),
        setpriv=setpriv,
        networks=tuple(network for network in ("none", "host") if network not in why_not),
        why_not=why_not,
    )


async def boxed() -> bool:
    """Whether a sandbox works here, asked without holding up the event loop."""
    return (await asyncio.to_thread(found)).works


def _trial(candidate: Sandbox, network: str) -> str:
    """Why a sandbox with this network does not work here; empty when it does."""
    with tempfile.TemporaryDirectory(prefix="tieline-trial-") as folder:
        work, temporary = (Path(folder, name) for name in ("work", "tmp"))
        for path in (work, temporary):
            path.mkdir()
            if candidate.setpriv:
                os.chown(path, NOBODY, NOBODY)
        view = View(work=str(work), temporary=str(temporary), network=network)
        proof = (
            'cd "$0" && test "$(id -u)" = 65534 && test ! -w /etc && : >proof && : >/tmp/proof && test -d /proc/self'
        )
        words = [
            "/bin/sh",
            "-c",
            'exec "$@" 4>"$0"',
            f"{folder}/info",
            *candidate.command(view),
            "/bin/sh",
            "-c",
            proof,
            view.work,
        ]
        try:
            trial = subprocess.run(words, capture_output=True, text=True, timeout=TRIAL_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{candidate.program} could not be run: {error}"
        if trial.returncode == 0:
            return ""
        said = (trial.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
        return f"{candidate.program} ended with exit code {trial.returncode}: {said}"
