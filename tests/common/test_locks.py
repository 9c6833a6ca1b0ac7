"""Two runs into one place: the second is told whose the place is; a killed run holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lglstm.common.errors import InputError
from lglstm.common.locks import FILE, locked, locked_prefix

HOLD = """
import sys
from lglstm.common.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


HOLD_WITH_A_CHILD = """
import subprocess, sys
from lglstm.common.locks import locked
with locked(sys.argv[1]):
    child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
    print("held", child.pid, sep="\\n", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path, program: str = HOLD) -> subprocess.Popen[str]:
    """Another process that holds the lock until its input ends."""
    command = [sys.executable, "-c", program, str(folder), "a [b]"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_other_process_is_named(tmp_path):
    folder = tmp_path / "new" / "folder"
    process = hold(folder)
    with pytest.raises(InputError) as caught, locked(folder):
        pytest.fail("two processes hold one lock")
    process.communicate()
    message = str(caught.value)
    assert message.startswith(f"{folder}: process {process.pid} (")
    assert "'a [b]'" in message
    assert "give another --output" in message
    with locked(folder):
        pass
    assert list(folder.iterdir()) == []


def test_killed_process_releases_its_lock(tmp_path):
    process = hold(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / FILE).exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    process.communicate()


def test_children_do_not_inherit_the_lock(tmp_path):
    """A child may outlive the process that held the lock, which is free then."""
    process = hold(tmp_path, HOLD_WITH_A_CHILD)
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    with locked(tmp_path):
        os.kill(child, signal.SIGKILL)
    process.communicate()


def test_prefixes_that_begin_alike_do_not_collide(tmp_path):
    with locked_prefix(tmp_path / "horse", "x"), locked_prefix(tmp_path / "horse2", "x"):
        with pytest.raises(InputError, match=rf"process {os.getpid()} .* is writing there"):
            locked_prefix(tmp_path / "horse", "x").__enter__()
        with locked(tmp_path):
            pass


def test_links_and_pipes_are_not_followed(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("keep")
    for place in ("link", "pipe"):
        folder = tmp_path / place
        folder.mkdir()
        if place == "link":
            (folder / FILE).symlink_to(mine)
        else:
            os.mkfifo(folder / FILE)
        with pytest.raises(InputError, match=f"{place}: cannot be written"), locked(folder):
            pytest.fail("took something else for a lock")
    assert mine.read_text() == "keep"


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file" / "x"):
        pytest.fail("locked nothing")
