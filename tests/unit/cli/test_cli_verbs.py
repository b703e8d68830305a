"""Every verb against a real exchange with a toy site that really runs what it is given."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from tieline.model.error import CODES


@pytest.fixture
def keyfile(exchange, tmp_path):
    """The owner's key as a file."""
    path = tmp_path / "owner.key"
    path.write_text(hashlib.sha256(b"lab7 owner").hexdigest())
    return path


def ok(done):
    assert done.exit_code == 0, done.output
    return done


def data(done):
    return json.loads(ok(done).stdout)


def run_job(call, *words):
    """Run a command to its end; its short name."""
    done = ok(call("run", "-y", *words))
    return re.search(r"submitted (j-\w+)", done.stderr)[1]


# -- login, status ----------------------------------------------------------------------------------------------------


def test_login_pins_the_key_and_chooses(exchange, admin, home):
    (line,) = ok(admin("login")).stdout.splitlines()
    assert line.split("\t")[:3] == ["*", "cn.demo", exchange.url]
    assert (home / "contexts.json").stat().st_mode & 0o077 == 0
    assert "secret" not in ok(admin("login", "--json")).stdout


def test_login_refuses_another_key(exchange, call):
    done = call("login", exchange.url, "--fingerprint", "0" * 32)
    assert done.exit_code == CODES["check_failed"].exit
    assert call("ps").exit_code == 1


def test_login_refuses_a_wrong_token(exchange, call):
    assert call("login", exchange.url, "--token", "tl-wrong").exit_code == 4


def test_a_token_may_come_from_stdin(exchange, call):
    from api_world import ADMIN

    ok(call("login", exchange.url, "--token", "-", "--name", "other", text=f"{ADMIN}\n"))
    assert data(call("-x", "other", "status", "--json"))["id"] == "cn.demo/exchange/main"


def test_status_shows_the_limits(admin):
    shown = ok(admin("status")).stdout
    assert "body_bytes\t8.4 MB" in shown
    assert "admin (admin, user)" in shown
    assert data(admin("status", "--json"))["limits"]["body_bytes"] == 8 << 20


# -- find, plan, ask --------------------------------------------------------------------------------------------------


def test_find_ranks_what_fits_and_counts_what_does_not(admin):
    done = ok(admin("find", "cores >= 1 and price < 20"))
    assert done.stdout.split("\t")[1] == "cn.demo.lab7/pool/gz1-cpu"
    done = ok(admin("find", "npu >= 8"))
    assert done.stdout == ""
    assert "1 do not fit" in done.stderr
    assert "`npu >= 8` does not hold" in done.stderr
    assert data(admin("find", "npu >= 8", "--json"))["matched"] == 0


def test_find_takes_words_that_look_like_an_expression_as_words(admin):
    assert "found" in ok(admin("find", "models and agents")).stderr
    assert admin("find", "--as", "expression", "models and agents").exit_code == 2
    assert ok(admin("find", "owner in ('cn.demo.lab7')", "--kind", "pool")).stdout


def test_find_says_where_an_expression_is_wrong(admin):
    done = admin("find", "price <")
    assert done.exit_code == 2
    assert done.stdout == ""


def test_plan_shows_the_table_and_changes_nothing(admin):
    before = data(admin("status", "--json"))["events"]
    done = ok(admin("plan", "--cpus", "2", "--", "true"))
    assert done.stdout == ""
    assert "core x2" in done.stderr
    assert "only one that fitted" in done.stderr
    (plan,) = data(admin("plan", "--json", "--", "true"))
    assert plan["chosen"] == "cn.demo.lab7/pool/gz1-cpu"
    assert data(admin("status", "--json"))["events"] == before


def test_what_nothing_can_run_is_exit_code_3_with_counted_reasons(admin):
    for verb in (("plan",), ("run", "-y")):
        done = admin(*verb, "--accelerator", "H100:8", "--", "true")
        assert done.exit_code == 3
        assert "1  accelerator is not h100" in done.stderr


def test_a_quote_is_countered_and_accepted_by_its_name(exchange, admin):
    exchange.toy.counter_micro_cny = 1_500_000
    try:
        quote = data(admin("ask", "--json", "--price", "0.5", "--duration", "1h", "--", "true"))["quote"]
    finally:
        exchange.toy.counter_micro_cny = 0
    assert quote["is_countered"]
    assert quote["price_micro_cny_per_unit_hour"] == 1_500_000
    done = ok(admin("ask", quote["id"], "--accept", "-y"))
    job = re.search(r"submitted (j-\w+)", done.stderr)[1]
    ok(admin("logs", "-f", job))
    assert data(admin("usage", job, "--json"))[0]["price_micro_cny_per_unit_hour"] == 1_500_000


