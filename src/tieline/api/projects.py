"""Projects: who shares a budget and a share of the cards. Admins make them, their managers say who is in them."""

from __future__ import annotations

from typing import Any

import msgspec

from tieline.api.call import Call, named
from tieline.api.operation import Follow, operation
from tieline.exchange.commands import ChangeProject, ReadProjects
from tieline.model.api import MembersBody, ProjectBody, ProjectPage, ProjectSetBody, ProjectView
from tieline.model.party import SYSTEM, Actor

PROJECT_LINKS = tuple(
    Follow(operation=name, parameter="project", pointer="/id")
    for name in ("read_project", "set_project", "change_members", "close_project", "reopen_project")
)


@operation(
    "POST",
    "/v1/projects",
    tag="projects",
    status=201,
    is_change=True,
    errors=("conflict", "overloaded"),
    follows=PROJECT_LINKS,
    example={"id": "vision", "quota": {"card_count": 4}, "members": [{"name": "alice", "role": "manager"}]},
)
async def create_project(call: Call, body: ProjectBody) -> ProjectView:
    """Make a project. Its name is never used for another one: a project is closed, not deleted."""
    return await _changed(
        call,
        "create",
        body.id,
        title=body.title,
        quota=body.quota,
        weight=body.weight,
        may_borrow=body.may_borrow,
        priority_most=body.priority_most,
        put=body.members,
    )


@operation("GET", "/v1/projects", tag="projects")
async def list_projects(call: Call) -> ProjectPage:
    """The projects that the caller is in; for admins and auditors all. Who is in them is told of one project alone."""
    return ProjectPage(projects=await call.platform.ask(ReadProjects(actor=call.actor)))


@operation("GET", "/v1/projects/{project}", tag="projects")
async def read_project(call: Call, project: str) -> ProjectView:
    """One project: its terms and members, what it used this month, what it holds now."""
    return await _one(call, named(project), call.actor)


@operation("POST", "/v1/projects/{project}/set", tag="projects", is_change=True, example={"weight": 2})
async def set_project(call: Call, project: str, body: ProjectSetBody) -> ProjectView:
    """Other terms: what is absent stays as it is. Lower quotas end nothing that runs, and bind what is placed next."""
    return await _changed(
        call,
        "set",
        named(project),
        title=body.title,
        quota=body.quota,
        weight=body.weight,
        may_borrow=body.may_borrow,
        priority_most=body.priority_most,
    )


@operation(
    "POST",
    "/v1/projects/{project}/members",
    tag="projects",
    is_change=True,
    example={"put": [{"name": "bob"}, {"name": "corp:vision", "is_group": True}]},
)
async def change_members(call: Call, project: str, body: MembersBody) -> ProjectView:
    """Put users and groups into a project, give them another role, or take them out: for its managers and admins.

    All of it happens or nothing. Jobs of those who leave go on.
    """
    return await _changed(call, "members", named(project), put=body.put, remove=body.remove)


@operation("POST", "/v1/projects/{project}/close", tag="projects", is_change=True)
async def close_project(call: Call, project: str) -> ProjectView:
    """Take no new jobs in a project. Those that it has go on, and nothing of its history is lost."""
    return await _changed(call, "close", named(project))


@operation("POST", "/v1/projects/{project}/reopen", tag="projects", is_change=True)
async def reopen_project(call: Call, project: str) -> ProjectView:
    """Take new jobs in a closed project again."""
    return await _changed(call, "reopen", named(project))


async def _changed(call: Call, what: str, project: str, **fields: Any) -> ProjectView:
    """What became of a project. A manager who left it with the change is answered too, and sees it no more."""
    await call.platform.ask(call.command(ChangeProject, project=project, what=what, **fields))
    found = await _one(call, project, SYSTEM)
    role = call.platform.view.members.role(call.actor, project)
    return msgspec.structs.replace(found, role=role.value if role is not None else "")


async def _one(call: Call, project: str, actor: Actor) -> ProjectView:
    (found,) = await call.platform.ask(ReadProjects(actor=actor, project=project))
    assert isinstance(found, ProjectView)
    return found
