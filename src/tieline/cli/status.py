"""`status`: how the exchange is doing, and who the caller is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import Face, as_json, pass_face, show_json, verb

if TYPE_CHECKING:
    from tieline.client.asynchronous import AsyncClient
    from tieline.model.api import MeView, StatusView


@verb("status")
@as_json
@pass_face
def status(face: Face, as_json: bool) -> None:
    """Sites, jobs, pools, the store with its limits, and who you are."""

    async def work(client: AsyncClient) -> tuple[StatusView, MeView, str]:
        return await client.status(), await client.me(), client.context.url

    found, me, url = face.call(work)
    if as_json:
        show_json(found)
        return
    table.pairs([(words.say("status_" + name), text) for name, text in _lines(found, me, url)])
    click.echo(words.say("status_limits"))
    table.pairs([(f"  {name}", _limit(name, value)) for name, value in found.limits.items()])


def _lines(found: StatusView, me: MeView, url: str) -> list[tuple[str, str]]:
    from tieline.model.quantity import show_duration, show_size

    def counted(counts: dict[str, int]) -> str:
        return ", ".join(f"{words.word(name)} {count:,}" for name, count in counts.items() if count) or "0"

    roles = ", ".join(role.value for role in me.roles)
    return [
        ("exchange", f"{found.id}  {url}  {found.version}"),
        ("you", " ".join(each for each in (f"{me.name} ({roles})", me.owner, *me.scopes, me.job) if each)),
        ("up", show_duration(max(0, found.now_ms - found.started_ms) // 1000 * 1_000_000)),
        ("writable", words.say("yes" if found.is_writable else "no")),
        ("sites", counted(found.sites)),
        ("pools", f"{found.pools:,}"),
        ("jobs", counted(found.jobs)),
        ("records", f"{found.records:,}"),
        ("events", f"{found.events:,}  {found.head[:16]}"),
        ("queue", f"{found.queue_depth:,}"),
        ("store", ", ".join(f"{words.word(name)} {show_size(size)}" for name, size in _sizes(found.store))),
        ("collected", counted(found.collected)),
    ]


def _sizes(store: dict[str, int]) -> list[tuple[str, int]]:
    return [(name.removesuffix("_bytes"), size) for name, size in store.items()]


def _limit(name: str, value: int) -> str:
    """A limit with the unit that ends its name."""
    from tieline.model.quantity import show_duration, show_size

    if name.endswith("_bytes"):
        return show_size(value)
    if name.endswith("_ms"):
        return show_duration(value * 1_000)
    if name.endswith("_s") and "_per_" not in name:
        return show_duration(value * 1_000_000)
    return f"{value:,}"
