"""The extras of the package, and the command that brings them here, which a driver names that lacks its library."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[3]  # of a checkout: the folder of the Makefile


def bring(extra: str, root: Path = ROOT) -> str:
    """The command that installs what ``extra`` of pyproject.toml names; in a checkout those of all extras, pinned."""
    if (root / "Makefile").is_file() and (root / "pyproject.toml").is_file():
        return f"make -C {root} extras  # for `{extra}`"
    return f"pip install 'tieline[{extra}]'"
