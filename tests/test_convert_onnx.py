"""ONNX graphs, run by ONNX Runtime, against Caffe."""

from __future__ import annotations

import numpy as np
import pytest
from convert_help import (
    ROOT,
    assert_close,
    caffe_outputs,
    data,
    layer,
    lg_lstm_net,
    make_net,
    needs_caffe,
    random_inputs,
)

from common.errors import InputError
from convert.caffe import random_weights, read_net

onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install 'lg-lstm[convert]'")
runtime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: see docs/convert.md")

from convert.onnx_graph import to_onnx  # noqa: E402


def run(model, inputs, wanted=None):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = wanted or [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def check(tmp_path, text, extra=(), any_size=False, relative=1e-5):
    """Convert and compare with Caffe at the net's batch, and at another one."""
    net, weights = make_net(tmp_path, text)
    model = to_onnx(net, weights, extra_outputs=extra, any_size=any_size)
    for factor in (1, 2):
        inputs = {k: np.concatenate([v] * factor) for k, v in random_inputs(net).items()}
        inputs = {k: v + np.linspace(0, 1, len(v), dtype=v.dtype).reshape(-1, *[1] * (v.ndim - 1))
                  for k, v in inputs.items()}  # fmt: skip
        expected = caffe_outputs(net, tmp_path, inputs, [*net.outputs, *extra])
        made = run(model, inputs)
        assert list(made) == list(expected)
        for name in expected:
            assert_close(made[name], expected[name], relative)
    return model


@needs_caffe
@pytest.mark.parametrize(
    ("neighbors", "grid", "share", "bias"),
    [(8, 3, True, False), (4, 0, False, True), (2, 2, True, True), (8, 1, False, False)],
)
def test_lg_lstm_equals_caffe(tmp_path, neighbors, grid, share, bias):
    extra = ["lg_lstm1_local", "lg_lstm1_memory"] + ["lg_lstm1_global"] * bool(grid)
    model = check(tmp_path, lg_lstm_net(neighbors, grid, share, bias), extra)
    assert {node.domain for node in model.graph.node} == {""}  # standard operators only


def pool(words):
    return layer("Pooling", "top", "data", "top", f"pooling_param {{ {words} }}")


STOCK = {
    "convolution": layer("Convolution", "top", "data", "top",
        "convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 pad_w: 0 "
        "dilation: 2 group: 2 }"),
    "deconvolution": layer("Deconvolution", "top", "data", "top",
        "convolution_param { num_output: 6 kernel_size: 4 stride: 2 pad: 1 group: 2 }"),
    "pool max ceil": pool("kernel_size: 3 stride: 2"),
    "pool max pad": pool("kernel_size: 3 stride: 2 pad: 1"),
    "pool max floor": pool("kernel_size: 2 stride: 3 round_mode: FLOOR"),
    "pool max clipped": pool("kernel_size: 2 stride: 2 pad: 1"),
    "pool ave": pool("pool: AVE kernel_size: 3 stride: 1 pad: 1"),
    "pool ave ceil": pool("pool: AVE kernel_size: 3 stride: 2"),
    "pool ave pad ceil": pool("pool: AVE kernel_size: 4 stride: 3 pad: 1"),
    "pool global": pool("pool: AVE global_pooling: true"),
    "inner product": layer("InnerProduct", "top", "data", "top",
        "inner_product_param { num_output: 5 }"),
    "inner product axis": layer("InnerProduct", "top", "data", "top",
        "inner_product_param { num_output: 5 axis: 2 transpose: true }"),
    "relu": layer("ReLU", "top", "data", "top", "relu_param { negative_slope: 0.1 }"),
    "relu in place": layer("ReLU", "r", "data", "data") + layer("TanH", "top", "data", "top"),
    "prelu": layer("PReLU", "top", "data", "top"),
    "elu": layer("ELU", "top", "data", "top", "elu_param { alpha: 0.5 }"),
    "batch norm": layer("BatchNorm", "top", "data", "top", "batch_norm_param { eps: 0.01 }"),
    "scale": layer("Scale", "top", "data", "top", "scale_param { bias_term: true }"),
    "scale axes": layer("Scale", "top", "data", "top", "scale_param { axis: 2 num_axes: 2 }"),
    "scale two": pool("pool: AVE global_pooling: true") + layer("Reshape", "r", "top", "r",
        "reshape_param { shape { dim: 0 dim: -1 } }") + layer("Scale", "s", "data r", "s",
        "scale_param { axis: 0 }"),
    "bias": layer("Bias", "top", "data", "top"),
    "eltwise sum": layer("TanH", "t", "data", "t") + layer("Eltwise", "top", "data t", "top",
        "eltwise_param { coeff: 0.5 coeff: -2 }"),
    "eltwise prod": layer("TanH", "t", "data", "t") + layer("Eltwise", "top", "data t", "top",
        "eltwise_param { operation: PROD }"),
    "eltwise max": layer("TanH", "t", "data", "t") + layer("Eltwise", "top", "data t", "top",
        "eltwise_param { operation: MAX }"),
    "concat": layer("TanH", "t", "data", "t") + layer("Concat", "top", "data t", "top",
        "concat_param { axis: -3 }"),
    "slice": layer("Slice", "top", "data", "a b c",
        "slice_param { slice_point: 1 slice_point: 3 }"),
    "slice equal": layer("Slice", "top", "data", "a b", "slice_param { slice_dim: 1 }"),
    "split": layer("Split", "top", "data", "a b") + layer("Sigmoid", "s", "a", "s"),
    "crop": pool("kernel_size: 3 stride: 1") + layer("Crop", "c", "data top", "c",
        "crop_param { offset: 1 offset: 2 }"),
    "lrn": layer("LRN", "top", "data", "top", "lrn_param { local_size: 3 alpha: 2 k: 1.5 }"),
    "lrn within": layer("LRN", "top", "data", "top",
        "lrn_param { local_size: 3 alpha: 2 norm_region: WITHIN_CHANNEL }"),
    "dropout": layer("Dropout", "top", "data", "top"),
    "softmax": layer("Softmax", "top", "data", "top"),
    "softmax axis": layer("Softmax", "top", "data", "top", "softmax_param { axis: -1 }"),
    "sigmoid": layer("Sigmoid", "top", "data", "top"),
    "absval": layer("AbsVal", "top", "data", "top"),
    "power": layer("AbsVal", "a", "data", "a") + layer("Power", "top", "a", "top",
        "power_param { power: 1.5 scale: 2 shift: 0.25 }"),
    "clip": layer("Clip", "top", "data", "top", "clip_param { min: -0.5 max: 0.25 }"),
    "reshape": layer("Reshape", "top", "data", "top",
        "reshape_param { shape { dim: 2 dim: 2 } axis: 1 num_axes: 1 }"),
    "flatten": layer("Flatten", "top", "data", "top"),
    "flatten axes": layer("Flatten", "top", "data", "top", "flatten_param { axis: 2 }"),
    "tile": layer("Tile", "top", "data", "top", "tile_param { axis: 2 tiles: 3 }"),
    "silence": layer("Split", "two", "data", "a b") + layer("Silence", "s", "a", "")
        + layer("Sigmoid", "top", "b", "top"),
}  # fmt: skip


@needs_caffe
def test_stock_layers_equal_caffe(tmp_path):
    """Every stock layer that we convert, in one net with an input for each: one run of Caffe."""
    text = ""
    for index, (name, part) in enumerate(STOCK.items()):
        part = data(2, 4, 7, 6) + part
        for kind in ("name", "bottom", "top"):
            part = part.replace(f'{kind}: "', f'{kind}: "{index}_')
        text += f"# {name}\n{part}"
    net, weights = make_net(tmp_path, text)
    inputs = random_inputs(net)
    expected = caffe_outputs(net, tmp_path, inputs)
    made = run(to_onnx(net, weights), inputs)
    torch_made = _torch_outputs(net, weights, inputs)
    assert {int(name.split("_")[0]) for name in expected} == set(range(len(STOCK)))
    for name, value in expected.items():
        try:
            assert_close(made[name], value)
            assert_close(torch_made[name], value)
        except AssertionError as error:
            raise AssertionError(list(STOCK)[int(name.split("_")[0])]) from error


def _torch_outputs(net, weights, inputs):
    torch = pytest.importorskip("torch", reason="needs PyTorch: see docs/convert.md")
    from convert.torch import Net

    torch.set_num_threads(1)
    module = Net(net.description()).load_weights(weights).eval()
    with torch.no_grad():
        return module.blobs([torch.from_numpy(inputs[name]) for name in module.inputs], net.outputs)
