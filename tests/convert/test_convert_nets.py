"""Other people's nets: what Caffe runs is converted, or refused with the reason."""

from __future__ import annotations

import re

import numpy as np
import pytest
from convert_help import ROOT, assert_close, data, layer, make_net, needs_caffe, write_weights
from test_convert_command import convert
from test_convert_onnx import BOUND, pool

from lglstm.caffe_files import random_weights, read_net
from lglstm.caffe_files.schema import NetParameter
from lglstm.common.errors import InputError
from lglstm.convert.caffe_process import run_caffe
from lglstm.convert.read import read_deploy

for package in ("torch", "onnx", "onnxruntime", "safetensors"):
    pytest.importorskip(package, reason=f"needs the package {package}: see docs/convert.md")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def proved(tmp_path, text: str, target: str) -> dict:
    """Convert a net with random weights, with the proof; the report."""
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    net = read_deploy(path)
    write_weights(tmp_path / "net.caffemodel", net, random_weights(net, 1, contrast=60))
    made = tmp_path / ("net.onnx" if target == "onnx" else "net.safetensors")
    report = convert(path, tmp_path / "net.caffemodel", "--to", target, "-o", made)
    assert report["reference"].startswith("Caffe") and report["differences"]
    assert all(d["largest"] > 0 for d in report["differences"])
    return report


CONVOLUTION = layer("Convolution", "conv", "data", "conv",
    "convolution_param { num_output: 4 kernel_size: 3 }")  # fmt: skip
DIGITS = (
    data(1, 3, 9, 8)
    + layer("DummyData", "train-data", "", "data", 'include { stage: "train" }')
    + CONVOLUTION
    + layer("EuclideanLoss", "loss", "conv conv", "loss", 'exclude { stage: "deploy" }')
    + layer("Softmax", "softmax", "conv", "softmax", 'include { stage: "deploy" }')
)
NETS = {
    "stages of DIGITS": DIGITS,
    "a stage of its own": 'state { stage: "mine" }\n' + data(1, 3, 9, 8) + CONVOLUTION
        + layer("Sigmoid", "s", "conv", "s", 'include { stage: "mine" not_stage: "other" }'),
    "mask": data(1, 3, 9, 8) + layer("Pooling", "p", "data", "top mask",
        "pooling_param { kernel_size: 3 stride: 2 }"),
    "statistics of the batch": data(1, 3, 9, 8) + layer("BatchNorm", "b", "data", "b",
        "batch_norm_param { use_global_stats: false }"),
    "a repeated name": data(1, 3, 9, 8) + CONVOLUTION + layer("ReLU", "relu", "conv", "conv")
        + layer("Sigmoid", "relu", "conv", "top"),
    "no weights": data(1, 3, 9, 8) + layer("Sigmoid", "s", "data", "s"),
    "reshape to one image": data(1, 3, 9, 8) + CONVOLUTION + layer("Reshape", "r", "conv", "r",
        "reshape_param { shape { dim: 1 dim: 24 dim: 7 } }"),
    "reshape of all images": data(1, 3, 9, 8) + CONVOLUTION + layer("Reshape", "r", "conv", "r",
        "reshape_param { shape { dim: 1 dim: -1 dim: 6 } }"),
    "concat of images": data(1, 3, 9, 8) + layer("Sigmoid", "s", "data", "s")
        + layer("Concat", "top", "data s", "top", "concat_param { axis: 0 }"),
    "slice of images": data(4, 3, 9, 8) + layer("Slice", "s", "data", "a b",
        "slice_param { axis: 0 slice_point: 1 }"),
    "slice of equal parts": data(3, 3, 9, 8) + CONVOLUTION + layer("Slice", "s", "conv", "a b c",
        "slice_param { axis: 0 }"),
    "scale by a second bottom, with a bias": data(2, 3, 9, 8) + data(2, 3, name="factor")
        + layer("Scale", "s", "data factor", "s", "scale_param { axis: 0 bias_term: true }"),
    "weights for each image": data(2, 3, 9, 8) + layer("Scale", "s", "data", "s",
        "scale_param { axis: 0 num_axes: 2 }"),
}  # fmt: skip


@pytest.mark.slow
@needs_caffe
@pytest.mark.parametrize("target", ["onnx", "pytorch"])
@pytest.mark.parametrize("name", NETS)
def test_what_caffe_runs_is_converted(tmp_path, name, target):
    proved(tmp_path, NETS[name], target)


