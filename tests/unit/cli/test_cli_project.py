"""`tieline project`, and `--project` of the verbs that take one."""

import json
import re
from pathlib import Path

import pytest
from api_world import ADMIN

from tieline.model.party import Role


@pytest.fixture
def people(exchange, call):
    """Each of them logged in under its own name."""
    call("login", exchange.url, "--token", ADMIN, "--name", "admin")
    for name in ("ann", "ben", "ivy"):
        call("login", exchange.url, "--token", exchange.token(name, Role.USER), "--name", name)

    def as_(who, *args, **more):
        return call("-x", who, *args, **more)

    return as_


def data(done):
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_a_project_from_its_beginning_to_its_end(people):
    made = people("admin", "project", "create", "lens", "--cards", 4, "--cny", "100.5", "--title", "Lenses",
                  "--manager", "ann", "--group", "corp:optics")  # fmt: skip
    assert made.exit_code == 0, made.stderr
    assert "hint: tieline run --project lens -- COMMAND" in made.stderr
    assert people("ben", "project", "ls").stdout == ""
    put = people("ann", "project", "add", "lens", "ben")
    assert put.stderr == "project lens is open; members: 3\n"
    ran = people("ben", "run", "-y", "--project", "lens", "--json", "--", "true")
    assert data(ran)[0]["job"]["project"] == "lens"
    shown = people("ann", "project", "show", "lens").stdout
    for line in ("cards now\t0 of 4", "terms\tweight 1, may borrow, priority at most 50", "title\tLenses",
                 "member\tann (user, manager)", "member\tcorp:optics (group, member)"):  # fmt: skip
        assert line in shown
    view = data(people("ann", "project", "show", "lens", "--json"))
    assert view["quota"] == {"card_count": 4, "micro_cny": 100_500_000}
    changed = data(people("admin", "project", "set", "lens", "--card-hours", 9, "--no-borrow", "--json"))
    assert changed["quota"] == {"card_count": 4, "card_hours": 9, "micro_cny": 100_500_000}
    assert (changed["may_borrow"], changed["title"]) == (False, "Lenses")
    assert len(data(people("ann", "ps", "--project", "lens", "--json"))) == 1
    assert {line["user"] for line in data(people("ann", "usage", "--project", "lens", "--json"))} == {"ben"}
    assert [bill["party"] for bill in data(people("ann", "bill", "--project", "lens", "--json"))] == ["ben"]
    assert "| 0 / 4" not in people("ann", "--lang", "zh", "project", "show", "lens").stdout
    assert "当前加速卡\t0 / 4" in people("ann", "--lang", "zh", "project", "show", "lens").stdout
    row = people("ann", "project", "ls").stdout.split("\t")
    assert row[:5] == ["lens", "open", "manager", "3", "0 of 4"]
    out = people("ann", "project", "rm", "lens", "corp:optics", "--group")
    assert out.stderr == "project lens is open; members: 2\n"
    refused = people("ann", "project", "close", "lens", "-y")
    assert refused.exit_code == 4
    assert people("admin", "project", "close", "lens", "-y").stderr == "project lens is closed; members: 2\n"
    late = people("ben", "run", "-y", "--", "true")
    assert late.exit_code == 4
    assert "error: project lens is closed and takes no new jobs" in late.stderr
    assert people("admin", "project", "close", "lens", "--reopen").exit_code == 0


def test_who_is_in_several_projects_names_one_and_a_file_may(people, tmp_path):
    for name in ("tide", "wave"):
        assert people("admin", "project", "create", name, "--member", "ivy").exit_code == 0
    several = people("ivy", "plan", "--", "true")
    assert several.exit_code == 4
    assert "tide, wave" in several.stderr
    assert "hint: tieline run --project NAME ..." in several.stderr
    file = tmp_path / "task.yaml"
    file.write_text("project: wave\nrun: 'true'\n")
    assert data(people("ivy", "run", "-y", "--json", file))[0]["job"]["project"] == "wave"
    stated = people("ivy", "run", "-y", "--json", "--project", "tide", file)
    assert data(stated)[0]["job"]["project"] == "tide"
    file.write_text("project: wave\nrun: 'true'\n---\nproject: tide\nrun: 'true'\n")
    both = people("ivy", "plan", file)
    assert both.exit_code == 2
    assert "two projects: `wave` and `tide`" in both.stderr
    stranger = people("ann", "run", "-y", "--project", "wave", "--", "true")
    assert "error: `ann` is in no project `wave` here" in stranger.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("create", "Big"), "error:"),
        (("create", "x", "--cny", "many"), "--cny"),
        (("create", "x", "--weight", "0"), "--weight"),
        (("add", "x"), "USER"),
        (("close", "x"), "add `-y`"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(people, args, said):
    done = people("admin", "project", *args)
    assert done.exit_code == 2
    assert said in done.stderr


def test_the_guide_shows_what_the_story_printed():
    """The story is told anew by `tests/transcripts`; what the guide shows of it stands there word by word."""
    root = Path(__file__).parents[3]
    story = re.sub(r"^ +", "  ", (root / "tests/transcripts/projects.txt").read_text(), flags=re.MULTILINE)
    blocks = re.findall(r"```console\n(.*?)```", (root / "docs/guides/projects.md").read_text(), re.DOTALL)
    assert len(blocks) > 5
    assert [block for block in blocks if block not in story] == []
