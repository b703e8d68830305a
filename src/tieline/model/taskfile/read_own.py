"""Reading the fields that Tieline adds, which both dialects may carry."""

from __future__ import annotations

from typing import Any

from tieline.model.taskfile.draft import Draft
from tieline.model.taskfile.fields import Section, at
from tieline.model.taskfile.paths import inside
from tieline.model.taskfile.shapes import Value
from tieline.model.taskfile.values import RETRIES

MAX_GRACE_S = 3_600
_SPAN_BOUNDS = (("rate", "rate_bps", 10**15, "1 Pbps"), ("rtt", "rtt_us", 60_000_000, "60 s"))


def read_own(section: Section, draft: Draft) -> None:
    """Put every added field of ``section`` into ``draft``."""
    task = draft.task
    for name in ("name", "priority"):
        if name in section:
            task[name] = at(section, name)
    draft.image = at(section, "image", "")
    draft.project = at(section, "project", "")
    if "where" in section:
        draft.where.append(at(section, "where"))
    task["owners"] = [value.value for value in at(section, "owners", ())]
    task["token"] = list(dict.fromkeys(value.value for value in at(section, "token", ())))
    task["labels"] = {name: value.value for name, value in at(section, "labels", {}).items()}
    task["is_trusted"] = at(section, "trusted", False)
    task["deadline_s"] = at(section, "deadline", 0)
    task["max_duration_s"] = at(section, "max_duration", 0)
    task["budget_micro_cny"] = at(section, "budget", 0)
    read_grace(section, "grace", draft)
    _read_network(section, draft)
    _read_span(section, draft)
    _read_checkpoint(section, draft)
    _read_retry(section, draft)
    _read_outputs(section, draft)
    for entry in at(section, "data", ()):
        _read_data(entry, draft)
    _read_secrets(section, draft)


def read_grace(section: Section, name: str, draft: Draft) -> None:
    """The grace period, under its name in the dialect."""
    if name not in section:
        return
    seconds = at(section, name)
    if seconds == 0 or seconds > MAX_GRACE_S:  # `off`: as long as it takes; no site waits longer than an hour
        draft.reading.skip(name, f"a run is given at most {MAX_GRACE_S} s to end by itself")
        seconds = MAX_GRACE_S
    draft.task["grace_s"] = seconds


def _read_network(section: Section, draft: Draft) -> None:
    if "network" not in section:
        return
    network = at(section, "network")
    if isinstance(network, str):
        draft.task["network"] = network
        return
    draft.task["network"] = at(network, "mode", "")
    point = at(network, "from", "")
    for name in ("rtt", "bandwidth"):
        if name in network and not point:
            draft.missing(network[name].at, f"network.{name}", "needs `from`: the point that it is measured from")
    if point and "rtt" in network:
        draft.where.append(f'rtt("{point}") <= {at(network, "rtt")}us')
    if point and "bandwidth" in network:
        draft.where.append(f'bandwidth("{point}") >= {at(network, "bandwidth")}bps')
    if point and "rtt" not in network and "bandwidth" not in network:
        draft.missing(network["from"].at, "network.from", "says nothing by itself; add `rtt` or `bandwidth`")


def _read_span(section: Section, draft: Draft) -> None:
    """What nodes at several sites ask of each other. `Draft.finish` sees that there are several nodes."""
    if "span" not in section:
        return
    span = at(section, "span")
    if isinstance(span, int):
        draft.task["span"] = {"sites": span}
        return
    made: dict[str, Any] = {"sites": at(span, "sites")} if "sites" in span else {}
    for name, becomes, most, words in _SPAN_BOUNDS:
        if name in span:
            made[becomes] = at(span, name)
            if not 0 < made[becomes] <= most:
                draft.wrong(span[name].at, f"span.{name}", f"is not above zero and at most {words}")
    if "ports" in span:
        made["ports"] = list(dict.fromkeys(port.value for port in at(span, "ports")))
    draft.task["span"] = made


def _read_checkpoint(section: Section, draft: Draft) -> None:
    if "checkpoint" not in section:
        return
    checkpoint = at(section, "checkpoint")
    parts = {"path": section["checkpoint"]} if isinstance(checkpoint, str) else checkpoint
    if "path" not in parts:
        draft.missing(section["checkpoint"].at, "checkpoint", "needs `path`: the folder to keep")
        return
    folder = _below(parts["path"], draft)
    if folder == ".":
        draft.wrong(parts["path"].at, "checkpoint.path", "must be a folder below the working directory, not all of it")
        return
    made: dict[str, Any] = {"path": folder}
    if "every" in parts:
        made["every_s"] = at(parts, "every")
        if made["every_s"] > 86_400:
            draft.wrong(parts["every"].at, "checkpoint.every", "is longer than a day")
    if "signal" in parts:
        made["signal"] = at(parts, "signal")
    draft.task["checkpoint"] = made


def _read_retry(section: Section, draft: Draft) -> None:
    if "retry" not in section:
        return
    retry = at(section, "retry")
    if isinstance(retry, int):
        draft.task["retry"] = {"limit": retry}
        return
    events = [value.value for value in at(retry, "on_events", ())]
    codes = [value.value for value in at(retry, "on_exit_codes", ())]
    meant = RETRIES if "error" in events or not (events or codes) else 0
    draft.task["retry"] = {"limit": at(retry, "limit", meant), "on_exit_codes": codes}


def _read_outputs(section: Section, draft: Draft) -> None:
    outputs = at(section, "outputs", ())
    if isinstance(outputs, tuple):  # a mapping is SkyPilot's estimate, which is not applied
        draft.task["outputs"] = [path for value in outputs if (path := _below(value, draft))]


def _read_data(entry: Value, draft: Draft) -> None:
    """One dataset, by identifier or by where it is and how large."""
    if isinstance(entry.value, str):
        draft.data.append({"id": entry.value})
        return
    said = entry.value
    if "id" not in said and not ("site" in said and "size" in said):
        draft.missing(entry.at, entry.path, "needs `id`, or `site` and `size`: which data is meant")
        return
    used = {name: at(said, name) for name in ("id", "site", "residency") if name in said}
    if "size" in said:
        used["size_bytes"] = at(said, "size")
    if "path" in said:
        used["path"] = _below(said["path"], draft)
    draft.data.append(used)


def _read_secrets(section: Section, draft: Draft) -> None:
    secrets = at(section, "secrets", ())
    if isinstance(secrets, tuple):
        for value in secrets:
            draft.secret(value.at, value.path, value.value, None)
        return
    for name, value in secrets.items():
        draft.secret(value.at, value.path, name, value.value)


def _below(value: Value, draft: Draft) -> str:
    """A path below the working directory; empty after noting why it is none."""
    try:
        return inside(value.value)
    except ValueError as error:
        draft.wrong(value.at, value.path, str(error))
        return ""
