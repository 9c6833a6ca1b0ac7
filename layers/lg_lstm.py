"""The LG-LSTM layers in NumPy: the version to read, and Python layers for Caffe.

The functions need NumPy alone; the classes `LGLSTMTransition` and `LGLSTM` at the end take the
place of the C++ layers of the same names in a prototxt:

    layer {
      type: "Python"  name: "lg_lstm1"
      bottom: "transition_local"  bottom: "transition_memory"  bottom: "transition_global"
      top: "lg_lstm1_local"  top: "lg_lstm1_memory"  top: "lg_lstm1_global"
      python_param {
        module: "lglstm.layers.lg_lstm"  layer: "LGLSTM"
        param_str: '{"num_output": 64, "neighbors": 8, "global_grid": 3}'
      }
    }

Symbols follow the paper (sec. 3.2): B images, d hidden cells of one LSTM, N neighbors, a global
grid of G x G cells, maps of H x W positions. Everywhere:

    local   (B, (N+1)d, H, W)   hidden cells arriving from the N neighbors, then the depth LSTM's
    memory  (B, (N+1)d, H, W)   memory cells m, at the position where they were computed
    global  (B, d, G, G)        the largest hidden cells of the depth LSTM in each grid cell
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lglstm.common.errors import InputError
from lglstm.layers.shown_errors import shown_errors

Array = NDArray[np.floating]

# Where the hidden cells of each spatial LSTM come from, as (row, column) offsets in raster order.
_ALL = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
DIRECTIONS = {8: _ALL, 4: _ALL[:4], 2: [(-1, 0), (0, -1)]}

WEIGHT_FILLER = {"type": "uniform", "min": -0.1, "max": 0.1}  # sec. 4.1
BIAS_FILLER = {"type": "constant", "value": 0.0}

LSTM_GATES = 4  # u, f, o, c
TRANSITION_GATES = 3  # u, o, c: with zero memory the forget gate multiplies nothing


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow for any x."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def shift(maps: Array, offset: tuple[int, int]) -> Array:
    """Return out[..., y, x] = maps[..., y + dy, x + dx], zero where that lies outside."""
    dy, dx = offset
    height, width = maps.shape[-2:]
    out = np.zeros_like(maps)
    to_y, from_y = _overlap(dy, height)
    to_x, from_x = _overlap(dx, width)
    out[..., to_y, to_x] = maps[..., from_y, from_x]
    return out


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    """The positions of an axis whose neighbor `step` away exists, and those neighbors."""
    first, last = max(0, -step), min(length, length - step)
    return slice(first, last), slice(first + step, last + step)


def grid_bounds(length: int, grid: int) -> list[int]:
    """Where the cells of a global grid begin on an axis, and its end: ⌊gL/G + ½⌋ for g = 0…G."""
    return [(2 * g * length + grid) // (2 * grid) for g in range(grid + 1)]


def grid_max(maps: Array, grid: int) -> tuple[Array, NDArray[np.intp]]:
    """Global hidden cells (B, d, G, G) of maps (B, d, H, W), and where each was found.

    The position counts in raster order; of equal values the first is taken.
    """
    height, width = maps.shape[-2:]
    values = np.empty(maps.shape[:2] + (grid, grid), maps.dtype)
    positions = np.empty(values.shape, np.intp)
    rows, columns = grid_bounds(height, grid), grid_bounds(width, grid)
    for gy in range(grid):
        for gx in range(grid):
            cell = maps[:, :, rows[gy] : rows[gy + 1], columns[gx] : columns[gx + 1]]
            flat = cell.reshape(*cell.shape[:2], -1)
            best = flat.argmax(axis=2)
            values[:, :, gy, gx] = np.take_along_axis(flat, best[..., None], 2)[..., 0]
            y, x = np.divmod(best, cell.shape[3])
            positions[:, :, gy, gx] = (rows[gy] + y) * width + columns[gx] + x
    return values, positions


def grid_max_backward(diff: Array, positions: NDArray[np.intp], height: int, width: int) -> Array:
    """Gradient (B, d, H, W) of `grid_max`: each global cell's goes to where it was found."""
    out = np.zeros(diff.shape[:2] + (height * width,), diff.dtype)
    np.put_along_axis(
        out, positions.reshape(*out.shape[:2], -1), diff.reshape(*out.shape[:2], -1), 2
    )
    return out.reshape(*diff.shape[:2], height, width)


