"""Every command reads Caffe's files with the same reader: the same sentence, the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from evaluation_help import COLORS, color_list, color_net

from lglstm.caffe_files import read_blobs
from lglstm.caffe_files.prototxt import read_prototxt
from lglstm.caffe_files.schema import NetParameter
from lglstm.cli.main import main
from lglstm.common.errors import InputError

TRAINED = """
layer { name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param { shape { dim: 1 dim: 3 dim: 24 dim: 40 }
                     shape { dim: 1 dim: 5 dim: 24 dim: 40 } } }
layer { name: "nearest" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "score" bottom: "target" top: "loss" }
"""
SOLVER = 'net: "train.prototxt" max_iter: 1 lr_policy: "fixed" base_lr: 0 snapshot_prefix: "tiny"'


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder, the current one, with a net, its weights, a solver, a photo and a list."""
    pytest.importorskip("caffe", reason="needs Caffe: make setup")
    color_net(tmp_path)
    color_list(tmp_path / "data")
    cv2.imwrite(str(tmp_path / "photo.png"), COLORS[np.eye(24, 40, dtype=int)])
    (tmp_path / "train.prototxt").write_text(TRAINED)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(weights: Path) -> dict[str, list[str]]:
    """The command lines that read a caffemodel."""
    return {
        "predict": ["predict", "deploy.prototxt", "photo.png", "--weights", f"{weights}"],
        "evaluate": ["evaluate", "deploy.prototxt", "--weights", f"{weights}",
                     "--list", "data/test.txt"],
        "convert": ["convert", "deploy.prototxt", f"{weights}", "--to", "npz"],
        "init-weights": ["init-weights", "horse", "--from", f"{weights}"],
        "train": ["train", "./solver.prototxt", "--weights", f"{weights}", "--cpu"],
    }  # fmt: skip