@needs_caffe
def test_stages_leave_out_what_caffe_leaves_out(tmp_path):
    (tmp_path / "net.prototxt").write_text(DIGITS)
    assert read_deploy(tmp_path / "net.prototxt").outputs == ("softmax",)
    assert read_net(tmp_path / "net.prototxt").outputs == ("loss",)


@needs_caffe
def test_statistics_of_the_batch_are_those_of_the_batch(tmp_path):
    """Not the stored ones, in all three."""
    import onnxruntime
    import torch

    from lglstm.convert.onnx_graph import to_onnx
    from lglstm.convert.torch import Net

    net, weights = make_net(tmp_path, NETS["statistics of the batch"])
    inputs = {"data": 3 + np.random.default_rng(0).standard_normal((4, 3, 9, 8)).astype(np.float32)}
    (expected,) = run_caffe(net.path, tmp_path / "net.caffemodel", [inputs], ["b"])
    assert np.abs(expected["b"].mean((0, 2, 3))).max() < 1e-5
    session = onnxruntime.InferenceSession(to_onnx(net, weights).SerializeToString())
    assert_close(session.run(["b"], inputs)[0], expected["b"])
    module = Net(net.description()).load_weights(weights).eval()
    assert_close(module(torch.from_numpy(inputs["data"])), expected["b"])


@needs_caffe
@pytest.mark.parametrize("words", ["", "use_global_stats: true", "use_global_stats: false"])
def test_batch_norm_learns_as_in_caffe(tmp_path, words):
    """In training, the batch's statistics normalize, and join the stored ones."""
    import caffe
    import torch

    from lglstm.convert.torch import Net

    text = layer("BatchNorm", "b", "data", "b", f"batch_norm_param {{ {words} }}")
    net, weights = make_net(tmp_path, data(4, 3, 5, 6) + text)
    batch = 3 + np.random.default_rng(0).standard_normal((4, 3, 5, 6)).astype(np.float32)
    other = caffe.Net(str(net.path), caffe.TRAIN, weights=str(tmp_path / "net.caffemodel"))
    module = Net(net.description()).load_weights(weights).train()
    for _ in range(2):
        other.blobs["data"].data[...] = batch
        other.forward()
        assert_close(module(torch.from_numpy(batch)), other.blobs["b"].data)
    for blob, stored in zip(module.weights().values(), other.params["b"], strict=True):
        assert_close(blob, stored.data)


@pytest.mark.parametrize("target", ["onnx", "pytorch"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (pool("pool: STOCHASTIC kernel_size: 2"), "which Caffe computes on GPUs only"),
        (pool("kernel_size: 2 stride: 4"), "last window lies outside of its map of 8, .* FLOOR"),
        (pool("pool: AVE kernel_size: 1 stride: 2"), "last window lies outside of its map of 8"),
        (layer("Pooling", "p", "data", "a b", "pooling_param { pool: AVE kernel_size: 2 }"),
         "has a second top, the mask, which only maxima have; correct"),
        (CONVOLUTION + layer("ReLU", "conv", "conv", "top"),
         'layer "conv" of type ReLU: another layer has the same name, by which Caffe finds'),
        (layer("Sigmoid", "conv", "data", "data") + CONVOLUTION, "another layer has the same name"),
        (layer("Sigmoid", "s", "data", "s") + layer("Convolution", "c", "data s", "a b",
         "convolution_param { num_output: 4 kernel_size: 3 }"), "it convolves several bottoms"),
        (layer("Convolution", "c", "data", "c",
         "convolution_param { num_output: 4 kernel_size: 3 axis: 2 }"), "its axis is 2; only"),
    ],
)  # fmt: skip
def test_what_is_refused_is_refused_with_its_reason(tmp_path, text, words, target):
    """And the hint is to correct the prototxt only where Caffe refuses it, too."""
    path = tmp_path / "net.prototxt"
    path.write_text(data(1, 3, 8, 8) + text)
    with pytest.raises(InputError, match=words) as error:
        read_deploy(path)
    assert ("correct the prototxt" in str(error.value)) == ("mask" in words or "name" in words)
    (tmp_path / "net.caffemodel").write_bytes(NetParameter(name="x").SerializeToString())
    assert re.search(
        words, convert(path, tmp_path / "net.caffemodel", "--to", target, "--no-verify", code=1)
    )


@needs_caffe
@pytest.mark.parametrize("name", BOUND)
def test_layers_that_bind_the_batch_are_proved_with_it(tmp_path, name):
    report = proved(tmp_path, data(2, 3, 7, 6) + BOUND[name].replace("dim: 56", "dim: 42"), "onnx")
    assert report["second_reader"].startswith("OpenCV")
