"""The federation shown: four exchanges, six sites, jobs across owners, a cut, a repair, both sides' books and logs.

Everything that is started here runs on this machine below one folder, and is ended and removed at the end. Exit code 0
only when every check held; ``--json`` gives the summary instead of the story.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from acts import Story
from country import Country

from tieline.drivers.engines.sandbox import boxed
from tieline.model.error import TielineError

BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


def say(line: str) -> None:
    """One line; the first of an act stands out where a person reads it."""
    is_first = line[:1].isdigit() and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(f"{BOLD}{line}{PLAIN}" if is_first else line, flush=True)


def on_interrupt(do: Callable[[], object]) -> None:
    """What happens on Ctrl-C, and when somebody ends the process."""
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, do)


async def told(folder: Path, is_quiet: bool) -> Story:
    """The whole story; whatever happens, nothing that it started is left."""
    country = Country(folder)
    story = Story(country, (lambda _line: None) if is_quiet else say, is_boxed=await boxed())
    task = asyncio.current_task()
    assert task is not None
    on_interrupt(task.cancel)
    try:
        await story.tell()
    except asyncio.CancelledError:
        story.check(False, "it was interrupted")
    except (TielineError, TimeoutError, RuntimeError) as error:
        story.check(False, f"{type(error).__name__}: {error}")
    finally:
        on_interrupt(lambda: None)  # the end is not interrupted: nothing is left behind
        await country.close()
    story.check(not country.alive(), f"everything that was started has ended ({', '.join(country.alive())})")
    return story


def main() -> int:
    parser = argparse.ArgumentParser(description="The federation shown on one machine, in less than a minute.")
    parser.add_argument("--json", action="store_true", help="the summary as JSON, without the story")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs and files")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tieline-federation-"))
    os.environ["TIELINE_HOME"] = str(folder / "home")
    begun_s = time.monotonic()
    try:
        story = asyncio.run(told(folder, options.json))
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    summary = story.summary(time.monotonic() - begun_s)
    if options.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    elif story.wrong:
        say(f"FAILED in {summary['seconds']:.1f} s: {'; '.join(story.wrong)}")
    else:
        say(
            f"done in {summary['seconds']:.1f} s: {story.checks} checks held, {summary['commands']} commands were given"
        )
    if options.keep:
        print(f"kept: {folder}", file=sys.stderr)
    return 1 if story.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
