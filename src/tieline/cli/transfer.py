"""`transfer`: bytes from here to there."""

from __future__ import annotations

import click

from tieline.cli.face import Verbs
from tieline.cli.moving import follow_transfer, run_transfer


@click.group("transfer", cls=Verbs, help="transfer")
def transfer() -> None:
    """Bytes."""


transfer.add_command(run_transfer)
transfer.add_command(follow_transfer)
