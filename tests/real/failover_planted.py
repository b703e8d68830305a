"""Exchange processes with one mistake planted, started in the place of the real ones.

python -m tests.real.failover_planted MISTAKE exchange-process FOLDER ...
"""

from __future__ import annotations

import sys
import time
from typing import Any

ANSWER_S = 0.3  # between what is kept and its answer, so that kills fall there


def forgets_keys() -> None:
    """A new writer does not look whether a request was answered before."""
    from tieline.drivers.stores import writer
    from tieline.drivers.stores.store import Store

    deliver = writer.deliver

    def late(answers: Any) -> None:
        time.sleep(ANSWER_S)
        deliver(answers)

    writer.deliver = late
    Store.replies = lambda _self, _keys: {}  # type: ignore[method-assign]


def main() -> None:
    """Plant, and become what was asked."""
    {"forgets-keys": forgets_keys}[sys.argv.pop(1)]()
    from tieline.cli.main import main as cli

    cli()


if __name__ == "__main__":
    main()