# -- run and what follows ---------------------------------------------------------------------------------------------


def test_run_follows_the_output_on_stdout_and_tells_the_rest_on_stderr(admin):
    done = ok(admin("run", "-y", "--", "echo hello"))
    assert done.stdout == "hello\n"
    assert "succeeded" in done.stderr


def test_run_asks_first(admin):
    done = admin("run", "--", "true")
    assert done.exit_code == 2
    assert "add `-y`" in done.stderr


def test_a_job_that_fails_is_exit_code_1(admin):
    done = admin("run", "-y", "--", "exit 3")
    assert done.exit_code == 1
    assert "exit code 3 on" in done.stderr
    job = re.search(r"submitted (j-\w+)", done.stderr)[1]
    done = ok(admin("why", job))
    assert "exit code 3" in done.stdout
    assert "run_ended" in done.stderr
    assert data(admin("why", job, "--json"))["state"] == "failed"


def test_a_gang_marks_each_line_with_its_rank(admin):
    done = ok(admin("run", "-y", "--nodes", "2", "--", "echo hello"))
    assert sorted(done.stdout.splitlines()) == ["[0] hello", "[1] hello"]


def test_a_file_with_its_folder_runs_and_its_output_is_fetched(admin, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "in.txt").write_text("seven")
    file = tmp_path / "t.yaml"
    file.write_text("workdir: src\nrun: cp in.txt out.txt\noutputs: [out.txt]\nresources: {use_spot: true}\n")
    done = ok(admin("run", "-y", file))
    assert "`resources.use_spot` means nothing here" in done.stderr
    job = re.search(r"submitted (j-\w+)", done.stderr)[1]
    done = ok(admin("fetch", job, tmp_path / "got"))
    assert (tmp_path / "got" / "out.txt").read_text() == "seven"
    assert done.stdout == f"{tmp_path / 'got' / 'out.txt'}\n"


