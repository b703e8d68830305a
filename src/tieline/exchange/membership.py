"""Membership: who is in which project, by name or by a group of the identity provider.

Kept from the projects as they change, so that a question costs the caller's groups and never a project's members. What
is kept is replaced whole: another thread may ask while a change is applied.
"""

from __future__ import annotations

from tieline.model.party import Actor
from tieline.model.project import Project, ProjectRole

Named = tuple[str, bool]  # a user, or (True) a group


class Membership:
    """The roles of everybody in every project."""

    def __init__(self) -> None:
        self._roles: dict[str, dict[Named, ProjectRole]] = {}
        self._projects: dict[Named, tuple[str, ...]] = {}

    def put(self, project: Project) -> None:
        """A project, new or changed."""
        before = self._roles.get(project.id, {})
        roles = {(member.name, member.is_group): member.role for member in project.members}
        self._roles[project.id] = roles
        for named in roles:
            if named not in before:
                self._projects[named] = tuple(sorted((*self._projects.get(named, ()), project.id)))
        for named in before:
            if named not in roles:
                left = tuple(name for name in self._projects[named] if name != project.id)
                if left:
                    self._projects[named] = left
                else:
                    del self._projects[named]

    def role(self, actor: Actor, project: str) -> ProjectRole | None:
        """What the caller may do in a project; None: nothing. The strongest of what its name and groups give."""
        roles = self._roles.get(project)
        if not roles or actor.project not in ("", project):
            return None
        held = [roles[named] for named in _names(actor) if named in roles]
        return ProjectRole.MANAGER if ProjectRole.MANAGER in held else held[0] if held else None

    def of(self, actor: Actor) -> tuple[str, ...]:
        """The projects that the caller is in, in order of name; a token that is bound to one is in no other."""
        found = {name: None for named in _names(actor) for name in self._projects.get(named, ())}
        return tuple(sorted(name for name in found if not actor.project or name == actor.project))


def _names(actor: Actor) -> list[Named]:
    return [(actor.name, False), *((group, True) for group in actor.groups)]
