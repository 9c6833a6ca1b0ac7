"""Convolution on the CPU by oneDNN, chosen in the environment: the same nets, the same numbers."""

import os
import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
import pytest

ENGINES = ("caffe", "onednn", "onednn_winograd")
PROCESSOR = Path("/proc/cpuinfo").read_text().split()
AMD = "AuthenticAMD" in PROCESSOR
BF16_IS_FAST = ("avx512_bf16" if AMD else "amx_bf16") in PROCESSOR
WITHOUT_BF16 = {"DNNL_MAX_CPU_ISA": "AVX512_CORE" if AMD else "AVX512_CORE_BF16"}
"""Hides what makes products of bfloat16 fast: the instructions; on Intel's processors, AMX."""

RUN = """
import sys
import caffe
import numpy as np

caffe.set_mode_cpu()
caffe.set_random_seed(3)
net = caffe.Net(sys.argv[1], getattr(caffe, sys.argv[3]))
for blobs in net.params.values():
    if len(blobs[0].shape) == 4:  # large enough for gradients to be seen (He et al.)
        fan_in = np.prod(blobs[0].data.shape[1:])
        blobs[0].data[...] = np.random.default_rng(0).normal(0, (2 / fan_in) ** 0.5,
                                                             blobs[0].data.shape)
net.blobs["data"].data[...] = np.random.default_rng(1).normal(0, 1, net.blobs["data"].data.shape)
net.forward()
for name in net.outputs:
    net.blobs[name].diff[...] = net.blobs[name].data
net.backward()
diffs = {name: blobs[0].diff for name, blobs in net.params.items()}
np.savez(sys.argv[2], top=net.blobs[net.outputs[-1]].data, data=net.blobs["data"].diff, **diffs)
"""

# What the networks have: 3 channels, dilation with "same" padding, 1x1, stride, pooling between.
NET = """
force_backward: true
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 33 dim: 41 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "conv5" type: "Convolution" bottom: "pool2" top: "conv5"
  convolution_param { num_output: 48 kernel_size: 3 pad: 2 dilation: 2 } }
layer { name: "pool5a" type: "Pooling" bottom: "conv5" top: "pool5a"
  pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 } }
layer { name: "fc6" type: "Convolution" bottom: "pool5a" top: "fc6"
  convolution_param { num_output: 64 kernel_size: 3 pad: 12 dilation: 12 } }
layer { name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" }
layer { name: "fc7" type: "Convolution" bottom: "fc6" top: "fc7"
  convolution_param { num_output: 16 kernel_size: 1 } }
"""


# What the LG-LSTM layers multiply, with maps, global cells and images that differ in size.
STACK = """
force_backward: true
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 24 dim: 13 dim: 11 } } }
layer { name: "transition" type: "LGLSTMTransition" bottom: "data"
  top: "local0" top: "memory0" top: "global0"
  lg_lstm_param { num_output: 16 neighbors: 4 global_grid: 2 } }
layer { name: "lg_lstm1" type: "LGLSTM" bottom: "local0" bottom: "memory0" bottom: "global0"
  top: "local1" top: "memory1" top: "global1"
  lg_lstm_param { num_output: 16 neighbors: 4 global_grid: 2 } }
layer { name: "rest" type: "Silence" bottom: "memory1" bottom: "global1" }
layer { name: "score" type: "Convolution" bottom: "local1" top: "score"
  convolution_param { num_output: 8 kernel_size: 1 weight_filler { type: "msra" } } }
"""