def test_a_wrong_file_is_refused_with_every_mistake_in_its_place(admin, tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text("runn: x\nresources: {cpus: -1}\n")
    done = admin("run", "-y", file)
    assert done.exit_code == 2
    assert "line 1, column 1" in done.stderr
    assert "did you mean `run`" in done.stderr


def test_detached_jobs_are_listed_and_stopped(admin):
    (job,) = data(admin("run", "-y", "-d", "--json", "--", "sleep 60"))
    assert job["id"] in ok(admin("ps", "--live")).stdout
    ok(admin("stop", job["id"].rpartition("/")[2], "--why", "enough", "-y"))
    ok(admin("logs", "-f", job["id"]))
    assert job["id"] in ok(admin("ps", "--state", "cancelled")).stdout


def test_logs_are_bytes_as_they_were(admin):
    job = run_job(admin, "--", r"printf 'a\377\033[0mb\n'")
    assert admin("logs", job).stdout_bytes == b"a\xff\x1b[0mb\n"


def test_a_secret_reaches_no_log_and_no_answer(admin, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf-very-secret")
    job = run_job(admin, "--secret", "HF_TOKEN", "--", "true")
    for words in (("ps", "--json"), ("why", job, "--json"), ("events", "--limit", "1000", "--json")):
        assert "hf-very-secret" not in ok(admin(*words)).output


# -- money, log -------------------------------------------------------------------------------------------------------


def test_both_sides_of_the_bill_add_up(admin):
    run_job(admin, "--", "true")
    owed = data(admin("bill", "--json"))
    earned = data(admin("bill", "--owner", "--json"))
    assert sum(len(bill["lines"]) for bill in owed) == sum(len(bill["lines"]) for bill in earned) > 0
    charges = [sum(bill.get("charge_micro_cny", 0) for bill in bills) for bills in (owed, earned)]
    assert charges[0] == charges[1]
    assert data(admin("bill", "--user", "nobody", "--json")) == []
    assert admin("bill", "--user", "a", "--owner", "b").exit_code == 2
    assert "admin owes" in ok(admin("bill", "--user", "admin")).stderr


def test_the_log_is_shown_and_verifies(admin):
    lines = ok(admin("events", "--limit", "3")).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["1", "2", "3"]
    assert "the hash chain holds" in ok(admin("events", "--verify")).stderr
    assert data(admin("events", "--verify", "--json"))["is_verified"]


# -- tokens, sites ----------------------------------------------------------------------------------------------------


def test_a_token_is_made_used_and_revoked(exchange, admin, call):
    done = ok(admin("token", "create", "alice", "--role", "user", "--ttl", "1h"))
    secret = done.stdout.strip()
    ok(call("login", exchange.url, "--token", secret, "--name", "alice"))
    assert call("token", "create", "bob").exit_code == 4
    (row,) = [line for line in ok(call("-x", "cn.demo", "token", "ls")).stdout.splitlines() if "\talice\t" in line]
    ok(call("-x", "cn.demo", "token", "revoke", row.split("\t")[0]))
    assert call("ps").exit_code == 4


def test_a_right_is_passed_on_narrowed(exchange, admin, call, monkeypatch):
    made = data(admin("token", "delegate", "--scope", "find", "--scope", "read:job", "--ttl", "10m", "--json"))
    assert made["scopes"] == ["find", "read:job"]
    secret = ok(admin("token", "delegate", "--scope", "read:job")).stdout.strip()
    monkeypatch.setenv("TIELINE_TOKEN", secret)
    ok(call("ps"))
    denied = call("token", "ls")
    assert denied.exit_code == 4
    assert "list_tokens" in denied.stderr
    assert call("token", "delegate", "--scope", "read:job").exit_code == 4
    monkeypatch.delenv("TIELINE_TOKEN")
    assert call("token", "delegate", "--scope", "everything").exit_code == 2
    assert call("token", "delegate", "--scope", "find", "--ttl", "25h").exit_code == 2


def test_sites_are_listed_shown_and_drained(admin):
    site = "cn.demo.lab7/site/gz1"
    assert ok(admin("site", "ls")).stdout.split("\t")[:2] == [site, "ready"]
    assert "cn.demo.lab7/pool/gz1-cpu" in ok(admin("site", "show", site)).stdout
    assert "draining" in ok(admin("site", "drain", site)).stderr
    assert data(admin("site", "show", site, "--json"))["is_draining"]
    assert "ready" in ok(admin("site", "undrain", site)).stderr
    assert admin("site", "show", "cn.demo.lab7/site/none").exit_code == 1


# -- records ----------------------------------------------------------------------------------------------------------


def test_a_record_is_verified_here_down_from_the_root_that_was_pinned(admin):
    done = ok(admin("id", "verify", "cn.demo.lab7/pool/gz1-cpu"))
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        "cn.demo/owner/lab7",
        "cn.demo.lab7/pool/gz1-cpu",
    ]
    assert "down from the pinned root cn.demo" in done.stderr


def test_nothing_is_verified_against_a_root_that_was_not_pinned(exchange, call, monkeypatch):
    from api_world import ADMIN

    monkeypatch.setenv("TIELINE_TOKEN", ADMIN)
    done = call("-x", exchange.url, "id", "verify", "cn.demo.lab7/pool/gz1-cpu")
    assert done.exit_code == 1
    assert "nothing can be verified" in done.stderr
    root = f"cn.demo={exchange.keys.key.public}"
    ok(call("-x", exchange.url, "id", "verify", "cn.demo.lab7/pool/gz1-cpu", "--root", root))
    wrong = f"cn.demo={exchange.toy.key.public}"
    assert call("-x", exchange.url, "id", "verify", "cn.demo.lab7/pool/gz1-cpu", "--root", wrong).exit_code == 4


def test_an_exchange_that_changed_its_key_is_not_believed(exchange, admin, home):
    contexts = home / "contexts.json"
    contexts.write_text(re.sub(r'"fingerprint": "\w+"', f'"fingerprint": "{"0" * 32}"', contexts.read_text()))
    done = admin("id", "verify", "cn.demo.lab7/pool/gz1-cpu")
    assert done.exit_code == 1
    assert "pinned is" in done.stderr


def test_a_record_is_signed_here_registered_changed_and_withdrawn(admin, keyfile, tmp_path):
    name = "cn.demo.lab7/dataset/digits"
    file = tmp_path / "digits.yaml"
    file.write_text(f"id: {name}\nspec:\n  title: digits\n  size_bytes: 1000\n")
    assert ok(admin("id", "register", file, "--key", keyfile)).stdout == f"{name}\n"
    assert data(admin("id", "register", file, "--key", keyfile, "--json"))["rev"] == 2
    assert '"title": "digits"' in ok(admin("id", "resolve", name)).stdout
    ok(admin("id", "verify", name))
    ok(admin("id", "withdraw", name, "--key", keyfile, "-y"))
    assert data(admin("id", "resolve", name, "--json"))["status"] == "withdrawn"


def test_an_owner_signs_digests_of_its_own_records_and_of_no_others(admin, keyfile, tmp_path):
    for number in range(3):
        file = tmp_path / f"d{number}.yaml"
        file.write_text(f"id: cn.demo.lab7/dataset/page{number}\n")
        ok(admin("id", "register", file, "--key", keyfile))
    done = ok(admin("id", "checkpoint", "cn.demo.lab7", "--key", keyfile, "-y"))
    assert done.stdout == "cn.demo.lab7/checkpoint/records\n"
    spec = data(admin("id", "resolve", "cn.demo.lab7/checkpoint/records", "--json"))["record"]["spec"]
    assert spec["count"] == sum(page["count"] for page in spec["pages"]) >= 3
    ok(admin("id", "verify", "cn.demo.lab7/checkpoint/records"))
    assert data(admin("id", "checkpoint", "cn.demo.lab7", "--key", keyfile, "-y", "--json"))["rev"] == 2
    assert admin("id", "checkpoint", "cn.demo", "--key", keyfile, "-y").exit_code == 4


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        ("id: cn.demo.lab7/dataset/x\nspec: {size_bytes: 1.5}\n", 4),
        ("id: cn.demo.lab7/dataset/x\nspec: {unknown: 1}\n", 4),
        ("id: cn.demo.lab8/dataset/x\nspec: {title: not mine}\n", 4),
        ("id: nonsense\n", 2),
        ("id: cn.demo.lab7/dataset/x\nkind: model\n", 2),
        ("id: [\n", 2),
        ("a: &a [1]\nid: *a\n", 2),
        ("[" * 5000, 2),
        ("id: cn.demo.lab7/dataset/x\nspec: {title: " + "x" * 70_000 + "}\n", 2),
    ],
)
def test_a_record_that_says_what_it_may_not_is_refused(admin, keyfile, tmp_path, text, exit_code):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    done = admin("id", "register", file, "--key", keyfile)
    assert done.exit_code == exit_code, done.output
    assert done.stderr.startswith(("error: ", "signed"))


