"""The tables of the reference that are made from code. Run this file to write them into the pages.

A page holds each table between ``<!-- table:NAME -->`` and ``<!-- /table:NAME -->``.
"""

from __future__ import annotations

import re
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tieline.model.error import CODES
from tieline.model.event import Events
from tieline.model.job import JOB_NEXT, RUN_NEXT
from tieline.model.limits import reference
from tieline.model.reason import CATALOGUE
from tieline.model.rule import RULES
from tieline.model.scope import SCOPES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

JOB_STATES = {
    "queued": ("排队", "waits for a pool, for an earlier step, or for its next attempt; `tieline why` says which"),
    "booked": ("已预留", "a pool is held; the owner's site has not answered yet"),
    "staging": ("准备中", "the owner accepted; files are laid out and `setup` is about to begin"),
    "running": ("运行中", "the task runs"),
    "succeeded": ("成功", "every node ended with exit code 0 and the outputs are kept"),
    "failed": ("失败", "no attempt is left, a limit was reached, or a deadline passed"),
    "cancelled": ("已取消", "somebody stopped it, or a step that it waited for did not succeed"),
}
RUN_STATES = {
    "offered": ("已发出", "held until the owner's site answers or `offer_ttl_ms` is over", "no"),
    "accepted": ("已接受", "the booking is real", "-"),
    "running": ("运行中", "the site reported the start", "-"),
    "succeeded": ("成功", "exit code 0 on every node", "yes"),
    "failed": ("失败", "another exit code, or it could not be started", "yes, unless it could not be started"),
    "lost": ("失联", "the site fell silent or left, or did not answer in time; fenced by a newer epoch", "no"),
    "refused": ("被拒绝", "the owner's site said no, with its reason", "no"),
    "stopped": ("已停止", "stopped by its user, its limit or its owner", "yes, from acceptance on"),
}


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def errors() -> str:
    return grid(
        ("code", "HTTP", "exit code", "try again", "meaning"),
        (
            (f"`{name}`", str(row.status), str(row.exit), "yes" if row.transient else "no", row.meaning)
            for name, row in CODES.items()
        ),
    )


def reasons() -> str:
    return grid(
        ("code", "sentence", "中文"),
        ((f"`{name}`", en, zh) for name, (en, zh) in CATALOGUE.items() if name not in RULES),
    )


def limits() -> str:
    return grid(
        ("limit", "default", "least", "most", "unit", "meaning"),
        (
            (f"`{row.name}`", f"{row.default:,}", f"{row.least:,}", f"{row.most:,}", row.unit or "count", row.meaning)
            for row in reference()
        ),
    )


def event_types() -> tuple[type, ...]:
    """Every kind of event, in the order of the union."""
    return typing.get_args(Events)


def events() -> str:
    def rows() -> Iterable[Sequence[str]]:
        for kind in event_types():
            said = (kind.__doc__ or "").strip().replace("``", "`")
            fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__)
            yield f"`{kind.__struct_config__.tag}`", " ".join(said.split()), fields

    return grid(("event", "what happened", "fields"), rows())


def scopes() -> str:
    return grid(
        ("token scope", "lets its holder", "中文", "given by", "of one job"),
        (
            (f"`{name}`", row.meaning, row.meaning_zh, ", ".join(row.roles), "yes" if row.is_of_job else "no")
            for name, row in SCOPES.items()
        ),
    )


def job_states() -> str:
    return grid(
        ("state", "中文", "means", "next"),
        (
            (f"`{state}`", *JOB_STATES[state], ", ".join(f"`{after}`" for after in following) or "none: it is over")
            for state, following in JOB_NEXT.items()
        ),
    )


def run_states() -> str:
    return grid(
        ("state", "中文", "means", "billed", "next"),
        (
            (f"`{state}`", *RUN_STATES[state], ", ".join(f"`{after}`" for after in following) or "none: it is over")
            for state, following in RUN_NEXT.items()
        ),
    )


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "reference/errors.md": {"errors": errors},
    "reference/reasons.md": {"reasons": reasons},
    "reference/limits.md": {"limits": limits},
    "reference/events.md": {"events": events},
    "operate/identity.md": {"scopes": scopes},
    "concepts/jobs.md": {"job_states": job_states, "run_states": run_states},
}


def rewritten(text: str, name: str, table: str) -> str:
    """``text`` with ``table`` between its marks; AssertionError where the marks are missing."""
    new, count = re.subn(
        rf"(<!-- table:{name} -->\n).*?(<!-- /table:{name} -->)",
        lambda found: f"{found[1]}{table}\n{found[2]}",
        text,
        flags=re.DOTALL,
    )
    assert count == 1, f"`{name}` has no marks"
    return new


def page(path: str) -> str:
    """A page as it should read."""
    text = (DOCS / path).read_text()
    for name, table in PAGES[path].items():
        text = rewritten(text, name, table())
    return text


if __name__ == "__main__":
    for path in sys.argv[1:] or PAGES:
        (DOCS / path).write_text(page(path))
