"""`project`: who shares a budget and a share of the cards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tieline.cli import table, words
from tieline.cli.face import (
    Decorator,
    Face,
    Verbs,
    as_json,
    confirmed,
    flag,
    hint,
    is_terminal,
    note,
    option,
    pass_face,
    show_json,
    usage,
    verb,
    yes,
)

if TYPE_CHECKING:
    from tieline.model.api import ProjectView
    from tieline.model.project import Member, Quota

F = TypeVar("F", bound=Callable[..., Any])
QUOTA = {"cards": "card_count", "cores": "core_count", "card_hours": "card_hours", "cny": "micro_cny"}
HOUR_MS = 3_600_000


@click.group("project", cls=Verbs, help="project")
def project() -> None:
    """Projects."""


def terms(command: F) -> F:
    """The options that say what a project may have."""
    options: tuple[Decorator, ...] = (
        option("--title", default=None, help="project_title"),
        option("--cards", default=None, type=click.IntRange(0), help="project_cards"),
        option("--cores", default=None, type=click.IntRange(0), help="project_cores"),
        option("--card-hours", default=None, type=click.IntRange(0), help="project_card_hours"),
        option("--cny", default=None, metavar="CNY", help="project_cny"),
        option("--weight", default=None, type=click.IntRange(1, 1_000), help="project_weight"),
        option("--borrow/--no-borrow", "may_borrow", default=None, help="project_borrow"),
        option("--priority", default=None, type=click.IntRange(-1_000, 1_000), help="project_priority"),
    )
    for each in reversed(options):
        command = each(command)
    return command


@verb("create", "project_create")
@click.argument("name")
@terms
@option("--member", "members", multiple=True, metavar="USER", help="project_member")
@option("--manager", "managers", multiple=True, metavar="USER", help="project_manager")
@option("--group", "groups", multiple=True, metavar="GROUP", help="project_group")
@as_json
@pass_face
def create(
    face: Face,
    name: str,
    members: tuple[str, ...],
    managers: tuple[str, ...],
    groups: tuple[str, ...],
    as_json: bool,
    **stated: Any,
) -> None:
    """Make a project; for admins."""
    import msgspec

    from tieline.model.api import ProjectBody
    from tieline.model.project import Quota

    put = (*_members(members), *_members(managers, is_manager=True), *_members(groups, is_group=True))
    body = msgspec.structs.replace(ProjectBody(id=name, members=put), **_stated(stated, Quota()))
    made = face.call(lambda client: client.create_project(body))
    _said(made, as_json)
    if not as_json:
        hint(f"tieline run --project {made.id} -- COMMAND", f"tieline project show {made.id}")


@verb("ls", "project_ls")
@as_json
@pass_face
def ls(face: Face, as_json: bool) -> None:
    """The projects that the caller is in; for admins and auditors all."""
    found = face.call(lambda client: client.projects())
    if as_json:
        show_json(found)
        return
    columns = ("project", "state", "your_role", "members", "cards", "held_cores", "card_hours", "month_cny", "title")
    table.show(columns, [_row(each) for each in found], right=(3, 4, 5, 6, 7))
    if not found and is_terminal():
        hint("tieline project create NAME --manager USER")


@verb("show", "project_show")
@click.argument("name")
@as_json
@pass_face
def show(face: Face, name: str, as_json: bool) -> None:
    """Members, quotas, what was used this month, what is held now."""
    found = face.call(lambda client: client.project(name))
    if as_json:
        show_json(found)
        return
    borrow = words.say("project_borrows" if found.may_borrow else "project_borrows_not")
    said = words.say("project_terms_are", weight=found.weight, borrow=borrow, priority=found.priority_most)
    rows = [(words.say("col_project"), found.id), (words.say("project_state"), _state(found))]
    if found.title:
        rows.append((words.say("project_title"), found.title))
    rows.append((words.say("project_terms"), said))
    pledged = _pledged(found)
    for key, text in _amounts(found).items():
        more = words.say("project_pledged", amount=pledged[key]) if pledged.get(key) else ""
        rows.append((words.say(f"project_{key}", month=found.month), text + more))
    for member in found.members:
        kind = words.word("group" if member.is_group else "user")
        rows.append((words.say("project_member"), f"{member.name} ({kind}, {words.word(member.role.value)})"))
    table.pairs(rows)


@verb("set", "project_set")
@click.argument("name")
@terms
@as_json
@pass_face
def set_(face: Face, name: str, as_json: bool, **stated: Any) -> None:
    """Change the terms; what is not stated stays as it is."""
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.api import ProjectSetBody
    from tieline.model.project import Quota

    needs_before = any(stated[each] is not None for each in QUOTA)
    fields = _stated(stated, Quota())

    async def work(client: AsyncClient) -> ProjectView:
        if needs_before:
            fields.update(_stated(stated, (await client.project(name)).quota))
        return await client.set_project(name, ProjectSetBody(**fields))

    _said(face.call(work), as_json)


@verb("add", "project_add")
@click.argument("name")
@click.argument("who", nargs=-1, required=True, metavar="USER...")
@flag("--manager", "is_manager", help="project_managers")
@flag("--group", "is_group", help="project_groups")
@as_json
@pass_face
def add(face: Face, name: str, who: tuple[str, ...], is_manager: bool, is_group: bool, as_json: bool) -> None:
    """Put users or groups in, or give them another role."""
    put = _members(who, is_manager=is_manager, is_group=is_group)
    _said(face.call(lambda client: client.change_members(name, put=put)), as_json)


@verb("rm", "project_rm")
@click.argument("name")
@click.argument("who", nargs=-1, required=True, metavar="USER...")
@flag("--group", "is_group", help="project_groups")
@as_json
@pass_face
def rm(face: Face, name: str, who: tuple[str, ...], is_group: bool, as_json: bool) -> None:
    """Take users or groups out; their jobs go on."""
    remove = _members(who, is_group=is_group)
    _said(face.call(lambda client: client.change_members(name, remove=remove)), as_json)


@verb("close", "project_close")
@click.argument("name")
@flag("--reopen", help="project_again")
@yes
@as_json
@pass_face
def close(face: Face, name: str, reopen: bool, yes: bool, as_json: bool) -> None:
    """Take no new jobs; those that there are go on."""
    confirmed(words.say("close_it", project=name), yes or reopen)
    _said(face.call(lambda client: client.close_project(name, is_closed=not reopen)), as_json)


# -- below ------------------------------------------------------------------------------------------------------------


def _stated(stated: dict[str, Any], quota: Quota) -> dict[str, Any]:
    """The terms that were stated, as the fields of a body; amounts replace those of ``quota``."""
    import msgspec

    names = {"title": "title", "weight": "weight", "may_borrow": "may_borrow", "priority": "priority_most"}
    fields = {field: stated[name] for name, field in names.items() if stated[name] is not None}
    amounts = {QUOTA[name]: stated[name] for name in QUOTA if stated[name] is not None}
    if "micro_cny" in amounts:
        amounts["micro_cny"] = _micro_cny(amounts["micro_cny"])
    if amounts:
        fields["quota"] = msgspec.structs.replace(quota, **amounts)
    return fields


def _micro_cny(text: str) -> int:
    from tieline.model.quantity import money_micro_cny

    try:
        return money_micro_cny(text)
    except ValueError as error:
        raise usage(f"--cny: {error}") from None


def _members(names: tuple[str, ...], *, is_manager: bool = False, is_group: bool = False) -> tuple[Member, ...]:
    from tieline.model.project import Member, ProjectRole

    role = ProjectRole.MANAGER if is_manager else ProjectRole.MEMBER
    return tuple(Member(name=name, role=role, is_group=is_group) for name in names)


def _said(found: ProjectView, as_json: bool) -> None:
    """What became of it."""
    if as_json:
        show_json(found)
        return
    note(words.say("project_is", project=found.id, state=_state(found), members=found.member_count))


def _state(found: ProjectView) -> str:
    return words.word("closed" if found.is_closed else "open")


def _amounts(found: ProjectView) -> dict[str, str]:
    """What is held and used, each with its bound."""
    from tieline.model.quantity import show_money

    quota = found.quota
    return {
        "cards": _of(f"{found.held_card_count:,}", f"{quota.card_count:,}", bool(quota.card_count)),
        "cores": _of(f"{found.held_core_count:,}", f"{quota.core_count:,}", bool(quota.core_count)),
        "card_hours": _of(_hours(found.card_ms), f"{quota.card_hours:,}", bool(quota.card_hours)),
        "cny": _of(show_money(found.charge_micro_cny), show_money(quota.micro_cny), bool(quota.micro_cny)),
    }


def _pledged(found: ProjectView) -> dict[str, str]:
    """What live runs may still use up of the month, where there is a bound that makes it matter."""
    from tieline.model.quantity import show_money

    return {
        "card_hours": _hours(found.pledged_card_ms) if found.quota.card_hours and found.pledged_card_ms else "",
        "cny": show_money(found.pledged_micro_cny) if found.quota.micro_cny and found.pledged_micro_cny else "",
    }


def _of(used: str, bound: str, is_bounded: bool) -> str:
    key = "project_of" if is_bounded else "project_unbounded"
    return words.say(key, used=used, bound=bound)


def _hours(card_ms: int) -> str:
    """Card-hours, to a hundredth, rounded down."""
    return f"{card_ms // HOUR_MS:,}.{card_ms % HOUR_MS * 100 // HOUR_MS:02d}"


def _row(each: ProjectView) -> tuple[str, ...]:
    amounts = _amounts(each)
    role = words.word(each.role) if each.role else "-"
    return (each.id, _state(each), role, f"{each.member_count:,}", *amounts.values(), each.title or "-")


for _each in (create, ls, show, set_, add, rm, close):
    project.add_command(_each)
