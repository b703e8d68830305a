"""`sim`: a whole federation in this process, under a virtual clock, with every kind of disaster, from one seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tieline.cli import table, words
from tieline.cli.face import Verbs, as_json, as_tieline, flag, note, option, show_json, usage

if TYPE_CHECKING:
    from tieline.sim.play import Outcome
    from tieline.sim.search import Found
    from tieline.sim.shrink import Shrunk
    from tieline.sim.story import Size, Story

MOST_SEEDS = 1_000_000
MOST_STORY_BYTES = 16 * 2**20


@click.group(name="sim", cls=Verbs, help="sim")
def sim() -> None:
    """The simulated federation."""


@sim.command("run", help="sim_run")
@option("--seed", type=click.IntRange(0), help="sim_seed")
@option("--seeds", default="", help="sim_seeds")
@option("--exchanges", default=3, type=click.IntRange(1, 1_000), help="sim_exchanges")
@option("--sites", default=5, type=click.IntRange(1, 5_000), help="sim_sites")
@option("--users", default=3, type=click.IntRange(1, 5_000), help="sim_users")
@option("--steps", default=60, type=click.IntRange(0, 100_000), help="sim_steps")
@option("--faults", default="", help="sim_faults")
@option("--planted", default="", help="sim_planted")
@option("--story", "story_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="sim_story")
@option("--keep", "kept_file", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="sim_keep")
@flag("--no-shrink", "is_whole", help="sim_no_shrink")
@as_json
@click.pass_context
def run(
    ctx: click.Context, seed: int | None, seeds: str, exchanges: int, sites: int, users: int, steps: int, faults: str,
    planted: str, story_file: Path | None, kept_file: Path | None, is_whole: bool, as_json: bool,
) -> None:  # fmt: skip
    """Play stories; exit code 1 when an invariant does not hold."""
    from tieline.sim.search import search, summed
    from tieline.sim.shrink import shrink
    from tieline.sim.story import Size, story_of

    chosen = _faults(faults)
    size = Size(exchanges=exchanges, sites=sites, users=users, steps=steps)
    told: Story | None = None
    if story_file is not None:
        told = _story(story_file)
        found = summed([_played(told, planted)])
    else:
        found = search(_seeds(seed, seeds), size, chosen, mistake=planted)
    violation = found.violations[0] if found.violations else None
    shrunk: Shrunk | None = None
    if violation is not None and not is_whole:
        whole = told or story_of(violation.seed, size, chosen)
        shrunk = shrink(whole, violation, mistake=planted)
        if kept_file is not None:
            import msgspec

            kept_file.write_bytes(msgspec.json.format(msgspec.json.encode(shrunk.story)))
    if as_json:
        show_json({"found": found, "shrunk": shrunk})
    else:
        _show(found)
    if violation is not None:
        _explain(violation, shrunk, size, faults, planted)
        ctx.exit(1)


def _played(story: Story, mistake: str) -> Outcome:
    from tieline.sim.planted import planted
    from tieline.sim.play import play

    with planted(mistake):
        return play(story)


def _seeds(seed: int | None, seeds: str) -> range:
    if not seeds:
        return range(seed or 0, (seed or 0) + 1)
    first, dots, last = seeds.partition("..")
    if seed is not None or not (dots and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise usage(words.say("sim_seeds_form", given=seeds))
    if int(last) - int(first) >= MOST_SEEDS:
        raise usage(words.say("sim_seeds_most", most=MOST_SEEDS))
    return range(int(first), int(last) + 1)


def _faults(given: str) -> tuple[str, ...]:
    from difflib import get_close_matches

    from tieline.sim.story import FAULTS

    if not given:
        return FAULTS
    names = tuple(name.strip() for name in given.split(",") if name.strip() and name.strip() != "none")
    for name in names:
        if name not in FAULTS:
            near = get_close_matches(name, FAULTS, n=1)
            raise as_tieline(
                "invalid_request",
                words.say("sim_no_fault", name=name),
                *(f"tieline sim run --faults '{each}'" for each in near),
            )
    return names


def _story(path: Path) -> Story:
    import msgspec

    from tieline.sim.story import HAPPENINGS, Story

    if path.stat().st_size > MOST_STORY_BYTES:
        raise as_tieline("invalid_request", words.say("sim_story_form", path=path, why=f"> {MOST_STORY_BYTES} bytes"))
    try:
        story = msgspec.json.decode(path.read_bytes(), type=Story)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise as_tieline("invalid_request", words.say("sim_story_form", path=path, why=error)) from None
    nodes = {"", *story.exchange_names, *story.site_names, *story.user_names}
    for each in story.happenings:
        if each.what not in HAPPENINGS or each.node not in nodes or each.other not in nodes:
            raise as_tieline("invalid_request", words.say("sim_story_form", path=path, why=f"{each.what} {each.node}"))
    return story


def _show(found: Found) -> None:
    table.show(
        ("fault", "injected"),
        [(name, f"{count:,}") for name, count in found.faults.items()],
        right=(1,),
    )
    click.echo()
    table.show(
        ("invariant", "checked"),
        [(name, f"{count:,}") for name, count in found.checks.items()],
        right=(1,),
    )
    click.echo()
    click.echo(
        words.say(
            "sim_sum",
            seeds=f"{found.seeds:,}",
            jobs=f"{found.jobs:,}",
            events=f"{found.events:,}",
            violations=len(found.violations),
            sha256=found.sha256,
        )
    )


def _explain(violation: Outcome, shrunk: Shrunk | None, size: Size, faults: str, planted: str) -> None:
    """The violation, the command that replays it, and the short story."""
    from tieline.sim.story import tell

    shown = shrunk.outcome if shrunk is not None else violation
    note()
    note(words.say("sim_violated", seed=violation.seed, at=f"{shown.at_ms / 1000:.3f}", invariant=shown.invariant))
    note(f"  {shown.what}")
    note()
    more = f" --faults '{faults}'" if faults else ""
    more += f" --planted {planted}" if planted else ""
    note(
        f"tieline sim run --seed {violation.seed} --exchanges {size.exchanges} --sites {size.sites} "
        f"--users {size.users} --steps {size.steps}{more}"
    )
    if shrunk is None:
        return
    story = shrunk.story
    counts = {"exchanges": story.exchanges, "sites": story.sites, "users": story.users}
    note()
    note(words.say("sim_shrunk", happenings=len(story.happenings), plays=shrunk.plays, **counts))
    for happening in story.happenings:
        note(f"  {tell(happening)}")
