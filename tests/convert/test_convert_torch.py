"""The PyTorch modules against the float64 equations and against Caffe."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
from convert_help import (
    assert_close,
    caffe_outputs,
    lg_lstm_net,
    make_net,
    needs_caffe,
    random_inputs,
)

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")

from lglstm.convert.torch import LGLSTM, LGLSTMTransition, load_caffemodel  # noqa: E402

torch.set_num_threads(1)

CASES = [
    *itertools.product((2, 4, 8), (0, 3), (True, False), (False,)),
    (8, 3, True, True),
    (4, 2, False, True),
]
D, CHANNELS, BATCH, HEIGHT, WIDTH = 3, 5, 2, 5, 4


def arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def bottom_shapes(neighbors, grid):
    cells = (BATCH, (neighbors + 1) * D, HEIGHT, WIDTH)
    return [cells, cells] + ([(BATCH, D, grid, grid)] if grid else [])


def with_parameters(module, values):
    module = module.double()
    named = list(module.parameters())
    with torch.no_grad():
        for parameter, value in zip(named, values, strict=True):
            parameter.copy_(torch.as_tensor(value))
    return module


def check(module, bottoms, weights, expected_function):
    """Tops and gradients of a double-precision module against the reference."""
    tensors = [torch.tensor(b, requires_grad=True) for b in bottoms]
    tops = module(*tensors)
    expected = expected_function(bottoms + weights)
    diffs = arrays([top.shape for top in expected], seed=1)
    for top, reference_top in zip(tops, expected, strict=True):
        np.testing.assert_allclose(top.detach(), reference_top, rtol=0, atol=1e-12)
    sum((top * torch.tensor(d)).sum() for top, d in zip(tops, diffs, strict=True)).backward()
    gradients = [t.grad.numpy() for t in (*tensors, *module.parameters())]
    reference.assert_gradients(
        expected_function, bottoms + weights, diffs, gradients, relative=1e-8, samples=4
    )


@pytest.mark.parametrize(("neighbors", "grid", "share", "bias"), CASES)
def test_lg_lstm_computes_the_equations(neighbors, grid, share, bias):
    module = LGLSTM(D, neighbors, grid, share, bias)
    # Parameters in the order of Caffe's blobs, which the reference takes without biases between.
    names = ["spatial", "depth"] + (["spatial_bias", "depth_bias"] if bias else [])
    assert [name for name, _ in module.named_parameters()] == names
    bottoms = arrays(bottom_shapes(neighbors, grid))
    weights = [0.5 * w for w in arrays([p.shape for p in module.parameters()], seed=2)]
    count = len(bottoms)
    check(
        with_parameters(module, weights),
        bottoms,
        weights,
        lambda a: reference.lg_lstm(a[:count], a[count:], neighbors=neighbors, grid=grid, d=D),
    )


@pytest.mark.parametrize(("neighbors", "grid", "bias"), [(2, 3, False), (4, 0, True), (8, 3, True)])
def test_transition_computes_the_equations(neighbors, grid, bias):
    module = LGLSTMTransition(CHANNELS, D, neighbors, grid, bias)
    bottoms = arrays([(BATCH, CHANNELS, HEIGHT, WIDTH)])
    weights = [0.5 * w for w in arrays([p.shape for p in module.parameters()], seed=2)]
    check(
        with_parameters(module, weights),
        bottoms,
        weights,
        lambda a: reference.transition(a[:1], a[1:], neighbors=neighbors, grid=grid, d=D),
    )


@needs_caffe
@pytest.mark.parametrize(
    ("neighbors", "grid", "share", "bias"),
    [(8, 3, True, False), (4, 0, False, True), (2, 2, True, True)],
)
def test_nets_equal_caffe(tmp_path, neighbors, grid, share, bias):
    net, _ = make_net(tmp_path, lg_lstm_net(neighbors, grid, share, bias))
    inputs = random_inputs(net)
    wanted = ["score", "lg_lstm1_memory", "lg_lstm2_local"]
    expected = caffe_outputs(net, tmp_path, inputs, wanted)
    module = load_caffemodel(net.path, tmp_path / "net.caffemodel")
    with torch.no_grad():
        blobs = module.blobs([torch.from_numpy(inputs["data"])], wanted)
    for name in wanted:
        assert_close(blobs[name], expected[name])
