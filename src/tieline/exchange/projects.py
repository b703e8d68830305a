"""Projects: who belongs to them, what they may hold and spend, and whose turn it is."""

from __future__ import annotations

from tieline.exchange.commands import ChangeProject, Decision, ReadProjects
from tieline.exchange.view import View
from tieline.ports import Ids


def change_project(view: View, command: ChangeProject, now_ms: int, ids: Ids) -> Decision:
    """Make a project or change it."""
    raise NotImplementedError


def read_projects(view: View, command: ReadProjects, now_ms: int, ids: Ids) -> Decision:
    """The projects that the caller may see, with what they hold and have spent."""
    raise NotImplementedError
