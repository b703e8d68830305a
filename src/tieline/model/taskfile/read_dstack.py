"""Reading dstack's fields into a draft."""

from __future__ import annotations

import re
import shlex
from typing import Any

from tieline.model.taskfile.draft import MAX_ALTERNATIVES, Alternative, Draft, place
from tieline.model.taskfile.fields import Section, at
from tieline.model.taskfile.paths import inside, is_bucket
from tieline.model.taskfile.read_own import read_grace
from tieline.model.taskfile.shapes import Value
from tieline.model.taskfile.values import Ask, Cores, Span, asks

MAX_SCRIPT = 262_144
_SECRET = re.compile(r"\$\{\{\s*secrets\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_GIT = re.compile(r"(?:[a-z+]+://|[\w.-]+@[\w.-]+:)")


def read_dstack(section: Section, draft: Draft) -> None:
    """Put every field of dstack's in ``section`` into ``draft``."""
    task = draft.task
    task["type"] = "node-groups" if "groups" in section else at(section, "type", "task")
    if isinstance(at(section, "nodes"), int):
        task["nodes"] = at(section, "nodes")
    _read_scripts(section, draft)
    _read_env(section, draft)
    for repo in at(section, "repos", ()):
        _read_repo(repo, draft)
    for entry in at(section, "files", ()):
        _read_file(entry, draft)
    for volume in at(section, "volumes", ()):
        _read_volume(volume, draft)
    read_grace(section, "stop_duration", draft)
    tags = {name: value.value for name, value in at(section, "tags", {}).items()}
    task["labels"] = {**tags, **task.get("labels", {})}
    _read_resources(section, draft)


def _read_scripts(section: Section, draft: Draft) -> None:
    """Commands run one after the other until one fails, in one shell, so that `cd` and `export` last."""
    setup = [value.value for value in at(section, "setup", ())]
    draft.task["setup"] = "\n".join(setup)
    commands = [value.value for value in at(section, "commands", ())]
    if "working_dir" in section and (folder := _folder(section["working_dir"], draft)):
        commands.insert(0, f"cd -- {shlex.quote(folder)}")
    if len(commands) == 1:
        draft.task["run"] = commands[0]
    else:
        draft.task["run"] = "\n".join(f"{{\n{command}\n}} || exit $?" for command in commands)
    if len(draft.task["run"]) > MAX_SCRIPT or len(draft.task["setup"]) > MAX_SCRIPT:
        draft.wrong(draft.at, "commands", f"longer than {MAX_SCRIPT:,} characters in all")


def _folder(value: Value, draft: Draft) -> str:
    if value.value.startswith("/"):
        draft.reading.skip(value.path, "an absolute folder is the image's; a run starts in its own working directory")
        return ""
    try:
        folder = inside(value.value)
    except ValueError as error:
        draft.wrong(value.at, value.path, str(error))
        return ""
    return "" if folder == "." else folder


def _read_env(section: Section, draft: Draft) -> None:
    env = at(section, "env", ())
    if isinstance(env, tuple):
        for value in env:
            name, text = value.value
            if name in draft.envs:
                draft.wrong(value.at, value.path, f"`{name}` is set twice")
            _set(name, text, value, draft)
        return
    for name, value in env.items():
        _set(name, value.value, value, draft)


def _set(name: str, text: str | None, value: Value, draft: Draft) -> None:
    """One variable: a value, a reference to a secret, or a bare name, which is how tokens are passed: a secret."""
    if text is None:
        draft.secret(value.at, value.path, name, None)
    elif reference := _SECRET.fullmatch(text.strip()):
        draft.secret(value.at, value.path, name, None, reference[1])
    elif _SECRET.search(text):
        draft.wrong(value.at, value.path, "a secret cannot be a part of a value; give it a variable of its own")
    else:
        draft.envs[name] = text


def _read_repo(repo: Value, draft: Draft) -> None:
    """A local repository is the working directory; a remote one is data that somebody else would have to hold."""
    said: Section = repo.value if isinstance(repo.value, dict) else {}
    local, url, path = at(said, "local_path", ""), at(said, "url", ""), at(said, "path", ".")
    if isinstance(repo.value, str):
        if _GIT.match(repo.value):
            url = repo.value
        else:
            local, _, path = repo.value.partition(":")
            path = path or "."
    if bool(local) == bool(url):
        draft.missing(repo.at, repo.path, "needs either `local_path` or `url`")
    elif url:
        draft.need(repo.at, repo.path, url)
    else:
        draft.lay(repo.at, repo.path, path, local)


def _read_file(entry: Value, draft: Draft) -> None:
    if isinstance(entry.value, str):
        local, _, target = entry.value.partition(":")
        target = target or local
    else:
        local = at(entry.value, "local_path", "")
        target = at(entry.value, "path", local)
    if not local:
        draft.missing(entry.at, entry.path, "needs `local_path`: a file or folder of yours")
    elif is_bucket(f"{local}:{target}"):
        draft.need(entry.at, entry.path, f"{local}:{target}")
    else:
        draft.lay(entry.at, entry.path, target, local)


def _read_volume(volume: Value, draft: Draft) -> None:
    """A network volume holds data that the run would lack; a folder of the owner's machine is a cache."""
    if isinstance(volume.value, dict):
        if "name" in volume.value:
            draft.need(volume.at, volume.path, f"volume/{at(volume.value, 'name')}", at(volume.value, "path", ""))
        elif "instance_path" not in volume.value:
            draft.missing(volume.at, volume.path, "needs `name` or `instance_path`")
        return
    name, colon, path = volume.value.partition(":")
    if not name or not colon or not path:
        draft.wrong(volume.at, volume.path, "is not `NAME:PATH`")
    elif "/" in name:
        draft.reading.skip(volume.path, "an owner's folders are not opened to tasks")
    else:
        draft.need(volume.at, volume.path, f"volume/{name}", path)


def _read_resources(section: Section, draft: Draft) -> None:
    """Every accelerator that is named, at every place that is named, is an alternative."""
    resources: Section = at(section, "resources", {})
    fields: dict[str, Any] = {}
    _read_cpu(resources, fields, draft)
    for name, becomes in (("memory", "memory_bytes"), ("disk", "disk_bytes")):
        value = resources.get(name)
        if value is not None and isinstance(value.value, dict):
            value = value.value.get("size")
        if value is not None:
            _least(value, becomes, fields, draft)
    places = _places(section, draft)
    asked = _gpus(resources, draft) or (None,)
    made: list[Alternative] = []
    for infra in places:
        for ask in asked:
            if len(made) > MAX_ALTERNATIVES:
                break
            one = Alternative(fields={**fields, **({"infra": infra} if infra else {})}, price=at(section, "max_price"))
            if ask is not None:
                draft.fill(one.fields, ask, resources["gpu"].at, "resources.gpu")
                if ask.vendor and ask.kind == "any":
                    one.where.append(f'vendor == "{ask.vendor}"')
            made.append(one)
    draft.alternatives = made


def _read_cpu(resources: Section, fields: dict[str, Any], draft: Draft) -> None:
    if "cpu" not in resources:
        return
    cpu = resources["cpu"]
    asked = cpu.value
    if isinstance(asked, dict):
        asked = Cores(at(asked, "count", Span(None, None)), at(asked, "arch", ""))
    if asked.architecture:
        fields["architecture"] = asked.architecture
    _least(cpu._replace(value=asked.number), "core_count", fields, draft)


def _least(value: Value, becomes: str, fields: dict[str, Any], draft: Draft) -> None:
    """The least of a range; its most cannot bind, because a pool with more is as good.

    One size is a narrow range, because GB is read both ways: up to 2^50 / 10^15 wide.
    """
    span: Span = value.value
    width = 1_126 if becomes.endswith("_bytes") else 1_000
    if span.least is not None:
        fields[becomes] = span.least
    if span.most is not None and span.most * 1_000 > (span.least or 0) * width:
        draft.reading.skip(
            value.path, "the most of its range: a pool that has more is as good, and a run is given the least"
        )


def _gpus(resources: Section, draft: Draft) -> tuple[Ask, ...]:
    if "gpu" not in resources:
        return ()
    gpu = resources["gpu"]
    if isinstance(gpu.value, tuple):
        return gpu.value
    said: Section = gpu.value
    names = at(said, "name", "")
    listed = [one.value for one in names] if isinstance(names, tuple) else [name for name in names.split(",") if name]
    count: Span = at(said, "count", Span(1, 1))
    memory: Span = at(said, "memory", Span(None, None))
    if "total_memory" in said and "memory" not in said:
        total: Span = at(said, "total_memory")
        cards = max(1, count.least or 1)
        least = None if total.least is None else -(-total.least // cards)
        memory = Span(least, None if total.most is None else total.most // cards)
    try:
        return asks([name.strip() for name in listed], at(said, "vendor", ""), count, memory)
    except ValueError as error:
        draft.wrong(gpu.at, gpu.path, str(error))
        return ()


def _places(section: Section, draft: Draft) -> tuple[str, ...]:
    """Clouds, regions and zones as places in the form of `infra`; one empty place where nothing is said."""
    names = ("backends", "regions", "availability_zones")
    clouds, regions, zones = ([value.value for value in at(section, name, ())] or [""] for name in names)
    if len(clouds) * len(regions) * len(zones) > MAX_ALTERNATIVES:
        draft.wrong(
            draft.at, "backends", f"with `regions` and `availability_zones` more than {MAX_ALTERNATIVES} places"
        )
        return ("",)
    return tuple(place(cloud, region, zone) for cloud in clouds for region in regions for zone in zones)
