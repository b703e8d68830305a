"""Lets these tests read the headers of the corpus with `tests/taskfiles_expectations.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
