"""Reading SkyPilot's fields into a draft."""

from __future__ import annotations

import posixpath
from typing import Any

from tieline.model.taskfile.draft import MAX_ALTERNATIVES, Alternative, Draft, place
from tieline.model.taskfile.fields import Section, at
from tieline.model.taskfile.paths import filled, is_bucket
from tieline.model.taskfile.problem import shown
from tieline.model.taskfile.shapes import Value
from tieline.model.taskfile.values import Ask, Span

DOCKER = "docker:"


def read_skypilot(section: Section, draft: Draft) -> None:
    """Put every field of SkyPilot's in ``section`` into ``draft``."""
    task = draft.task
    for name, becomes in (("run", "run"), ("setup", "setup"), ("num_nodes", "nodes")):
        if name in section:
            task[becomes] = at(section, name)
    if "service" in section or "pool" in section:
        task["type"] = "service" if "service" in section else "pool"
    for name, value in at(section, "envs", {}).items():
        if value.value is None:
            draft.secret(value.at, value.path, name, None)
        else:
            draft.envs[name] = value.value
    _read_workdir(section, draft)
    for target, mount in at(section, "file_mounts", {}).items():
        _read_mount(target, mount, draft)
    for target, volume in at(section, "volumes", {}).items():
        name = volume.value if isinstance(volume.value, str) else at(volume.value, "name", "")
        if name:
            draft.need(volume.at, volume.path, f"volume/{name}", target)
    _read_resources(at(section, "resources", {}), draft)


def _read_workdir(section: Section, draft: Draft) -> None:
    if "workdir" not in section:
        return
    value = section["workdir"]
    if isinstance(value.value, str):
        if local := _filled(value.value, value, draft):
            draft.lay(value.at, value.path, ".", local)
    elif "url" not in value.value:
        draft.missing(value.at, "workdir", "needs `url`, or a local folder instead of the mapping")
    else:
        ref = at(value.value, "ref", "")
        draft.need(value.at, value.path, at(value.value, "url") + (f"@{ref}" if ref else ""))


def _filled(text: str, value: Value, draft: Draft) -> str:
    """``text`` with the file's own envs in it; empty after noting what has no value."""
    try:
        return filled(text, draft.envs)
    except ValueError as error:
        draft.wrong(value.at, value.path, str(error))
        return ""


def _read_mount(written: str, mount: Value, draft: Draft) -> None:
    """One entry of `file_mounts`: local files are laid, buckets are data that somebody else would have to hold."""
    target = _filled(written, mount, draft)
    said: Section = mount.value if isinstance(mount.value, dict) else {"source": mount}
    source = at(said, "source")
    if not target:
        return
    if source is None:
        if "name" in said:
            draft.need(mount.at, mount.path, f"bucket/{at(said, 'name')}", target)
        elif at(said, "store") != "volume":
            draft.missing(mount.at, mount.path, "needs `source`: a local file or folder, or a bucket")
        return
    if isinstance(source, tuple):
        for one in source:
            local = _filled(one.value, one, draft)
            name = posixpath.basename(local.rstrip("/"))
            if local and name in ("", ".", ".."):
                draft.wrong(one.at, one.path, f"`{local}` has no name of its own to be laid under")
            elif local:
                _lay(f"{target.rstrip('/')}/{name}", local, one, draft)
    elif local := _filled(source, mount, draft):
        _lay(target, local, mount, draft)


def _lay(target: str, local: str, value: Value, draft: Draft) -> None:
    if is_bucket(local):
        draft.need(value.at, value.path, local, target)
    else:
        draft.lay(value.at, value.path, target, local)


def _read_resources(section: Section, draft: Draft) -> None:
    """`any_of` and `ordered` entries with the outer fields as their defaults; each may name several accelerators."""
    outer = {name: value for name, value in section.items() if name not in ("any_of", "ordered")}
    if "any_of" in section and "ordered" in section:
        draft.wrong(section["ordered"].at, "resources.ordered", "stands beside `any_of`; keep one of them")
    entries = at(section, "ordered") or at(section, "any_of") or ()
    inner: list[Section] = [{**outer, **entry.value} for entry in entries] or [outer]
    made: list[Alternative] = []
    for one in inner:
        if len(made) <= MAX_ALTERNATIVES:
            made += _alternatives(one, draft)
    draft.alternatives = made
    accelerators = at(outer, "accelerators")
    is_list = isinstance(accelerators, tuple) and not isinstance(accelerators, Ask)
    draft.task["is_ordered"] = "ordered" in section or (is_list and not entries)
    for one in inner:
        _read_policy(one, draft)


