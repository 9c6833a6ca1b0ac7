"""Disks that are full, and folders that one may not write to."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("caffe")

from training_help import COMMAND, environment, rows, train

from lglstm.training import snapshots


def run(*arguments: str, folder: Path, **settings) -> str:
    """What a training that fails says; its last line is the error."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True,
        **settings,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "Check failed" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_snapshot_that_does_not_fit(folder):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1200, resource.RLIM_INFINITY))

    said = run("--set", "snapshot=2", folder=folder, preexec_fn=limit)
    path = folder / "runs/tiny_iter_2.caffemodel"
    assert f"{path}: the snapshot cannot be written (File too large; " in said
    assert "MB are free there); the one before is none yet; free some space" in said
    assert not path.exists() and len(rows(folder)) == 2


def test_why_a_file_cannot_be_written_is_found_without_a_trace(tmp_path):
    path = tmp_path / "a.caffemodel"
    assert "MB are free there" in snapshots.why_unwritable(path)
    assert not path.exists()
    path.write_bytes(b"half")
    snapshots.why_unwritable(path)
    assert path.read_bytes() == b"half"
    assert snapshots.why_unwritable(tmp_path).startswith("Is a directory; ")
    (tmp_path / "full").symlink_to("/dev/full")
    assert snapshots.why_unwritable(tmp_path / "full").startswith("No space left on device; ")


@pytest.fixture
def small_disk(folder):
    """`runs` on a disk of 280 KB: room for the start, not for the end."""
    (folder / "runs").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=280k", "tmpfs", str(folder / "runs")]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder / "runs"
    subprocess.run(["umount", str(folder / "runs")], check=True)


@pytest.mark.slow
def test_a_full_disk_is_named_and_loses_nothing(folder, small_disk):
    said = run("--set", "snapshot=1", folder=folder)
    assert "No space left on device" in said and "space" in said.partition(")")[2]
    assert "tiny_iter_" in said  # which snapshot there is
    good = snapshots.newest_good("runs/tiny")
    assert snapshots.iteration(good) >= 5
    for path in small_disk.glob("tiny_iter_?.*"):
        path.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    train("--resume", "--set", "snapshot=12", folder=folder)
    assert len(rows(folder)) == 61


@pytest.fixture
def unprivileged() -> list[str]:
    """What to put in front of a command for which permissions shall hold, even as root."""
    if os.geteuid():
        return []
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if not shutil.which("setpriv") or subprocess.run([*prefix, "true"]).returncode:
        pytest.skip("root may write anywhere, and cannot give that up here")
    return prefix


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o555, 0o000, 0o333])
@pytest.mark.parametrize("arguments", [(), ("--resume", "--set", "max_iter=9"), ("--overwrite",)])
def test_a_folder_without_permission(folder, unprivileged, mode, arguments):
    train("--set", "max_iter=1", folder=folder)
    runs = folder / "runs"
    runs.chmod(mode)
    try:
        done = subprocess.run(
            [*unprivileged, *COMMAND, *arguments], cwd=folder, env=environment(folder),
            capture_output=True, text=True,
        )  # fmt: skip
    finally:
        runs.chmod(0o755)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: ")
    assert str(runs) in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".csv", ".run.json", ".log", "_iter_1.caffemodel"])
def test_files_without_permission(folder, unprivileged, kind):
    name = f"tiny{kind}"
    train("--set", "max_iter=1", folder=folder)
    (folder / "runs" / name).chmod(0)
    done = subprocess.run(
        [*unprivileged, *COMMAND, "--resume", "--set", "max_iter=2"], cwd=folder,
        env=environment(folder), capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    if name == "tiny.run.json":  # the snapshots can still be judged by their form
        assert done.returncode == 0 and "tiny.run.json: is damaged" in done.stderr
    else:
        assert done.returncode == 1 and name in done.stderr and "error: " in done.stderr
