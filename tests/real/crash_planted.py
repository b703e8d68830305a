"""An exchange or a plain site with one mistake planted, started in the place of the real one.

python -m tests.real.crash_planted MISTAKE exchange-process FOLDER ...
python -m tests.real.crash_planted starts-unconfirmed FOLDER
"""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec


def answers_before_commit() -> None:
    """The writer answers who submits, and keeps it a moment later."""
    from tieline.drivers.stores import writer
    from tieline.exchange.commands import SubmitJobs

    keep = writer.Writer._commit

    def early(self: Any, items: Any, draft: Any) -> None:
        hasty = [answer for answer in draft.answers if isinstance(answer[0].command, SubmitJobs)]
        writer.deliver(hasty)
        draft.answers = [answer for answer in draft.answers if answer not in hasty]
        if hasty:
            time.sleep(0.05)
        keep(self, items, draft)

    writer.Writer._commit = early  # type: ignore[method-assign]


def fences_nothing() -> None:
    """A late report of a run that was given up is taken for the newest run of its job, whoever says it."""
    from tieline.exchange import runs

    judge = runs.judge

    def blind(view: Any, site: str, report: Any, now_ms: int) -> Any:
        name = getattr(report, "run", "")
        if name and name not in view.runs:
            job = view.jobs.get(f"{view.prefix}/job/{name.rpartition('.')[0]}")
            newest = view.runs.get(job.run) if job is not None else None
            if newest is not None:
                report = msgspec.structs.replace(report, run=newest.id, epoch=newest.epoch)
                site = newest.station
        return judge(view, site, report, now_ms)

    runs.judge = blind


def starts_unconfirmed() -> None:
    """The site starts what it means to accept without waiting for the exchange's word."""
    from bench import plain_site

    from tieline.model.protocol import Accepted
    from tieline.ports import Launch
    from tieline.site import instruction as do

    class Hasty(plain_site.PlainSite):
        """Begins at once."""

        def carry_out(self, one: do.Instruction) -> None:
            if isinstance(one, do.Send) and isinstance(one.report, Accepted):
                held = self.state.runs[one.report.run]
                envs = {**held.offer.task.envs, "TIELINE_RUN_ID": held.run}
                folder, script = self.where(held.run), held.offer.task.run
                launch = Launch(run=held.run, node=0, folder=folder, setup="", script=script, envs=envs)
                self.spawn(self.engine.start(launch))
            super().carry_out(one)

    plain_site.main(Hasty)


def main() -> None:
    """Plant, and become what was asked."""
    mistake = sys.argv.pop(1)
    if mistake == "starts-unconfirmed":
        starts_unconfirmed()
        return
    {"answers-before-commit": answers_before_commit, "fences-nothing": fences_nothing}[mistake]()
    from tieline.cli.main import main as cli

    cli()


if __name__ == "__main__":
    main()
