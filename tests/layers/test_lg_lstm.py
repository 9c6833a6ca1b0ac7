"""The Python and C++ layers against the float64 reference of the equations."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import reference

from lglstm.common.lg_lstm_shapes import grid_bounds
from lglstm.layers import equations

caffe = pytest.importorskip("caffe", reason="needs Caffe: make setup")

BATCH, HEIGHT, WIDTH, CHANNELS, HIDDEN = 2, 5, 4, 3, 2


@dataclass(frozen=True)
class Case:
    neighbors: int
    global_grid: int
    share_spatial: bool = True
    bias_term: bool = False
    num_output: int = HIDDEN

    def __str__(self) -> str:
        words = [f"N{self.neighbors}", f"G{self.global_grid}"]
        words += ["shared" if self.share_spatial else "own"] + ["bias"] * self.bias_term
        return "-".join(words)

    @property
    def sizes(self) -> dict[str, int]:
        return {"neighbors": self.neighbors, "grid": self.global_grid, "d": self.num_output}

    def top_shapes(self) -> list[tuple[int, ...]]:
        cells = (BATCH, (self.neighbors + 1) * self.num_output, HEIGHT, WIDTH)
        grid = (BATCH, self.num_output, self.global_grid, self.global_grid)
        return [cells, cells] + [grid] * (self.global_grid > 0)

    def shapes(self, layer: str) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Shapes of the bottoms and of the weights."""
        lstms, d = self.neighbors + 1, self.num_output
        if layer == "LGLSTMTransition":
            bottoms, weights = [(BATCH, CHANNELS, HEIGHT, WIDTH)], [(lstms, 3 * d, CHANNELS)]
        else:
            columns = (self.global_grid**2 + lstms) * d
            sets = 1 if self.share_spatial else self.neighbors
            bottoms, weights = self.top_shapes(), [(sets, 4 * d, columns), (4 * d, columns)]
        if self.bias_term:
            weights = [shape for w in weights for shape in (w, w[:-1])]
        return bottoms, weights


LSTM_CASES = [Case(n, g, s) for n, g, s in itertools.product((2, 4, 8), (3, 0), (True, False))]
LSTM_CASES += [Case(8, 3, True, True), Case(4, 0, False, True), Case(2, 2)]
TRANSITION_CASES = [Case(2, 3), Case(4, 0), Case(8, 3), Case(8, 3, bias_term=True)]
CASES = [("LGLSTM", case) for case in LSTM_CASES]
CASES += [("LGLSTMTransition", case) for case in TRANSITION_CASES]
ENGINES = ["caffe", "python"]


def arrays_of(layer: str, case: Case, seed: int = 0) -> tuple[list, list, list]:
    """Random bottoms, weights (large enough to bend the gates) and top gradients."""
    rng = np.random.default_rng(seed)
    bottom_shapes, weight_shapes = case.shapes(layer)
    return (
        [rng.normal(size=shape) for shape in bottom_shapes],
        [rng.normal(size=shape) * 0.5 for shape in weight_shapes],
        [rng.normal(size=shape) for shape in case.top_shapes()],
    )


def reference_function(layer: str, case: Case):
    """Tops = function(bottoms + weights) by the reference."""
    compute = reference.lg_lstm if layer == "LGLSTM" else reference.transition
    bottoms = len(case.shapes(layer)[0])

    def function(arrays):
        weights = arrays[bottoms:]
        if layer == "LGLSTM" and case.bias_term:  # the layer stores each bias behind its weight
            weights = weights[::2] + weights[1::2]
        return compute(arrays[:bottoms], weights, **case.sizes)

    return function


def input_layer(name: str, shape: tuple[int, ...]) -> str:
    dims = " ".join(f"dim: {dim}" for dim in shape)
    return (
        f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        f"input_param {{ shape {{ {dims} }} }} }}\n"
    )


def layer_text(layer: str, options: dict, bottoms: int, tops: int, engine: str) -> str:
    text = f'name: "{layer.lower()}_under_test" '
    text += " ".join(f'bottom: "bottom{i}"' for i in range(bottoms)) + " "
    text += " ".join(f'top: "top{i}"' for i in range(tops)) + " "
    if engine == "python":
        param = json.dumps(options).replace('"', '\\"')
        text += f'type: "Python" python_param {{ module: "lglstm.layers.lg_lstm" layer: "{layer}" '
        text += f'param_str: "{param}" }}'
    else:
        param = " ".join(f"{key}: {json.dumps(value)}" for key, value in options.items())
        text += f'type: "{layer}" lg_lstm_param {{ {param} }}'
    return f"layer {{ {text} }}\n"


