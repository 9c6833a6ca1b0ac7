"""`lglstm convert`: killed, on a full disk, and in a place that cannot be written to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from convert_help import ROOT, lg_lstm_net, make_net, needs_caffe
from test_convert_command import convert

for package in ("torch", "onnx", "onnxruntime", "safetensors"):
    pytest.importorskip(package, reason=f"needs the package {package}: see docs/convert.md")

LIMIT = 20_000
"""Bytes after which the system refuses to write on, as on a full disk."""


@pytest.fixture
def small(tmp_path):
    """A net whose weights exceed the limit, and the environment of a process that has it."""
    text = lg_lstm_net(8, 3, False, False).replace("num_output: 4", "num_output: 16")
    make_net(tmp_path, text)
    assert (tmp_path / "net.caffemodel").stat().st_size > 10 * LIMIT
    return tmp_path


def command(*arguments, before: str = "") -> list[str]:
    code = f"{before}\nfrom lglstm.cli.main import main\nmain({[*map(str, arguments)]!r})"
    return [sys.executable, "-c", code]


def full(*arguments) -> subprocess.CompletedProcess[str]:
    """Run `lglstm` where files may have LIMIT bytes."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))"
    return subprocess.run(
        command(*arguments, before=limit), cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("safetensors", "made.safetensors"),
        ("pytorch", "made.safetensors"),
        ("pytorch", "made.pth"),
        ("onnx", "made.onnx"),
        ("npz", "made.npz"),
        ("hdf5", "made.h5"),
        ("caffemodel", "made.caffemodel"),
    ],
)
def test_a_full_disk_is_one_sentence_and_keeps_what_was_there(small, target, name):
    made = small / "out" / name
    made.parent.mkdir()
    made.write_bytes(b"what was there before")
    files = (small / "net.prototxt", small / "net.caffemodel")
    result = full("convert", *files, "--to", target, "-o", made, "--no-verify")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {made}: cannot be written (File too large);")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in made.parent.iterdir()] == [name]
    assert made.read_bytes() == b"what was there before"


@needs_caffe
def test_a_full_disk_for_temporary_files_is_one_sentence(small, monkeypatch):
    scratch = small / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    files = (small / "net.prototxt", small / "net.caffemodel")
    convert(*files, "--to", "npz", "-o", small / "net.npz", "--no-verify")
    result = full(
        "convert", files[0], small / "net.npz", "--to", "reference", "-o", small / "r.npz"
    )
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "cannot be written (File too large)" in result.stderr and str(scratch) in result.stderr
    assert not list(scratch.iterdir()) and not (small / "r.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_save_keeps_what_was_there(small, suffix):
    made = small / "out" / f"net{suffix}"
    made.parent.mkdir()
    made.write_bytes(b"what was there before")
    files = (str(small / "net.prototxt"), str(small / "net.caffemodel"))
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))\n"
        "from lglstm.convert.torch import load_caffemodel, save\n"
        f"save(load_caffemodel(*{files!r}), {str(made)!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr.strip().splitlines()[-1].startswith("OSError: [Errno 27] File too large")
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    assert made.read_bytes() == b"what was there before"


@pytest.mark.parametrize("target", ["safetensors", "pytorch", "onnx", "web"])
def test_a_place_that_cannot_be_written_to_is_one_sentence(small, target):
    (small / "file").write_text("")
    name = {"onnx": "x.onnx", "web": "page"}.get(target, "x.safetensors")
    files = (small / "net.prototxt", small / "net.caffemodel")
    output = small / "file" / "below" / name
    result = subprocess.run(
        command("convert", *files, "--to", target, "-o", output, "--no-verify"),
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    if target != "web":  # which asks for its runtime first
        assert result.stderr.startswith(f"error: {output}: cannot be written (Not a directory)")


def left_in(*folders: Path) -> set[str]:
    return {path.name for folder in folders for path in folder.rglob(".lglstm*")}


@pytest.mark.slow
@needs_caffe
def test_what_killed_conversions_leave_is_swept(small, monkeypatch):
    """Killed while the result lies under its temporary name and Caffe runs beside it."""
    scratch, out = small / "scratch", small / "out"
    for folder in (scratch, out):
        folder.mkdir()
    (out / ".gitignore").write_text("*")
    monkeypatch.setenv("TMPDIR", str(scratch))
    files = (small / "net.prototxt", small / "net.caffemodel")
    arguments = ("convert", *files, "--to", "onnx", "-o", out / "net.onnx")
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while process.poll() is None and not (list(scratch.rglob("*.npz")) and left_in(out)):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert left_in(scratch) and left_in(out) and not (out / "net.onnx").exists()
    subprocess.run(command(*arguments), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert not left_in(scratch, out)
    assert {path.name for path in out.iterdir()} == {".gitignore", "net.onnx", "net.onnx.json"}
    assert not list(scratch.rglob("*.npz"))


@needs_caffe
def test_caffe_ends_with_the_converter_that_started_it(tmp_path):
    waits = tmp_path / "inputs.npz"  # nobody writes to this pipe, so Caffe's process waits
    os.mkfifo(waits)
    code = f"""import os; from lglstm.convert import caffe_process
caffe_process._run(caffe_process.__name__, str(os.getpid()), "a", "b", {str(waits)!r}, "c", "")"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    child = wait_for(lambda: children.read_text().split())[0]
    parent.kill()
    parent.wait()
    wait_for(lambda: not Path(f"/proc/{child}").exists())


def wait_for(what):
    """The first result of `what` that counts as true; within a minute."""
    until = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found
