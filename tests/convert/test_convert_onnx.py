"""ONNX graphs, run by ONNX Runtime, against Caffe."""

from __future__ import annotations

import re
from pathlib import Path

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

from lglstm.common.errors import InputError
from lglstm.convert.caffe_process import run_caffe

onnx = pytest.importorskip("onnx", reason="needs ONNX: see docs/convert.md")
runtime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: see docs/convert.md")

from lglstm.convert.onnx_graph import to_onnx  # noqa: E402


def run(model, inputs, wanted=None):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = wanted or [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def check(tmp_path, text, extra=(), relative=1e-5):
    """Convert and compare with Caffe at the net's batch, and at another one."""
    net, weights = make_net(tmp_path, text)
    model = to_onnx(net, weights, extra_outputs=extra)
    one = random_inputs(net)
    more = {k: np.concatenate([v, 0.5 * v[:1]]) for k, v in one.items()}
    wanted = [*net.outputs, *extra]
    both = run_caffe(net.path, tmp_path / "net.caffemodel", [one, more], wanted)
    for inputs, expected in zip((one, more), both, strict=True):
        made = run(model, inputs)
        assert list(made) == wanted
        for name in wanted:
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
    "pool mask": layer("Pooling", "p", "data", "top mask",
        "pooling_param { kernel_size: 3 stride: 2 pad: 1 }"),
    "pool global mask": layer("Pooling", "p", "data", "top mask",
        "pooling_param { global_pooling: true }"),
    "inner product": layer("InnerProduct", "top", "data", "top",
        "inner_product_param { num_output: 5 }"),
    "inner product axis": layer("InnerProduct", "top", "data", "top",
        "inner_product_param { num_output: 5 axis: 2 transpose: true }"),
    "relu": layer("ReLU", "top", "data", "top", "relu_param { negative_slope: 0.1 }"),
    "relu in place": layer("ReLU", "r", "data", "data") + layer("TanH", "top", "data", "top"),
    "prelu": layer("PReLU", "top", "data", "top"),
    "elu": layer("ELU", "top", "data", "top", "elu_param { alpha: 0.5 }"),
    "batch norm": layer("BatchNorm", "top", "data", "top", "batch_norm_param { eps: 0.01 }"),
    "batch norm of the batch": layer("BatchNorm", "top", "data", "top",
        "batch_norm_param { eps: 0.01 use_global_stats: false }"),
    "scale": layer("Scale", "top", "data", "top", "scale_param { bias_term: true }"),
    "scale axes": layer("Scale", "top", "data", "top", "scale_param { axis: 2 num_axes: 2 }"),
    "scale two": pool("pool: AVE global_pooling: true") + layer("Reshape", "r", "top", "r",
        "reshape_param { shape { dim: 0 dim: -1 } }") + layer("Scale", "s", "data r", "s",
        "scale_param { axis: 0 }"),
    "scale two bias": pool("pool: AVE global_pooling: true") + layer("Reshape", "r", "top", "r",
        "reshape_param { shape { dim: 0 dim: -1 } }") + layer("Scale", "s", "data r", "s",
        "scale_param { axis: 0 bias_term: true }"),
    "bias": layer("Bias", "top", "data", "top"),
    "eltwise sum": layer("TanH", "t", "data", "t") + layer("Eltwise", "top", "data t", "top",
        "eltwise_param { coeff: 0.5 coeff: -2 }"),
    "eltwise prod": layer("TanH", "t", "data", "t") + layer("Eltwise", "top", "data t", "top",
        "eltwise_param { operation: PROD }"),
    "eltwise max": layer("TanH", "t", "data", "t") + layer("Eltwise", "top", "data t", "top",
        "eltwise_param { operation: MAX }"),
    "concat": layer("TanH", "t", "data", "t") + layer("Concat", "top", "data t", "top",
        "concat_param { axis: -3 }"),
    "concat images": layer("TanH", "t", "data", "t") + layer("Concat", "top", "data t", "top",
        "concat_param { axis: 0 }"),
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
    "flatten images": layer("Flatten", "top", "data", "top", "flatten_param { axis: 0 }"),
    "repeated name": layer("TanH", "top", "data", "t") + layer("Sigmoid", "top", "t", "top"),
    "flatten": layer("Flatten", "top", "data", "top"),
    "flatten axes": layer("Flatten", "top", "data", "top", "flatten_param { axis: 2 }"),
    "tile": layer("Tile", "top", "data", "top", "tile_param { axis: 2 tiles: 3 }"),
    "silence": layer("Split", "two", "data", "a b") + layer("Silence", "s", "a", "")
        + layer("Sigmoid", "top", "b", "top"),
}  # fmt: skip


