"""Where `lglstm convert` reads and writes: no input is lost, and any name of a file will do."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from convert_help import ROOT, convert, lg_lstm_net, make_net, needs_caffe, write_weights

from lglstm.caffe_files import random_weights, read_net
from lglstm.cli.main import main
from lglstm.convert.caffe_process import caffe_is_there, run_caffe
from lglstm.convert.description import read_description
from lglstm.convert.write import FORMATS, default_output

for package in ("onnx", "onnxruntime", "safetensors"):
    pytest.importorskip(package, reason=f"needs the package {package}: see docs/convert.md")

DEMO = ROOT / "models" / "demo" / "deploy.prototxt"


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """Random weights of models/demo."""
    net = read_net(DEMO)
    return write_weights(tmp_path / "demo.caffemodel", net, random_weights(net, seed=1))


@pytest.fixture(autouse=True)
def from_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_no_input_is_replaced_by_the_result(demo, tmp_path):
    weights, reference = tmp_path / "w.npz", tmp_path / "r.npz"
    convert("demo", demo, "--to", "npz", "-o", weights, "--no-verify")
    reference.write_bytes(b"reference")
    (tmp_path / "link.npz").symlink_to("w.npz")
    (tmp_path / "folder").mkdir()
    other_name = tmp_path / "folder" / ".." / "w.npz"
    before = weights.read_bytes()
    for target, output, *more in (
        ("npz", weights),
        ("npz", other_name),
        ("npz", tmp_path / "link.npz"),
        ("npz", reference, "--reference", reference),
        ("npz", reference, "--photo", reference),
        *([("reference", weights)] if caffe_is_there() else []),
    ):
        message = convert("demo", weights, "--to", target, "-o", output, *more, code=1)
        assert message == (
            f"{output}: is the source itself, which would be lost; give another --output"
        )
    assert weights.read_bytes() == before and reference.read_bytes() == b"reference"


def test_links_to_themselves_are_refused(demo, tmp_path):
    loop = tmp_path / "loop.npz"
    loop.symlink_to("loop.npz")
    message = convert("demo", loop, "--to", "onnx", "-o", tmp_path / "x.onnx", code=1)
    assert message.startswith(f"{loop}: cannot be read (Too many levels of symbolic links)")
    message = convert("demo", demo, "--to", "npz", "-o", loop, code=1)
    assert message.startswith(f"{loop}: cannot be written (Too many levels of symbolic links)")
    assert loop.is_symlink()


@pytest.mark.parametrize(
    "arguments",
    ["''", "w.npz -o ''", "w.npz --photo ''", "w.npz --reference ''"],
)
def test_an_empty_path_is_refused(arguments):
    """As `"$WEIGHTS"` is where the variable is not set."""
    line = ["convert", "demo", *shlex.split(arguments), "--to", "onnx"]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 2, result.output
    assert "the path is empty; name a file" in " ".join(result.stderr.split())


@pytest.mark.parametrize("folder", [".", "/"])
def test_a_folder_is_no_file_of_weights(folder):
    message = convert("demo", folder, "--to", "onnx", code=1)
    assert message == f"{folder}: is a folder; give the file of weights that is in it"


@pytest.mark.parametrize("to", ["safetensors", "onnx", "caffemodel", "npz"])
def test_names_need_not_be_utf_8(tmp_path, to):
    """Of the net, whose name a file without one has, of the weights, and of the result."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    net = read_net(DEMO)
    weights = write_weights(folder / "w\udcff.caffemodel", net, random_weights(net, seed=1))
    deploy = folder / "net\udcff.prototxt"
    text = DEMO.read_text()
    deploy.write_text(text.replace(re.search(r"^name: .*$", text, re.MULTILINE)[0], ""))
    made = default_output(weights, FORMATS[to].suffixes[0])
    convert(deploy, weights, "--to", to, "-o", made, "--no-verify")
    if to in ("onnx", "safetensors"):
        about = read_description(made)
        assert about is not None and about.source == r"w\udcff.caffemodel"


@needs_caffe
def test_caffe_reads_files_whose_names_are_not_utf_8(tmp_path):
    net, _ = make_net(tmp_path, lg_lstm_net(2, 0, True, False))
    inputs = {"data": np.ones(net.inputs["data"], np.float32)}
    (expected,) = run_caffe(net.path, tmp_path / "net.caffemodel", [inputs], ["score"])
    moved = [tmp_path / f"n\udcff{suffix}" for suffix in (".prototxt", ".caffemodel")]
    for path in moved:
        (tmp_path / "net").with_suffix(path.suffix).rename(path)
    (found,) = run_caffe(*moved, [inputs], ["score"])
    np.testing.assert_array_equal(found["score"], expected["score"])