def sentence(arguments: list[str]) -> str:
    """The one line of an error that the command ends with."""
    if arguments[0] == "train":  # a process of its own writes it
        command = [sys.executable, "-m", "lglstm.cli.main", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        code, err = result.returncode, result.stderr
    else:
        run = CliRunner().invoke(main, arguments)
        code, err = run.exit_code, run.stderr
    assert code == 1 and err.count("\n") == 1 and err.startswith("error: "), (arguments[0], err)
    return err


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def record(number: int, content: bytes) -> bytes:
    """A protobuf record of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def damaged(whole: bytes) -> dict[str, bytes]:
    wrong = NetParameter.FromString(whole)
    wrong.layer[-1].blobs[0].shape.dim[0] = 6
    bare = NetParameter.FromString(whole)
    for layer in bare.layer:
        del layer.blobs[:]
    return {
        "truncated": whole[:-7],
        "empty": b"",
        "text": b'layer { name: "data" }',
        "wrong shape": wrong.SerializeToString(),
        "without weights": bare.SerializeToString(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "wrong shape", "without weights"])
def test_a_damaged_file_gets_the_same_sentence_from_every_command(files, damage):
    bad = files / "bad.caffemodel"
    bad.write_bytes(damaged((files / "colors.caffemodel").read_bytes())[damage])
    with pytest.raises(InputError) as error:
        read_blobs(bad)
    sentences = {name: sentence(line) for name, line in commands(bad).items()}
    assert sentences == dict.fromkeys(sentences, f"error: {error.value}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (None, "No such file or directory"),
        (Path.mkdir, "it is a folder"),
        (os.mkfifo, "it is not an ordinary file"),
    ],
)
def test_no_file_gets_the_same_sentence_from_every_command(files, make, reason):
    path = files / "bad.caffemodel"
    if make is not None:
        make(path)
    expected = f"error: {path}: cannot be read ({reason}); check the path\n"
    sentences = {name: sentence(line) for name, line in commands(path).items()}
    assert sentences == dict.fromkeys(sentences, expected)


def as_raw_data(whole: bytes, code: int, dtype: str) -> bytes:
    """The file as NVIDIA's Caffe and OpenCV write it: numbers as the bytes of a stated type."""
    content = record(1, b"raw")
    for layer in NetParameter.FromString(whole).layer:
        fields = record(1, layer.name.encode())
        for blob in layer.blobs:
            numbers = np.frombuffer(b"".join(blob.data), "<f4").astype(dtype)
            shape, kind = record(7, blob.shape.SerializeToString()), varint(10 << 3) + varint(code)
            fields += record(7, shape + kind + record(12, numbers.tobytes()))
        content += record(100, fields)
    return content


@pytest.mark.parametrize(("code", "dtype"), [(0, "<f8"), (1, "<f4"), (2, "<f2")])
def test_numbers_stored_as_raw_data_predict_the_same(files, code, dtype):
    whole = (files / "colors.caffemodel").read_bytes()
    (files / "raw.caffemodel").write_bytes(as_raw_data(whole, code, dtype))
    expected = areas(files / "colors.caffemodel")
    assert len(expected) > 1 and areas(files / "raw.caffemodel") == expected


FORMATS = {
    "colors.npz": ["--to", "npz"],
    "colors.h5": ["--to", "hdf5"],
    "caffe.safetensors": ["--to", "safetensors", "--precision", "float16"],
    "modules.safetensors": ["--to", "pytorch", "--precision", "float16"],
    "modules.pth": ["--to", "pytorch"],
}
"""Weights in other formats, and what `lglstm convert` makes them with."""


def convert(files: Path, name: str) -> Path:
    for package in ("torch", "safetensors"):
        pytest.importorskip(package, reason=f"needs the package {package}: see docs/convert.md")
    line = ["convert", "deploy.prototxt", "colors.caffemodel", *FORMATS[name], "-o", name]
    result = CliRunner().invoke(main, [*line, "--no-verify"])
    assert result.exit_code == 0, result.output
    return files / name


def areas(weights: Path) -> dict[str, float]:
    """What predict finds in the photo."""
    result = CliRunner().invoke(main, [*commands(weights)["predict"], "--json"])
    assert result.exit_code == 0, result.output
    (entry,) = json.loads(result.stdout)
    return entry["areas"]


def test_weights_of_every_format_predict_the_same(files):
    expected = areas(files / "colors.caffemodel")
    assert len(expected) > 1
    for name in FORMATS:
        assert areas(convert(files, name)) == expected, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raw.caffemodel", "colors.npz", "modules.safetensors"])
def test_weights_that_caffe_cannot_read_start_a_training(files, name):
    """With a learning rate of 0 the snapshot holds what the run started from."""
    path = files / name
    if name == "raw.caffemodel":
        whole = (files / "colors.caffemodel").read_bytes()
        path.write_bytes(as_raw_data(whole, 2, "<f2"))
    else:
        convert(files, name)
    command = [sys.executable, "-m", "lglstm.cli.main", *commands(path)["train"]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert f"{path}: fills 1 of 1 layers" in result.stderr
    before, after = read_blobs(files / "colors.caffemodel"), read_blobs("tiny_iter_1.caffemodel")
    for mine, theirs in zip(before["nearest"], after["nearest"], strict=True):
        rounded = mine if name == "colors.npz" else mine.astype(np.float16)
        np.testing.assert_array_equal(theirs, rounded.astype(np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["deploy", "solver"])
def test_a_damaged_prototxt_gets_the_same_sentence(files, form):
    (files / "deploy.prototxt").write_text('layer { name: "data" type: "Input" toop: "data" }')
    (files / "solver.prototxt").write_text('net: "deploy.prototxt" max_itr: 1')
    lines = commands(files / "colors.caffemodel")
    if form == "solver":
        assert "solver.prototxt: is not a Caffe SolverParameter: 1:" in sentence(lines["train"])
        return
    expected = (
        "deploy.prototxt: is not a Caffe NetParameter: 1:36 : Message type "
        '"LayerParameter" has no field named "toop"; correct the file\n'
    )
    (files / "solver.prototxt").write_text('net: "deploy.prototxt" max_iter: 1')
    for name in ("predict", "evaluate", "convert", "train"):
        assert sentence(lines[name]).removeprefix("error: ").endswith(expected), name


WITHOUT_CAFFE = """
import sys
sys.modules["caffe"] = None  # an import of it fails
from lglstm.cli.main import main
main()
"""


@pytest.mark.slow
def test_initial_weights_need_no_caffe(tmp_path):
    """In a process where caffe cannot be imported; pycaffe then reads what was written."""
    shapes = {}
    channels = 3
    for stage, (count, filters) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for i in range(1, count + 1):
            shapes[f"conv{stage}_{i}"] = (filters, channels, 3, 3)
            channels = filters
    arrays = {f"{name}_w": np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}
    arrays |= {f"{name}_b": np.ones(shape[0], np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "vgg.npz", **arrays)
    out = tmp_path / "init.caffemodel"
    command = [sys.executable, "-c", WITHOUT_CAFFE, "init-weights", "horse"]
    command += ["--from", f"{tmp_path / 'vgg.npz'}", "-o", f"{out}", "--json"]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, timeout=300
    )
    assert result.returncode == 0, result.stderr
    actions = {step["layer"]: step["action"] for step in json.loads(result.stdout)["layers"]}
    assert actions["conv5_3"] == "copied" and actions["fc6"].startswith("left")
    blobs = read_blobs(out)
    assert {name: array[0].shape for name, array in blobs.items()} == shapes
    assert blobs["conv5_3"][0][0, 0, 0, 0] == 0.5


def test_layers_may_be_a_list(tmp_path):
    """As Caffe's text format allows; each keeps its line for messages."""
    file = tmp_path / "net.prototxt"
    file.write_text('layer: [\n{ name: "a" type: "Split" },  # [\n{ name: "b[" type: "Split"\n}]\n'
                    'layer {\n name: "c" type: "Split" }\n')  # fmt: skip
    net, lines = read_prototxt(file, "TEST")
    assert [layer.name for layer in net.layer] == ["a", "b[", "c"]
    assert lines == [2, 3, 5]