BOUND = {
    "slice images": layer("Slice", "top", "data", "a b", "slice_param { axis: 0 }"),
    "slice images at": layer("Slice", "top", "data", "a b",
        "slice_param { axis: 0 slice_point: 1 }"),
    "reshape images": layer("Reshape", "top", "data", "top",
        "reshape_param { shape { dim: 1 dim: -1 dim: 7 dim: 6 } }"),
    "reshape all": layer("Reshape", "top", "data", "top",
        "reshape_param { shape { dim: 2 dim: 3 dim: 56 } }"),
    "inner product images": layer("InnerProduct", "top", "data", "top",
        "inner_product_param { num_output: 5 axis: 0 }"),
}  # fmt: skip
"""Layers that bind a net to its batch."""


@needs_caffe
@pytest.mark.parametrize("parts", [STOCK, BOUND])
def test_stock_layers_equal_caffe(tmp_path, parts):
    """Every stock layer that we convert, in one net with an input for each: one run of Caffe."""
    text = ""
    for index, (name, part) in enumerate(parts.items()):
        part = data(2, 4, 7, 6) + part
        for kind in ("name", "bottom", "top"):
            part = part.replace(f'{kind}: "', f'{kind}: "{index}_')
        text += f"# {name}\n{part}"
    net, weights = make_net(tmp_path, text)
    inputs = random_inputs(net)
    expected = caffe_outputs(net, tmp_path, inputs)
    made = run(to_onnx(net, weights), inputs)
    torch_made = _torch_outputs(net, weights, inputs)
    assert {int(name.split("_")[0]) for name in expected} == set(range(len(parts)))
    for name, value in expected.items():
        try:
            assert_close(made[name], value)
            assert_close(torch_made[name], value)
        except AssertionError as error:
            raise AssertionError(list(parts)[int(name.split("_")[0])]) from error


def _torch_outputs(net, weights, inputs, wanted=None):
    torch = pytest.importorskip("torch", reason="needs PyTorch: see docs/convert.md")
    from lglstm.convert.torch import Net

    torch.set_num_threads(1)
    module = Net(net.description()).load_weights(weights).eval()
    with torch.no_grad():
        return module.blobs(
            [torch.from_numpy(inputs[name]) for name in module.inputs], wanted or net.outputs
        )


DYNAMIC = (
    layer("Pooling", "pool1", "data", "pool1", "pooling_param { kernel_size: 3 stride: 2 pad: 1 }")
    + layer("Pooling", "pool2", "pool1", "pool2",
            "pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 }")
    + layer("LGLSTMTransition", "t", "pool2", "t_local t_memory t_global",
            "lg_lstm_param { num_output: 4 neighbors: 4 }")
    + layer("Silence", "s", "t_memory", "")
    + layer("Crop", "crop", "data t_local", "crop", "crop_param { offset: 2 }")
)  # fmt: skip


@needs_caffe
def test_any_size_equals_caffe_at_any_size(tmp_path):
    """Also where the net's strides leave a rest, and the grid's cells change."""
    net, weights = make_net(tmp_path, data(1, 3, 17, 21) + DYNAMIC)
    model = to_onnx(net, weights, any_size=True)
    rng = np.random.default_rng(0)
    inputs = [
        {"data": rng.standard_normal((batch, 3, *size)).astype(np.float32)}
        for batch, size in ((1, (17, 21)), (2, (20, 14)), (1, (33, 40)))
    ]
    expected = run_caffe(net.path, tmp_path / "net.caffemodel", inputs, net.outputs)
    for sample, wanted in zip(inputs, expected, strict=True):
        for name, value in run(model, sample).items():
            assert_close(value, wanted[name])


