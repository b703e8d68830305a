"""The guide's code runs, block by block, against a real exchange."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
SAID = ("succeeded hello", "pool/gz1-cpu", "seven", "[0, 1, 4, 9]", "range(0, 3)", "3\nsucceeded", "is not h100")


@pytest.mark.parametrize(("block", "said"), list(zip(BLOCKS, SAID, strict=True)))
def test_the_guides_code_runs(exchange, tmp_path, monkeypatch, block, said):
    from api_world import ADMIN

    monkeypatch.setenv("TIELINE_EXCHANGE", exchange.url)
    monkeypatch.setenv("TIELINE_TOKEN", ADMIN)
    monkeypatch.setenv("TIELINE_HOME", str(tmp_path))
    file = tmp_path / "block.py"
    file.write_text(block)
    done = subprocess.run(
        [sys.executable, str(file)], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
