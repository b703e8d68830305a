"""A command beside a run: in its sandbox, its control groups and its limits, and with no more rights than it has."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from tieline.drivers.engines import run_folder
from tieline.drivers.engines.beside import beside
from tieline.drivers.siteprocess.shells import Command
from tieline.model.error import TielineError
from tieline.model.relay import Channel, Purpose, Summons

TOLD = {"stream": "0" * 32, "site": "s", "run": "r", "who": "alice", "until_ms": 0}


async def until(holds, seconds=60.0):
    async with asyncio.timeout(seconds):
        while not (found := holds()):  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.02)
        return found


async def ran(engine, folder, *words, given=b"", port=0, rows=0, columns=0):
    """Output, errors and exit code of a command beside the run in ``folder``."""
    has_terminal = rows > 0
    how = beside(engine, folder, command=words, port=port, has_terminal=has_terminal, term="dumb" if rows else "")
    told = Summons(
        purpose=Purpose.SHELL, has_terminal=has_terminal, rows=rows, columns=columns, **TOLD
    )  # fmt: skip
    command = await Command.start(how, told)
    try:
        said = {Channel.OUTPUT: b"", Channel.ERRORS: b""}

        async def read(channel, reader):
            with contextlib.suppress(OSError):
                while data := await reader.read(65_536):
                    said[channel] += data

        reading = [asyncio.create_task(read(*each)) for each in command.outputs]
        if given:
            command.input.write(given)
        if not has_terminal and not port:
            command.close_input()
        async with asyncio.timeout(60):
            code = await command.process.wait()
            await asyncio.wait(reading, timeout=5)
        return said[Channel.OUTPUT].decode(), said[Channel.ERRORS].decode(), code
    finally:
        await command.end()
        for task in reading:
            task.cancel()


@pytest.mark.parametrize("sandbox", ["none", "bubblewrap"])
def test_a_command_runs_where_the_task_runs_and_may_what_the_task_may(site, sandbox, monkeypatch):
    """``site`` is the fixture of this folder: with control groups, and without."""
    if sandbox == "bubblewrap" and not site.engine().way.sandbox.works:
        pytest.skip("no sandbox works here")
    secret = "s3cret in its environment"
    script = "echo mine >note; touch ready; exec sleep 600"
    network = "none" if sandbox == "bubblewrap" and "none" in site.engine().way.sandbox.networks else "host"
    launch = site.launch(script, sandbox=sandbox, network=network, envs={"TOKEN": secret}, memory_bytes=2**30)
    monkeypatch.setenv("OF_THE_SITE", "not for tasks")

    async def story(engine):
        await engine.start(launch)
        folder = launch.folder
        await until(Path(folder, "work", "ready").exists)
        out, errors, code = await ran(
            engine, folder, "/bin/sh", "-c", "cat note; pwd; echo $TOKEN; echo no >&2; exit 7"
        )
        assert (out, errors, code) == (f"mine\n{folder}/work\n{secret}\n", "no\n", 7)
        out, _, _ = await ran(engine, folder, "/bin/sh", "-c", "echo [$OF_THE_SITE]; cat", given=b"typed\n")
        assert out == "[]\ntyped\n"
        _, errors, code = await ran(engine, folder, "/no/such/program")
        assert (code, "not found" in errors) == (127, True)
        groups = run_folder.setting(folder).cgroups
        for group in groups:
            out, _, _ = await ran(engine, folder, "/bin/sh", "-c", "sleep 0; cat /proc/self/cgroup")
            assert Path(group).name in out or sandbox == "bubblewrap", out
        out, _, _ = await ran(engine, folder, "/bin/sh", "-c", "tty; stty size", rows=33, columns=101)
        assert "33 101" in out
        status = "grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
        mine, _, _ = await ran(engine, folder, "/bin/sh", "-c", status)
        its = status_of(child_of(folder, sandbox))
        for line in mine.splitlines():
            name, *values = line.replace(":", " ").split()
            if name == "Uid" and os.geteuid() != 0:
                continue  # shown as of the name space of whoever reads
            assert values == its[name], line
        if sandbox == "bubblewrap":
            out, _, _ = await ran(
                engine, folder, "/bin/sh", "-c", "hostname; id -u; ls -A /root /home; cat /proc/net/dev"
            )
            assert out.startswith("run\n65534\n"), out
            assert ("eth0" not in out) or network == "host"
            hidden, _, code = await ran(engine, folder, "/bin/cat", f"{folder}/launch")
            assert (hidden, code) == ("", 1)
            out, _, _ = await ran(engine, folder, "/bin/sh", "-c", "ls /proc | grep -c '^[0-9]'")
            assert int(out) < 12  # its own processes alone
        await engine.stop(folder, 0.1)
        with pytest.raises(TielineError):
            beside(engine, folder, command=("true",))

    site.do(story)


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: line.split()[1:] for line in lines if ":" in line}


def child_of(folder, sandbox):
    if sandbox == "none":
        return run_folder.task(folder)
    init = run_folder.sandbox_init(folder)
    return Path(f"/proc/{init}/task/{init}/children").read_text().split()[0]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.20.1.7"])
def test_a_port_of_a_run_is_reached_from_inside_its_network(site, address):
    """At the node's own address in its gang, and where a program listens that knows of no gang."""
    if "none" not in site.engine().way.sandbox.networks:
        pytest.skip("no sandbox without a network works here")
    script = (
        "python3 -c 'import socket\n"
        f's=socket.create_server(("{address}",8765)); open("ready","w")\n'
        "while True:\n"
        ' c,_=s.accept(); c.sendall(b"hello "+c.recv(99)); c.close()\''
    )
    envs = {"TIELINE_NODE_IPS": "127.20.1.6\n127.20.1.7", "TIELINE_NODE_RANK": "1"}
    launch = site.launch(script, sandbox="bubblewrap", network="none", envs=envs)

    async def story(engine):
        await engine.start(launch)
        await until(Path(launch.folder, "work", "ready").exists)
        out, errors, code = await ran(engine, launch.folder, port=8765, given=b"there")
        assert (out, errors, code) == ("hello there", "", 0)
        _, errors, code = await ran(engine, launch.folder, port=1)
        assert (code, "refused" in errors) == (126, True)
        await engine.stop(launch.folder, 0.1)

    site.do(story)


