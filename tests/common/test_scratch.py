"""Scratch folders: gone after use, swept after a kill, and nobody else's is touched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from lglstm.common.errors import InputError
from lglstm.common.scratch import scratch_folder, sweep_scratch


def test_a_folder_lives_as_long_as_its_block(tmp_path):
    with scratch_folder(tmp_path) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text("x")
        assert folder.parent == tmp_path
        with scratch_folder(tmp_path) as other:  # does not sweep the first
            assert other != folder and (folder / "part" / "file").exists()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path):
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_leaves_is_swept(tmp_path):
    code = (
        "import sys\nfrom lglstm.common.scratch import scratch_folder\n"
        f"with scratch_folder({str(tmp_path)!r}) as folder:\n"
        "    (folder / 'file').write_text('x'); print(folder, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    left = process.stdout.readline().strip()
    sweep_scratch(tmp_path)
    assert os.path.exists(os.path.join(left, "file"))  # its maker lives
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with scratch_folder(tmp_path):
        assert not os.path.exists(left)


@pytest.mark.parametrize("removals", range(4))
def test_a_process_killed_while_it_removes_its_folder(tmp_path, removals):
    code = (
        "import os, sys\nfrom lglstm.common.scratch import scratch_folder\ndone = []\n"
        "def count(event, arguments):\n"
        "    if event == 'os.remove':\n"
        f"        if len(done) == {removals}: os.kill(os.getpid(), 9)\n"
        "        done.append(event)\n"
        f"with scratch_folder({str(tmp_path)!r}) as folder:\n"
        "    for name in 'zabc': (folder / name).write_text('x')\n"
        "    sys.addaudithook(count)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code])
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert len(list(left.iterdir())) == 5 - removals
    sweep_scratch(tmp_path)
    assert not left.exists()


def test_other_files_and_folders_stay(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "lock").write_text("")
    place = tmp_path / "place"
    place.mkdir()
    (place / ".git").mkdir()
    (place / ".lglstm-scratch-notes").mkdir()  # not one of our names
    (place / ".lglstm-scratch-abcd1234").symlink_to(outside)
    (place / ".lglstm-scratch-abcd1235").write_text("a file")
    full = place / ".lglstm-scratch-abcd1236"  # without a lock: not ours
    full.mkdir()
    (full / "mine").write_text("x")
    os.utime(full, (0, 0))
    (place / ".lglstm-scratch-abcd1237").mkdir()  # perhaps just being made
    before = sorted(tmp_path.rglob("*"))
    with scratch_folder(place):
        pass
    assert sorted(tmp_path.rglob("*")) == before
    empty = place / ".lglstm-scratch-abcd1237"
    os.utime(empty, (0, 0))
    sweep_scratch(place)
    assert not empty.exists()


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "none"):
        words = f"{place}: cannot be written .* --output"
        with pytest.raises(InputError, match=words), scratch_folder(place):
            pass
    words = f"{tmp_path}: cannot be written \\(No space left"
    with pytest.raises(InputError, match=words), scratch_folder(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