def compute(folder, engine, text=NET, phase="TRAIN", **more):
    net = folder / "net.prototxt"
    net.write_text(text)
    result = folder / f"{engine}.npz"
    environment = os.environ | {"OMP_NUM_THREADS": "2", "GLOG_minloglevel": "2"} | more
    environment.pop("CAFFE_CONVOLUTION_ENGINE", None)
    if engine:
        environment["CAFFE_CONVOLUTION_ENGINE"] = engine
    command = [sys.executable, "-c", RUN, net, result, phase]
    subprocess.run(command, env=environment, check=True)
    with np.load(result) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return compute(tmp_path_factory.mktemp("stock"), None)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_computes_the_same_net(tmp_path, stock, engine):
    found = compute(tmp_path, engine)
    assert set(found) == set(stock)
    for name, expected in stock.items():
        if engine == "caffe":
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
        else:
            error = np.abs(found[name] - expected).max() / np.abs(expected).max()
            assert error < 1e-4, f"{name}: {error}"


@pytest.mark.slow
@pytest.mark.parametrize("text", [NET, STACK], ids=["convolutions", "lg_lstm"])
def test_bf16_rounds_and_falls_back(tmp_path, text):
    """Near single precision where products in bf16 are fast, else the bits of Winograd."""
    expected = compute(tmp_path, "onednn_winograd", text, phase="TEST")
    found = compute(tmp_path, "onednn_bf16", text, phase="TEST")
    without = compute(tmp_path, "onednn_bf16", text, phase="TEST", **WITHOUT_BF16)
    fallback = compute(tmp_path, "onednn_winograd", text, phase="TEST", **WITHOUT_BF16)
    np.testing.assert_array_equal(without["top"], fallback["top"])
    error = np.abs(found["top"] - expected["top"]).max() / np.abs(expected["top"]).max()
    assert (1e-5 <= error < 0.02) if BF16_IS_FAST else error == 0


LIVE = """
import sys
import caffe
import numpy as np

caffe.set_mode_cpu()
nets = [caffe.Net(sys.argv[1], caffe.TEST) for _ in range(2)]
random = np.random.default_rng(0)
for name, blobs in nets[0].params.items():
    blobs[0].data[...] = random.normal(0, 0.1, blobs[0].data.shape)
    nets[1].params[name][0].data[...] = blobs[0].data
image = random.normal(0, 1, nets[0].blobs["data"].data.shape)
live = {name: blob.data for name, blob in nets[0].blobs.items()}
weights = nets[0].params["conv2"][0].data
for change in (1, 0.5, 3):
    weights[3] *= change  # by an array from before
    if change == 3:
        del weights  # right after the change
    nets[1].params["conv2"][0].data[3] *= change
    for net in nets:
        net.blobs["data"].data[...] = image
        net.forward()
for name, blob in nets[1].blobs.items():
    np.testing.assert_array_equal(live[name], blob.data, err_msg=name)
live["conv2"][...] = 1
nets[1].blobs["conv2"].data[...] = 1
for net in nets:
    net.forward(start="pool2")
np.testing.assert_array_equal(live["fc7"], nets[1].blobs["fc7"].data)
assert live["pool2"].max() == 1
before = live["data"].copy()
nets[0].blobs["data"].reshape(8, *image.shape[1:])
nets[0].blobs["data"].data[...] = 5
np.testing.assert_array_equal(live["data"], before)  # memory that the blob no longer has
"""


