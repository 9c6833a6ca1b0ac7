"""The PyTorch modules against the float64 equations and against Caffe."""

from __future__ import annotations

import concurrent.futures
import copy
import itertools
import multiprocessing
import pickle

import numpy as np
import pytest
import reference
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
from test_convert_onnx import BOUND, STOCK

torch = pytest.importorskip("torch", reason="needs PyTorch: see docs/convert.md")

from lglstm.caffe_files import random_weights, read_net  # noqa: E402
from lglstm.convert.torch import LGLSTM, LGLSTMTransition, Net, load_caffemodel  # noqa: E402

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


def test_of_equal_hidden_cells_the_first_gets_the_gradient():
    """As in the reference, whose maximum is the first in raster order."""
    module = with_parameters(LGLSTMTransition(1, 1, 2, 1, False), [np.ones((3, 3, 1))])
    bottom = torch.tensor([[[[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]]]], dtype=torch.double)
    bottom.requires_grad = True
    module(bottom)[2].sum().backward()
    assert bottom.grad.flatten().nonzero().tolist() == [[1]]


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


# --- What else PyTorch's users do with modules ----------------------------------------------------


def run(module, inputs):
    with torch.no_grad():
        made = module(*inputs)
    return made if isinstance(made, dict) else {"only": made}


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", STOCK | BOUND)
def test_every_layer_can_be_pickled_and_copied(tmp_path, name):
    net, weights = make_net(tmp_path, data(2, 4, 7, 6) + (STOCK | BOUND)[name])
    module = Net(net.description()).load_weights(weights).eval()
    inputs = [torch.from_numpy(array) for array in random_inputs(net).values()]
    expected = run(module, inputs)
    same(run(pickle.loads(pickle.dumps(module)), inputs), expected)
    same(run(copy.deepcopy(module), inputs), expected)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_nets_can_be_sent_to_a_process(phase):
    """Shared weights stay shared on the way."""
    folder = ROOT / "models" / "atr"
    file = folder / ("train.prototxt" if phase == "TRAIN" else "deploy.prototxt")
    net = read_net(file, phase)
    module = Net(net.description()).load_weights(random_weights(net, 1))
    copied = pickle.loads(pickle.dumps(module))
    assert len(list(copied.parameters())) == len(list(module.parameters()))
    assert copied.lg_lstm1.depth is copied.lg_lstm2.depth


@pytest.mark.slow
def test_another_process_computes_the_same(tmp_path):
    net, weights = make_net(tmp_path, lg_lstm_net(4, 2, True, False))
    module = Net(net.description()).load_weights(weights).eval()
    inputs = [torch.from_numpy(array) for array in random_inputs(net).values()]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        same(pool.submit(run, module, inputs).result(), run(module, inputs))


class Stack(torch.nn.Module):
    """What people build: a transition and layers, called with what the one before returned."""

    def __init__(self, neighbors, grid, share, bias):
        super().__init__()
        self.transition = LGLSTMTransition(CHANNELS, D, neighbors, grid, bias)
        self.first = LGLSTM(D, neighbors, grid, share, bias)
        self.second = LGLSTM(D, neighbors, grid, share, bias)

    def forward(self, x: torch.Tensor):
        cells = self.transition(x)
        cells = self.first(*cells)
        return self.second(*cells)


@pytest.mark.parametrize(("neighbors", "grid", "share", "bias"), CASES)
def test_torchscript_computes_the_same(tmp_path, neighbors, grid, share, bias):
    torch.manual_seed(0)
    stack = Stack(neighbors, grid, share, bias)
    x = torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH)
    torch.jit.script(stack).save(tmp_path / "stack.pt")
    expected = stack(x)
    made = torch.jit.load(tmp_path / "stack.pt")(x)
    assert len(made) == len(expected) == (3 if grid else 2)
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other)


CELLS = torch.zeros(2, 9 * D, 5, 4)


@pytest.mark.parametrize(
    ("module", "inputs", "words"),
    [
        (LGLSTMTransition(CHANNELS, D), [torch.zeros(2, 4, 5, 4)],
         r"the features have the shape \[2, 4, 5, 4\], .* \(B, 5, H, W\)"),
        (LGLSTM(D, global_grid=0), [CELLS[:, 1:], CELLS],
         r"shapes \[2, 26, 5, 4\] and \[2, 27, 5, 4\], .* two of \(B, 27, H, W\)"),
        (LGLSTM(D, global_grid=0), [CELLS, CELLS[..., 1:]], r"\[2, 27, 5, 3\], .* two of"),
        (LGLSTM(D), [CELLS, CELLS], "global is missing"),
        (LGLSTM(D, global_grid=0), [CELLS, CELLS, CELLS], "was made with global_grid=0"),
        (LGLSTM(D), [CELLS, CELLS, torch.zeros(2, D, 2, 3)],
         r"global has the shape \[2, 3, 2, 3\], but this layer takes \[2, 3, 3, 3\]"),
    ],
)  # fmt: skip
def test_other_shapes_are_refused_in_our_words(module, inputs, words):
    with pytest.raises(ValueError, match=words):
        module(*inputs)


def test_other_inputs_of_a_net_are_refused_in_our_words(tmp_path):
    options = "inner_product_param { num_output: 2 }"
    text = data(1, 3, 5, 4) + layer("InnerProduct", "fc", "data", "fc", options)
    net, weights = make_net(tmp_path, text)
    module = Net(net.description()).load_weights(weights)
    assert module(torch.zeros(3, 3, 5, 4)).shape == (3, 2)
    for shape in ((1, 4, 5, 4), (3, 5, 4)):
        with pytest.raises(ValueError, match=r"data has the shape .* takes \[1, 3, 5, 4\]"):
            module(torch.zeros(shape))
    with pytest.raises(ValueError, match="takes 1 inputs, data, not 2"):
        module(torch.zeros(1, 3, 5, 4), torch.zeros(1))
    with pytest.raises(ValueError, match="72 values from axis 1 on, .* weights for 60"):
        module(torch.zeros(1, 3, 6, 4))
