"""`lglstm convert` as users call it: every format, the way back, and proofs that fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from convert_help import ROOT, lg_lstm_net, make_net, needs_caffe, write_weights

from lglstm.caffe_files import random_weights, read_caffemodel, read_net
from lglstm.cli.convert import command
from lglstm.common.errors import InputError
from lglstm.convert import conversion, proof

for package in ("torch", "onnx", "onnxruntime", "safetensors"):
    pytest.importorskip(package, reason=f"needs {package}: pip install {package}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """Random weights of models/demo, with the layers that only training has."""
    net = read_net(ROOT / "models" / "demo" / "train.prototxt", "TRAIN")
    path = tmp_path_factory.mktemp("demo") / "demo.caffemodel"
    deploy = read_net(ROOT / "models" / "demo" / "deploy.prototxt")
    fixed = {x.name for x in deploy.layers} - {x.name for x in net.layers}
    assert {x.type for x in deploy.layers if x.name in fixed} <= {"Deconvolution"}
    return write_weights(path, net, random_weights(net, seed=1))


def convert(*arguments, code: int = 0) -> dict | str:
    """Run the command from the repository's root; its report, or its error."""
    result = CliRunner().invoke(command, [*map(str, arguments), "--json"])
    if code:
        assert isinstance(result.exception, InputError), result.output
        return str(result.exception)
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def from_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def blobs_of(path: Path) -> dict:
    return {x.name: [b.tobytes() for b in x.blobs] for x in read_caffemodel(path) if x.blobs}


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.h5", "m.safetensors", "m.pth"])
def test_every_format_and_back_is_bit_for_bit(demo, tmp_path, name):
    formats = {"w.npz": "npz", "w.safetensors": "safetensors", "w.h5": "hdf5"}
    there, back = tmp_path / name, tmp_path / "back.caffemodel"
    quick = ["--no-verify"]
    report = convert("demo", demo, "--to", formats.get(name, "pytorch"), "-o", there, *quick)
    assert report["options"]["verify"] is False
    convert("demo", there, "--to", "caffemodel", "-o", back, *quick)
    before, after = blobs_of(demo), blobs_of(back)
    assert {layer: after[layer] for layer in before} == before
    # The deploy net's fixed up-sampling: not in a training's snapshot, but in PyTorch's file.
    assert after.keys() - before.keys() <= {"score"}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [name, f"{name}.json", "back.caffemodel", "back.caffemodel.json"]
    )


@needs_caffe
def test_a_conversion_proves_itself(demo, tmp_path):
    """By noise and a photo, for the output and each LG-LSTM layer, in the report beside it."""
    photo = tmp_path / "photo.png"
    import cv2

    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8))
    made = tmp_path / "demo.onnx"
    report = convert("demo", demo, "--to", "onnx", "-o", made, "--preprocessing", "--photo", photo)
    assert (
        json.loads(made.with_name("demo.onnx.json").read_text()) | {"output": str(made)} == report
    )
    compared = {(d["sample"], d["blob"]) for d in report["differences"]}
    for sample in ("noise", "photo"):
        assert {
            (sample, "score"),
            (sample, "lg_lstm4_local"),
            (sample, "lg_lstm1_global"),
        } <= compared
    assert all(d["passed"] and d["relative"] <= 1e-4 and d["largest"] > 0.01
               for d in report["differences"])  # fmt: skip
    assert report["weights"]["sha256"] == conversion.sha256(demo)
    assert report["sha256"] == conversion.sha256(made)


@needs_caffe
def test_a_wrong_conversion_is_not_kept(tmp_path, monkeypatch):
    """One direction moved: the proof says so, and there is no file."""
    make_net(tmp_path, lg_lstm_net(4, 2, True, False))
    from lglstm.convert import onnx_graph

    wrong = {4: [(-1, -1), (-1, 0), (1, -1), (0, -1)]}
    monkeypatch.setattr(onnx_graph, "_DIRECTIONS", wrong)
    before = sorted(tmp_path.iterdir())
    message = convert(
        tmp_path / "net.prototxt", tmp_path / "net.caffemodel", "--to", "onnx", code=1
    )
    assert "the proof failed and nothing was written" in message
    assert sorted(tmp_path.iterdir()) == before