class Cells(NamedTuple):
    """Everything that the backward pass of one LSTM needs, each (B, d, H, W)."""

    u: Array
    f: Array | None
    o: Array
    c: Array
    memory: Array | None
    next_memory: Array
    hidden: Array


def lstm(products: Array, memory: Array | None) -> Cells:
    """Eq. (1) from the products W·H (B, 4d, H, W), or (B, 3d, H, W) when there is no memory."""
    if memory is None:
        u, o, c = np.split(products, TRANSITION_GATES, axis=1)
        f = None
    else:
        u, f, o, c = np.split(products, LSTM_GATES, axis=1)
        f = sigmoid(f)
    u, o, c = sigmoid(u), sigmoid(o), np.tanh(c)
    next_memory = u * c if memory is None else f * memory + u * c
    return Cells(u, f, o, c, memory, next_memory, np.tanh(o * next_memory))


def lstm_backward(
    cells: Cells, hidden_diff: Array, memory_diff: Array
) -> tuple[Array, Array | None]:
    """Gradients of the products and of the memory, from those of h' and m'."""
    u, f, o, c, memory, next_memory, hidden = cells
    z_diff = hidden_diff * (1 - hidden**2)  # z = o m'
    memory_diff = memory_diff + z_diff * o
    u_diff = memory_diff * c * u * (1 - u)
    o_diff = z_diff * next_memory * o * (1 - o)
    c_diff = memory_diff * u * (1 - c**2)
    if f is None:
        return np.concatenate([u_diff, o_diff, c_diff], axis=1), None
    f_diff = memory_diff * memory * f * (1 - f)
    return np.concatenate([u_diff, f_diff, o_diff, c_diff], axis=1), memory_diff * f


def matmul_maps(weight: Array, maps: Array) -> Array:
    """A matrix (rows, C) times the channels of maps (B, C, H, W): (B, rows, H, W)."""
    flat = maps.reshape(*maps.shape[:2], -1)
    return (weight @ flat).reshape(maps.shape[0], -1, *maps.shape[2:])


def outer_maps(diff: Array, maps: Array) -> Array:
    """Gradient (rows, C) of the matrix in `matmul_maps`."""
    return np.einsum(
        "brj,bcj->rc", *(a.reshape(*a.shape[:2], -1) for a in (diff, maps)), optimize=True
    )


