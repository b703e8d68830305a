"""Keep the laboratory of one folder."""

import sys
from pathlib import Path

from tieline.drivers.lab.keeper import main

if __name__ == "__main__":
    main(Path(sys.argv[1]))