def test_a_key_file_without_a_key_is_refused(admin, tmp_path):
    (tmp_path / "key").write_text("no key")
    (tmp_path / "r.yaml").write_text("id: cn.demo.lab7/dataset/x\n")
    done = admin("id", "register", tmp_path / "r.yaml", "--key", tmp_path / "key")
    assert done.exit_code == 2
    assert admin("id", "register", tmp_path / "r.yaml").exit_code == 2


# -- schema, check ----------------------------------------------------------------------------------------------------


def test_the_schema_is_json(call):
    assert data(call("schema"))["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_check_tells_what_works_and_how_to_mend_the_rest(exchange, admin):
    exchange.clock.at_ms = int(time.time() * 1000)
    found = {row["name"]: row for row in data(admin("check", "--json"))}
    assert found["exchange"]["works"]
    assert all(row["mend"] for row in found.values() if not row["works"])
    shown = ok(admin("check")).stdout
    assert "Python" in shown


def test_a_laboratory_that_this_machine_does_not_allow_is_no_failure(exchange, admin, monkeypatch):
    exchange.clock.at_ms = int(time.time() * 1000)
    monkeypatch.setattr("tieline.cli.check.LEAVING", "import sys; sys.exit('no user namespace')")
    done = admin("check", "--json")
    (row,) = [row for row in data(done) if row["name"] == "laboratory"]
    assert (row["works"], row["is_required"], row["found"]) == (False, False, "no user namespace")
    assert done.exit_code == 0


def test_check_fails_when_the_exchange_that_is_known_does_not_answer(call, monkeypatch):
    monkeypatch.setattr("tieline.drivers.http.backoff.Backoff.next_s", lambda self: 0.0)
    done = call("-x", "http://127.0.0.1:9", "check")
    assert done.exit_code == 1
    assert "mend:" in done.stdout


def test_json_is_never_translated(admin):
    assert admin("ps", "--json").stdout == admin("--lang", "zh", "ps", "--json").stdout


def test_an_interruption_leaves_the_job_running_and_tells_the_way_back(admin):
    code = "from tieline.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "-y", "--", "sleep 60"], stderr=subprocess.PIPE, text=True
    )
    said = ""
    while "submitted" not in said:
        said += process.stderr.readline()
    job = re.search(r"submitted (j-\w+)", said)[1]
    while job not in ok(admin("ps", "--state", "running")).stdout:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert f"hint: tieline logs -f {job}" in rest
    assert data(admin("why", job, "--json"))["state"] == "running"
    ok(admin("stop", "-y", job))


def test_the_log_is_followed_until_interrupted(admin):
    code = "from tieline.cli.main import main; main()"
    words = [sys.executable, "-c", code, "events", "-f", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert [json.loads(process.stdout.readline())["seq"] for _ in range(3)] == [1, 2, 3]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_a_reader_that_goes_away_is_no_traceback(admin):
    code = "from tieline.cli.main import main; main()"
    words = [sys.executable, "-c", code, "events", "--limit", "1000", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(20)
