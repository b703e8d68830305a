"""Projects: made by admins, filled by their managers; and whose project a job counts for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tieline.exchange.commands import ChangeProject, Decision, ReadProjects
from tieline.exchange.permission import allow, no_such, sees_job
from tieline.exchange.view import View, month_of
from tieline.model.api import ProjectView
from tieline.model.error import TielineError
from tieline.model.event import ProjectChanged
from tieline.model.party import Actor, Role
from tieline.model.project import Member, Project, ProjectRole, Spending
from tieline.model.reason import Reason, Value, sentence
from tieline.model.task import Task
from tieline.ports import Ids

replace = msgspec.structs.replace
MOST_PROJECTS = 2_000
MOST_MEMBERS = 10_000  # of one project
MOST_NAMED = 20  # projects that a refusal lists
TERMS = ("title", "quota", "weight", "may_borrow", "priority_most")
DONE = {"set": "changed", "members": "members changed", "close": "closed", "reopen": "opened again"}


# -- changing ---------------------------------------------------------------------------------------------------------


def change_project(view: View, command: ChangeProject, now_ms: int, ids: Ids) -> Decision:
    """Create, set, close or reopen: an admin. Members: a manager of the project too."""
    if command.what == "create":
        return _create(view, command, now_ms)
    if command.what not in DONE:
        raise TielineError(
            "invalid_request", f"`{command.what}` is not create, set, members, close or reopen", where="what"
        )
    before = _known(view, command.actor, command.project)
    if command.what == "members" and view.members.role(command.actor, before.id) is ProjectRole.MANAGER:
        pass
    else:
        allow(command.actor, Role.ADMIN, what=f"change project `{before.id}`")
    project = _with_terms(before, command)
    if command.what == "members":
        project = replace(project, members=_with_members(before, command.put, command.remove))
    if command.what in ("close", "reopen"):
        project = replace(project, is_closed=command.what == "close")
    if project == before:
        return Decision((), before)
    return _changed(project, f"{DONE[command.what]} by {command.actor.name}", now_ms)


def _create(view: View, command: ChangeProject, now_ms: int) -> Decision:
    allow(command.actor, Role.ADMIN, what="make projects")
    if command.project in view.projects:
        raise TielineError(
            "conflict",
            f"there is a project `{command.project}` already",
            hints=(f"tieline project show {command.project}",),
        )
    if len(view.projects) >= MOST_PROJECTS:
        raise TielineError("overloaded", f"there are {len(view.projects):,} projects here, no more are made")
    made = _with_terms(Project(id=command.project, created_ms=now_ms), command)
    made = replace(made, members=_with_members(made, command.put, (), "members"))
    return _changed(made, f"created by {command.actor.name}", now_ms)


def _changed(project: Project, why: str, now_ms: int) -> Decision:
    project = replace(project, changed_ms=now_ms)
    return Decision((ProjectChanged(project=project, why=why),), project)


def _with_terms(project: Project, command: ChangeProject) -> Project:
    if command.title is not None and not (command.title.isprintable() or not command.title):
        raise TielineError("invalid_request", "the title is not one line that can be shown", where="title")
    stated: dict[str, Any] = {name: getattr(command, name) for name in TERMS if getattr(command, name) is not None}
    return replace(project, **stated)


def _with_members(
    project: Project, put: Sequence[Member], remove: Sequence[Member], put_where: str = "put"
) -> tuple[Member, ...]:
    """The members in order of name, users first. Refuses who is named twice, and to remove who is not there.

    ``put_where`` is what the caller calls those who come in.
    """
    members = {(member.is_group, member.name): member for member in project.members}
    seen: set[tuple[bool, str]] = set()
    for where, given in (("remove", remove), (put_where, put)):
        for member in given:
            named = (member.is_group, member.name)
            if named in seen:
                raise TielineError("invalid_request", f"`{member.name}` is named twice", where=where)
            if not member.name.isprintable() or member.name != member.name.strip():
                raise TielineError("invalid_request", "a name is not one word or line that can be shown", where=where)
            seen.add(named)
            if where == put_where:
                members[named] = member
            elif members.pop(named, None) is None:
                kind = "group" if member.is_group else "user"
                raise TielineError("not_found", f"project `{project.id}` has no {kind} `{member.name}`", where=where)
    if len(members) > MOST_MEMBERS:
        raise TielineError(
            "invalid_request", f"{len(members):,} members are over the limit of {MOST_MEMBERS:,}", where=put_where
        )
    return tuple(members[named] for named in sorted(members))


# -- reading ----------------------------------------------------------------------------------------------------------


def read_projects(view: View, command: ReadProjects, now_ms: int, ids: Ids) -> Decision:
    """Projects in order of name, with what they used and hold: all for admins and auditors, else the caller's own."""
    actor, month = command.actor, month_of(now_ms)
    if command.project:
        known = _known(view, actor, command.project)
        return Decision((), (_view(view, actor, known, month, is_whole=True),))
    sees_all = actor.has(Role.ADMIN, Role.AUDITOR) and not actor.project
    names = sorted(view.projects) if sees_all else view.members.of(actor)
    return Decision((), tuple(_view(view, actor, view.projects[name], month) for name in names))


