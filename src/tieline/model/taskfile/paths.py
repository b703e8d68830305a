"""Paths: where a task's files are laid, and where they come from.

A run has one folder of its own, its working directory, which is also its home; a site opens nothing else to it. So a
target is a path inside that folder: relative, or below `~`. What climbs out (`..`) or starts at the root is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tieline.model.taskfile.problem import shown

MAX_PATH = 1_024
HOME_FOLDERS = ("~/sky_workdir/", "~/")  # SkyPilot's working directory, and home
BUCKET = re.compile(r"(?:s3|gs|r2|cos|oci|https?|hf|nebius|vastdata|coreweave|az|abfss?|wasbs?)://")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def inside(text: str) -> str:
    """The path of ``text`` relative to the working directory, without `.` parts; `.` is the directory itself.

    Raises ValueError that says why it cannot be laid there.
    """
    if not text or len(text.encode()) > MAX_PATH:
        raise ValueError(f"a path has 1 to {MAX_PATH:,} bytes")
    if not text.isprintable():
        raise ValueError(f"`{shown(text)}` holds a control character")
    path = text
    if path.rstrip("/") in ("~", "~/sky_workdir"):
        return "."
    for folder in HOME_FOLDERS:
        if path.startswith(folder):
            path = path.removeprefix(folder)
            break
    if path.startswith("~"):
        raise ValueError(f"`{shown(text)}` is the home of somebody else; a run has its own, `~/`")
    if path.startswith("/"):
        relative = shown(text.strip("/") or "data")
        raise ValueError(
            f"`{shown(text)}` is absolute, and a run has only its own folder: write `{relative}` or `~/{relative}`"
        )
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"`{shown(text)}` climbs out of the working directory: `..` is not allowed here")
    return "/".join(parts) or "."


def source(text: str) -> str:
    """A path on the machine of who submits, as written. Raises ValueError when it cannot be a path."""
    if not text or len(text.encode()) > MAX_PATH or not text.isprintable():
        raise ValueError(f"`{shown(text)}` is no path: 1 to {MAX_PATH:,} bytes, no control characters")
    return text


def is_bucket(text: str) -> bool:
    """Whether ``text`` names an object store or the web rather than a file here."""
    return BUCKET.match(text) is not None


def filled(text: str, envs: Mapping[str, str]) -> str:
    """``text`` with `$NAME` and `${NAME}` replaced by the file's own envs. Raises ValueError where one has none."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in envs:
            raise ValueError(f"`${name}` has no value under `envs`")
        if len(envs[name]) > MAX_PATH:
            raise ValueError(f"the value of `${name}` is too long for a path")
        return envs[name]

    return _VARIABLE.sub(value, text)