@needs_caffe
def test_a_net_trained_in_pytorch_runs_in_caffe(demo, tmp_path):
    import torch

    from lglstm.convert.torch import load, save

    start, trained = tmp_path / "start.safetensors", tmp_path / "trained.pth"
    convert("demo", demo, "--to", "pytorch", "-o", start, "--no-verify")
    net = load(start, train=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    _, label = (shape for shape in net.description["inputs"].values())
    photos = 50 * torch.randn(2, *net.description["inputs"]["data"][1:])
    net(photos, torch.randint(0, 5, (2, *label[1:]))).backward()
    optimizer.step()
    save(net, trained)
    made = tmp_path / "trained.caffemodel"
    report = convert("demo", trained, "--to", "caffemodel", "-o", made)
    assert report["reference"] == "PyTorch on the source"
    assert {d["blob"] for d in report["differences"]} >= {"score", "lg_lstm4_memory"}
    assert report["exact_blobs"] > 20
    assert blobs_of(made)["conv1"] != blobs_of(demo)["conv1"]


@needs_caffe
def test_without_caffe_a_stored_reference_serves(demo, tmp_path, monkeypatch):
    stored = tmp_path / "demo.reference.npz"
    convert("demo", demo, "--to", "reference", "-o", stored)
    monkeypatch.setattr(conversion, "caffe_is_there", lambda: False)
    made = tmp_path / "demo.safetensors"
    arguments = ("demo", demo, "--to", "pytorch", "-o", made)
    assert "there is no Caffe here to compare with" in convert(*arguments, code=1)
    report = convert(*arguments, "--reference", stored)
    assert report["reference"].startswith("stored reference") and report["differences"]
    other = tmp_path / "other.caffemodel"
    shutil.copyfile(demo, other)
    with open(other, "ab") as file:
        file.write(bytes([10, 1, 120]))  # another name of the net: other bytes, the same weights
    message = convert("demo", other, "--to", "onnx", "--reference", stored, code=1)
    assert "was made from other weights" in message


def test_the_torch_folder_works_alone(demo, tmp_path):
    """Copied into another project, without this repository, it loads and computes the same."""
    import torch

    from lglstm.convert.torch import load

    made = tmp_path / "demo.safetensors"
    convert("demo", demo, "--to", "pytorch", "-o", made, "--no-verify")
    shutil.copytree(ROOT / "lglstm" / "convert" / "torch", tmp_path / "project" / "parsing")
    code = (
        "import torch; from parsing import load; torch.manual_seed(0); "
        "print(load('../demo.safetensors')(torch.randn(1, 3, 33, 41)).double().sum().item())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "project",
        env={"PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    torch.manual_seed(0)
    expected = load(made)(torch.randn(1, 3, 33, 41)).double().sum().item()
    assert float(result.stdout) == pytest.approx(expected, rel=1e-6), result.stderr


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".safetensors", ".pth", ".caffemodel", ".bin"])
def test_a_damaged_weights_file_is_refused(demo, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"PK\x03\x04 not what the name says" * 9)
    message = convert("demo", path, "--to", "npz", "-o", tmp_path / "out.npz", code=1)
    assert str(path) in message and "\n" not in message
    assert not (tmp_path / "out.npz").exists()


class _Evil:
    def __reduce__(self):
        return print, ("this must never run",)


def test_no_foreign_pickle_is_run(tmp_path, capfd):
    import torch

    evil, array = tmp_path / "evil.pth", tmp_path / "evil.npz"
    torch.save({"state_dict": _Evil()}, evil)
    np.savez(array, **{"conv1/0": np.array([_Evil()], dtype=object)})
    for path in (evil, array):
        convert("demo", path, "--to", "npz", "-o", tmp_path / "out.npz", code=1)
    assert "never run" not in capfd.readouterr().out


def test_diverged_weights_are_refused(tmp_path):
    net, weights = make_net(tmp_path, lg_lstm_net(2, 0, True, False))
    weights["score.weight"][0] = np.nan
    bad = write_weights(tmp_path / "nan.caffemodel", net, weights)
    message = convert(tmp_path / "net.prototxt", bad, "--to", "npz", code=1)
    assert 'layer "score" holds NaN or infinity' in message


def test_differences_are_relative_to_the_largest_number():
    given = [proof.Sample(("noise",), {})]
    expected = [{"score": np.float32([[1000, -2000]])}]
    for made, passed in (([1000, -2000.1], True), ([1000.3, -2000], False), ([np.nan, 0], False)):
        (difference,) = proof.compare(given, expected, [{"score": np.float32([made])}])
        assert difference.passed is passed
        assert difference.largest == 2000