def make_net(tmp_path: Path, layer: str, case: Case, engine: str) -> caffe.Net:
    bottom_shapes, _ = case.shapes(layer)
    text = "force_backward: true\n"
    for i, shape in enumerate(bottom_shapes):
        text += input_layer(f"bottom{i}", shape)
    text += layer_text(layer, asdict(case), len(bottom_shapes), len(case.top_shapes()), engine)
    path = tmp_path / f"{engine}.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), caffe.TRAIN)


def run(net: caffe.Net, bottoms: list, weights: list, top_diffs: list) -> tuple[list, list]:
    """Tops, and gradients of bottoms and weights, of one forward and backward pass."""
    (params,) = net.params.values()
    for i, bottom in enumerate(bottoms):
        net.blobs[f"bottom{i}"].data[...] = bottom
    for blob, weight in zip(params, weights, strict=True):
        assert blob.data.shape == weight.shape
        blob.data[...] = weight
    net.forward()
    net.clear_param_diffs()
    net.backward(**{f"top{i}": diff.astype(np.float32) for i, diff in enumerate(top_diffs)})
    tops = [net.blobs[f"top{i}"].data.copy() for i in range(len(top_diffs))]
    gradients = [net.blobs[f"bottom{i}"].diff.copy() for i in range(len(bottoms))]
    return tops, gradients + [blob.diff.copy() for blob in params]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("layer", "case"), CASES, ids=str)
def test_layers_compute_the_equations(tmp_path, layer, case, engine):
    bottoms, weights, top_diffs = arrays_of(layer, case)
    # The layers see float32, so let the reference begin from the same numbers.
    bottoms, weights, top_diffs = (
        [a.astype(np.float32).astype(float) for a in group]
        for group in (bottoms, weights, top_diffs)
    )
    net = make_net(tmp_path, layer, case, engine)
    tops, gradients = run(net, bottoms, weights, top_diffs)
    function = reference_function(layer, case)
    for top, expected in zip(tops, function(bottoms + weights), strict=True):
        np.testing.assert_allclose(top, expected, rtol=0, atol=1e-5)
    reference.assert_gradients(
        function, bottoms + weights, top_diffs, [g.astype(float) for g in gradients], relative=1e-4
    )


def test_python_functions_are_exact_in_double_precision():
    """Without the rounding of float32 the formulas themselves must agree to 1e-12."""
    case = Case(8, 3)
    bottoms, weights, top_diffs = arrays_of("LGLSTM", case)
    options = equations.LGLSTMOptions(**asdict(case))
    forward = equations.lg_lstm_forward(options, *bottoms, *weights)
    function = reference_function("LGLSTM", case)
    for top, expected in zip(forward[:3], function(bottoms + weights), strict=True):
        np.testing.assert_allclose(top, expected, rtol=0, atol=1e-13)
    gradients = equations.lg_lstm_backward(
        options, forward, bottoms[0], bottoms[2], *weights, *top_diffs
    )[:5]
    reference.assert_gradients(
        function, bottoms + weights, top_diffs, gradients, relative=1e-12, samples=10
    )