def _known(view: View, actor: Actor, name: str) -> Project:
    """The project, where the caller may see it; there is no such thing otherwise."""
    project = view.projects.get(name)
    is_bound_elsewhere = actor.project not in ("", name)
    sees = actor.has(Role.ADMIN, Role.AUDITOR) or view.members.role(actor, name) is not None
    if project is None or is_bound_elsewhere or not sees:
        raise no_such("project", name)
    return project


def _view(view: View, actor: Actor, project: Project, month: str, *, is_whole: bool = False) -> ProjectView:
    assert view.shares is not None  # there is a project
    spent = view.spent.get((project.id, month)) or Spending(project=project.id, month=month)
    standing = view.shares.standing(project.id)
    role = view.members.role(actor, project.id)
    return ProjectView(
        id=project.id,
        title=project.title,
        role=role.value if role is not None else "",
        members=project.members if is_whole else (),
        member_count=len(project.members),
        quota=project.quota,
        weight=project.weight,
        may_borrow=project.may_borrow,
        priority_most=project.priority_most,
        is_closed=project.is_closed,
        created_ms=project.created_ms,
        changed_ms=project.changed_ms,
        month=month,
        card_ms=spent.card_ms,
        charge_micro_cny=spent.charge_micro_cny,
        held_card_count=standing.held.accelerators,
        held_core_count=standing.bare_cores,
        pledged_card_ms=standing.pledged_card_ms,
        pledged_micro_cny=standing.pledged_micro_cny,
    )


# -- work -------------------------------------------------------------------------------------------------------------


def project_for(view: View, actor: Actor, asked: str, tasks: Sequence[Task]) -> str:
    """The project that new work counts for: the one asked for, or the caller's only one; empty: none.

    Raises TielineError `forbidden` with a reason: token_bound, project_not_member, project_several, project_needed,
    project_closed, priority_over.
    """
    if actor.project and asked not in ("", actor.project):
        raise _refused("token_bound", what="project", bound=actor.project, asked=asked)
    name = asked or actor.project or _only(view, actor)
    project = _open(view, actor, name) if name else None
    if project is None and view.limits.project_needed and not actor.has(Role.ADMIN):
        raise _refused("project_needed", who=actor.name)
    _check_priority(view, actor, project, tasks)
    return name


def _only(view: View, actor: Actor) -> str:
    """The one project that the caller can mean. A closed one counts where there is no other: it is no way around it."""
    names = view.members.of(actor)
    open_ones = [name for name in names if not view.projects[name].is_closed]
    if len(open_ones) > 1:
        shown = ", ".join(open_ones[:MOST_NAMED]) + (", ..." if len(open_ones) > MOST_NAMED else "")
        raise _refused("project_several", who=actor.name, count=len(open_ones), projects=shown)
    return next(iter(open_ones or names), "")


def _open(view: View, actor: Actor, name: str) -> Project:
    """The project, where the caller may run in it. Whether there is one is not told to whoever is not in it."""
    project = view.projects.get(name)
    if project is None or not (actor.has(Role.ADMIN) or view.members.role(actor, name)):
        raise _refused("project_not_member", who=actor.name, project=name)
    if project.is_closed:
        raise _refused("project_closed", project=name)
    return project


def _check_priority(view: View, actor: Actor, project: Project | None, tasks: Sequence[Task]) -> None:
    if actor.has(Role.ADMIN):
        return
    bound = view.limits.priority_most if project is None else project.priority_most
    whose = "a job without a project" if project is None else f"project {project.id}"
    for task in tasks:
        if task.priority > bound:
            raise _refused("priority_over", asked=task.priority, bound=bound, whose=whose)


def _refused(code: str, **values: Value) -> TielineError:
    reason = Reason(code=code, values=values)
    hints = {"priority_over": ("write a lower `priority`",), "project_several": ("tieline run --project NAME ...",)}
    return TielineError(
        "forbidden", sentence(reason), reasons=(reason,), hints=hints.get(code, ("tieline project ls",))
    )


def sees_work(view: View, actor: Actor, user: str, project: str) -> bool:
    """Whether the caller may see a job of ``user``: its own, or one that counts for a project that it is in."""
    return sees_job(actor, user, project, is_member=bool(project) and view.members.role(actor, project) is not None)


def manages(view: View, actor: Actor, project: str) -> bool:
    """Whether the caller may stop what runs in a project."""
    return bool(project) and view.members.role(actor, project) is ProjectRole.MANAGER