def _read_policy(section: Section, draft: Draft) -> None:
    """What stands under resources and concerns the whole task: the first entry that says it decides."""
    if "priority" in section:
        draft.task.setdefault("priority", at(section, "priority"))
    labels = {name: value.value for name, value in at(section, "labels", {}).items()}
    draft.task["labels"] = {**labels, **draft.task.get("labels", {})}
    recovery = at(section, "job_recovery")
    if isinstance(recovery, dict) and "retry" not in draft.task:
        codes = at(recovery, "recover_on_exit_codes", ())
        numbers = [code.value for code in codes] if isinstance(codes, tuple) else [codes]
        draft.task["retry"] = {"limit": at(recovery, "max_restarts_on_errors", 0), "on_exit_codes": numbers}


def _alternatives(section: Section, draft: Draft) -> list[Alternative]:
    """One alternative per accelerator that ``section`` names, or one without."""
    fields: dict[str, Any] = {}
    for name, becomes in (("cpus", "core_count"), ("memory", "memory_bytes"), ("disk_size", "disk_bytes")):
        if name in section:
            fields[becomes] = at(section, name)
    if at(section, "ephemeral_storage", 0) > fields.get("disk_bytes", 0):
        fields["disk_bytes"] = at(section, "ephemeral_storage")
    if infra := _infra(section, draft):
        fields["infra"] = infra
    if image := _image(section, draft):
        fields["image"] = image
    where = [at(section, "where")] if "where" in section else []
    made = []
    for ask in _accelerators(section, draft) or (None,):
        alternative = Alternative(fields=dict(fields), where=list(where), price=at(section, "max_hourly_cost"))
        if ask is not None:
            draft.fill(alternative.fields, ask, section["accelerators"].at, "resources.accelerators")
        made.append(alternative)
    return made


def _accelerators(section: Section, draft: Draft) -> tuple[Ask, ...]:
    """The kinds that are asked for: one, a list in order, or a mapping without order."""
    value = at(section, "accelerators")
    if value is None:
        return ()
    if isinstance(value, Ask):
        return (value,)
    if isinstance(value, tuple):
        return tuple(one.value for one in value)
    asked = []
    for ask, one in value.items():
        if one.value is not None and ask.cards.least != 1:
            draft.wrong(one.at, one.path, "states a count twice")
        asked.append(ask if one.value is None else ask._replace(cards=Span(one.value, one.value)))
    return tuple(asked)


def _infra(section: Section, draft: Draft) -> str:
    """`infra`, or what `cloud`, `region` and `zone` say in its form; `*` is anywhere."""
    parts = [at(section, name) for name in ("cloud", "region", "zone")]
    if "infra" in section:
        if any(parts):
            draft.wrong(
                section["infra"].at, section["infra"].path, "stands beside `cloud`, `region` or `zone`; keep `infra`"
            )
        said: str = at(section, "infra").strip()
        if "*" not in said:
            return said
        parts = ["" if part == "*" else part for part in (*said.split("/", 2), "", "")][:3]
    return place(*parts)


def _image(section: Section, draft: Draft) -> str:
    """A container image is a requirement; a cloud's machine image is something that nothing here can start from."""
    container = at(section, "container_image")
    if isinstance(container, dict):
        container = at(container, "ref")
        if container is None:
            draft.missing(section["container_image"].at, "resources.container_image", "needs `ref`: the image itself")
            return ""
    if container:
        return str(container).removeprefix(DOCKER)
    image = at(section, "image_id")
    if isinstance(image, dict):
        named = list(dict.fromkeys(one.value for one in image.values()))
        image = named[0] if len(named) == 1 else "by region" if named else None
    if image is None:
        return ""
    if not str(image).startswith(DOCKER):
        draft.task["type"] = "machine-image"
        draft.note("task_machine_image", asked=shown(str(image)))
        return ""
    return str(image).removeprefix(DOCKER)
