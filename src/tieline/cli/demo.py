"""`demo`: one exchange, four owners, real jobs, a lost site, one bill per owner. Exit code 0, or what failed and 1."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tieline.cli.face import as_json, flag, verb

if TYPE_CHECKING:
    from tieline.cli.stage import Stage
    from tieline.cli.story import Story

SITES = (("suzhou", "plant"), ("shanghai", "lab"), ("guiyang", "carrier"), ("ningxia", "centre"))
LIMITS = {"lease_ms": 4_000, "beat_ms": 1_000, "tick_ms": 100}  # shorter than the defaults, so that a loss is seen soon


@verb("demo")
@flag("--keep", help="demo_keep")
@as_json
def demo(keep: bool, as_json: bool) -> None:
    """Tell the whole story on this machine in less than a minute."""
    import asyncio

    from tieline.cli import words
    from tieline.cli.face import show_json
    from tieline.cli.login import pinned
    from tieline.cli.stage import Stage
    from tieline.cli.story import shown, temporary
    from tieline.client import context

    folder = context.home() / "demo" if keep else temporary()
    if keep and (folder / "exchange").exists():
        shutil.rmtree(folder)
    lang = words.language()

    def say(en: str, zh: str | None, **values: Any) -> None:
        if not as_json:
            text = zh if zh is not None and lang == "zh" else en
            click.echo(text.format(**{name: shown(value, lang) for name, value in values.items()}))

    stage = Stage(folder, dict(LIMITS))
    begun = time.monotonic()
    try:
        story = asyncio.run(_perform(stage, say))
    finally:
        if not keep:
            stage.close()
            shutil.rmtree(folder, ignore_errors=True)
    summary = story.summary(time.monotonic() - begun)
    if as_json:
        show_json(summary)
    if keep:
        context.keep("demo", pinned(context.Context(url=stage.url, token=stage.admin)))
        say("   it goes on at {url}: tieline status", "   仍在运行：{url}，可用 tieline status", url=stage.url)
    good = not story.wrong
    say(
        "{verdict} in {seconds:.1f} s", "{verdict}，用时 {seconds:.1f} 秒",
        verdict=("done" if lang == "en" else "完成") if good else f"FAILED: {'; '.join(story.wrong)}",
        seconds=summary["seconds"],
    )  # fmt: skip
    raise SystemExit(0 if good else 1)


async def _perform(stage: Stage, say: Any) -> Story:
    import asyncio

    from tieline.cli.story import Story
    from tieline.drivers.engines.sandbox import boxed
    from tieline.drivers.siteprocess import owner_key

    examples = examples_folder()
    say(
        "starting one exchange and four sites below {folder}",
        "在 {folder} 启动一个平台和四个算力节点",
        folder=stage.folder,
    )
    await asyncio.to_thread(stage.open)
    for name, owner in SITES:
        stage.add(name, owner, examples / "demo" / f"{name}.yaml")
    async with stage.client() as client:
        await asyncio.gather(*(stage.join(client, actor) for actor in stage.sites.values()))
        await stage.await_sites(client)
        key = owner_key(stage.sites["shanghai"].folder)
        story = Story(stage, client, say, examples / "tasks", key, await boxed())
        await story.tell()
    return story


def examples_folder() -> Path:
    """``examples/`` of a checkout, or what the wheel carries of it."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "examples", package.parent.parent / "examples"):
        if (folder / "tasks").is_dir():
            return folder
    from tieline.model.error import TielineError

    raise TielineError("not_found", "the examples are not installed", hints=("run the demo from a checkout",))
