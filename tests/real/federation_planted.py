"""An exchange that claims an hour more than a run took by the reading of its site: run as the real one.

python -m tests.real.federation_planted exchange-process FOLDER ...
"""

from __future__ import annotations

from typing import Any

HOUR_MS = 3_600_000


def main() -> None:
    """Plant, and become the command line."""
    from tieline.exchange import runs

    rated = runs.usage_of

    def usage_of(run: Any, *, duration_ms: int, **fields: Any) -> Any:
        return rated(run, duration_ms=duration_ms + HOUR_MS, **fields)

    runs.usage_of = usage_of
    from tieline.cli.main import main as cli

    cli()


if __name__ == "__main__":
    main()