def test_arrays_in_python_are_those_of_a_net_in_bf16(tmp_path):
    """Arrays that somebody holds show each pass, and are read by the next; looking is free."""
    (tmp_path / "net.prototxt").write_text(NET.replace("force_backward: true", ""))
    environment = {"CAFFE_CONVOLUTION_ENGINE": "onednn_bf16", "GLOG_minloglevel": "2"}
    command = [sys.executable, "-c", LIVE, tmp_path / "net.prototxt"]
    subprocess.run(command, env=os.environ | environment, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("text", [NET, STACK], ids=["convolutions", "lg_lstm"])
def test_training_in_bf16(tmp_path, text):
    """Near single precision where products in bf16 are fast, else the bits of Winograd."""
    expected = compute(tmp_path, "onednn_winograd", text)
    found = compute(tmp_path, "onednn_bf16", text)
    without = compute(tmp_path, "onednn_bf16", text, **WITHOUT_BF16)
    fallback = compute(tmp_path, "onednn_winograd", text, **WITHOUT_BF16)
    for name, values in expected.items():
        np.testing.assert_array_equal(without[name], fallback[name], err_msg=name)
        # All together, since a gradient goes elsewhere where two inputs of a pooling tie.
        error = np.linalg.norm(found[name] - values) / np.linalg.norm(values)
        assert error < 0.1, f"{name}: {error}"
    rounded = not np.array_equal(found["top"], expected["top"])
    assert rounded == BF16_IS_FAST


def test_an_unknown_engine_is_refused(tmp_path):
    net = tmp_path / "net.prototxt"
    net.write_text(NET)
    done = subprocess.run(
        [f"{sys.prefix}/bin/caffe", "time", "-model", net, "-iterations", "1"],
        env=os.environ | {"CAFFE_CONVOLUTION_ENGINE": "mkl", "GLOG_logtostderr": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert (
        "CAFFE_CONVOLUTION_ENGINE=mkl: it must be caffe, onednn, onednn_winograd or onednn_bf16"
        in done.stderr
    )


def test_an_engine_named_in_the_prototxt_wins(tmp_path, stock):
    named = NET.replace("convolution_param {", "convolution_param { engine: CAFFE")
    found = compute(tmp_path, "onednn", named)
    for name, expected in stock.items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 1), (3, 1, 1), (2, 2, 0), (5, 3, 2)])
def test_threaded_pooling_keeps_every_bit(tmp_path, kernel, stride, pad):
    """Maxima, the first of equals, and averages, of maps large enough for several threads."""
    size = f"kernel_size: {kernel} stride: {stride} pad: {pad}"
    net_file = tmp_path / "net.prototxt"
    net_file.write_text(
        'force_backward: true layer { name: "x" type: "Input" top: "x" '
        "input_param { shape { dim: 2 dim: 8 dim: 75 dim: 83 } } }"
        f'layer {{ name: "m" type: "Pooling" bottom: "x" top: "m" pooling_param {{ {size} }} }}'
        'layer { name: "r" type: "ReLU" bottom: "x" top: "r" relu_param { negative_slope: 0.1 } }'
    )
    net = caffe.Net(str(net_file), caffe.TRAIN)
    shape = net.blobs["x"].data.shape  # many values are equal
    values = np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)
    net.blobs["x"].data[...] = values
    net.forward()
    pooled, first = _max_pool(values, kernel, stride, pad, net.blobs["m"].data.shape)
    np.testing.assert_array_equal(net.blobs["m"].data, pooled)
    slope = np.where(values > 0, np.float32(1), np.float32(0.1))
    np.testing.assert_array_equal(net.blobs["r"].data, values * slope)
    net.blobs["m"].diff[...] = 1
    net.blobs["r"].diff[...] = 3
    net.backward()
    came_back = np.zeros(values.shape, np.float32).reshape(2, 8, -1)
    for image, channel in np.ndindex(2, 8):
        np.add.at(came_back[image, channel], first[image, channel].ravel(), 1)
    expected = came_back.reshape(values.shape) + np.float32(3) * slope
    np.testing.assert_allclose(net.blobs["x"].diff, expected, rtol=1e-6)


def _max_pool(values, kernel, stride, pad, shape):
    """The maxima of windows clipped to the map, and the first position of each in raster order."""
    height, width = values.shape[2:]
    pooled, first = np.empty(shape), np.empty(shape, int)
    for y, x in np.ndindex(*shape[2:]):
        rows = slice(max(y * stride - pad, 0), min(y * stride - pad + kernel, height))
        columns = slice(max(x * stride - pad, 0), min(x * stride - pad + kernel, width))
        window = values[:, :, rows, columns]
        at = window.reshape(*shape[:2], -1).argmax(axis=2)
        pooled[:, :, y, x] = window.max(axis=(2, 3))
        first[:, :, y, x] = (rows.start + at // window.shape[3]) * width
        first[:, :, y, x] += columns.start + at % window.shape[3]
    return pooled, first