@pytest.mark.slow
@needs_caffe
def test_scores_of_any_size_are_those_of_the_inputs_pixels(tmp_path):
    """Caffe's are larger where the net's strides leave a rest: 101 × 133 for 100 × 130."""
    text = Path("models/demo/deploy.prototxt").read_text()
    net, weights = make_net(tmp_path, text)
    model = to_onnx(net, weights, any_size=True)
    sizes = ((97, 97), (100, 130), (99, 98), (64, 96))
    inputs = [
        {"data": np.random.default_rng(0).random((1, 3, *size), np.float32)} for size in sizes
    ]
    expected = run_caffe(net.path, tmp_path / "net.caffemodel", inputs, net.outputs)
    for (height, width), sample, wanted in zip(sizes, inputs, expected, strict=True):
        assert (wanted["score"].shape[2:] == (height, width)) == (height == 97)
        (made,) = run(model, sample).values()
        assert made.shape[2:] == (height, width)
        assert_close(made, wanted["score"][..., :height, :width])


def test_scores_that_do_not_reach_the_last_pixels_are_refused(tmp_path):
    text = (
        layer("Convolution", "down", "data", "down",
              "convolution_param { num_output: 2 kernel_size: 2 stride: 2 }")
        + layer("Deconvolution", "up", "down", "score",
                "convolution_param { num_output: 2 kernel_size: 2 stride: 2 }")
    )  # fmt: skip
    net, weights = make_net(tmp_path, data(1, 3, 16, 20) + text)
    to_onnx(net, weights)
    with pytest.raises(
        InputError, match=r"score has the size \[16, 20\] for an input of \[17, 21\]"
    ):
        to_onnx(net, weights, any_size=True)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (layer("InnerProduct", "fc", "data", "fc", "inner_product_param { num_output: 2 }"),
         'line 2: layer "fc" of type InnerProduct has weights for one input size'),
        (layer("Pooling", "p", "data", "p", "pooling_param { kernel_size: 2 stride: 2 pad: 1 }"),
         "line 2: .* its last window depends"),
        (layer("Slice", "s", "data", "a b", "slice_param { axis: 2 slice_point: 3 }"),
         "line 2: .* depends on the map's size"),
    ],
)  # fmt: skip
def test_any_size_is_refused_with_the_layer_in_the_way(tmp_path, part, words):
    net, weights = make_net(tmp_path, data(1, 3, 17, 21) + part)
    to_onnx(net, weights)
    with pytest.raises(InputError, match=words):
        to_onnx(net, weights, any_size=True)


def thin(text: str) -> str:
    """A model with a 16th of the channels (classes stay), and 65 x 65 instead of 321 x 321."""
    text = text.replace("dim: 321", "dim: 65")
    return re.sub(
        r"(num_output|group): (\d+)",
        lambda m: m[0] if int(m[2]) < 64 else f"{m[1]}: {int(m[2]) // 16}",
        text,
    )


@pytest.mark.slow
@needs_caffe
@pytest.mark.parametrize(
    "name", ["horse", "horse_wo_global", "horse_local2", "horse_local4", "atr", "demo"]
)
def test_every_kind_of_model_equals_caffe(tmp_path, name):
    """The models' deploy nets, thinner: layer for layer the whole structure, in both targets."""
    text = (ROOT / "models" / name / "deploy.prototxt").read_text()
    net, weights = make_net(tmp_path, thin(text))
    photos = {k: (40 * v).astype(np.float32) for k, v in random_inputs(net).items()}
    wanted = [*net.outputs, *(b for x in net.layers if x.type == "LGLSTM" for b in x.tops[::2])]
    expected = caffe_outputs(net, tmp_path, photos, wanted)
    any_size = name.startswith("horse")
    model = to_onnx(net, weights, any_size=any_size, extra_outputs=wanted[1:])
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims[0] == "batch"
    assert dims[2:] == (["height", "width"] if any_size else list(net.inputs["data"][2:]))
    made, torch_made = run(model, photos), _torch_outputs(net, weights, photos, wanted)
    for blob in wanted:
        assert_close(made[blob], expected[blob], relative=1e-4)
        assert_close(torch_made[blob], expected[blob], relative=1e-4)
