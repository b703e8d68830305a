"""The mover as people use it: the command in a process of its own, a real S3 server (moto), kill -9, a full disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from tieline.cli.main import tieline

boto3 = pytest.importorskip("boto3", reason="the extra `s3` and moto are not installed")
pytest.importorskip("s3fs", reason="the extra `s3` is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto is not installed")

PART = 5 * 2**20
BYTES = random.Random(5).randbytes(2 * PART + 12_345)
DIGEST = hashlib.sha256(BYTES).hexdigest()
SECRET = "a-secret-that-is-shown-to-nobody"
WAIT_S = 60


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An S3-compatible server on loopback, with a bucket."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    s3_of(url).create_bucket(Bucket="data")
    yield url
    server.stop()


def s3_of(url: str):
    return boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="k", aws_secret_access_key=SECRET, region_name="us-east-1"
    )


@pytest.fixture
def s3(store: str):
    client = s3_of(store)
    yield client
    client.close()


@pytest.fixture
def environment(store: str, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TIELINE_"))}
    return kept | {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": store,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "TIELINE_HOME": str(tmp_path / "home"),
        "LANG": "C.UTF-8",
    }


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from tieline.cli.main import main; main()", "transfer", "run", *words]


def moved(environment: dict[str, str], *words: str, code: int = 0):
    """Run it in this process; the result, or what it said when it failed."""
    cleared = dict.fromkeys(name for name in os.environ if name.startswith(("AWS_", "TIELINE_")))
    done = CliRunner().invoke(tieline, ["transfer", "run", *words, "--json"], env={**cleared, **environment})
    assert SECRET not in done.output
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if not code else done.stderr


def killed(environment: dict[str, str], ready, *words: str) -> None:
    """Run it, and SIGKILL as soon as ``ready()``."""
    process = subprocess.Popen(command(*words), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + WAIT_S
    try:
        while not ready():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def journalled(folder: Path) -> int:
    """Chunks that the journals below a folder name."""
    return sum(path.read_bytes().count(b"\n") - 1 for path in folder.rglob("*.moves"))


def test_a_file_goes_to_a_store_and_back(environment, s3, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    up = moved(environment, "--from", str(tmp_path / "from"), "--to", "s3://data/a/b.bin")
    assert (up["size_bytes"], up["sha256"], up["target"]) == (len(BYTES), DIGEST, "s3://data/a/b.bin")
    assert s3.get_object(Bucket="data", Key="a/b.bin")["Body"].read() == BYTES
    down = moved(environment, "--from", "s3://data/a/b.bin", "--to", str(tmp_path / "to"), "--sha256", DIGEST)
    assert (tmp_path / "to").read_bytes() == BYTES
    assert down["moved_bytes"] == len(BYTES)
    again = moved(environment, "--from", str(tmp_path / "from"), "--to", "s3://data/a/b.bin", code=1)
    assert "there already" in again
    (tmp_path / "small").write_bytes(b"")
    moved(environment, "--from", str(tmp_path / "small"), "--to", "s3://data/a/b.bin", "--replace")
    assert s3.get_object(Bucket="data", Key="a/b.bin")["Body"].read() == b""


def test_an_upload_that_was_killed_goes_on_with_the_parts_that_are_there(environment, s3, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    words = ("--from", str(tmp_path / "from"), "--to", "s3://data/killed", "--streams", "1")
    home = Path(environment["TIELINE_HOME"])
    killed(environment, lambda: journalled(home) >= 1, *words, "--rate", "40Mbit/s")
    assert s3.list_objects_v2(Bucket="data", Prefix="killed")["KeyCount"] == 0
    (upload,) = s3.list_multipart_uploads(Bucket="data")["Uploads"]
    assert s3.list_parts(Bucket="data", Key="killed", UploadId=upload["UploadId"])["Parts"]
    done = moved(environment, *words, "--rate", "400Mbit/s")
    assert done["resumed_bytes"] >= PART
    assert done["moved_bytes"] + done["resumed_bytes"] == len(BYTES)
    assert s3.get_object(Bucket="data", Key="killed")["Body"].read() == BYTES
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="data")
    assert list(home.rglob("*.moves")) == []


def test_a_wrong_hash_leaves_neither_an_object_nor_an_upload(environment, s3, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    words = ("--from", str(tmp_path / "from"), "--to", "s3://data/wrong", "--sha256", "0" * 64)
    assert "nothing is kept" in moved(environment, *words, code=1)
    assert s3.list_objects_v2(Bucket="data", Prefix="wrong")["KeyCount"] == 0
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="data")


def test_an_object_that_is_replaced_meanwhile_is_refused(environment, s3, tmp_path):
    s3.put_object(Bucket="data", Key="moving", Body=BYTES)
    process = subprocess.Popen(
        command("--from", "s3://data/moving", "--to", str(tmp_path / "to"), "--rate", "40Mbit/s"),
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + WAIT_S
    while not journalled(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    s3.put_object(Bucket="data", Key="moving", Body=BYTES[::-1])
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    assert "moving" in said
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("source", "changes", "words", "code"),
    [
        ("s3://data/nothing", {}, "s3://data/nothing", 1),
        ("s3://no-such-bucket/x", {}, "s3://no-such-bucket/x", 1),
        ("s3://data/x", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no key for this store", 4),
        ("s3://data/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "s3://data/x", 1),
    ],
)
def test_a_store_that_cannot_give_it_is_told_by_name(environment, tmp_path, monkeypatch, source, changes, words, code):
    monkeypatch.setattr("tieline.drivers.http.backoff.Backoff.next_s", lambda self: 0.01)
    env = {name: value for name, value in (environment | changes).items() if value}
    env["AWS_CONFIG_FILE"] = env["AWS_SHARED_CREDENTIALS_FILE"] = str(tmp_path / "none")
    env["AWS_MAX_ATTEMPTS"] = "1"
    said = moved(env, "--from", source, "--to", str(tmp_path / "to"), "--stall-s", "1", code=code)
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "to").exists()


def test_a_download_that_was_killed_goes_on_where_it_was(environment, s3, tmp_path):
    s3.put_object(Bucket="data", Key="down", Body=BYTES)
    words = ("--from", "s3://data/down", "--to", str(tmp_path / "to"))
    killed(environment, lambda: journalled(tmp_path) > 0, *words, "--rate", "40Mbit/s")
    assert not (tmp_path / "to").exists()
    done = moved(environment, *words)
    assert done["resumed_bytes"] > 0
    assert done["moved_bytes"] + done["resumed_bytes"] == len(BYTES)
    assert (tmp_path / "to").read_bytes() == BYTES
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 8 MiB, where this process may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs root to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.root
def test_a_disk_that_is_too_small_is_told_before_anything_is_moved(environment, tmp_path):
    (tmp_path / "from").write_bytes(BYTES)
    with small_disk(tmp_path / "small") as place:
        said = moved(environment, "--from", str(tmp_path / "from"), "--to", str(place / "it"), code=1)
        assert "do not fit" in said
        assert list(place.iterdir()) == []
