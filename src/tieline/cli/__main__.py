"""`python -m tieline.cli` is `tieline`."""

from tieline.cli.main import main

main()