@dataclass(frozen=True)
class LGLSTMOptions:
    """The keys of `lg_lstm_param`, as JSON object in `param_str` of the Python layers."""

    num_output: int = 64
    neighbors: int = 8
    global_grid: int = 3
    share_spatial: bool = True
    bias_term: bool = False
    weight_filler: dict | None = None
    bias_filler: dict | None = None

    @property
    def lstms(self) -> int:
        return self.neighbors + 1

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Where each LSTM's hidden cells come from; the depth LSTM's stay."""
        return [*DIRECTIONS[self.neighbors], (0, 0)]


class Forward(NamedTuple):
    """Tops of a layer and what its backward pass needs."""

    local: Array
    memory: Array
    global_: Array | None
    cells: list[Cells]
    positions: NDArray[np.intp] | None


def _forward(options: LGLSTMOptions, products: list[Array], memory: Array | None) -> Forward:
    """From the products of each LSTM to the tops (Eq. 4)."""
    memories = [None] * options.lstms if memory is None else np.split(memory, options.lstms, axis=1)
    cells = [lstm(product, m) for product, m in zip(products, memories, strict=True)]
    local = np.concatenate(
        [shift(c.hidden, offset) for c, offset in zip(cells, options.offsets, strict=True)], axis=1
    )
    next_memory = np.concatenate([c.next_memory for c in cells], axis=1)
    if not options.global_grid:
        return Forward(local, next_memory, None, cells, None)
    global_, positions = grid_max(cells[-1].hidden, options.global_grid)
    return Forward(local, next_memory, global_, cells, positions)


def _backward(
    options: LGLSTMOptions,
    forward: Forward,
    local_diff: Array,
    memory_diff: Array,
    global_diff: Array | None,
) -> tuple[list[Array], Array | None]:
    """Gradients of the products of each LSTM and of the memory, from those of the tops."""
    hidden_diffs = [
        shift(diff, (-dy, -dx))
        for diff, (dy, dx) in zip(
            np.split(local_diff, options.lstms, axis=1), options.offsets, strict=True
        )
    ]
    if forward.positions is not None:
        hidden_diffs[-1] = hidden_diffs[-1] + grid_max_backward(
            global_diff, forward.positions, *local_diff.shape[2:]
        )
    diffs = [
        lstm_backward(*args)
        for args in zip(
            forward.cells, hidden_diffs, np.split(memory_diff, options.lstms, axis=1), strict=True
        )
    ]
    products, memories = zip(*diffs, strict=True)
    return list(products), None if memories[0] is None else np.concatenate(memories, axis=1)


def _bias_maps(bias: Array | None) -> Array | float:
    return 0.0 if bias is None else bias[:, None, None]


def transition_forward(
    options: LGLSTMOptions, x: Array, weight: Array, bias: Array | None = None
) -> Forward:
    """Transition layer (sec. 3.1): x (B, C, H, W), weight (N+1, 3d, C), bias (N+1, 3d)."""
    biases = [None] * options.lstms if bias is None else bias
    products = [matmul_maps(w, x) + _bias_maps(b) for w, b in zip(weight, biases, strict=True)]
    return _forward(options, products, memory=None)


def transition_backward(
    options: LGLSTMOptions, forward: Forward, x: Array, weight: Array, *top_diffs: Array
) -> dict[str, Array]:
    """Gradients of `transition_forward` by name: x, weight, bias."""
    diffs, _ = _backward(options, forward, *_three(top_diffs))
    return {
        "x": sum(matmul_maps(w.T, diff) for w, diff in zip(weight, diffs, strict=True)),
        "weight": np.stack([outer_maps(diff, x) for diff in diffs]),
        "bias": np.stack([diff.sum(axis=(0, 2, 3)) for diff in diffs]),
    }


def lg_lstm_forward(
    options: LGLSTMOptions,
    local: Array,
    memory: Array,
    global_: Array | None,
    spatial: Array,
    depth: Array,
    spatial_bias: Array | None = None,
    depth_bias: Array | None = None,
) -> Forward:
    """One LG-LSTM layer (Eqs. 3 and 4): spatial (S, 4d, K) with S = 1 or N, depth (4d, K).

    The columns of the weights are those of H = [f, h_1 … h_N, h_e]. f is the same at every
    position, so W·f is one vector for each image, and H is never built.
    """
    weights = [*spatial, depth]
    biases = [None] * len(weights) if spatial_bias is None else [*spatial_bias, depth_bias]
    products = []
    for weight, bias in zip(weights, biases, strict=True):
        product = matmul_maps(weight[:, _global_columns(options) :], local) + _bias_maps(bias)
        if global_ is not None:
            f = global_.reshape(global_.shape[0], -1)
            product += (f @ weight[:, : f.shape[1]].T)[:, :, None, None]
        products.append(product)
    return _forward(options, _of_lstm(options, products), memory)


def lg_lstm_backward(
    options: LGLSTMOptions,
    forward: Forward,
    local: Array,
    global_: Array | None,
    spatial: Array,
    depth: Array,
    *top_diffs: Array,
) -> dict[str, Array | None]:
    """Gradients of `lg_lstm_forward` by the names of its arguments."""
    lstm_diffs, memory_diff = _backward(options, forward, *_three(top_diffs))
    weights = [*spatial, depth]
    product_diffs = [np.zeros_like(lstm_diffs[0]) for _ in weights]
    for total, diff in zip(_of_lstm(options, product_diffs), lstm_diffs, strict=True):
        total += diff
    sums = [diff.sum(axis=(2, 3)) for diff in product_diffs]  # (B, 4d)
    columns = _global_columns(options)
    local_diff = sum(
        matmul_maps(w[:, columns:].T, diff) for w, diff in zip(weights, product_diffs, strict=True)
    )
    weight_diffs = [outer_maps(diff, local) for diff in product_diffs]
    global_diff = None
    if global_ is not None:
        f = global_.reshape(global_.shape[0], -1)
        global_diff = sum(s @ w[:, :columns] for s, w in zip(sums, weights, strict=True))
        global_diff = global_diff.reshape(global_.shape)
        weight_diffs = [
            np.concatenate([s.T @ f, diff], axis=1)
            for s, diff in zip(sums, weight_diffs, strict=True)
        ]
    return {
        "local": local_diff,
        "memory": memory_diff,
        "global_": global_diff,
        "spatial": np.stack(weight_diffs[:-1]),
        "depth": weight_diffs[-1],
        "spatial_bias": np.stack([s.sum(axis=0) for s in sums[:-1]]),
        "depth_bias": sums[-1].sum(axis=0),
    }


def _global_columns(options: LGLSTMOptions) -> int:
    return options.global_grid**2 * options.num_output


def _of_lstm(options: LGLSTMOptions, products: list[Array]) -> list[Array]:
    """One entry for each LSTM: with shared weights all spatial ones have the same product."""
    *spatial, depth = products
    return (spatial * options.neighbors if len(spatial) == 1 else spatial) + [depth]


def _three(top_diffs: tuple[Array, ...]) -> tuple[Array, Array, Array | None]:
    return (*top_diffs, None)[:3]


# --- the layers -------------------------------------------------------------------------------

try:
    import caffe
    from caffe.proto import caffe_pb2
    from google.protobuf import json_format, text_format
except ImportError:  # the functions above serve without Caffe

    class _Layer:
        pass
else:
    _Layer = caffe.Layer


def parse_options(label: str, text: str) -> LGLSTMOptions:
    """Options from `param_str`; an error names the layer, what was given and what is allowed."""
    try:
        given = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise InputError(
            f"{label}: param_str is not JSON ({error}); write an object such as "
            '{"num_output": 64, "neighbors": 8}'
        ) from error
    if not isinstance(given, dict):
        raise InputError(f"{label}: param_str is {text}; it must be a JSON object")
    allowed = {field.name: field.type for field in fields(LGLSTMOptions)}
    for key, value in given.items():
        if key not in allowed:
            raise InputError(f"{label}: unknown key {key}; allowed are {', '.join(allowed)}")
        kind = allowed[key].split(" ")[0]
        if type(value).__name__ != kind:
            raise InputError(f"{label}: {key} is {json.dumps(value)}; it must be of type {kind}")
    options = LGLSTMOptions(**given)
    if options.neighbors not in DIRECTIONS:
        raise InputError(f"{label}: neighbors is {options.neighbors}; it must be 2, 4 or 8")
    if options.num_output < 1:
        raise InputError(f"{label}: num_output is {options.num_output}; it must be at least 1")
    if options.global_grid < 0:
        raise InputError(f"{label}: global_grid is {options.global_grid}; it must be 0 or more")
    return options


def filled(shape: tuple[int, ...], filler: dict) -> Array:
    """An array filled by Caffe's own filler, from Caffe's seeded generator.

    Python layers cannot call fillers, but a net of one DummyData layer can. So for the same
    `random_seed` the Python layers begin with the same weights as the C++ ones.
    """
    net = caffe_pb2.NetParameter()
    layer = net.layer.add(name="filled", type="DummyData", top=["filled"])
    layer.dummy_data_param.shape.add(dim=shape)
    json_format.ParseDict(filler, layer.dummy_data_param.data_filler.add())
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text_format.MessageToString(net))
        file.flush()
        return caffe.Net(file.name, caffe.TEST).forward()["filled"].copy()


def listed(blobs) -> list:
    """Caffe's vector of bottoms or tops as a list: it can be indexed but not iterated over."""
    return [blobs[i] for i in range(len(blobs))]


