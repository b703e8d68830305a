"""The registry's tests share the small world and the forge of the attack corpus."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "attacks"))