def test_the_run_cannot_look_at_what_reaches_its_port(site):
    """It is the site's interpreter until it ends: whoever could open `/proc/PID/exe` would hold a file of outside."""
    if "none" not in site.engine().way.sandbox.networks:
        pytest.skip("no sandbox without a network works here")
    script = (
        "python3 -c 'import os,socket,time\n"
        's=socket.create_server(("127.0.0.1",8765)); open("ready","w")\n'
        "c,_=s.accept(); c.recv(99)\n"
        "seen=[]\n"
        'for each in filter(str.isdigit, os.listdir("/proc")):\n'
        ' if b"/join.py\\0" not in open(f"/proc/{each}/cmdline","rb").read(): continue\n'
        ' for name in ("exe","environ"):\n'
        '  try: os.close(os.open(f"/proc/{each}/{name}",os.O_RDONLY)); seen.append("open")\n'
        '  except OSError: seen.append("closed")\n'
        'c.sendall(" ".join(seen).encode()); c.close(); time.sleep(600)\''
    )
    launch = site.launch(script, sandbox="bubblewrap", network="none")

    async def story(engine):
        await engine.start(launch)
        await until(Path(launch.folder, "work", "ready").exists)
        out, errors, code = await ran(engine, launch.folder, port=8765, given=b"there")
        assert (out, errors, code) == ("closed closed", "", 0)
        await engine.stop(launch.folder, 0.1)

    site.do(story)


def test_what_runs_beside_ends_with_its_caller_and_leaves_the_run_alone(site):
    launch = site.launch("touch ready; exec sleep 600", network="host")

    async def story(engine):
        await engine.start(launch)
        folder = launch.folder
        await until(Path(folder, "work", "ready").exists)
        how = beside(engine, folder, command=("/bin/sh", "-c", "echo $$ >pid; sleep 600"))
        command = await Command.start(how, Summons(purpose=Purpose.SHELL, **TOLD))
        pid = Path(folder, "work", "pid")
        number = int(await until(lambda: pid.exists() and pid.read_text().strip()))
        await command.end()
        await until(lambda: not Path(f"/proc/{number}").exists())
        assert run_folder.exited(folder) is None
        await engine.stop(folder, 0.1)

    site.do(story)


def test_a_caller_leaves_no_descriptor_open_here_whatever_goes_on_in_the_run(site):
    """Something that it left behind may hold its output for as long as the run lives."""
    launch = site.launch("touch ready; exec sleep 600", network="host")

    async def story(engine):
        await engine.start(launch)
        folder = launch.folder
        await until(Path(folder, "work", "ready").exists)
        behind = "rm -f left; setsid sh -c 'touch left; exec sleep 600' & until [ -e left ]; do sleep 0.02; done"
        left = ("/bin/sh", "-c", f"{behind}; echo there; [ -t 1 ] || exec sleep 600")

        async def once(rows):
            how = beside(engine, folder, command=left, has_terminal=rows > 0)
            told = Summons(purpose=Purpose.SHELL, has_terminal=rows > 0, rows=rows, columns=80, **TOLD)
            command = await Command.start(how, told)
            async with asyncio.timeout(30):
                assert b"there" in await command.outputs[0][1].read(65_536)
                if rows:
                    assert await command.wait() == 0
                await command.end()

        await once(0)
        before = descriptors()
        for rows in (0, 24, 0, 24):
            await once(rows)
        await until(lambda: descriptors() <= before, 30)
        await engine.stop(folder, 0.1)

    site.do(story)


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
