"""An exchange that `up` starts says of itself what it was told at its first start."""

import json
import os
import subprocess
import sys
import urllib.request


def test_the_scope_that_is_stated_at_the_first_start_is_what_the_exchange_says_of_itself(tmp_path):
    folder = str(tmp_path / "up")

    def call(*words, status=0):
        done = subprocess.run(
            [sys.executable, "-m", "tieline.cli", *words],
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TIELINE_HOME": str(tmp_path / "home"), "TIELINE_LANG": "en"},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    call("up", folder, "--scope", "galactic", status=2)
    try:
        for stated in ("national", "regional"):  # the second time it is there already
            made = json.loads(call("up", folder, "--prefix", "cn.t", "--scope", stated, "--no-site", "--json"))
            with urllib.request.urlopen(made["url"] + "/v1/exchange", timeout=30) as answer:
                said = json.load(answer)
            assert (said["prefix"], said["scope"]) == ("cn.t", "national")
    finally:
        call("down", folder)