class _LGLSTMLayer(_Layer):
    """What the two Python layers share; blobs and shapes as in the C++ layers."""

    TYPE: str

    def setup(self, bottom, top) -> None:
        self.label = f"{self.TYPE} layer (Python)"
        self.options = parse_options(self.label, self.param_str)
        self.check_count("top", len(top), 3 if self.options.global_grid else 2)
        self.check_bottom_count(len(bottom))
        self.check_bottoms(bottom)
        if len(self.blobs) == 0:
            for shape in self.weight_shapes(bottom):
                self.add_blob(shape, self.options.weight_filler or WEIGHT_FILLER)
                if self.options.bias_term:
                    self.add_blob(shape[:-1], self.options.bias_filler or BIAS_FILLER)

    def check_count(self, kind: str, given: int, expected: int) -> None:
        if given != expected:
            words = ["and global", f"; there is no global {kind}"][expected == 2]
            raise InputError(
                f"{self.label}: with global_grid {self.options.global_grid} the {kind}s are local, "
                f"memory{' ' * (expected == 3)}{words}; given are {given}"
            )

    def add_blob(self, shape: tuple[int, ...], filler: dict) -> None:
        try:
            values = filled(shape, filler)
        except json_format.ParseError as error:
            raise InputError(
                f"{self.label}: {filler} is not a filler of Caffe ({error})"
            ) from error
        self.blobs.add_blob(*shape)
        self.blobs[len(self.blobs) - 1].data[...] = values

    def reshape(self, bottom, top) -> None:
        self.check_bottoms(bottom)
        o = self.options
        num, _, height, width = bottom[0].data.shape
        if min(height, width) < o.global_grid:
            raise InputError(
                f"{self.label}: a map of {height} x {width} positions cannot be divided into a "
                f"global grid of {o.global_grid} x {o.global_grid} cells; use a larger map or a "
                "smaller global_grid"
            )
        top[0].reshape(num, o.lstms * o.num_output, height, width)
        top[1].reshape(num, o.lstms * o.num_output, height, width)
        if o.global_grid:
            top[2].reshape(num, o.num_output, o.global_grid, o.global_grid)

    def weights_and_biases(self) -> tuple[list[Array], list[Array | None]]:
        data = [blob.data for blob in self.blobs]
        if self.options.bias_term:
            return data[::2], data[1::2]
        return data, [None] * len(data)

    def write_tops(self, top) -> None:
        for blob, value in zip(
            listed(top), (self.result.local, self.result.memory, self.result.global_), strict=False
        ):
            blob.data[...] = value

    def add_weight_diffs(self, weight_diffs: list[Array], bias_diffs: list[Array]) -> None:
        if self.options.bias_term:
            weight_diffs = [d for pair in zip(weight_diffs, bias_diffs, strict=True) for d in pair]
        for blob, diff in zip(self.blobs, weight_diffs, strict=True):
            blob.diff[...] += diff


