"""Stories: a file of commands with what they printed, run for real against `tieline up`, and compared.

``TIELINE_REWRITE=1 make test ARGS="tests/transcripts"`` records them anew; read the difference before you keep it.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STORIES = sorted(HERE.glob("*.txt"))
CHANGING = (  # what differs from run to run, and what stands for it
    (re.compile(r"http://127\.0\.0\.1:\d+"), "URL"),
    (re.compile(r"/\S*tieline-story-\w+"), "HOME"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"\b20\d\d-\d\d\b"), "MONTH"),
    (re.compile(r"\bafter [\d.,]+ (ms|s|min)\b"), "after TIME"),
    (re.compile(r"\bin [\d.,]+ (ms|s|min)\b"), "in TIME"),
    (re.compile(r"\b[0-9a-f]{16,64}\b"), "HASH"),
    (re.compile(r"\bt-[0-9a-z]{12}\b"), "TOKEN"),
    (re.compile(r"\bsandbox\b.*\bbubblewrap\b|\bbubblewrap\b|(?<=  )none(?=  )"), "BOX"),
    (re.compile(r"^\s*\d+(?=\tTIME)", re.MULTILINE), "  N"),
    (re.compile(r"\b\d+ events\b"), "N events"),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)
JOB = re.compile(r"\bj-[0-9a-z]{12}\b")
SITE = """\
tier: edge
region: shanghai
pools:
  - name: cores
    cores: 4
    memory: 2GB
    price: 0.80
    policy: cores <= 4 and (not is_trusted or user == "admin")
"""


def environment(home: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "TIELINE_HOME": str(home), "HOME": str(home), "LANG": "C.UTF-8", "TIELINE_LANG": "en"}


def run(command: str, home: Path) -> tuple[str, int]:
    ended = subprocess.run(
        ["bash", "-c", command], env=environment(home), cwd=HERE / "files", capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    return ended.stdout + ended.stderr, ended.returncode


def told(text: str, jobs: dict[str, str]) -> str:
    for name in JOB.findall(text):
        jobs.setdefault(name, f"j-{len(jobs) + 1}")
    text = JOB.sub(lambda match: jobs[match[0]], text)
    for pattern, word in CHANGING:
        text = pattern.sub(word, text)
    return re.sub(r"(?<=\S)  +", "  ", text).strip()


def needs_sandbox() -> None:
    from tieline.drivers.engines.sandbox import found

    box = found()
    if not box.works:
        pytest.skip(f"no sandbox works here: {box.why_not}")


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import tempfile

    needs_sandbox()
    with tempfile.TemporaryDirectory(prefix="tieline-story-") as folder:
        place = Path(folder)
        (place / "site.yaml").write_text(SITE)
        text, code = run(f"tieline up --config {place}/site.yaml", place)
        assert code == 0, text
        try:
            yield place
        finally:
            run("tieline down", place)


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES, ids=[story.stem for story in STORIES])
def test_the_story_is_told_as_it_was_recorded(story: Path, home: Path) -> None:
    jobs: dict[str, str] = {}
    seen: list[str] = []
    for line in story.read_text().splitlines():
        if line.startswith("#"):
            seen.append(line)
        elif line.startswith("$ "):
            command = line[2:]
            for name, short in jobs.items():
                command = re.sub(rf"\b{short}\b", name, command)
            text, code = run(command, home)
            seen += ["", line, *told(text, jobs).splitlines(), *([f"[exit {code}]"] if code else [])]
    content = "\n".join(seen).strip() + "\n"
    if os.environ.get("TIELINE_REWRITE"):
        story.write_text(content)
    assert content == story.read_text()