def test_forward_only_and_repeated_backward_give_the_same(tmp_path):
    """Backward may be called twice after one forward; parameter gradients then double."""
    case = Case(8, 3)
    net = make_net(tmp_path, "LGLSTM", case, "caffe")
    bottoms, weights, top_diffs = arrays_of("LGLSTM", case)
    tops, gradients = run(net, bottoms, weights, top_diffs)
    net.backward(**{f"top{i}": diff.astype(np.float32) for i, diff in enumerate(top_diffs)})
    (params,) = net.params.values()
    np.testing.assert_array_equal(net.blobs["bottom0"].diff, gradients[0])
    np.testing.assert_allclose(params[0].diff, 2 * gradients[3], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(net.blobs["top0"].data, tops[0])


def test_both_engines_begin_with_the_same_weights(tmp_path):
    weights = []
    for engine in ENGINES:
        caffe.set_random_seed(7)
        (params,) = make_net(tmp_path, "LGLSTM", Case(8, 3), engine).params.values()
        weights.append([blob.data.copy() for blob in params])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    values = np.concatenate([w.ravel() for w in weights[0]])
    assert -0.1 <= values.min() < -0.09 and 0.09 < values.max() <= 0.1


@pytest.mark.parametrize("engine", ENGINES)
def test_batch_and_map_may_change_between_passes(tmp_path, engine):
    case = Case(8, 3)
    net = make_net(tmp_path, "LGLSTM", case, engine)
    bottoms, weights, _ = arrays_of("LGLSTM", case)
    run(net, bottoms, weights, [np.ones(shape) for shape in case.top_shapes()])
    larger = [np.tile(b, (2, 1, 2, 1)) for b in bottoms[:2]] + [np.tile(bottoms[2], (2, 1, 1, 1))]
    for i, bottom in enumerate(larger):
        net.blobs[f"bottom{i}"].reshape(*bottom.shape)
        net.blobs[f"bottom{i}"].data[...] = bottom
    tops = [net.forward()[f"top{i}"] for i in range(3)]
    expected = reference.lg_lstm(larger, weights, **case.sizes)
    for top, value in zip(tops, expected, strict=True):
        np.testing.assert_allclose(top, value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_without_images_teaches_nothing(tmp_path, engine):
    net = make_net(tmp_path, "LGLSTM", Case(8, 3), engine)
    for i, shape in enumerate(Case(8, 3).top_shapes()):
        net.blobs[f"bottom{i}"].reshape(0, *shape[1:])
    net.forward()
    net.clear_param_diffs()
    net.backward()
    (params,) = net.params.values()
    assert [float(abs(blob.diff).max()) for blob in params] == [0, 0]


# --- properties of the layer ------------------------------------------------------------------


def permuted(array: np.ndarray, order: list[int]) -> np.ndarray:
    """Reorder the LSTMs of a local or memory blob."""
    return np.concatenate([np.split(array, len(order), axis=1)[n] for n in order], axis=1)


def order_under(neighbors: int, move) -> list[int]:
    """Which LSTM takes the place of each when the picture is moved: offsets go along."""
    offsets = equations.DIRECTIONS[neighbors]
    return [offsets.index(move(*offset)) for offset in offsets] + [neighbors]


@pytest.mark.parametrize(
    ("neighbors", "flip", "move"),
    [
        (8, lambda a: a[..., ::-1], lambda dy, dx: (dy, -dx)),
        (8, lambda a: a[..., ::-1, :], lambda dy, dx: (-dy, dx)),
        (8, lambda a: np.rot90(a, axes=(2, 3)), lambda dy, dx: (dx, -dy)),
    ],
    ids=["mirror", "upside-down", "rotate"],
)
def test_flipping_or_rotating_the_maps_does_so_to_the_tops(neighbors, flip, move):
    """With shared weights, and directions permuted alike, picture and parsing turn together."""
    options = equations.LGLSTMOptions(num_output=2, neighbors=neighbors, global_grid=3)
    rng = np.random.default_rng(3)
    local, memory = rng.normal(size=(2, 2, 18, 7, 7))
    weight_columns = 9 * 2 + 18
    spatial = rng.normal(size=(1, 8, weight_columns))
    depth = rng.normal(size=(8, weight_columns))
    global_ = rng.normal(size=(2, 2, 3, 3))
    order = order_under(neighbors, move)

    def moved_columns(weight):
        """The same weights for the moved input: columns go along with cells and directions."""
        grid = np.arange(18).reshape(1, 2, 3, 3)
        columns = np.concatenate(
            [flip(grid).ravel(), 18 + np.arange(18).reshape(9, 2)[order].ravel()]
        )
        return weight[..., columns]

    plain = equations.lg_lstm_forward(options, local, memory, global_, spatial, depth)
    turned = equations.lg_lstm_forward(
        options,
        flip(permuted(local, order)),
        flip(permuted(memory, order)),
        flip(global_),
        moved_columns(spatial),
        moved_columns(depth),
    )
    np.testing.assert_allclose(turned.local, flip(permuted(plain.local, order)), atol=1e-12)
    np.testing.assert_allclose(turned.memory, flip(permuted(plain.memory, order)), atol=1e-12)
    np.testing.assert_allclose(turned.global_, flip(plain.global_), atol=1e-12)
    assert not np.allclose(turned.local, flip(plain.local)), "the order of directions must matter"


def test_grid_is_symmetric_and_covers_the_axis():
    assert grid_bounds(41, 3) == [0, 14, 27, 41]
    for length, grid in itertools.product(range(3, 60), (1, 2, 3)):
        bounds = np.array(grid_bounds(length, grid))
        sizes = np.diff(bounds)
        assert bounds[0] == 0 and bounds[-1] == length and sizes.min() >= 1
        if grid == 3:
            assert sizes.tolist() == sizes[::-1].tolist()


def reachable(neighbors: int, layers: int, start: tuple[int, int], size: int) -> np.ndarray:
    """Positions that `layers` shifts along the directions, or staying, can lead to from `start`."""
    reached = {start}
    for _ in range(layers):
        reached |= {
            (y - dy, x - dx) for y, x in reached for dy, dx in equations.DIRECTIONS[neighbors]
        }
    mask = np.zeros((size, size), bool)
    for y, x in reached:
        if 0 <= y < size and 0 <= x < size:
            mask[y, x] = True
    return mask


def stack(options: equations.LGLSTMOptions, x: np.ndarray, layers: int) -> np.ndarray:
    """Transition and `layers` LG-LSTM layers with shared weights: the last local cells."""
    rng = np.random.default_rng(5)
    d, lstms = options.num_output, options.lstms
    columns = (options.global_grid**2 + lstms) * d
    transition = rng.normal(size=(lstms, 3 * d, x.shape[1]))
    spatial, depth = rng.normal(size=(1, 4 * d, columns)), rng.normal(size=(4 * d, columns))
    state = equations.transition_forward(options, x, transition)
    for _ in range(layers):
        state = equations.lg_lstm_forward(options, *state[:3], spatial, depth)
    return state.local


@pytest.mark.parametrize("neighbors", [2, 4, 8])
@pytest.mark.parametrize("layers", [1, 3])
def test_a_pixel_reaches_exactly_where_the_directions_lead(neighbors, layers):
    """The transition moves hidden cells once, each layer once more; nothing else does."""
    size, start = 9, (4, 3)
    x = np.random.default_rng(6).normal(size=(1, 3, size, size))
    changed = x.copy()
    changed[:, :, start[0], start[1]] += 1
    local = equations.LGLSTMOptions(num_output=3, neighbors=neighbors, global_grid=0)
    moved = (stack(local, x, layers) != stack(local, changed, layers)).any(axis=(0, 1))
    np.testing.assert_array_equal(moved, reachable(neighbors, layers + 1, start, size))


def test_with_global_cells_a_pixel_can_reach_everything():
    """A change at a pixel with the largest depth cells of its grid cell is seen all over."""
    options = equations.LGLSTMOptions(num_output=3, neighbors=2, global_grid=3)
    x = np.random.default_rng(6).normal(size=(1, 3, 9, 9))
    x[:, :, 4, 3] *= 10
    changed = x.copy()
    changed[:, :, 4, 3] *= 1.5
    assert (stack(options, x, 1) != stack(options, changed, 1)).any(axis=1).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_five_layers_with_shared_weights_sum_their_gradients(tmp_path, engine):
    """`param { name }` shares the blobs: the gradient is that of five layers with equal weights."""
    case = Case(8, 3)
    options = asdict(case)
    grads = {}
    for shared in (True, False):
        text = "force_backward: true\n"
        for i, shape in enumerate(case.shapes("LGLSTM")[0]):
            text += input_layer(f"in{i}", shape)
        names = ["in0", "in1", "in2"]
        for i in range(5):
            tops = [f"out{i}_{j}" for j in range(3)]
            layer = layer_text("LGLSTM", options, 3, 3, engine)
            for j in range(3):
                layer = layer.replace(f'"bottom{j}"', f'"{names[j]}"')
                layer = layer.replace(f'"top{j}"', f'"{tops[j]}"')
            layer = layer.replace("lglstm_under_test", f"lg_lstm{i}")
            if shared:
                params = 'param { name: "lg_lstm_spatial" } param { name: "lg_lstm_depth" }'
                layer = layer.replace("layer { ", f"layer {{ {params} ", 1)
            text += layer
            names = tops
        path = tmp_path / f"{engine}_{shared}.prototxt"
        path.write_text(text)
        net = caffe.Net(str(path), caffe.TRAIN)
        bottoms, weights, top_diffs = arrays_of("LGLSTM", case)
        for i, bottom in enumerate(bottoms):
            net.blobs[f"in{i}"].data[...] = bottom
        for i in range(5):
            for blob, weight in zip(net.params[f"lg_lstm{i}"], weights, strict=True):
                blob.data[...] = weight
        net.forward()
        net.clear_param_diffs()
        net.backward(**{f"out4_{j}": d.astype(np.float32) for j, d in enumerate(top_diffs)})
        grads[shared] = [[blob.diff.copy() for blob in net.params[f"lg_lstm{i}"]] for i in range(5)]
    for j in range(2):
        total = sum(layer[j] for layer in grads[False])
        np.testing.assert_allclose(
            grads[True][0][j], total, rtol=1e-4, atol=1e-4 * abs(total).max()
        )
        assert not np.allclose(grads[False][0][j], total, rtol=1e-2)


def test_a_broken_cell_does_not_pass():
    """The comparison itself: moving the tanh, or swapping two directions, must be seen."""
    case = Case(8, 3)
    bottoms, weights, _ = arrays_of("LGLSTM", case)
    options = equations.LGLSTMOptions(**asdict(case))
    expected = reference_function("LGLSTM", case)(bottoms + weights)[0]
    right = equations.lg_lstm_forward(options, *bottoms, *weights)
    wrong_tanh = np.concatenate(
        [
            equations.shift(c.o * np.tanh(c.next_memory), offset)
            for c, offset in zip(right.cells, options.offsets, strict=True)
        ],
        axis=1,
    )
    wrong_direction = permuted(right.local, [1, 0, *range(2, 9)])
    assert abs(right.local - expected).max() < 1e-12
    assert abs(wrong_tanh - expected).max() > 1e-2
    assert abs(wrong_direction - expected).max() > 1e-2