@shown_errors
class LGLSTMTransition(_LGLSTMLayer):
    """Python layer `LGLSTMTransition`: bottom x; tops local, memory[, global]."""

    TYPE = "LGLSTMTransition"

    def check_bottom_count(self, given: int) -> None:
        if given != 1:
            raise InputError(f"{self.label}: the bottom is x; given are {given}")

    def weight_shapes(self, bottom) -> list[tuple[int, ...]]:
        o = self.options
        return [(o.lstms, TRANSITION_GATES * o.num_output, bottom[0].data.shape[1])]

    def check_bottoms(self, bottom) -> None:
        shape = bottom[0].data.shape
        if len(shape) != 4:
            raise InputError(f"{self.label}: the bottom has shape {shape}; it must be (B, C, H, W)")
        if len(self.blobs) and shape[1] != self.blobs[0].data.shape[2]:
            raise InputError(
                f"{self.label}: the bottom has {shape[1]} channels, but the weights are for "
                f"{self.blobs[0].data.shape[2]}"
            )

    def forward(self, bottom, top) -> None:
        (weight,), (bias,) = self.weights_and_biases()
        self.result = transition_forward(self.options, bottom[0].data, weight, bias)
        self.write_tops(top)

    def backward(self, top, propagate_down, bottom) -> None:
        (weight,), _ = self.weights_and_biases()
        diffs = transition_backward(
            self.options, self.result, bottom[0].data, weight, *(t.diff for t in listed(top))
        )
        self.add_weight_diffs([diffs["weight"]], [diffs["bias"]])
        if propagate_down[0]:
            bottom[0].diff[...] = diffs["x"]


