"""A training whose parent, reader or terminal goes away."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("caffe")

from process_help import descendants, is_running, wait_until
from training_help import (
    COMMAND,
    PATIENCE,
    environment,
    rows,
    start,
    wait_for_rows,
    write_net,
)

from lglstm.common import child

# Starts a program as `bound_command` does, names it, and stays.
PARENT = """
import subprocess, sys, time
from lglstm.common import child
process = subprocess.Popen(child.bound_command(*sys.argv[1:]), env=child.environment())
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("delay", [0, 0.02])
def test_a_worker_does_not_outlive_a_parent_killed_at_its_start(folder, delay):
    write_net(folder, sleep=0.05)
    process = start(folder=folder)
    wait_until(lambda: descendants(process.pid), "no worker")
    workers = descendants(process.pid)
    time.sleep(delay)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, workers)), "the worker goes on")
    process.communicate()
    assert not (folder / "runs/tiny_iter_12.solverstate").exists()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_program_ends_with_its_parent_even_if_that_was_killed_first(tmp_path, stopped):
    """`stopped`: the program has not yet asked the system when its parent dies."""
    done = tmp_path / "done"
    program = [
        sys.executable,
        "-S",
        "-c",
        f"import time; open({str(done)!r}, 'w'); time.sleep(600)",
    ]
    command = [sys.executable, "-c", PARENT, *program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        started = int(parent.stdout.readline())
        if stopped:
            os.kill(started, signal.SIGSTOP)
            assert not done.exists()
        else:
            wait_until(done.exists, "the program does not start")
        parent.kill()
        parent.wait()
        if stopped:
            os.kill(started, signal.SIGCONT)
        wait_until(lambda: not is_running(started), "the program goes on")
    assert done.exists() != stopped


def test_a_parent_that_is_another_one_ends_the_process():
    code = "from lglstm.common.child import end_with_parent as e; e(1); print('alive')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (137, "")
    assert child.bound_command("x")[-1] == "x"


@pytest.mark.slow
@pytest.mark.parametrize("verbose", [False, True])
def test_training_goes_on_without_anyone_who_reads(folder, verbose):
    """As under `2>&1 | head -1`: both streams end in a pipe whose reader has gone."""
    write_net(folder, sleep=0.001)
    reader, writer = os.pipe()
    arguments = ["--verbose"] if verbose else []
    process = subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=environment(folder), stdout=writer, stderr=writer
    )
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    assert process.wait(PATIENCE) == 0
    assert len(rows(folder)) == 61 and (folder / "runs/tiny_iter_60.solverstate").exists()


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_training_with_closed_streams(folder, closed):
    line = f'exec "$@" {closed}'
    run = subprocess.run(
        ["sh", "-c", line, "sh", *COMMAND], cwd=folder, env=environment(folder), capture_output=True
    )
    assert run.returncode == 0
    assert len(rows(folder)) == 61 and (folder / "runs/tiny_iter_60.solverstate").exists()
    log = (folder / "runs/tiny.log").read_text()
    assert "Iteration 59" in log and "iteration 60/60" not in log


@pytest.mark.slow
def test_closing_the_terminal_takes_a_snapshot(folder):
    write_net(folder, sleep=0.02)
    ours, terminal = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(terminal, 0x540E, 0)  # TIOCSCTTY: closing it then sends SIGHUP

    process = subprocess.Popen(
        COMMAND, cwd=folder, env=environment(folder) | {"TERM": "xterm"},
        stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(terminal)
    wait_for_rows(folder, 5)
    os.close(ours)
    assert process.wait(PATIENCE) == 128 + signal.SIGHUP
    last = int(rows(folder)[-1]["iteration"])
    assert (folder / f"runs/tiny_iter_{last + 1}.solverstate").exists()


@pytest.mark.slow
def test_a_summary_that_cannot_be_printed_is_an_error(folder):
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [*COMMAND, "--json"], cwd=folder, env=environment(folder), stdout=full,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(
        "error: the summary cannot be printed (No space left on device)"
    )
    assert "Traceback" not in run.stderr
    assert (folder / "runs/tiny_iter_60.solverstate").exists()


def test_characters_that_a_stream_does_not_know_are_escaped():
    code = (
        "from lglstm.common.steady_streams import outlive_readers as o; import json; o(); o();"
        "print(json.dumps('häß\\udcff', ensure_ascii=False))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(run.stdout.replace("\\x", "\\u00")) == "häß\udcff"