@shown_errors
class LGLSTM(_LGLSTMLayer):
    """Python layer `LGLSTM`: bottoms and tops local, memory[, global]."""

    TYPE = "LGLSTM"

    def check_bottom_count(self, given: int) -> None:
        self.check_count("bottom", given, 3 if self.options.global_grid else 2)

    def weight_shapes(self, bottom) -> list[tuple[int, ...]]:
        o = self.options
        shape = (LSTM_GATES * o.num_output, (o.global_grid**2 + o.lstms) * o.num_output)
        return [(1 if o.share_spatial else o.neighbors, *shape), shape]

    def check_bottoms(self, bottom) -> None:
        o = self.options
        shapes = [tuple(b.data.shape) for b in listed(bottom)]
        channels = o.lstms * o.num_output
        if len(shapes[0]) != 4 or shapes[0][1] != channels:
            raise InputError(
                f"{self.label}: the bottom local has shape {shapes[0]}; with neighbors "
                f"{o.neighbors} and num_output {o.num_output} it must be (B, {channels}, H, W)"
            )
        if shapes[1] != shapes[0]:
            raise InputError(
                f"{self.label}: the bottom memory has shape {shapes[1]}; it must be that of "
                f"local, {shapes[0]}"
            )
        expected = (shapes[0][0], o.num_output, o.global_grid, o.global_grid)
        if o.global_grid and shapes[2] != expected:
            raise InputError(
                f"{self.label}: the bottom global has shape {shapes[2]}; it must be {expected}"
            )

    def forward(self, bottom, top) -> None:
        (spatial, depth), (spatial_bias, depth_bias) = self.weights_and_biases()
        local, memory, global_ = _three(tuple(b.data for b in listed(bottom)))
        self.result = lg_lstm_forward(
            self.options, local, memory, global_, spatial, depth, spatial_bias, depth_bias
        )
        self.write_tops(top)

    def backward(self, top, propagate_down, bottom) -> None:
        (spatial, depth), _ = self.weights_and_biases()
        local, _, global_ = _three(tuple(b.data for b in listed(bottom)))
        diffs = lg_lstm_backward(
            self.options,
            self.result,
            local,
            global_,
            spatial,
            depth,
            *(t.diff for t in listed(top)),
        )
        self.add_weight_diffs(
            [diffs["spatial"], diffs["depth"]], [diffs["spatial_bias"], diffs["depth_bias"]]
        )
        for blob, wanted, name in zip(
            listed(bottom), propagate_down, ["local", "memory", "global_"], strict=False
        ):
            if wanted:
                blob.diff[...] = diffs[name]
